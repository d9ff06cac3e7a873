"""The line before the servers of one model: a bounded number is served, a bounded number waits. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lyceum.errors import Busy


class Line:
    def __init__(self, parallel: int, queue: int) -> None:
        self._turns = asyncio.Semaphore(parallel)
        self._queue = queue
        self._waiting = 0

    def check_room(self) -> None:
        """Raises Busy where `turn` would."""
        if self._turns.locked() and self._waiting >= self._queue:
            raise Busy(f"the line before this model is full ({self._waiting} waiting); try again in a moment")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """First come, first served. Raises Busy when too many wait."""
        self.check_room()
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()
