"""The load: clients that ask over their own connections, one after another, and note when each piece arrives.

Cheap on purpose, since the servers share the machine: raw sockets, one search through what came, no JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

PIECE = re.compile(rb'"content":\s?"(?!")')
WRITTEN = re.compile(rb'"completion_tokens":\s?(\d+)')
EVENT_ENDS = (b"\n\n", b"\n\r\n")


@dataclass(slots=True)
class Answer:
    """What one request brought. Times in seconds of one clock; `tokens` as the server counts them, else pieces."""

    client: int
    started: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    failure: str = ""

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.arrivals)]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and what this server is told beside the request that all get."""

    port: int
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    def request(self, prompt: str, tokens: int) -> bytes:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extras,
        }
        raw = json.dumps(body).encode()
        lines = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": len(raw), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + raw


class Connection(asyncio.Protocol):
    """One client's connection: one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._answer = Answer(0, 0.0)
        self._over: asyncio.Future[Answer] | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    async def ask(self, client: int, request: bytes) -> Answer:
        assert self._transport  # noqa: S101
        self._rest = b""
        self._answer = Answer(client, time.perf_counter())
        self._over = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._over

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._rest += data
        ends = [at + len(end) for end in EVENT_ENDS if (at := self._rest.rfind(end)) >= 0]
        if not ends:
            return
        events, self._rest = self._rest[: max(ends)], self._rest[max(ends) :]
        self._answer.arrivals.extend([now] * len(PIECE.findall(events)))
        if events.startswith(b"HTTP/1.1 ") and not events.startswith(b"HTTP/1.1 200"):
            self._answer.failure = events.decode(errors="replace").splitlines()[0]
        if counted := WRITTEN.findall(events):
            self._answer.tokens = int(counted[-1])
        if events.endswith(b"0\r\n\r\n") or (self._answer.failure and not self._rest):
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._finish("" if self._answer.arrivals else f"connection lost ({error})")

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def _finish(self, failure: str = "") -> None:
        if self._over is None or self._over.done():
            return
        answer = self._answer
        answer.failure = answer.failure or failure
        answer.tokens = answer.tokens or len(answer.arrivals)
        if not answer.arrivals:
            answer.failure = answer.failure or "an empty answer"
        self._over.set_result(answer)
        if answer.failure:
            self.close()


async def burst(target: Target, prompts: Sequence[Sequence[str]], tokens: int) -> list[Answer]:
    """As many clients as `prompts` has rows start at once, each asking the prompts of its row in turn."""
    clients = [_client(target, number, row, tokens) for number, row in enumerate(prompts)]
    return [answer for answers in await asyncio.gather(*clients) for answer in answers]


async def _client(target: Target, number: int, prompts: Sequence[str], tokens: int) -> list[Answer]:
    connection, answers = Connection(), []
    for prompt in prompts:
        if not connection.open:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", target.port)
        answers.append(await connection.ask(number, target.request(prompt, tokens)))
    connection.close()
    return answers


@dataclass(frozen=True, slots=True)
class Joining:
    """Eight who stream, and one who comes with a long prompt once each of them has this many pieces."""

    streams: Sequence[str]
    tokens: int
    quiet: int
    long_prompt: str


async def joined(target: Target, plan: Joining) -> tuple[list[Answer], Answer]:
    """The answers of those who streamed, and that of the one who joined."""
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(len(plan.streams) + 1):
        _, connection = await loop.create_connection(Connection, "127.0.0.1", target.port)
        connections.append(connection)
    *streams, late = connections
    asked = [
        asyncio.create_task(connection.ask(number, target.request(prompt, plan.tokens)))
        for number, (connection, prompt) in enumerate(zip(streams, plan.streams, strict=True))
    ]
    while not all(len(stream._answer.arrivals) >= plan.quiet for stream in streams):
        if any(task.done() for task in asked):
            break
        await asyncio.sleep(0.005)
    last = await late.ask(len(streams), target.request(plan.long_prompt, 2))
    answers = await asyncio.gather(*asked)
    for connection in connections:
        connection.close()
    return answers, last
