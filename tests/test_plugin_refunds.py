"""Adding to a token and taking back what is left, over RPC, on the stand-in and on real lightningd alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyln.client import RpcError

from lyceum import l402
from lyceum.devnet import Node
from lyceum.errors import BadAddress, TooSmall
from networks import Market, mainnet_invoice

SERVICE = "lyceum"
PATIENCE_S = 60


def buy(market: Market, amount_msat: int) -> str:
    """A credential with so much on it."""
    wanted = {"service": SERVICE, "amount_msat": amount_msat}
    declined = market.call(market.seller, "l402-admit", wanted)["declined"]
    line = next(value for _, value in declined["headers"] if value.startswith("L402"))
    request = {"challenge": line, "origin": f"http://{time.monotonic_ns()}:1", "cap_msat": 10**9}
    return str(market.call(market.buyer, "l402-pay", request)["ticket"]["authorization"])


def admit(market: Market, header: str, amount_msat: int) -> dict[str, Any]:
    wanted = {"service": SERVICE, "amount_msat": amount_msat, "authorization": header}
    return market.call(market.seller, "l402-admit", wanted)


def spend(market: Market, header: str, amount_msat: int) -> None:
    reservation = admit(market, header, amount_msat)["admitted"]["reservation"]
    market.call(market.seller, "l402-settle", [reservation, amount_msat])


def account(market: Market, header: str) -> dict[str, Any]:
    return market.call(market.seller, "l402-token", [SERVICE, header])


def top_up(market: Market, header: str, amount_msat: int) -> dict[str, Any]:
    return market.call(market.seller, "l402-challenge", [SERVICE, amount_msat, header])


def reclaim(market: Market, header: str, address: str) -> dict[str, Any]:
    return market.call(market.seller, "l402-reclaim", [SERVICE, header, address])


def offer(market: Market) -> str:
    """A BOLT12 offer of the buyer's node, new each time."""
    made = market.call(market.buyer, "offer", {"amount": "any", "description": f"refund {time.monotonic_ns()}"})
    return str(made["bolt12"])


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def landed(market: Market, header: str, state: str = "paid") -> dict[str, Any]:
    until(lambda: account(market, header)["refund"]["state"] == state)
    return account(market, header)


def meet(market: Market) -> None:
    """The nodes find each other again after a restart."""

    def together(node: Node) -> bool:
        return all(channel["peer_connected"] for channel in node.rpc.listpeerchannels()["channels"])

    until(lambda: together(market.buyer) and together(market.seller))


@pytest.fixture(scope="module", autouse=True)
def seller_can_pay(market: Market) -> None:
    market.let_seller_pay()


@pytest.fixture(autouse=True)
def the_sum_law(market: Market) -> Iterator[None]:
    """What buyers paid is what was spent, given back, and is still owed to them."""
    yield
    sold = market.call(market.seller, "l402-stats", {})["sold"]
    unspent = sold["balance_msat"] + sold["reserved_msat"]
    assert sold["credit_msat"] == sold["spent_msat"] + sold["refunded_msat"] + unspent
    assert sold["owed_msat"] == unspent


def test_a_top_up_is_credited_once(market: Market) -> None:
    """The invoice says what it is for; what was received is on the token at its next use, however often it is used."""
    header = buy(market, 2000)
    spend(market, header, 500)
    made = top_up(market, header, 2500)
    assert market.buyer.rpc.decode(made["invoice"])["amount_msat"] == made["amount_msat"] == 3000
    assert account(market, header)["token"]["balance_msat"] == 1500
    market.buyer.rpc.xpay(made["invoice"])
    for _ in range(3):
        assert account(market, header)["token"]["balance_msat"] == 4500
    (shown,) = account(market, header)["topups"]
    assert (shown["received_msat"], bool(shown["credited_at"])) == (3000, True)


def test_a_top_up_survives_a_restart(market: Market) -> None:
    """Paid while the plugin was away, it is found on the next use."""
    header = buy(market, 2000)
    made = top_up(market, header, 1000)
    market.seller.rpc.plugin_stop(str(market.plugin))
    market.buyer.rpc.xpay(made["invoice"])
    market.seller.rpc.plugin_start(str(market.plugin))
    assert account(market, header)["token"]["balance_msat"] == 3000


def test_a_challenge_without_a_token_sells_one(market: Market) -> None:
    """l402-challenge with no credential gives the header lines of a 402."""
    declined = market.call(market.seller, "l402-challenge", [SERVICE, 5000])
    assert declined["amount_msat"] == 5000
    assert any(value.startswith("L402 ") for _, value in declined["headers"])


def test_the_account_shows_what_was_paid_for(market: Market) -> None:
    """Answers with time and charge, newest first, and no secret."""
    header = buy(market, 3000)
    for charge_msat in (300, 200):
        spend(market, header, charge_msat)
    found = account(market, header)
    assert sorted(answer["charged_msat"] for answer in found["answers"]) == [200, 300]
    assert found["token"]["balance_msat"] == 2500
    assert found["token"]["refundable_until"] > found["token"]["expires_at"]
    macaroon, preimage = header.removeprefix("L402 ").split(":")
    assert not {macaroon, preimage} & set(json.dumps(found).split('"'))


