"""A devnet of real lightningd nodes on a private bitcoind: real protocol, worthless coins.

Started directly, so that `lyceum demo` needs no test framework. Knows nothing of plugins but their
paths and options.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lyceum.devnet.bitcoind import PASSWORD, USER, Bitcoind, free_port
from lyceum.devnet.network import Node, Options
from lyceum.devnet.process import POLL_SECONDS, START_SECONDS, Daemon, ProcessNode
from lyceum.errors import ConfigError, NodeError

PROGRAMS = ("bitcoind", "bitcoin-cli", "lightningd")
CONFIRMATIONS = 6
MSAT_PER_SAT = 1000
FEERATE = 1000
"""Satoshis per 1000 weight, for everything: an empty chain has no estimates."""
ONCHAIN_SPARE_SAT = 1_000_000


def regtest_missing() -> str | None:
    """Why a regtest network cannot run on this machine, or None if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(absent)} not on PATH" if absent else None


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfigError(f"a regtest network needs {name} on PATH")
    return path


class RegtestDevnet:
    """Blocking: every method returns when the nodes have done what was asked."""

    network = "regtest"

    def __init__(self, directory: Path) -> None:
        self._lightningd = program("lightningd")
        self._directory = directory.resolve()
        self._ports: dict[str, int] = {}
        self._nodes: list[ProcessNode] = []
        self._chain = Bitcoind.start(program("bitcoind"), self._directory / "bitcoind")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes:
            node.stop()
        self._chain.stop()

    def node(self, name: str, *, plugin: Path | None = None, options: Options | None = None) -> Node:
        home = self._directory / name
        home.mkdir(parents=True, exist_ok=True)
        port = self._ports[name] = free_port()
        argv = [*self._argv(home, name, port), *_plugin_argv(plugin, options or {})]
        daemon = Daemon(name, argv, home / "log")
        node = ProcessNode(name, daemon, home / "regtest" / "lightning-rpc", home / "log", self._synced)
        self._nodes.append(node)
        node.start()
        return node

    def connect(self, payer: Node, payee: Node, capacity_msat: int) -> None:
        capacity_sat = capacity_msat // MSAT_PER_SAT
        self._fund(payer, capacity_sat + ONCHAIN_SPARE_SAT)
        payer.rpc.connect(payee.node_id, "127.0.0.1", self._ports[payee.name])
        funded = payer.rpc.fundchannel(payee.node_id, capacity_sat, feerate=f"{FEERATE}perkw")
        self._chain.mine(CONFIRMATIONS)
        channel = str(funded["channel_id"])
        self._await(lambda: _usable(payer, channel) and _usable(payee, channel), "the channel")

    def _fund(self, node: Node, amount_sat: int) -> None:
        self._chain.send(node.rpc.newaddr("bech32")["bech32"], amount_sat)
        self._chain.mine(1)
        self._await(lambda: _spendable_sat(node) >= amount_sat, f"coins of {node.name}")
        self._await(lambda: self._synced(node.rpc.getinfo()), f"blocks of {node.name}")

    def _synced(self, info: Mapping[str, Any]) -> bool:
        behind = any(name.startswith("warning_") and name.endswith("_sync") for name in info)
        return not behind and int(info["blockheight"]) >= self._chain.height()

    def _await(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise NodeError(f"{what} did not come in {START_SECONDS} s")
            time.sleep(POLL_SECONDS)

    def _argv(self, home: Path, name: str, port: int) -> list[str]:
        return [
            self._lightningd,
            f"--lightning-dir={home}",
            "--network=regtest",
            f"--alias={name}",
            "--log-level=debug",
            "--allow-deprecated-apis=false",
            "--disable-dns",
            f"--addr=127.0.0.1:{port}",
            f"--bitcoin-rpcport={self._chain.port}",
            f"--bitcoin-rpcuser={USER}",
            f"--bitcoin-rpcpassword={PASSWORD}",
            f"--force-feerates={FEERATE}",
            "--developer",
            "--dev-fast-gossip",
            "--dev-fast-reconnect",
            "--dev-allow-localhost",
            "--dev-bitcoind-poll=1",
        ]


def _plugin_argv(plugin: Path | None, options: Options) -> list[str]:
    words = [f"--plugin={plugin.resolve()}"] if plugin else []
    return [*words, *(f"--{name}={value}" for name, value in options.items())]


def _usable(node: Node, channel_id: str) -> bool:
    channels = node.rpc.listpeerchannels()["channels"]
    return any(row["channel_id"] == channel_id and row["state"] == "CHANNELD_NORMAL" for row in channels)


def _spendable_sat(node: Node) -> int:
    outputs = node.rpc.listfunds()["outputs"]
    return sum(int(row["amount_msat"]) for row in outputs if row["status"] == "confirmed") // MSAT_PER_SAT
