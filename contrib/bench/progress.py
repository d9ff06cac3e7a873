"""How far a long run is and how long it still takes, on stderr."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, field


@dataclass
class Progress:
    """`cells`, some of them measured again and again: what is left takes as long as it took before."""

    cells: list[tuple[str, ...]]
    took_s: dict[tuple[str, ...], float] = field(default_factory=dict)
    done: int = 0

    def add(self, cell: tuple[str, ...], seconds: float) -> None:
        self.took_s[cell] = seconds
        self.done += 1
        mean_s = statistics.mean(self.took_s.values())
        left_s = int(sum(self.took_s.get(each, mean_s) for each in self.cells[self.done :]))
        words = f"{self.done} of {len(self.cells)}, {left_s // 60}:{left_s % 60:02} min left: {' '.join(cell)}"
        end = "" if sys.stderr.isatty() else "\n"
        print(f"\r{words:<78}" if sys.stderr.isatty() else words, end=end, file=sys.stderr, flush=True)
