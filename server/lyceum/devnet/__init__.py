"""A small Lightning network on one machine: stand-in nodes (loopback) or real ones (regtest).

The same plugin runs unchanged on both, and the same tests do, which keeps the stand-in honest.
"""

from __future__ import annotations

from pathlib import Path

from lyceum.devnet.loopback_net import LoopbackDevnet
from lyceum.devnet.network import Devnet, Kind, Node
from lyceum.devnet.regtest import RegtestDevnet, regtest_missing

__all__ = ["Devnet", "Kind", "Node", "open_devnet", "regtest_missing"]


def open_devnet(kind: Kind, directory: Path) -> Devnet:
    """An empty network with its files in `directory`; use it with `with`."""
    return LoopbackDevnet(directory) if kind == "loopback" else RegtestDevnet(directory)
