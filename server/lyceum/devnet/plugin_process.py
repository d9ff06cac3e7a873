"""One plugin as a child process, spoken to as lightningd does over its stdin and stdout.

Knows frames, ids and the plugin's death; not which hooks or methods exist.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyceum.devnet.jsonrpc import PLUGIN_TERMINATED, Frames, JsonObject, RpcFailure, encode
from lyceum.devnet.loopback_log import LEVELS, Log

VERSION = "v26.06-loopback"
CHUNK = 1 << 16
TO_CALLER = ("message", "progress")

Tell = Callable[[str, JsonObject], None]
"""Takes a `message` or `progress` notification to whoever made the call."""


@dataclass
class _Pending:
    answer: asyncio.Future[JsonObject]
    tell: Tell | None


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "LIGHTNINGD_PLUGIN": "1", "LIGHTNINGD_VERSION": VERSION, "PATH": path}


class PluginProcess:
    def __init__(self, path: Path, process: asyncio.subprocess.Process, log: Log) -> None:
        self.path = path
        self.name = path.name
        self._process = process
        self._log = log
        self._pending: dict[str, _Pending] = {}
        self._count = 0
        self._reader = asyncio.create_task(self._read())
        self.ended = asyncio.Event()

    @classmethod
    async def spawn(cls, path: Path, directory: Path, log: Log) -> PluginProcess:
        """Raises OSError when the file cannot be executed."""
        process = await asyncio.create_subprocess_exec(
            str(path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=directory,
            env=_environment(),
        )
        return cls(path, process, log)

    async def request(self, method: str, params: Any, caller_id: str = "", tell: Tell | None = None) -> JsonObject:
        """The plugin's whole reply, result or error. Raises RpcFailure(-4) if it dies before."""
        self._count += 1
        request_id = f"{caller_id or 'cln'}/cln:{method}#{self._count}"
        answer: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        if self.ended.is_set():
            raise RpcFailure(PLUGIN_TERMINATED, "Plugin terminated before replying to RPC call.")
        self._pending[request_id] = _Pending(answer, tell)
        self._send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return await answer

    def notify(self, topic: str, params: JsonObject) -> None:
        self._send({"jsonrpc": "2.0", "method": topic, "params": params})

    def kill(self, why: str, level: str = "info") -> None:
        self._log.write(level, f"plugin-{self.name}", f"Killing plugin: {why}")
        if self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> None:
        await self.ended.wait()

    def _send(self, message: JsonObject) -> None:
        if self._process.stdin is not None and not self.ended.is_set():
            self._process.stdin.write(encode(message))

    async def _read(self) -> None:
        """Until the plugin closes its stdout, which is how lightningd notices a death."""
        frames = Frames()
        assert self._process.stdout is not None  # noqa: S101  (it was asked for as a pipe)
        try:
            while chunk := await self._process.stdout.read(CHUNK):
                for message in frames.feed(chunk):
                    self._take(message)
        except ValueError as problem:
            self.kill(str(problem), "unusual")
        finally:
            await self._end()

    async def _end(self) -> None:
        self.ended.set()
        failure = RpcFailure(PLUGIN_TERMINATED, "Plugin terminated before replying to RPC call.")
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(failure)
        self._pending.clear()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _take(self, message: JsonObject) -> None:
        if "id" in message:
            pending = self._pending.pop(str(message["id"]), None)
            if pending is not None and not pending.answer.done():
                pending.answer.set_result(message)
            return
        method, params = str(message.get("method")), message.get("params") or {}
        if method == "log":
            self._write_log(params)
        elif method in TO_CALLER:
            self._pass_on(method, params)

    def _pass_on(self, method: str, params: JsonObject) -> None:
        pending = self._pending.get(str(params.get("id")))
        if pending is not None and pending.tell is not None:
            pending.tell(method, params)

    def _write_log(self, params: JsonObject) -> None:
        level, text = params.get("level", "info"), params.get("message")
        if level not in LEVELS or not isinstance(text, str):
            self.kill(f"Unknown log-level or no message: {params}", "unusual")
            return
        self._log.write(level, f"plugin-{self.name}", text)