def test_what_is_left_goes_back_to_an_offer(market: Market) -> None:
    """All of it where the route costs nothing; the token is closed from the claim on."""
    header = buy(market, 5000)
    spend(market, header, 1200)
    before = market.settled_msat(market.buyer)
    claimed = reclaim(market, header, offer(market))
    assert claimed["state"] == "owed"
    assert admit(market, header, 1)["declined"]["reason"] == "refunded"
    found = landed(market, header)
    assert market.settled_msat(market.buyer) - before == 3800
    assert (found["token"]["refunded_msat"], found["token"]["balance_msat"]) == (3800, 0)
    assert [payout["outcome"] for payout in found["refund"]["payouts"]] == ["settled"]


@pytest.mark.parametrize("amount", ["any", 2000, 3000])
def test_what_is_left_goes_back_to_an_invoice(market: Market, amount: int | str) -> None:
    """The amount that it names, or all; the rest can be asked for again, but not for the same invoice."""
    header = buy(market, 3000)
    invoice = market.buyer.rpc.invoice(amount, f"refund {time.monotonic_ns()}", "refund", 600)["bolt11"]
    before = market.settled_msat(market.buyer)
    reclaim(market, header, invoice)
    sent_msat = 3000 if amount == "any" else int(amount)
    found = landed(market, header, "needs-address" if sent_msat < 3000 else "paid")
    assert market.settled_msat(market.buyer) - before == sent_msat == found["token"]["refunded_msat"]
    if sent_msat < 3000:
        assert refused(market, [SERVICE, header, invoice])["code"] == BadAddress.rpc_code
        reclaim(market, header, offer(market))
        assert landed(market, header)["token"]["refunded_msat"] == 3000


def test_a_request_in_flight_is_paid_for_first(market: Market) -> None:
    """The refund waits for its settlement and sends what is left after it."""
    header = buy(market, 5000)
    reservation = admit(market, header, 3000)["admitted"]["reservation"]
    before = market.settled_msat(market.buyer)
    reclaim(market, header, offer(market))
    until(lambda: "under way" in account(market, header)["refund"]["detail"])
    assert account(market, header)["token"]["refunded_msat"] == 0
    market.call(market.seller, "l402-settle", [reservation, 700])
    landed(market, header)
    assert market.settled_msat(market.buyer) - before == 4300


def test_a_top_up_that_races_the_refund_goes_back_too(market: Market) -> None:
    """Paid after the token was closed, it is credited and sent where the rest went."""
    header = buy(market, 2000)
    made = top_up(market, header, 1500)
    reclaim(market, header, offer(market))
    landed(market, header)
    before = market.settled_msat(market.buyer)
    market.buyer.rpc.xpay(made["invoice"])
    until(lambda: account(market, header)["token"]["refunded_msat"] == 4000)
    assert market.settled_msat(market.buyer) == before
    assert refused_top_up(market, header) == "refunded"


def refused_top_up(market: Market, header: str) -> str:
    return str(top_up(market, header, 1000)["refused"]["reason"])


def test_a_refund_is_tried_until_it_lands(market: Market) -> None:
    """While the holder's node is away nothing is lost; when it is back the money arrives, once."""
    header, address = buy(market, 2000), offer(market)
    market.buyer.stop()
    reclaim(market, header, address)
    until(lambda: account(market, header)["refund"]["tries"] > 0)
    market.restart_plugin(market.seller)
    market.buyer.start()
    meet(market)
    before = market.settled_msat(market.buyer)
    landed(market, header)
    assert market.settled_msat(market.buyer) - before == 2000


def test_a_better_address_replaces_one_that_does_not_work(market: Market) -> None:
    """An offer that its maker withdrew is tried in vain; the next address gets the money, at once."""
    header, bad = buy(market, 2000), offer(market)
    market.call(market.buyer, "disableoffer", {"offer_id": market.buyer.rpc.decode(bad)["offer_id"]})
    reclaim(market, header, bad)
    until(lambda: account(market, header)["refund"]["tries"] > 0)
    reclaim(market, header, offer(market))
    assert landed(market, header)["token"]["refunded_msat"] == 2000


def refused(market: Market, params: list[Any]) -> dict[str, Any]:
    with pytest.raises(RpcError) as caught:
        market.call(market.seller, "l402-reclaim", params)
    return dict(caught.value.error)


