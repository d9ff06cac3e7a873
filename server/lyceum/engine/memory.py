"""How much memory a model takes, and whether this machine has it. Knows no llama.cpp."""

from __future__ import annotations

from pathlib import Path

from lyceum.engine.card import Card
from lyceum.errors import ModelError

MEMORY = Path("/proc/meminfo")


def check_memory(card: Card, n_ctx: int, parallel: int, pooled: bool = False) -> None:
    """Raises ModelError, with what would fit, when this machine has too little memory free."""
    free, needed = free_memory_bytes(), card.memory_bytes(n_ctx, parallel, pooled)
    if free is None or needed <= free:
        return
    fitting = card.fitting_tokens(free, pooled)
    mend = f"set n_ctx to at most {fitting // 64 * 64}" if fitting >= 64 else "take a smaller model or quantisation"
    if fitting >= n_ctx:
        mend = f"set parallel below {parallel}"
    raise ModelError(
        f"{card.path} with n_ctx {n_ctx} needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; {mend}"
    )


def free_memory_bytes() -> int | None:
    """What can still be taken without swapping; None where the system does not say."""
    if not MEMORY.exists():
        return None
    rows = (line.split() for line in MEMORY.read_text(encoding="ascii").splitlines())
    return next((int(row[1]) * 1024 for row in rows if row[0] == "MemAvailable:"), None)
