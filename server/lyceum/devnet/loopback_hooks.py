"""Asking the plugins that hooked an event, one after the other in the order of their start.

Knows what kills lightningd (any answer but a result); not what an answer means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from lyceum.devnet.jsonrpc import JsonObject, RpcFailure
from lyceum.devnet.loopback_home import Home
from lyceum.devnet.plugin_host import PluginHost


async def hook_answers(
    home: Home, plugins: PluginHost, name: str, payload: JsonObject, kind: Any = None
) -> AsyncIterator[JsonObject]:
    """Each plugin's result; one that dies meanwhile is passed over. `kind` is what filters look at."""
    for plugin, hook in plugins.hooked(name):
        if hook.filters and kind not in hook.filters:
            continue
        try:
            reply = await plugin.process.request(name, payload)
        except RpcFailure:
            continue
        result = reply.get("result")
        if not isinstance(result, dict):
            home.die(f"Plugin {plugin.path} for {name} returned non-result response {reply}")
        yield result
