"""kill -9 at every point where money is written or moved: nothing is lost, nothing is paid or sold twice.

The plugin of `plugins/mortal.py` is the real one, with a trapdoor before and after each RPC call and each
transaction. A sale runs from the challenge to the settled answer and the refund of what is left; at the trapdoor
the plugin (or its node) dies, is started again, and whoever was calling calls again, as clients do.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from pyln.client import RpcError

from lyceum.devnet import Node
from networks import CHANNEL_MSAT, Market, open_network
from servers import PRICES, Rogue, goes_silent, in_thread, server_process

MORTAL = Path(__file__).parent / "plugins" / "mortal.py"
PRICE_MSAT, CHARGE_MSAT, BOUGHT_MSAT = 1500, 700, 5000
PATIENCE_S = 120
FUNDS, FUNDS_MSAT = "funds", 100_000_000


@dataclass
class Mortals(Market):
    """A market whose plugins die on command."""

    origins: Iterator[int] = field(default_factory=itertools.count)
    offer: str = ""

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
        buyer.rpc.xpay(seller.rpc.invoice(FUNDS_MSAT, FUNDS, "what a real channel keeps in reserve")["bolt11"])
        offer = buyer.rpc.call("offer", {"amount": "any", "description": "refunds"})["bolt12"]
        yield Mortals(devnet, buyer, seller, MORTAL, offer=offer)


@dataclass(frozen=True)
class Sold:
    payment_hash: str
    account: dict[str, Any]


def sale(mortals: Mortals) -> Sold:
    """Challenge, pay, admit, settle, take back the rest: each step until it succeeds."""
    wanted = {"service": "lyceum", "amount_msat": PRICE_MSAT}
    declined = mortals.insist(mortals.seller, "l402-admit", {**wanted, "amount_msat": BOUGHT_MSAT})["declined"]
    line, origin = declined["headers"][1][1], f"http://seller:{next(mortals.origins)}"
    terms = {"challenge": line, "origin": origin, "cap_msat": 10_000}
    ticket = mortals.insist(mortals.buyer, "l402-pay", terms)["ticket"]
    held = {"service": "lyceum", "authorization": ticket["authorization"]}
    admitted = mortals.insist(mortals.seller, "l402-admit", {**wanted, **held})["admitted"]
    request = {"reservation": admitted["reservation"], "charge_msat": CHARGE_MSAT}
    settled = mortals.insist(mortals.seller, "l402-settle", request)
    assert settled["charged_msat"] == CHARGE_MSAT
    mortals.insist(mortals.seller, "l402-reclaim", {**held, "address": mortals.offer})
    return Sold(ticket["payment_hash"], refunded(mortals, held))


def refunded(mortals: Mortals, held: dict[str, str]) -> dict[str, Any]:
    """The token's account once the refund has landed."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        account = mortals.insist(mortals.seller, "l402-token", held)
        if account["refund"]["state"] == "paid":
            return account
        assert time.monotonic() < deadline, account["refund"]
        time.sleep(0.2)


def check(mortals: Mortals, sold: Sold) -> None:
    """The buyer paid once; the seller received that, charged one answer, and sent back the rest once."""
    pays = mortals.buyer.rpc.listpays(payment_hash=sold.payment_hash)["pays"]
    assert [pay["status"] for pay in pays] == ["complete"]
    (invoice,) = mortals.seller.rpc.listinvoices(payment_hash=sold.payment_hash)["invoices"]
    assert (invoice["status"], invoice["amount_received_msat"]) == ("paid", BOUGHT_MSAT)
    token, payouts = sold.account["token"], sold.account["refund"]["payouts"]
    assert (token["credit_msat"], token["spent_msat"], token["reserved_msat"]) == (BOUGHT_MSAT, CHARGE_MSAT, 0)
    assert token["refunded_msat"] == BOUGHT_MSAT - CHARGE_MSAT
    assert [payout["outcome"] for payout in payouts].count("settled") == 1


def check_books(mortals: Mortals) -> None:
    """Revenue and refunds are what the paid invoices brought in, on both sides, by the nodes' own lists."""
    received_msat, given_back_msat = (_received_msat(node) for node in (mortals.seller, mortals.buyer))
    sold = mortals.insist(mortals.seller, "l402-stats", {})["sold"]
    assert sold["spent_msat"] + sold["reserved_msat"] + sold["balance_msat"] + given_back_msat == received_msat
    bought = mortals.insist(mortals.buyer, "l402-stats", {})["bought"]
    pays = mortals.buyer.rpc.listpays()["pays"]
    complete = [row for row in pays if row["status"] == "complete" and row["amount_msat"] != FUNDS_MSAT]
    assert bought["paid_msat"] == sum(row["amount_msat"] for row in complete) == received_msat
    assert bought["fee_msat"] == sum(row["amount_sent_msat"] - row["amount_msat"] for row in complete)
    assert bought["open_msat"] == 0


def _received_msat(node: Node) -> int:
    rows = node.rpc.listinvoices()["invoices"]
    return sum(row["amount_received_msat"] for row in rows if row["status"] == "paid" and row["label"] != FUNDS)


def survive(mortals: Mortals, node: Node, point: str) -> None:
    mortals.doom(node, point)
    sold = sale(mortals)
    assert mortals.spare() == [], f"{point} was never passed"
    check(mortals, sold)


MAIN = {
    "seller": (
        *("after invoice", "after open_token", "before reserve", "after reserve", "before settle", "after settle"),
        *("before claim", "after claim", "after fetchinvoice", "before begin", "after begin", "before xpay"),
        *("after xpay", "before finish", "after finish"),
    ),
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


def test_a_server_dies_in_the_middle_of_an_answer(mortals: Mortals, tmp_path: Path) -> None:
    """Its reservation lapses: nothing is charged for an answer that nobody finished, and all of it goes back."""
    wanted = {"service": "lyceum", "amount_msat": BOUGHT_MSAT}
    declined = mortals.insist(mortals.seller, "l402-admit", wanted)["declined"]
    terms = {"challenge": declined["headers"][1][1], "origin": "http://server:1", "cap_msat": 10_000}
    header = mortals.insist(mortals.buyer, "l402-pay", terms)["ticket"]["authorization"]
    held = {"service": "lyceum", "authorization": header}
    question = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "Why?"}]}
    with in_thread(Rogue(goes_silent).app()) as url:
        table = f'[[upstream]]\nname = "slow"\nurls = ["{url}/v1"]\nmodel = "austrian-economics"\n{PRICES}'
        with server_process(tmp_path, mortals.seller, more=table) as (shop, server):
            chat = f"{shop}/v1/chat/completions"
            with httpx.stream("POST", chat, json=question, headers={"Authorization": header}) as answer:
                assert answer.status_code == 200
                assert "Prices" in next(answer.iter_text())
                server.kill()
    before = mortals.insist(mortals.seller, "l402-token", held)["token"]
    assert (before["spent_msat"], before["reserved_msat"] > 0) == (0, True)
    mortals.insist(mortals.seller, "l402-reclaim", {**held, "address": mortals.offer})
    assert refunded(mortals, held)["token"]["refunded_msat"] == BOUGHT_MSAT


def test_the_books_add_up_after_all_of_it(mortals: Mortals) -> None:
    """Runs last: whatever died, every msat is somewhere."""
    sale(mortals)
    check_books(mortals)
