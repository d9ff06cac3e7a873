"""What a plugin says of itself in `getmanifest`, checked as lightningd checks it; pure."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lyceum.devnet.jsonrpc import JsonObject

NAME_LETTERS = set(string.ascii_lowercase + string.digits + "_-")
TYPES = ("string", "string-conceal", "int", "bool", "flag")
FEATURE_PLACES = ("init", "node", "channel", "invoice")
TRUE, FALSE = ("true", "yes"), ("false", "no")


class BadManifest(ValueError):
    """The message is what lightningd logs before it kills the plugin."""


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    type: str
    default: Any
    multi: bool
    dynamic: bool

    def parse(self, given: Any) -> Any:
        """The JSON value that `init` carries for this given value. Raises ValueError."""
        text = str(given).lower() if isinstance(given, bool) else str(given)
        if self.type == "int":
            return int(text)
        if self.type == "bool":
            return _flag(text)
        return True if self.type == "flag" else text

    def shown(self, value: Any) -> JsonObject:
        """As `listconfigs` shows it."""
        kind = {"int": "int", "bool": "bool"}.get(self.type, "str")
        if self.type == "flag":
            return {"set": bool(value)}
        return {f"values_{kind}" if self.multi else f"value_{kind}": value}


def _flag(text: str) -> bool:
    if text.lower() not in (*TRUE, *FALSE):
        raise ValueError(f"Invalid argument '{text}'")
    return text.lower() in TRUE


@dataclass(frozen=True, slots=True)
class Hook:
    """`filters`: the custom message types that the plugin wants to see; empty means all."""

    name: str
    filters: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    methods: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    subscriptions: frozenset[str] = frozenset()
    features: Mapping[str, int] = field(default_factory=dict)
    dynamic: bool = False
    disabled: str | None = None

    @classmethod
    def read(cls, answer: JsonObject) -> Manifest:
        """From the reply to getmanifest. Raises BadManifest."""
        found = answer.get("result")
        if not isinstance(found, dict):
            raise BadManifest(f"Invalid/missing result tok in '{answer}'")
        if "disable" in found:
            return cls(disabled=str(found["disable"]))
        if not found.get("nonnumericids", True):
            raise BadManifest("Plugin does not allow nonnumericids")
        return cls(
            {row["name"]: row["usage"] for row in _rows(found, "rpcmethods", ("name", "usage"))},
            {row["name"]: _option(row) for row in _rows(found, "options", ("name", "type", "description"))},
            {row["name"]: _hook(row) for row in _hook_rows(found)},
            frozenset(found.get("subscriptions", [])),
            _features(found),
            bool(found.get("dynamic", False)),
        )

    def values(self, given: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """The option values that `init` carries. Raises BadManifest for what lightningd refuses."""
        unknown = next((name for name in given if name not in self.options), None)
        if unknown is not None:
            raise BadManifest(f"unknown parameter {unknown}")
        found = {name: _value(option, given.get(name, ())) for name, option in self.options.items()}
        return {name: value for name, value in found.items() if value is not None}


def _value(option: Option, given: Sequence[Any]) -> Any:
    try:
        if option.multi:
            chosen = given or ([] if option.default is None else [option.default])
            return [option.parse(value) for value in chosen] or None
        chosen = given[-1:] or ([] if option.default is None else [option.default])
        return option.parse(chosen[0]) if chosen else None
    except ValueError as problem:
        raise BadManifest(f"{option.name}: {problem}") from None


def _rows(found: JsonObject, field_name: str, required: tuple[str, ...]) -> list[JsonObject]:
    rows = found.get(field_name)
    if not isinstance(rows, list):
        raise BadManifest(f'"result.{field_name}" was not found in the manifest')
    for row in rows:
        absent = next((name for name in required if name not in row), None)
        if absent is not None:
            raise BadManifest(f'"result.{field_name}": an entry is missing "{absent}"')
    return rows


def _option(row: JsonObject) -> Option:
    name, kind, default = row["name"], row["type"], row.get("default")
    option = Option(name, kind, default, bool(row.get("multi")), bool(row.get("dynamic")))
    if not set(name) <= NAME_LETTERS:
        raise BadManifest('Option "name" must be lowercase alphanumeric, plus _ or -')
    if kind not in TYPES:
        raise BadManifest('Only "string", "int", "bool", and "flag" options are supported')
    if option.multi and kind in ("bool", "flag"):
        raise BadManifest(f"{kind} type cannot be multi")
    if kind == "flag":
        return _flag_option(option)
    return _with_default(option)


def _flag_option(option: Option) -> Option:
    if option.default not in (None, False):
        raise BadManifest(f"--{option.name} type flag default must be 'false' not {option.default}")
    return Option(option.name, option.type, None, multi=False, dynamic=option.dynamic)


def _with_default(option: Option) -> Option:
    try:
        _value(option, ())
    except BadManifest as problem:
        raise BadManifest(f"Invalid default '{option.default}': {problem}") from None
    return option


def _hook_rows(found: JsonObject) -> list[JsonObject]:
    return [row if isinstance(row, dict) else {"name": row} for row in found.get("hooks", [])]


def _hook(row: JsonObject) -> Hook:
    return Hook(row["name"], tuple(row.get("filters", ())))


def _features(found: JsonObject) -> dict[str, int]:
    given = found.get("featurebits", {})
    try:
        bits = {place: int(given.get(place) or "0", 16) for place in FEATURE_PLACES}
    except ValueError:
        raise BadManifest(f"Featurebits returned by plugin is not a valid hexadecimal string: {given}") from None
    features = {place: value for place, value in bits.items() if value}
    if features and found.get("dynamic"):
        raise BadManifest("Custom featurebits only allows for non-dynamic plugins")
    return features
