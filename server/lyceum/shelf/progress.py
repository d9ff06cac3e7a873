"""A line on the terminal that says how far something is. Elsewhere than on a terminal it says nothing."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from lyceum.shelf import amounts

EVERY_S = 0.1
CELLS = 24
CLEAR = "\r\x1b[K"


class Bar:
    """`with Bar("name") as bar: bar.show(done, total)`. `total` 0 means that nobody knows it.

    `amount` writes a count, such as of bytes or of files. The rate is that of this run: what was there
    at the first `show` does not count.
    """

    def __init__(
        self,
        what: str,
        amount: Callable[[int], str] = amounts.size,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._amount, self._clock = what, amount, clock
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._start: tuple[float, int] | None = None
        self._last = 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._shown and self._start:
            self._write("\n" if kind is None else CLEAR)

    def show(self, done: int, total: int) -> None:
        now = self._clock()
        self._start = self._start or (now, done)
        if not self._shown or (now - self._last < EVERY_S and done != total):
            return
        self._last = now
        self._write(CLEAR + self._line(done, total, now - self._start[0], done - self._start[1]))

    def _line(self, done: int, total: int, seconds: float, new: int) -> str:
        """As wide as the terminal at most: the drawing gives way first."""
        columns = shutil.get_terminal_size().columns - 1
        rate = new / seconds if seconds > 0 else 0.0
        speed = f"  {self._amount(round(rate))}/s" if rate >= 1 else ""
        if not total:
            return f"{self._what}  {self._amount(done)}{speed}  {amounts.duration(seconds)}"[:columns]
        left = f"  {amounts.duration((total - done) / rate)} left" if rate and done < total else ""
        took = f"  in {amounts.duration(seconds)}" if done >= total else ""
        numbers = f"{100 * done // total:3} %  {self._amount(done)} of {self._amount(total)}{speed}{left}{took}"
        cells = min(CELLS, columns - len(self._what) - len(numbers) - len("  [] "))
        full = cells * min(done, total) // total
        drawing = f"[{'#' * full}{'.' * (cells - full)}] " if cells > 0 else ""
        return f"{self._what}  {drawing}{numbers}"[:columns]

    def _write(self, text: str) -> None:
        print(text, end="", file=self._stream, flush=True)
