"""The servers of one model: which of them is asked next, and who is asked when one fails.

Laws: the least busy of those that are well is asked; once a piece of an answer was passed on nobody else is asked;
the same server is asked again only when it was busy or the connection failed, once, after a pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2 as httpx

from lyceum.errors import Busy, LyceumError, PeerError
from lyceum.ports import Standing
from lyceum.upstream.line import Line
from lyceum.upstream.server import RETRY_S, Failed, Server
from lyceum.upstream.settings import UpstreamSettings

T = TypeVar("T")

PAUSE_S = 0.5

Send = Callable[[Server, httpx.AsyncClient], AsyncGenerator[T]]
"""One try with one server."""


class Pool:
    """`name` is what the model is called here."""

    def __init__(self, name: str, settings: UpstreamSettings) -> None:
        self.name = name
        self.line = Line(settings.parallel, settings.queue)
        self._servers = [Server(name, url, settings.model, settings.key, settings.patience) for url in settings.bases]
        kept = httpx.Limits(max_connections=None, max_keepalive_connections=settings.parallel)
        self._client = httpx.AsyncClient(limits=kept)
        self._looking: asyncio.Task[None] | None = None

    async def look(self, client: httpx.AsyncClient | None = None) -> None:
        """Look at every server of which nothing recent is known. `client`: where another event loop will be used."""
        await self._look_at([server for server in self._servers if server.stale], client or self._client)

    async def ready(self) -> None:
        """Raises Busy when nobody can be asked now."""
        self.line.check_room()
        if self._least_busy(()) is None:
            await self.look()
        if self._least_busy(()) is None:
            raise _nobody(self.name)
        self._look_soon()

    async def ask(self, send: Send[T]) -> AsyncGenerator[T]:
        """What `send` yields for the first server that does not fail before it yields anything.

        Raises Busy when all are, PeerError when the last one failed, and whatever else `send` raises.
        """
        await self.ready()
        async with self.line.turn():
            trials, spoken = _Trials(), False
            while server := await self._next(trials):
                try:
                    async with aclosing(send(server, self._client)) as pieces:
                        async for piece in pieces:
                            spoken = True
                            yield piece
                except Failed as failure:
                    server.failed(failure)
                    trials.failures[server] = failure
                    if spoken:
                        break
                else:
                    return
            raise trials.verdict(self.name)

    def standing(self) -> Sequence[Standing]:
        """How each server is, as far as is known; by number, since a URL is its owner's."""
        self._look_soon()
        return [
            Standing(self.name, number, server.trouble, server.served, server.outstanding)
            for number, server in enumerate(self._servers, 1)
        ]

    async def aclose(self) -> None:
        if self._looking:
            self._looking.cancel()
        await self._client.aclose()

    def _look_soon(self) -> None:
        if any(server.stale for server in self._servers) and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self.look())

    async def _next(self, trials: _Trials) -> Server | None:
        """The least busy one not tried yet. When all were: those that may be asked again, once."""
        server = self._least_busy(trials.failures)
        forgiven = [] if server else trials.forgive()
        if not forgiven:
            return server
        await asyncio.sleep(PAUSE_S)
        await self._look_at([server for server in forgiven if server.trouble], self._client)
        return self._least_busy(trials.failures)

    def _least_busy(self, passed_over: Collection[Server]) -> Server | None:
        well = [server for server in self._servers if not server.trouble and server not in passed_over]
        return min(well, key=lambda server: (server.outstanding, server.served), default=None)

    async def _look_at(self, servers: Iterable[Server], client: httpx.AsyncClient) -> None:
        await asyncio.gather(*(server.look(client) for server in servers))


@dataclass(slots=True)
class _Trials:
    """Who was asked in vain, and how each failed."""

    failures: dict[Server, Failed] = field(default_factory=dict)
    _forgave: bool = False
    _last: Failed | None = None

    def forgive(self) -> list[Server]:
        """Those that may be asked again, once; from now on they were not asked."""
        forgiven = [server for server, failure in self.failures.items() if failure.again and not self._forgave]
        for server in forgiven:
            self._last = self.failures.pop(server)
            self._forgave = True
        return forgiven

    def verdict(self, name: str) -> LyceumError:
        """What whoever asked is told."""
        failure = next(reversed(self.failures.values()), self._last)
        if failure is None:
            return _nobody(name)
        if failure.busy_s:
            return Busy(f"every server behind {name} is busy; try again", failure.busy_s)
        return PeerError(f"{name}: {failure.message}")


def _nobody(name: str) -> Busy:
    return Busy(f"no server behind {name} answers now; try again", int(RETRY_S))
