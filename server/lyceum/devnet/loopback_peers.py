"""Connections between loopback nodes: one unix socket a node, JSON frames, no channel needed.

A connection's first frame says what it is: `hello` makes the sender a peer, over whose connection
custom messages travel until either end closes; a question (`htlc`, one payment; `invreq`, an invoice
for an offer) is answered, and the connection closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lyceum.devnet.jsonrpc import Frames, JsonObject, RpcFailure, encode
from lyceum.devnet.loopback_home import PEER_FILE, Home
from lyceum.devnet.loopback_hooks import hook_answers
from lyceum.devnet.loopback_ledger import NodeRow
from lyceum.devnet.plugin_host import PluginHost

NO_ADDRESS = 400
ALL_ADDRESSES_FAILED = 401
CHUNK = 1 << 16

Answers = Mapping[str, Callable[[JsonObject], Awaitable[JsonObject]]]
"""Who answers a question that a connection begins with, by its name."""


@dataclass(eq=False)
class Wire:
    """A connection as a stream of JSON objects."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, home: Home, node: NodeRow) -> Wire:
        """Raises OSError when that node's process is not there."""
        return cls(*await asyncio.open_unix_connection(_near(home.directory, node.directory)))

    def send(self, message: JsonObject) -> None:
        self.writer.write(encode(message))

    async def messages(self) -> AsyncIterator[JsonObject]:
        """Until the other end closes or dies."""
        frames = Frames()
        with contextlib.suppress(ConnectionError):
            while chunk := await self.reader.read(CHUNK):
                for message in frames.feed(chunk):
                    yield message

    async def ask(self, message: JsonObject) -> JsonObject | None:
        """One question, one answer; None if the other end is gone before it comes."""
        self.send(message)
        async for answer in self.messages():
            return answer
        return None

    def close(self) -> None:
        self.writer.close()


def _near(here: Path, there: str) -> str:
    """The peer socket of that directory, from here: a full path may be too long for a socket."""
    return os.path.relpath(Path(there) / PEER_FILE, here)


class Peers:
    def __init__(self, home: Home, plugins: PluginHost, answers: Answers) -> None:
        self._home = home
        self._plugins = plugins
        self._answers = answers
        self._wires: dict[str, list[Wire]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._accept, PEER_FILE)

    def connected(self) -> list[str]:
        return list(self._wires)

    async def connect(self, node_id: str) -> None:
        """Raises RpcFailure as `connect` does."""
        if node_id in self._wires:
            return
        node = self._home.ledger.node(node_id)
        if node is None:
            raise RpcFailure(NO_ADDRESS, "Unable to connect, no address known for peer")
        try:
            wire = await Wire.to(self._home, node)
        except OSError as problem:
            raise RpcFailure(ALL_ADDRESSES_FAILED, f"All addresses failed: {problem}") from None
        wire.send({"hello": self._home.node_id})
        self._join(node_id, wire, "out")
        self._spawn(self._listen(node_id, wire, wire.messages()))

    async def connect_channels(self) -> None:
        """After a start: be with the peers of our channels again, as far as they are up."""
        mine = (side.peer_id for side in self._home.ledger.sides() if side.node_id == self._home.node_id)
        for node_id in mine:
            with contextlib.suppress(RpcFailure):
                await self.connect(node_id)

    def disconnect(self, node_id: str) -> None:
        for wire in self._wires.get(node_id, []):
            wire.close()
        self._gone(node_id)

    def send_custom(self, node_id: str, payload: bytes) -> None:
        self._wires[node_id][0].send({"custommsg": payload.hex()})

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        messages = wire.messages()
        async for first in messages:
            question = next((name for name in self._answers if name in first), None)
            if question:
                wire.send(await self._answers[question](first[question]))
            else:
                node_id = str(first["hello"])
                self._join(node_id, wire, "in")
                await self._listen(node_id, wire, messages)
            break
        wire.close()

    def _join(self, node_id: str, wire: Wire, direction: str) -> None:
        first = node_id not in self._wires
        self._wires.setdefault(node_id, []).append(wire)
        if first:
            address = {"type": "local socket", "socket": PEER_FILE}
            self._plugins.publish("connect", {"id": node_id, "direction": direction, "address": address})

    async def _listen(self, node_id: str, wire: Wire, messages: AsyncIterator[JsonObject]) -> None:
        async for message in messages:
            # Started in order and not waited for: a hook that takes long must not hold up the next.
            self._spawn(self._take_custom(node_id, str(message["custommsg"])))
        wire.close()
        if wire in self._wires.get(node_id, []):
            self._wires[node_id].remove(wire)
            if not self._wires[node_id]:
                self._gone(node_id)

    def _gone(self, node_id: str) -> None:
        if self._wires.pop(node_id, None) is not None:
            self._plugins.publish("disconnect", {"id": node_id})

    async def _take_custom(self, node_id: str, payload: str) -> None:
        fields = {"peer_id": node_id, "payload": payload}
        kind = int(payload[:4], 16)
        self._plugins.publish("custommsg", fields)
        async for answer in hook_answers(self._home, self._plugins, "custommsg", fields, kind):
            if answer.get("result") != "continue":
                self._home.die(f"Plugin returned an invalid response to the custommsg hook: {answer}")

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
