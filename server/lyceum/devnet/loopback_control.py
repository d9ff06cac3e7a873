"""A loopback node's commands about itself: who it is, its key, its plugins, its options."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from lyceum.devnet import keys
from lyceum.devnet.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    JsonObject,
    Params,
    RpcFailure,
    as_flag,
    as_hex,
    as_node_id,
    as_text,
)
from lyceum.devnet.loopback_home import BANNER, NETWORK, RPC_FILE, Command, Home, command
from lyceum.devnet.plugin_host import Given, PluginHost, feature_hex
from lyceum.devnet.plugin_process import VERSION

PUBKEY_NOT_FOUND = 1301
PLUGIN_WORDS = ("subcommand", "plugin")


def as_is(value: Any) -> Any:
    return value


class Control:
    """`table` gives all commands of the node, for `help`; `stopping` is set by `stop`."""

    def __init__(
        self,
        home: Home,
        plugins: PluginHost,
        table: Callable[[], Mapping[str, Command]],
        stopping: asyncio.Event,
        counts: Callable[[], tuple[int, int]],
    ) -> None:
        self._home = home
        self._plugins = plugins
        self._table = table
        self._stopping = stopping
        self._counts = counts

    def commands(self) -> dict[str, Command]:
        return {
            "getinfo": command("", self.getinfo),
            "help": command("[command]", self.help),
            "stop": command("", self.stop),
            "plugin": command("subcommand [plugin] ...", self.plugin),
            "listconfigs": command("[config]", self.listconfigs),
            "setconfig": command("config [val] [transient]", self.setconfig),
            "makesecret": command("[hex] [string]", self.makesecret),
            "signmessage": command("message", self.signmessage),
            "checkmessage": command("message zbase [pubkey]", self.checkmessage),
        }

    async def getinfo(self, _params: Params) -> JsonObject:
        peers, channels = self._counts()
        return {
            "id": self._home.node_id,
            "alias": self._home.alias,
            "color": self._home.node_id[:6],
            "num_peers": peers,
            "num_pending_channels": 0,
            "num_active_channels": channels,
            "num_inactive_channels": 0,
            "address": [],
            "binding": [],
            "version": VERSION,
            "blockheight": 0,
            "network": NETWORK,
            "fees_collected_msat": 0,
            "lightning-dir": str(self._home.directory),
            "our_features": {place: feature_hex(bits) for place, bits in self._plugins.features.items()},
            "warning_loopback": BANNER,
        }

    async def help(self, params: Params) -> JsonObject:
        usages = {name: one.usage.text for name, one in self._table().items()}
        for plugin in self._plugins:
            usages |= plugin.manifest.methods
        wanted = params.maybe("command", as_text)
        if wanted is not None and wanted not in usages:
            raise RpcFailure(METHOD_NOT_FOUND, f"Unknown command {wanted}")
        names = [wanted] if wanted else sorted(usages)
        return {"help": [{"command": f"{name} {usages[name]}"} for name in names], "format-hint": "simple"}

    async def stop(self, _params: Params) -> JsonObject:
        self._stopping.set()
        return {"result": "Shutdown complete"}

    # Plugins and options

    async def plugin(self, params: Params) -> JsonObject:
        verb = params.need("subcommand", as_text)
        if verb == "list":
            return self._plugin_list(verb)
        if verb == "stop":
            name = await self._plugins.stop(params.need("plugin", as_text))
            return {"command": verb, "result": f"Successfully stopped {name}."}
        if verb == "start":
            path = (self._home.directory / params.need("plugin", as_text)).resolve()
            await self._plugins.start(path, _given(params))
            return self._plugin_list(verb)
        raise RpcFailure(INVALID_PARAMS, f"Unknown subcommand '{verb}'")

    def _plugin_list(self, verb: str) -> JsonObject:
        return {"command": verb, "plugins": self._plugins.listing()}

    async def listconfigs(self, params: Params) -> JsonObject:
        own = {"alias": self._home.alias, "network": NETWORK, "rpc-file": RPC_FILE}
        configs: JsonObject = {name: {"value_str": text, "source": "cmdline"} for name, text in own.items()}
        for plugin in self._plugins:
            configs |= {name: self._plugins.shown(name) for name in plugin.manifest.options}
        wanted = params.maybe("config", as_text)
        if wanted is None:
            return {"configs": configs}
        self._check_config(wanted, configs)
        return {"configs": {wanted: configs[wanted]}}

    async def setconfig(self, params: Params) -> JsonObject:
        """For as long as the process runs; nothing is written to a config file."""
        params.get("transient", as_flag, default=False)
        name = params.need("config", as_text)
        self._check_config(name, {name: None for plugin in self._plugins for name in plugin.manifest.options})
        await self._plugins.set_option(name, params.need("val", as_is))
        return {"config": {"config": name, **self._plugins.shown(name)}}

    def _check_config(self, name: str, known: Mapping[str, Any]) -> None:
        if name not in known:
            message = f"config: Unknown config option: invalid token '\"{name}\"'"
            raise RpcFailure(INVALID_PARAMS, message)

    # The node's key

    async def makesecret(self, params: Params) -> JsonObject:
        data, text = params.maybe("hex", as_hex), params.maybe("string", as_text)
        if data is not None and text is not None:
            raise RpcFailure(INVALID_PARAMS, "Cannot have both hex and string")
        if data is None:
            if text is None:
                raise RpcFailure(INVALID_PARAMS, "Must have either hex or string")
            data = text.encode()
        return {"secret": self._home.key.derive(data).hex()}

    async def signmessage(self, params: Params) -> JsonObject:
        signature, recovery_id = self._home.key.sign(params.need("message", as_text))
        return {
            "signature": signature.hex(),
            "recid": f"{recovery_id:02x}",
            "zbase": keys.zbase(signature, recovery_id),
        }

    async def checkmessage(self, params: Params) -> JsonObject:
        try:
            signer = keys.recover(params.need("message", as_text), params.need("zbase", as_text))
        except ValueError:
            raise RpcFailure(INVALID_PARAMS, "zbase is not valid zbase32") from None
        expected = params.maybe("pubkey", as_node_id)
        if expected is not None:
            return {"pubkey": signer, "verified": signer == expected}
        if self._home.ledger.node(signer) is None:
            raise RpcFailure(PUBKEY_NOT_FOUND, "pubkey not found in the graph", {"claimed_key": signer})
        return {"pubkey": signer, "verified": True}


def _given(params: Params) -> Given:
    """Options of `plugin start` are parameters beside its own; a list arrives as one text, as it
    does in lightningd."""
    loose = {name: value for name, value in params.raw().items() if name not in PLUGIN_WORDS}
    return {name: [json.dumps(value) if isinstance(value, list) else value] for name, value in loose.items()}
