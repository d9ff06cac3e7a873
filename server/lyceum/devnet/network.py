"""What a devnet is: a few Lightning nodes on one machine, whatever stands behind them.

Only protocols here; who implements them, and how a process is started, is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from pyln.client import LightningRpc

Kind = Literal["loopback", "regtest"]
Options = Mapping[str, str | int]


class Node(Protocol):
    """One running node. `rpc_path` is its unix socket, `log_path` what it and its plugins wrote."""

    name: str
    rpc_path: Path
    log_path: Path

    @property
    def node_id(self) -> str: ...

    @property
    def rpc(self) -> LightningRpc: ...

    def balance_msat(self) -> int:
        """What is ours in all our channels."""
        ...

    def start(self) -> None:
        """Start the process again after `stop` or `kill`; returns when it answers."""
        ...

    def stop(self) -> None:
        """Ask it to end, and see that it does; harmless when it is not running."""
        ...

    def restart(self) -> None: ...

    def kill(self) -> None:
        """SIGKILL: nothing is written, nobody is told."""
        ...


class Devnet(Protocol):
    """A context manager: on leaving, every process ends; the directory stays."""

    network: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def node(self, name: str, *, plugin: Path | None = None, options: Options | None = None) -> Node:
        """Start a node as a process of its own, with one plugin and that plugin's options."""
        ...

    def connect(self, payer: Node, payee: Node, capacity_msat: int) -> None:
        """Open a channel in which all of `capacity_msat` is the payer's; returns when it is usable."""
        ...
