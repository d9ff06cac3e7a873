"""Several models on one machine: loaded when they are first asked, put down when another needs the memory.

Laws: nobody who is being served or waits is put down; the longest unused goes first; a file that would not
load is not tried again for RETRY_S; a load goes on when whoever caused it leaves. Knows no llama.cpp.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from lyceum.errors import Busy, ConfigError, ModelError

RETRY_S = 30
BUSY_S = 5


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


@dataclass(frozen=True, slots=True)
class Needs:
    """Memory in bytes: `shared_bytes` counts once for all that have the same `shared`."""

    shared: Hashable
    shared_bytes: int
    own_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.shared_bytes + self.own_bytes


@dataclass(eq=False)
class Berth(Generic[T]):
    """One model's place. `load` blocks, and raises ModelError."""

    name: str
    needs: Needs
    load: Callable[[], T]
    core: T | None = None
    users: int = 0
    used: int = 0
    loading: asyncio.Task[None] | None = None
    failure: tuple[ModelError, float] | None = None
    retired: bool = False


class Fleet:
    """`limit_bytes`: what all loaded models together may take; 0 for no limit."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._berths: list[Berth[Closable]] = []
        self._turn = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()

    def join(self, name: str, needs: Needs, load: Callable[[], T]) -> Berth[T]:
        """A place for a model. Raises ConfigError if it can never be loaded."""
        if self._limit_bytes and needs.total_bytes > self._limit_bytes:
            raise ConfigError(
                f"{name} needs {needs.total_bytes / 1e6:.0f} MB and memory_mb allows {self._limit_bytes / 1e6:.0f};"
                " raise memory_mb, or lower n_ctx"
            )
        berth = Berth(name, needs, load)
        self._berths.append(berth)  # type: ignore[arg-type]
        return berth

    def load_now(self, berth: Berth[T]) -> bool:
        """Blocks until it is loaded; False where there is no room for it beside those that are."""
        if not self._fits([*self._loaded(), berth]):  # type: ignore[list-item]
            return False
        berth.core = berth.core or berth.load()
        return True

    @asynccontextmanager
    async def awake(self, berth: Berth[T]) -> AsyncIterator[T]:
        """The loaded model, which stays loaded within. Raises ModelError, or Busy when there is no room now."""
        berth.users += 1
        try:
            while berth.core is None:
                _check_open(berth)
                await self._load(berth)
            berth.used = next(self._turn)
            yield berth.core
        finally:
            berth.users -= 1

    def retire(self, berth: Berth[T]) -> None:
        """Put it down for good, whoever uses it. One that is loading is put down as soon as it is loaded."""
        berth.retired = True
        self._put_down(berth)

    def _put_down(self, berth: Berth[T]) -> None:
        core, berth.core = berth.core, None
        if core:
            core.close()

    async def _load(self, berth: Berth[T]) -> None:
        if berth.failure and time.monotonic() < berth.failure[1]:
            raise berth.failure[0]
        if berth.loading is None:
            berth.loading = asyncio.create_task(self._load_alone(berth))
            berth.loading.add_done_callback(_heard)
        await asyncio.shield(berth.loading)

    async def _load_alone(self, berth: Berth[T]) -> None:
        try:
            async with self._one_at_a_time:
                await self._make_room(berth)
                berth.core = await asyncio.to_thread(berth.load)
                berth.failure = None
                if berth.retired:
                    await asyncio.to_thread(self._put_down, berth)
        except ModelError as error:
            berth.failure = (error, time.monotonic() + RETRY_S)
            raise
        finally:
            berth.loading = None

    async def _make_room(self, berth: Berth[T]) -> None:
        """Whoever is put down makes room enough in the end, or nobody is put down."""
        while not self._fits([*self._loaded(), berth]):  # type: ignore[list-item]
            busy = [other for other in self._loaded() if other.users]
            if not self._fits([*busy, berth]):  # type: ignore[list-item]
                raise Busy(f"there is no memory for {berth.name} while the others are being asked; try again", BUSY_S)
            idle = [other for other in self._loaded() if not other.users]
            await asyncio.to_thread(self._put_down, min(idle, key=lambda other: other.used))

    def _loaded(self) -> list[Berth[Closable]]:
        return [berth for berth in self._berths if berth.core]

    def _fits(self, berths: list[Berth[Closable]]) -> bool:
        shared = {berth.needs.shared: berth.needs.shared_bytes for berth in berths}
        taken = sum(shared.values()) + sum(berth.needs.own_bytes for berth in set(berths))
        return not self._limit_bytes or taken <= self._limit_bytes


def _check_open(berth: Berth[T]) -> None:
    if berth.retired:
        raise Busy("the model is shutting down; ask another seller")


def _heard(task: asyncio.Task[None]) -> None:
    """Everybody who waited may have left; its failure is kept on the berth."""
    if not task.cancelled():
        task.exception()
