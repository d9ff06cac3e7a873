"""JSON-RPC as lightningd speaks it: frames in a byte stream, parameters, failures with a code.

Pure: no sockets, no processes. Any framing is read (clients end a request with nothing, plugins
with two newlines); two newlines are written.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

JsonObject = dict[str, Any]
T = TypeVar("T")

LIGHTNINGD = -1
PLUGIN_ERROR = -3
PLUGIN_TERMINATED = -4
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

MAX_MSAT = 21_000_000 * 100_000_000 * 1000
COUNT = re.compile(r"[0-9]{1,18}")
AMOUNT = re.compile(r"(?P<number>[0-9]{1,19}(\.[0-9]{1,11})?)(?P<unit>msat|sat|btc)?")
MSAT_PER_UNIT = {"msat": Decimal(1), "sat": Decimal(1000), "btc": Decimal(100_000_000_000)}


class RpcFailure(Exception):
    """What a caller is told instead of a result."""

    def __init__(self, code: int, message: str, data: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> JsonObject:
        body: JsonObject = {"code": self.code, "message": self.message}
        return body if self.data is None else {**body, "data": self.data}


def encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode() + b"\n\n"


class Frames:
    """Bytes in, whole JSON objects out."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._text = ""

    def feed(self, chunk: bytes) -> list[JsonObject]:
        """Raises ValueError for what can never become a JSON object."""
        self._text = (self._text + self._utf8.decode(chunk)).lstrip()
        found: list[JsonObject] = []
        # Parsing again at every chunk would cost the square of a long message's length.
        while self._text and ("\n\n" in self._text or self._text.rstrip().endswith("}")):
            if not self._text.startswith("{"):
                raise ValueError("Expected {} for json command")
            try:
                message, end = self._json.raw_decode(self._text)
            except json.JSONDecodeError:
                break
            found.append(message)
            self._text = self._text[end:].lstrip()
        return found


# Parameters. A converter turns a JSON value into a Python one, or raises ValueError("should be ...").


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("should be a string")
    return value


def as_label(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("should be a string or number")
    return str(value)


def as_count(value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not COUNT.fullmatch(text):
        raise ValueError("should be an unsigned 64 bit integer")
    return int(text)


def as_flag(value: Any) -> bool:
    words = {"true": True, "false": False}
    found = words.get(str(value).lower())
    if found is None:
        raise ValueError("should be 'true' or 'false'")
    return found


def as_msat(value: Any) -> int:
    """An integer of msat, or text such as `5msat`, `5sat`, `0.00000005btc`."""
    found = None if isinstance(value, bool) else AMOUNT.fullmatch(str(value))
    amount = Decimal(found["number"]) * MSAT_PER_UNIT[found["unit"] or "msat"] if found else Decimal("0.5")
    if amount != int(amount) or amount > MAX_MSAT:
        raise ValueError("should be a millisatoshi amount")
    return int(amount)


def as_hex(value: Any) -> bytes:
    try:
        return bytes.fromhex(as_text(value))
    except ValueError:
        raise ValueError("should be a hex value") from None


def as_hash(value: Any) -> str:
    """32 bytes, kept as lowercase hex."""
    try:
        found = as_hex(value)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise ValueError("should be a 32 byte hex value")
    return found.hex()


def as_node_id(value: Any) -> str:
    try:
        found = as_hex(value)
    except ValueError:
        found = b""
    if len(found) != 33 or found[0] not in (2, 3):
        raise ValueError("should be a node id")
    return found.hex()


class Params:
    """A request's parameters by name; a null counts as not given."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def need(self, name: str, convert: Callable[[Any], T]) -> T:
        if name not in self._values:
            raise RpcFailure(INVALID_PARAMS, f"missing required parameter: {name}")
        try:
            return convert(self._values[name])
        except ValueError as problem:
            token = json.dumps(self._values[name], ensure_ascii=False)
            raise RpcFailure(INVALID_PARAMS, f"{name}: {problem}: invalid token '{token}'") from None

    def maybe(self, name: str, convert: Callable[[Any], T]) -> T | None:
        return self.need(name, convert) if name in self._values else None

    def get(self, name: str, convert: Callable[[Any], T], default: T) -> T:
        return self.need(name, convert) if name in self._values else default

    def refuse(self, *names: str) -> None:
        """Say no to what lightningd has and the stand-in has not, rather than pass over it."""
        given = next((name for name in names if name in self._values), None)
        if given is not None:
            raise RpcFailure(INVALID_PARAMS, f"{given}: the loopback stand-in does not have this")

    def raw(self) -> JsonObject:
        return dict(self._values)


@dataclass(frozen=True, slots=True)
class Usage:
    """`a b [c]`: what `help` shows and what a call is held to; a last `...` lets anything through."""

    text: str

    @property
    def names(self) -> list[str]:
        return [word.strip("[]") for word in self.text.split() if word != "..."]

    @property
    def required(self) -> list[str]:
        return [word for word in self.text.split() if not word.startswith("[") and word != "..."]

    def bind(self, params: Any) -> Params:
        """Raises RpcFailure as lightningd's `param()` does."""
        if isinstance(params, list):
            values = self._by_position(params)
        elif isinstance(params, dict):
            values = params
        else:
            raise RpcFailure(INVALID_PARAMS, "Expected array or object for params")
        self._check(values)
        return Params(values)

    def _by_position(self, params: list[Any]) -> JsonObject:
        names = self.names
        if len(params) > len(names):
            message = f"too many parameters: got {len(params)}, expected {len(names)}"
            raise RpcFailure(INVALID_PARAMS, message)
        return dict(zip(names, params, strict=False))

    def _check(self, values: Mapping[str, Any]) -> None:
        unknown = next((name for name in values if name not in self.names), None)
        if unknown is not None and "..." not in self.text:
            raise RpcFailure(INVALID_PARAMS, f"unknown parameter: {unknown}")
        missing = next((name for name in self.required if values.get(name) is None), None)
        if missing is not None:
            raise RpcFailure(INVALID_PARAMS, f"missing required parameter: {missing}")
