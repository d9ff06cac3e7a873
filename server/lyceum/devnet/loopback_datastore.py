"""A loopback node's datastore: a few words that plugins keep in the node. Knows no plugin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lyceum.devnet.jsonrpc import INVALID_PARAMS, JsonObject, Params, RpcFailure, as_text
from lyceum.devnet.loopback_home import Command, Home, command

KEY_EXISTS = 1202
MODES = ("must-create", "create-or-replace")


def as_key(value: Any) -> tuple[str, ...]:
    words = value if isinstance(value, list) else [value]
    if not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError("should be a string or an array of strings")
    return tuple(words)


class Datastore:
    def __init__(self, home: Home) -> None:
        self._home = home

    def commands(self) -> dict[str, Command]:
        return {
            "datastore": command("key [string] [hex] [mode] [generation]", self.datastore),
            "listdatastore": command("[key]", self.listdatastore),
        }

    async def datastore(self, params: Params) -> JsonObject:
        params.refuse("hex", "generation")
        key, text = params.need("key", as_key), params.need("string", as_text)
        mode = params.get("mode", as_text, MODES[0])
        if mode not in MODES:
            raise RpcFailure(INVALID_PARAMS, f"mode: the loopback stand-in has {' and '.join(MODES)} only")
        if mode == MODES[0] and key in self._entries():
            raise RpcFailure(KEY_EXISTS, "Key already exists")
        self._home.ledger.keep(self._home.node_id, json.dumps(key), text)
        return _shown(key, text)

    async def listdatastore(self, params: Params) -> JsonObject:
        """An entry with its text; of entries further down only the next word of their keys."""
        above = params.maybe("key", as_key) or ()
        found: dict[Sequence[str], JsonObject] = {}
        for key, text in self._entries().items():
            if key[: len(above)] == above:
                near = key[: len(above) + 1]
                found[near] = _shown(key, text) if near == key else found.get(near, {"key": list(near)})
        return {"datastore": list(found.values())}

    def _entries(self) -> dict[tuple[str, ...], str]:
        return {tuple(json.loads(key)): text for key, text in self._home.ledger.kept(self._home.node_id)}


def _shown(key: Sequence[str], text: str) -> JsonObject:
    return {"key": list(key), "generation": 0, "hex": text.encode().hex(), "string": text}
