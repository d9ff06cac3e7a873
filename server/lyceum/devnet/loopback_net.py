"""A devnet of loopback nodes: one process a node, one ledger for all; nothing to install.

Starts and joins the processes; what a node is stands in `loopback.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from lyceum.devnet.network import Node, Options
from lyceum.devnet.process import Daemon, ProcessNode

MSAT_PER_SAT = 1000


class LoopbackDevnet:
    network = "loopback"

    def __init__(self, directory: Path, fee_msat: int = 0) -> None:
        """`fee_msat`: what every node takes for forwarding a payment."""
        self._fee_msat = fee_msat
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._nodes: list[ProcessNode] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes:
            node.stop()

    def node(self, name: str, *, plugin: Path | None = None, options: Options | None = None) -> Node:
        home = self._directory / name
        argv = [*self._argv(home, name), *_plugin_argv(plugin, options or {})]
        socket, log = home / "regtest" / "lightning-rpc", home / "regtest" / "log"
        node = ProcessNode(name, Daemon(name, argv, log), socket, log, lambda _info: True)
        self._nodes.append(node)
        node.start()
        return node

    def connect(self, payer: Node, payee: Node, capacity_msat: int) -> None:
        payer.rpc.connect(payee.node_id)
        payer.rpc.fundchannel(payee.node_id, capacity_msat // MSAT_PER_SAT)

    def _argv(self, home: Path, name: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "lyceum.devnet.loopback",
            f"--lightning-dir={home}",
            f"--ledger={self._directory / 'ledger.sqlite3'}",
            f"--alias={name}",
            f"--fee-msat={self._fee_msat}",
        ]


def _plugin_argv(plugin: Path | None, options: Options) -> list[str]:
    words = [f"--plugin={plugin.resolve()}"] if plugin else []
    return [*words, *(f"--option={name}={value}" for name, value in options.items())]
