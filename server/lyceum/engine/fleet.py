"""Several models on one machine: loaded when they are first asked, put down when another needs the memory.

Laws: nobody who is being served or waits is put down; the longest unused goes first; a file that would not
load is not tried again for RETRY_S; a load goes on when whoever caused it leaves; one that is lost is loaded again,
after a pause that grows while it does not live. Knows no llama.cpp.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from lyceum.engine.worker import running_loop
from lyceum.engine.workers import Workers
from lyceum.errors import Busy, ConfigError, LyceumError, ModelError

RETRY_S = 30
BUSY_S = 5
PAUSE_S = 0.1
LIVED_S = 60
"""A model that lived this long is loaded again at once when it is lost."""


class Loaded(Protocol):
    """`lost`: it cannot be used any more; then, or just before, `on_lost` is called. `close` may be repeated."""

    on_lost: Callable[[], None]

    @property
    def lost(self) -> bool: ...

    def close(self) -> None: ...


T = TypeVar("T", bound=Loaded)


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
    """One model's place. `load` raises ModelError. `losses`: how often in a row it did not live for LIVED_S."""

    name: str
    needs: Needs
    load: Callable[[], Awaitable[T]]
    core: T | None = None
    users: int = 0
    used: int = 0
    loading: asyncio.Task[None] | None = None
    failure: tuple[LyceumError, float] | None = None
    retired: bool = False
    since: float = 0.0
    losses: int = 0

    @property
    def ready(self) -> T | None:
        return None if self.core is None or self.core.lost else self.core


class Fleet:
    """`limit_bytes`: what all loaded models together may take; 0 for no limit."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self.workers = Workers()
        self._limit_bytes = limit_bytes
        self._berths: list[Berth[Loaded]] = []
        self._turn = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()

    def join(self, name: str, needs: Needs, load: Callable[[], Awaitable[T]]) -> Berth[T]:
        """A place for a model. Raises ConfigError if it can never be loaded."""
        if self._limit_bytes and needs.total_bytes > self._limit_bytes:
            raise ConfigError(
                f"{name} needs {needs.total_bytes / 1e6:.0f} MB and memory_mb allows {self._limit_bytes / 1e6:.0f};"
                " raise memory_mb, or lower n_ctx"
            )
        berth = Berth(name, needs, load)
        self._berths.append(berth)  # type: ignore[arg-type]
        return berth

    async def load_now(self, berth: Berth[T]) -> bool:
        """False where there is no room for it beside those that are loaded."""
        if not self._fits([*self._loaded(), berth]):  # type: ignore[list-item]
            return False
        async with self.awake(berth):
            return True

    @asynccontextmanager
    async def awake(self, berth: Berth[T]) -> AsyncIterator[T]:
        """The loaded model, which stays loaded within. Raises ModelError, or Busy when there is no room now."""
        berth.users += 1
        try:
            while (core := berth.ready) is None:
                _check_open(berth)
                await self._load(berth)
            berth.used = next(self._turn)
            yield core
        finally:
            berth.users -= 1

    def retire(self, berth: Berth[T]) -> None:
        """Put it down for good, whoever uses it. One that is loading is put down as soon as it is loaded."""
        berth.retired = True
        self._put_down(berth)

    def _put_down(self, berth: Berth[T]) -> None:
        core, berth.core = berth.core, None
        if core:
            core.on_lost = _nothing
            core.close()

    async def _load(self, berth: Berth[T]) -> None:
        if berth.failure and time.monotonic() < berth.failure[1]:
            raise berth.failure[0]
        await asyncio.shield(berth.loading or self._begin(berth))

    def _begin(self, berth: Berth[T], after_s: float = 0) -> asyncio.Task[None]:
        berth.loading = asyncio.create_task(self._load_alone(berth, after_s))
        berth.loading.add_done_callback(_heard)
        return berth.loading

    async def _load_alone(self, berth: Berth[T], after_s: float) -> None:
        try:
            await asyncio.sleep(after_s)
            async with self._one_at_a_time:
                await self._make_room(berth)
                core = await berth.load()
            berth.core, berth.failure, berth.since = core, None, time.monotonic()
            core.on_lost = lambda: self._lost(berth)
            if berth.retired:
                self._put_down(berth)
        except ModelError as error:
            berth.failure = (error, time.monotonic() + RETRY_S)
            raise
        finally:
            berth.loading = None

    def _lost(self, berth: Berth[T]) -> None:
        """Load it again at once, or later if it keeps dying."""
        berth.core = None
        now = time.monotonic()
        berth.losses = 0 if now - berth.since >= LIVED_S else berth.losses + 1
        pause_s = min(RETRY_S, PAUSE_S * 4**berth.losses)
        if pause_s > BUSY_S:
            busy = Busy(f"{berth.name} keeps failing and is given a rest; try again", math.ceil(pause_s))
            berth.failure = (busy, now + pause_s)
        if not (berth.retired or berth.loading) and running_loop():  # without one, it is loaded when it is next asked
            self._begin(berth, pause_s)

    async def _make_room(self, berth: Berth[T]) -> None:
        """Whoever is put down makes room enough in the end, or nobody is put down."""
        while not self._fits([*self._loaded(), berth]):  # type: ignore[list-item]
            busy = [other for other in self._loaded() if other.users]
            if not self._fits([*busy, berth]):  # type: ignore[list-item]
                raise Busy(f"there is no memory for {berth.name} while the others are being asked; try again", BUSY_S)
            idle = [other for other in self._loaded() if not other.users]
            self._put_down(min(idle, key=lambda other: other.used))

    def _loaded(self) -> list[Berth[Loaded]]:
        return [berth for berth in self._berths if berth.core]

    def _fits(self, berths: list[Berth[Loaded]]) -> bool:
        shared = {berth.needs.shared: berth.needs.shared_bytes for berth in berths}
        taken = sum(shared.values()) + sum(berth.needs.own_bytes for berth in set(berths))
        return not self._limit_bytes or taken <= self._limit_bytes


def _nothing() -> None:
    pass


def _check_open(berth: Berth[T]) -> None:
    if berth.retired:
        raise Busy("the model is shutting down; ask another seller")


def _heard(task: asyncio.Task[None]) -> None:
    """Everybody who waited may have left; its failure is kept on the berth."""
    if not task.cancelled():
        task.exception()
