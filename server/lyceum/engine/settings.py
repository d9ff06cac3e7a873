"""How one model file is to be hosted; checked on construction. Knows no model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SMALL_FILE = 100_000_000
PARALLEL = 8
MOST_PARALLEL = 64


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`n_ctx`: tokens that one request may hold. `n_gpu_layers`: -1 for all. `n_threads`: None for what suits the
    file. `queue`: asks that may wait. `parallel`: asks answered at once.

    `lora`: an adapter over the model at `path`. `refusal` and `doubt`: None for what the file says. `system`: a
    text that is no secret, with which most conversations begin.
    """

    path: Path
    n_ctx: int
    n_gpu_layers: int = 0
    n_threads: int | None = None
    queue: int = 16
    lora: Path | None = None
    lora_scale: float = 1.0
    refusal: str | None = None
    doubt: float | None = None
    parallel: int = PARALLEL
    system: str = ""

    def __post_init__(self) -> None:
        leasts = (("n_ctx", 1), ("n_gpu_layers", -1), ("n_threads", 1), ("queue", 1), ("parallel", 1))
        for name, least in leasts:
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if self.parallel > MOST_PARALLEL:
            raise ValueError(f"parallel must be at most {MOST_PARALLEL}, not {self.parallel}")
        if not math.isfinite(self.lora_scale):
            raise ValueError(f"lora_scale must be a number, not {self.lora_scale}")
        if self.doubt is not None and not 0 <= self.doubt < 1:
            raise ValueError(f"doubt must be a probability from 0 to below 1, not {self.doubt}")

    def threads(self) -> int:
        """One for a small model: the spinning of a second costs it more than it brings. A large one leaves a core to
        the server, where there are more than two."""
        if self.n_threads is not None:
            return self.n_threads
        if self.path.stat().st_size < SMALL_FILE:
            return 1
        cores = _physical_cores()
        return cores if cores <= 2 else cores - 1


def _physical_cores() -> int:
    """Those that this process may use."""
    return len({_siblings(cpu) for cpu in _allowed()})


def _allowed() -> Iterable[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)
