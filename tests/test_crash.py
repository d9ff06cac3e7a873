"""kill -9 at every point where money is written or moved: nothing is lost, nothing is paid or sold twice.

The plugin of `plugins/mortal.py` is the real one, with a trapdoor before and after each RPC call and each
transaction. A sale runs from the challenge to the settled answer; at the trapdoor the plugin (or its node)
dies, is started again, and whoever was calling calls again, as clients do.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyln.client import RpcError

from lyceum.devnet import Node
from networks import CHANNEL_MSAT, Market, open_network

MORTAL = Path(__file__).parent / "plugins" / "mortal.py"
PRICE_MSAT, CHARGE_MSAT, BOUGHT_MSAT = 1500, 700, 5000
PATIENCE_S = 120


@dataclass
class Mortals(Market):
    """A market whose plugins die on command."""

    origins: Iterator[int] = field(default_factory=itertools.count)

    def directory(self, node: Node) -> Path:
        return node.rpc_path.parent

    def doom(self, node: Node, point: str) -> None:
        (self.directory(node) / "die").write_text(point, encoding="ascii")

    def spare(self) -> list[str]:
        """Whose trapdoor did not open; and forget it."""
        orders = [self.directory(node) / "die" for node in (self.buyer, self.seller)]
        unused = [order.read_text(encoding="ascii") for order in orders if order.exists()]
        for order in orders:
            order.unlink(missing_ok=True)
        return unused

    def points(self, node: Node) -> list[str]:
        """What its plugin passed since this was asked last, each once."""
        passed = self.directory(node) / "points"
        lines = passed.read_text(encoding="ascii").splitlines() if passed.exists() else []
        passed.unlink(missing_ok=True)
        return list(dict.fromkeys(lines))

    def insist(self, node: Node, method: str, params: Any) -> dict[str, Any]:
        """Call until it is answered; whoever is dead is started again."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.call(node, method, params)
            except (RpcError, OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise
                self._raise_the_dead(node, error)

    def _raise_the_dead(self, node: Node, error: Exception) -> None:
        try:
            plugins = node.rpc.plugin_list()["plugins"]
        except (RpcError, OSError, ValueError):
            node.kill()
            node.start()
            return
        if not any(Path(plugin["name"]).name == MORTAL.name for plugin in plugins):
            node.rpc.plugin_start(str(MORTAL))
        elif not isinstance(error, RpcError) or error.error.get("code") not in (-4, -32601, 40304, 40303):
            raise error
        time.sleep(0.2)


@pytest.fixture(scope="module")
def mortals(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    with open_network(kind, tmp_path_factory.mktemp(kind)) as devnet:
        buyer, seller = (devnet.node(name, plugin=MORTAL) for name in ("buyer", "seller"))
        devnet.connect(buyer, seller, CHANNEL_MSAT)
        yield Mortals(devnet, buyer, seller, MORTAL)


@dataclass(frozen=True)
class Sold:
    payment_hash: str
    token_id: str


def sale(mortals: Mortals) -> Sold:
    """Challenge, pay, admit, settle: each step until it succeeds."""
    wanted = {"service": "lyceum", "amount_msat": PRICE_MSAT}
    declined = mortals.insist(mortals.seller, "l402-admit", {**wanted, "amount_msat": BOUGHT_MSAT})["declined"]
    line, origin = declined["headers"][1][1], f"http://seller:{next(mortals.origins)}"
    terms = {"challenge": line, "origin": origin, "cap_msat": 10_000}
    ticket = mortals.insist(mortals.buyer, "l402-pay", terms)["ticket"]
    shown = {**wanted, "authorization": ticket["authorization"]}
    admitted = mortals.insist(mortals.seller, "l402-admit", shown)["admitted"]
    request = {"reservation": admitted["reservation"], "charge_msat": CHARGE_MSAT}
    settled = mortals.insist(mortals.seller, "l402-settle", request)
    assert settled["charged_msat"] == CHARGE_MSAT
    return Sold(ticket["payment_hash"], admitted["token_id"])


def check(mortals: Mortals, sold: Sold) -> None:
    """The buyer paid once; the seller received that, charged one answer, and owes the rest."""
    pays = mortals.buyer.rpc.listpays(payment_hash=sold.payment_hash)["pays"]
    assert [pay["status"] for pay in pays] == ["complete"]
    (invoice,) = mortals.seller.rpc.listinvoices(payment_hash=sold.payment_hash)["invoices"]
    assert (invoice["status"], invoice["amount_received_msat"]) == ("paid", BOUGHT_MSAT)
    tokens = mortals.insist(mortals.seller, "l402-tokens", [1000])["sold"]
    (token,) = [token for token in tokens if token["token_id"] == sold.token_id]
    assert (token["credit_msat"], token["spent_msat"]) == (BOUGHT_MSAT, CHARGE_MSAT)
    assert token["balance_msat"] + token["reserved_msat"] == BOUGHT_MSAT - CHARGE_MSAT
    assert token["reserved_msat"] in (0, PRICE_MSAT)


def check_books(mortals: Mortals) -> None:
    """What buyers hold, what was earned and what is reserved is what the node's paid invoices brought in."""
    paid = [row for row in mortals.seller.rpc.listinvoices()["invoices"] if row["status"] == "paid"]
    received_msat = sum(row["amount_received_msat"] for row in paid)
    sold = mortals.insist(mortals.seller, "l402-stats", {})["sold"]
    assert sold["spent_msat"] + sold["reserved_msat"] + sold["balance_msat"] == received_msat
    bought = mortals.insist(mortals.buyer, "l402-stats", {})["bought"]
    complete = [row for row in mortals.buyer.rpc.listpays()["pays"] if row["status"] == "complete"]
    assert bought["paid_msat"] == sum(row["amount_msat"] for row in complete) == received_msat
    assert bought["fee_msat"] == sum(row["amount_sent_msat"] - row["amount_msat"] for row in complete)
    assert bought["open_msat"] == 0


def survive(mortals: Mortals, node: Node, point: str) -> None:
    mortals.doom(node, point)
    sold = sale(mortals)
    assert mortals.spare() == [], f"{point} was never passed"
    check(mortals, sold)


MAIN = {
    "seller": ("after invoice", "after open_token", "before reserve", "after reserve", "before settle", "after settle"),
    "buyer": ("before begin", "after begin", "before xpay", "after xpay", "before finish", "after finish"),
}


@pytest.mark.parametrize(("who", "point"), [(who, point) for who, points in MAIN.items() for point in points])
def test_a_plugin_dies(mortals: Mortals, who: str, point: str) -> None:
    """At each named point of the flow, on either network."""
    survive(mortals, getattr(mortals, who), point)


@pytest.mark.parametrize(
    ("who", "point"), [("buyer", "before xpay"), ("buyer", "after xpay"), ("seller", "after reserve")]
)
def test_a_node_dies(mortals: Mortals, who: str, point: str) -> None:
    """lightningd and its plugin at once."""
    survive(mortals, getattr(mortals, who), f"node {point}")


def test_a_plugin_dies_at_every_point_there_is(mortals: Mortals, kind: str) -> None:
    """No list of ours: a sale that nobody disturbs says which points there are."""
    if kind == "regtest":
        pytest.skip("a real node restarts slowly: it dies at the named points only")
    sale(mortals)  # what a plugin asks its node only once is known from now on
    for node in (mortals.buyer, mortals.seller):
        mortals.points(node)
    sale(mortals)
    doors = [(node, point) for node in (mortals.buyer, mortals.seller) for point in mortals.points(node)]
    assert {point for points in MAIN.values() for point in points} <= {point for _, point in doors}
    for node, point in doors:
        survive(mortals, node, point)
        mortals.points(node)


def test_the_books_add_up_after_all_of_it(mortals: Mortals) -> None:
    """Runs last: whatever died, every msat is somewhere."""
    sale(mortals)
    check_books(mortals)
