"""Small markets on either kind of devnet: who sells, who buys, and the calls between them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lyceum.demo import plugin_path
from lyceum.devnet import Devnet, Node, invoices, open_devnet, regtest_missing

KINDS = ("loopback", "regtest")
HOOK = Path(sys.executable).with_name("cln-lyceum-invoices")
"""The plugin that makes lazy invoices; where it is missing, contrib/setup.py was not run since it came."""
CHANNEL_MSAT = 1_000_000_000


@dataclass
class Market:
    """A buyer with a channel to a seller, both with the plugin."""

    devnet: Devnet
    buyer: Node
    seller: Node
    plugin: Path = field(default_factory=plugin_path)

    def call(self, node: Node, method: str, params: Any) -> dict[str, Any]:
        return node.rpc.call(method, params)  # type: ignore[no-any-return]

    def settled_msat(self, node: Node) -> int:
        """The node's balance once none of its HTLCs is under way: it then shows every payment."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._in_flight(node):
            time.sleep(0.05)
        return node.balance_msat()

    def _in_flight(self, node: Node) -> bool:
        return any(channel.get("htlcs") for channel in node.rpc.listpeerchannels()["channels"])

    def let_seller_pay(self) -> None:
        """Lift its side of the channel above the reserve that a real node must keep there (BOLT 2)."""
        funds = self.seller.rpc.invoice(CHANNEL_MSAT // 10, f"funds {time.monotonic_ns()}", "funds")
        self.buyer.rpc.xpay(funds["bolt11"])

    def restart_plugin(self, node: Node) -> None:
        node.rpc.plugin_stop(str(self.plugin))
        node.rpc.plugin_start(str(self.plugin))


def mainnet_invoice(amount_msat: int) -> str:
    """A properly signed invoice for bitcoin, which a node on regtest must not pay."""
    draft = invoices.Draft(amount_msat, "11" * 32, "22" * 32, "mainnet", int(time.time()), 600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invoices, "CURRENCY", "bc")
        return invoices.make(draft, b"\x33" * 32)


def missing(kind: str) -> str | None:
    """Why this kind of network cannot run here."""
    return regtest_missing() if kind == "regtest" else None


@contextmanager
def open_network(kind: str, directory: Path) -> Iterator[Devnet]:
    if kind == "loopback":
        with open_devnet("loopback", directory) as devnet:
            yield devnet
        return
    from pyln_devnet import PylnDevnet  # noqa: PLC0415  (imports pyln-testing, which wants bitcoind)

    with PylnDevnet(directory) as devnet:
        yield devnet


@contextmanager
def open_market(kind: str, directory: Path, options: Mapping[str, Mapping[str, str | int]]) -> Iterator[Market]:
    with open_network(kind, directory) as devnet:
        buyer, seller = (
            devnet.node(name, plugin=plugin_path(), options=options.get(name)) for name in ("buyer", "seller")
        )
        devnet.connect(buyer, seller, CHANNEL_MSAT)
        yield Market(devnet, buyer, seller)
