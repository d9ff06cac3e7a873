"""The server's side of an engine's process: starts it, sends orders, hands on news, and puts an end to it.

Laws: whoever waits for a process that dies is told; a call into llama.cpp that does not return costs its process,
and whoever made it is remembered. Never blocks on the process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lyceum.engine.messages import FAILED, News, Order, Unpacker, pack, read_error
from lyceum.engine.slate import READS, STEPS, Entry, Slate
from lyceum.errors import ModelError

log = logging.getLogger(__name__)

WATCH_S = 1.0
LONGEST_CALL_S = {True: 10.0, False: 300.0}
"""What a call into llama.cpp may take: one that serves a single request, such as following its grammar; one that
serves all, such as reading a stretch of a long prompt by a huge model."""

RECEIVED = 1 << 18


MOST_SHAPES = 1000
"""Shapes that are remembered while a call for them may still go on, though whoever asked may have left."""


class Inbox:
    """The news of the request `number`, gathered until somebody fetches them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._news: list[News] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, news: News) -> None:
        self._news.append(news)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[News]:
        """All that came, waiting for the first."""
        if not self._news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        news, self._news = self._news, []
        return news


class Worker:
    """A running process. It belongs to no event loop: it is attached to whichever one asks.

    `on_lost` is told, once, and which shapes it died over.
    """

    def __init__(self, path: Path, on_lost: Callable[[Worker, set[str]], None]) -> None:
        self.lost = False
        self._path, self._on_lost = path, on_lost
        self._numbers = itertools.count(1)
        self._inboxes: dict[int, Inbox] = {}
        self._shapes: dict[int, str] = {}
        self._unsent = bytearray()
        self._unpacker = Unpacker()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._seen: dict[int, tuple[Entry, int]] = {}
        self._wire, theirs = socket.socketpair()
        self._wire.setblocking(False)
        with theirs:
            self._slate, file = Slate.new()
            with file:
                self._process = _start(theirs.fileno(), file.fileno())

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, order: Order, shape: str = "") -> Inbox:
        """A request, whose news come until `forget`. `shape`: the digest of what its answer must follow."""
        inbox = Inbox(next(self._numbers))
        self.tell(inbox.number, order)
        self._inboxes[inbox.number] = inbox
        if shape:
            self._shapes[inbox.number] = shape
            if len(self._shapes) > MOST_SHAPES:
                del self._shapes[next(iter(self._shapes))]
        self._watch_on()
        return inbox

    async def answer(self, inbox: Inbox) -> Any:
        """The one answer to a request, which is over then. Raises the error that comes instead."""
        try:
            (news,) = await inbox.take()
        finally:
            self.forget(inbox)
        if news[1] == FAILED:
            raise read_error(news)
        return news[2]

    def tell(self, number: int, order: Order) -> None:
        """Raises ModelError if the process is dead."""
        if self.lost:
            raise self._death()
        self._attach()
        self._unsent += pack({**order, "number": number})
        self._flush()

    def forget(self, inbox: Inbox) -> None:
        """Its news are dropped from now on."""
        self._inboxes.pop(inbox.number, None)

    def alive(self) -> bool:
        """Also noticed while no event loop listens."""
        if not self.lost and self._process.poll() is not None:
            self._lose()
        return not self.lost

    def end(self) -> None:
        """At once: it holds nothing that is missed. Whoever waits is told."""
        self._process.kill()
        self._lose()

    # The wire

    def _attach(self) -> None:
        loop = running_loop()
        if loop is None or loop is self._loop:
            return
        if self._loop and not self._loop.is_closed():
            self._loop.remove_reader(self._wire)
        self._loop, self._watching = loop, None
        loop.add_reader(self._wire, self._receive)

    def _receive(self) -> None:
        try:
            data = self._wire.recv(RECEIVED)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        for message in self._unpacker.feed(data):
            for news in message:
                inbox = self._inboxes.get(news[0])
                if inbox:
                    inbox.put(news)

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._wire.send(self._unsent)]
        except BlockingIOError:
            if self._loop and not self._loop.is_closed():
                self._loop.add_writer(self._wire, self._flush)
            return
        except OSError:
            self._lose()
            return
        if self._loop and not self._loop.is_closed():
            self._loop.remove_writer(self._wire)

    def _lose(self) -> None:
        if self.lost:
            return
        self.lost = True
        if self._loop and not self._loop.is_closed():
            self._loop.remove_reader(self._wire)
            self._loop.remove_writer(self._wire)
        self._wire.close()
        self._process.kill()
        self._process.wait()
        error = self._death()
        for inbox in self._inboxes.values():
            inbox.put([0, FAILED, error.rpc_code, error.message, None, None])
        self._on_lost(self, self._blamed())

    def _death(self) -> ModelError:
        code = self._process.returncode
        return ModelError(f"the engine of {self._path.name} ended (code {code}); nothing is charged, try again")

    # The watch

    def _watch_on(self) -> None:
        if self._watching is None and self._loop:
            self._watching = self._loop.call_later(WATCH_S, self._watch)

    def _watch(self) -> None:
        self._watching = None
        entries = {lane: self._slate.look(lane) for lane in (STEPS, READS)}
        if self.lost or not (self._inboxes or any(entry.busy for entry in entries.values())):
            return
        self._watch_on()
        for lane, entry in entries.items():
            before, looks = self._seen.get(lane, (entry, 0))
            looks = looks + 1 if entry == before else 0  # looks, not time: whoever was asleep was so together with us
            self._seen[lane] = (entry, looks)
            if entry.busy and looks * WATCH_S > LONGEST_CALL_S[entry.request > 0]:
                log.error("the engine of %s does not come back from a call: ended", self._path.name)
                self.end()
                return

    def _blamed(self) -> set[str]:
        """The shapes whose calls the process died in."""
        entries = [self._slate.look(lane) for lane in (STEPS, READS)]
        return {self._shapes[entry.request] for entry in entries if entry.busy and entry.request in self._shapes}


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that this is called within."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _start(wire: int, slate: int) -> subprocess.Popen[bytes]:
    """Nothing of ours but these two descriptors; its complaints go where ours go."""
    command = [sys.executable, "-P", "-m", "lyceum.engine.child", str(wire), str(slate)]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    return subprocess.Popen(  # noqa: S603
        command, pass_fds=(wire, slate), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )
