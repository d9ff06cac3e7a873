"""The RPC socket of a loopback node: many callers at once, none of them waiting for another.

Knows that a method is either the node's own or a plugin's; not what it does.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

from lyceum.devnet.jsonrpc import (
    INVALID_REQUEST,
    LIGHTNINGD,
    METHOD_NOT_FOUND,
    Frames,
    JsonObject,
    RpcFailure,
    Usage,
    as_flag,
    encode,
)
from lyceum.devnet.loopback_home import RPC_FILE, Command
from lyceum.devnet.loopback_log import Log
from lyceum.devnet.plugin_host import PluginHost
from lyceum.devnet.plugin_process import Tell

CHUNK = 1 << 16
NOTIFICATIONS = Usage("enable")


class Caller:
    """One connection to the RPC socket. `notified`: it asked for progress messages."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._notified = False

    def send(self, message: JsonObject) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode({"jsonrpc": "2.0", **message}))

    def notifications(self, params: Any) -> JsonObject:
        self._notified = NOTIFICATIONS.bind(params).need("enable", as_flag)
        return {}

    def tell(self, request_id: Any) -> Tell | None:
        """A way for a plugin to reach this caller during the request, if it wants to be reached."""
        if not self._notified:
            return None

        def send(method: str, params: JsonObject) -> None:
            self.send({"method": method, "params": {**params, "id": request_id}})

        return send


class RpcServer:
    def __init__(self, table: Callable[[], dict[str, Command]], plugins: PluginHost, log: Log) -> None:
        self._table = table
        self._log = log
        self._plugins = plugins
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._accept, RPC_FILE)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller, frames = Caller(writer), Frames()
        try:
            while chunk := await reader.read(CHUNK):
                for request in frames.feed(chunk):
                    self._start(caller, request)
        except ConnectionError:
            pass
        except ValueError as problem:
            caller.send({"id": None, "error": RpcFailure(INVALID_REQUEST, str(problem)).body()})
        writer.close()

    def _start(self, caller: Caller, request: JsonObject) -> None:
        task = asyncio.create_task(self._answer(caller, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, caller: Caller, request: JsonObject) -> None:
        request_id = request.get("id")
        try:
            outcome = await self._run(caller, request)
        except RpcFailure as failure:
            outcome = {"error": failure.body()}
        except Exception as bug:  # a caller must never wait for ever because of a bug of ours
            self._log.write("broken", "loopback", traceback.format_exc())
            outcome = {"error": RpcFailure(LIGHTNINGD, f"loopback failed: {bug!r}").body()}
        caller.send({"id": request_id, **outcome})

    async def _run(self, caller: Caller, request: JsonObject) -> JsonObject:
        """The `result` or `error` of the reply. A plugin's own reply passes through unchanged."""
        method, params = _opened(request)
        if method == "notifications":
            return {"result": caller.notifications(params)}
        own = self._table().get(method)
        if own is not None:
            return {"result": await own.run(own.usage.bind(params))}
        plugin = self._plugins.method(method)
        if plugin is None:
            raise RpcFailure(METHOD_NOT_FOUND, f"Unknown command '{method}'")
        tell = caller.tell(request["id"])
        reply = await plugin.process.request(method, params, str(request["id"]), tell)
        return {name: reply[name] for name in ("result", "error") if name in reply}


def _opened(request: JsonObject) -> tuple[str, Any]:
    for name, complaint in (("id", "No id"), ("method", "No method"), ("params", "No params")):
        if name not in request:
            raise RpcFailure(INVALID_REQUEST, complaint)
    if request.get("jsonrpc") != "2.0":
        raise RpcFailure(INVALID_REQUEST, 'jsonrpc: "2.0" must be specified in the request')
    return str(request["method"]), request["params"]
