"""The line before an engine: asks wait here for its thread, first come first served. Knows no model, no asyncio."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lyceum.errors import Busy
from lyceum.ports import Ask, Chunk


@dataclass(eq=False, slots=True)
class Job:
    """An ask on its way. `deliver` may be called from any thread; an exception is an answer too.

    `cancelled` is set by whoever asked, and read by the engine's thread before each step.
    """

    ask: Ask
    prompt: list[int]
    answer_tokens: int
    deliver: Callable[[Chunk | Exception], None]
    cancelled: bool = False


class Line:
    """Handlers `join` and `leave`, the engine's thread `take`s; `close` lets nobody in any more."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self.closed = False

    def check_room(self) -> None:
        """Raises Busy where `join` would."""
        if self.closed:
            raise Busy("the model is shutting down; ask another seller")
        if len(self._waiting) >= self._room:
            raise Busy(f"the line before this model is full ({self._room} waiting); try again in a moment")

    def join(self, job: Job) -> None:
        with self._changed:
            self.check_room()
            self._waiting.append(job)
            self._changed.notify()

    def leave(self, job: Job) -> None:
        """Give the place back, wherever the job is by now."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def take(self) -> Job | None:
        """The next job, waiting for it; None once the line is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed)
            return None if self.closed else self._waiting.popleft()

    def close(self) -> list[Job]:
        """Whoever still waited."""
        with self._changed:
            self.closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
            return left
