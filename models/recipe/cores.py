"""How the arithmetic shares the processor with others. Must be imported before torch, which reads this once."""

import os
from pathlib import Path

# A thread that spins while it waits for one whose core is taken makes a step up to four times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def have_bf16() -> bool:
    """Without bf16 arithmetic in the processor, autocast on a CPU costs time instead of saving it."""
    listed = Path("/proc/cpuinfo")
    return listed.exists() and "bf16" in listed.read_text(encoding="utf-8")
