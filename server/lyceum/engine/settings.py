"""How one model file is to be hosted; checked on construction. Knows no model."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

SMALL_FILE = 100_000_000


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`n_gpu_layers`: -1 for all. `n_threads`: None for what suits the file. `queue`: asks that may wait.

    `lora`: an adapter over the model at `path`. `refusal` and `doubt`: None for what the file says.
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

    def __post_init__(self) -> None:
        for name, least in (("n_ctx", 1), ("n_gpu_layers", -1), ("n_threads", 1), ("queue", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if not math.isfinite(self.lora_scale):
            raise ValueError(f"lora_scale must be a number, not {self.lora_scale}")
        if self.doubt is not None and not 0 <= self.doubt < 1:
            raise ValueError(f"doubt must be a probability from 0 to below 1, not {self.doubt}")

    def threads(self) -> int:
        """One for a small model: the spinning of a second costs it more than it brings."""
        if self.n_threads is not None:
            return self.n_threads
        small = self.path.stat().st_size < SMALL_FILE
        return 1 if small else max(1, _physical_cores() - 1)


def _physical_cores() -> int:
    return len({_siblings(cpu) for cpu in range(os.cpu_count() or 1)})


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)