def test_a_wrong_address_is_refused_and_closes_nothing(market: Market) -> None:
    """Junk, another network, too much, too late, paid before: each says what is wrong, and the token stays good."""
    header = buy(market, 2000)

    def invoice(amount_msat: int, expiry: int = 600) -> str:
        return str(market.buyer.rpc.invoice(amount_msat, f"r {time.monotonic_ns()}", "r", expiry)["bolt11"])

    paid = invoice(1000)
    market.seller.rpc.xpay(paid)
    wrong = {
        "hello": "BOLT12 offer",
        mainnet_invoice(1000): "this node is on regtest",
        invoice(2001): "2,000 msat are left",
        invoice(1000, expiry=20): "payable for 60 seconds",
        paid: "paid this invoice before",
    }
    for address, word in wrong.items():
        error = refused(market, [SERVICE, header, address])
        assert (error["code"], word in error["message"]) == (BadAddress.rpc_code, True), error["message"]
    assert admit(market, header, 2000)["admitted"]["amount_msat"] == 2000


def test_what_is_too_small_stays_usable(market: Market) -> None:
    """Less than lyceum-refund-least-msat is not sent, which is said; the token is not closed."""
    header = buy(market, 2000)
    spend(market, header, 1001)
    error = refused(market, [SERVICE, header, offer(market)])
    assert error["code"] == TooSmall.rpc_code
    assert "999 msat" in error["message"]
    assert admit(market, header, 999)["admitted"]["balance_msat"] == 0


def test_a_narrowed_token_gives_nothing_back(market: Market) -> None:
    """Whoever was lent a token for one hour or one model must not empty it."""
    header = buy(market, 2000)
    credential = l402.parse_authorization([header])
    assert isinstance(credential, l402.Credential)
    for caveat in (l402.Caveat("lyceum_valid_until", str(int(time.time()) + 60)), l402.Caveat("services", "lyceum:0")):
        lent = l402.Credential(l402.attenuate(credential.macaroon, caveat), credential.preimage).header()
        refusal = market.call(market.seller, "l402-reclaim", [SERVICE, lent, offer(market)])["refused"]
        assert refusal["reason"] == "narrowed"
    assert account(market, header)["token"]["closed_at"] is None


def test_an_expired_token_gives_back_within_its_window(market: Market) -> None:
    """Not usable, still refundable; after the window what is left counts as lapsed and no longer as owed."""
    market.seller.rpc.call("setconfig", ["lyceum-challenge-expiry", 8])
    market.seller.rpc.call("setconfig", ["lyceum-token-expiry", 9])
    try:
        kept, lost = buy(market, 2000), buy(market, 3000)
        ends = [account(market, header)["token"]["expires_at"] for header in (kept, lost)]
        until(lambda: time.time() > max(ends))
        assert admit(market, kept, 1)["declined"]["reason"] == "expired"
        assert refused_top_up(market, kept) == "expired"
        reclaim(market, kept, offer(market))
        assert landed(market, kept)["token"]["refunded_msat"] == 2000
        market.seller.rpc.call("setconfig", ["lyceum-refund-window", 1])
        until(lambda: time.time() > max(ends) + 2)
        assert (
            market.call(market.seller, "l402-reclaim", [SERVICE, lost, offer(market)])["refused"]["reason"] == "expired"
        )
        sold = market.call(market.seller, "l402-stats", {})["sold"]
        assert sold["lapsed_msat"] >= 3000
        assert sold["owed_msat"] == sold["balance_msat"] + sold["reserved_msat"] - sold["lapsed_msat"]
    finally:
        market.seller.rpc.call("setconfig", ["lyceum-refund-window", 90 * 24 * 3600])
        market.seller.rpc.call("setconfig", ["lyceum-token-expiry", 30 * 24 * 3600])
        market.seller.rpc.call("setconfig", ["lyceum-challenge-expiry", 600])


def test_the_node_runner_gives_back_a_revoked_token(market: Market) -> None:
    """Its holder cannot, since whoever leaked it could; the node's owner can, by its id."""
    header = buy(market, 2000)
    token_id = account(market, header)["token"]["token_id"]
    market.call(market.seller, "l402-revoke", [token_id])
    assert (
        market.call(market.seller, "l402-reclaim", [SERVICE, header, offer(market)])["refused"]["reason"] == "revoked"
    )
    market.call(market.seller, "l402-refund", [token_id, offer(market)])

    def row() -> dict[str, Any]:
        found = market.call(market.seller, "l402-refunds", {})["refunds"]
        return next(entry for entry in found if entry["token_id"] == token_id)

    until(lambda: row()["state"] == "paid")
    assert [payout["amount_msat"] for payout in row()["payouts"]] == [2000]


def test_a_crash_of_the_node_pays_a_refund_once(market: Market) -> None:
    """Killed right after the claim, whatever it had begun: after the restart the money has arrived exactly once."""
    header = buy(market, 4000)
    before = market.settled_msat(market.buyer)
    reclaim(market, header, offer(market))
    market.seller.kill()
    market.seller.start()
    meet(market)
    found = landed(market, header)
    assert found["token"]["refunded_msat"] == 4000
    until(lambda: market.settled_msat(market.buyer) - before == 4000)
