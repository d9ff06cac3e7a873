"""The load: clients that ask over their own connections, one after another, and note when each piece arrives.

Cheap on purpose, since the servers share the machine: raw sockets, one search through what came, no JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

PIECE = re.compile(rb'"content":\s?"(?!")')
WRITTEN = re.compile(rb'"completion_tokens":\s?(\d+)')
LAST_CHUNK = re.compile(rb"(?:\A|\n)0\r\n\r\n\Z")
LOST = "connection lost"
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
    def unheard(self) -> bool:
        """Was the connection closed before anything came?"""
        return self.failure.startswith(LOST)

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
        self._enough = 0
        self._heard = asyncio.Event()

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

    async def heard(self, pieces: int) -> None:
        """Until this many pieces of the present answer are there, or it is over."""
        self._enough = pieces
        await self._heard.wait()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._rest += data
        ends = [at + len(end) for end in EVENT_ENDS if (at := self._rest.rfind(end)) >= 0]
        if not ends:
            return
        events, self._rest = self._rest[: max(ends)], self._rest[max(ends) :]
        self._answer.arrivals.extend([now] * len(PIECE.findall(events)))
        if len(self._answer.arrivals) >= self._enough > 0:
            self._heard.set()
        if events.startswith(b"HTTP/1.1 ") and not events.startswith(b"HTTP/1.1 200"):
            self._answer.failure = events.decode(errors="replace").splitlines()[0]
        if counted := WRITTEN.findall(events):
            self._answer.tokens = int(counted[-1])
        if LAST_CHUNK.search(events) or (self._answer.failure and not self._rest):
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._finish("" if self._answer.arrivals else f"{LOST} ({error})")

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def _finish(self, failure: str = "") -> None:
        if self._over is None or self._over.done():
            return
        self._heard.set()
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
    """Keeps its connection where the server does; one that was closed meanwhile is opened again, at its own cost."""
    connection, answers = Connection(), []
    for prompt in prompts:
        request, began = target.request(prompt, tokens), time.perf_counter()
        reused = connection.open
        connection = connection if reused else await connect(target)
        answer = await connection.ask(number, request)
        if reused and answer.unheard:
            connection = await connect(target)
            answer = replace(await connection.ask(number, request), started=began)
        answers.append(answer)
    connection.close()
    return answers


async def connect(target: Target) -> Connection:
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Connection, "127.0.0.1", target.port))[1]


@dataclass(frozen=True, slots=True)
class Joining:
    """Eight who stream, and one who comes with a long prompt once each of them has this many pieces."""

    streams: Sequence[str]
    tokens: int
    quiet: int
    long_prompt: str


async def joined(target: Target, plan: Joining) -> tuple[list[Answer], Answer]:
    """The answers of those who streamed, and that of the one who joined."""
    streams = [await connect(target) for _ in plan.streams]
    asked = [
        asyncio.create_task(connection.ask(number, target.request(prompt, plan.tokens)))
        for number, (connection, prompt) in enumerate(zip(streams, plan.streams, strict=True))
    ]
    await asyncio.gather(*(stream.heard(plan.quiet) for stream in streams))
    late = await connect(target)  # only now: a server closes a connection that it hears nothing on
    last = await late.ask(len(streams), target.request(plan.long_prompt, 2))
    answers = await asyncio.gather(*asked)
    for connection in (*streams, late):
        connection.close()
    return answers, last
