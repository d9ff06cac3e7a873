"""The plugin's till and purse over RPC, on the stand-in and on real lightningd alike."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
from pyln.client import RpcError

from both_schemes import Offered
from lyceum import l402
from lyceum.errors import BadInvoice, BadRequest, OverBudget, PaymentFailed, RateLimited
from lyceum.node import NodeGate, PluginCalls
from lyceum.ports import Entry
from networks import Market, mainnet_invoice

SERVICE = "lyceum"


def challenge(market: Market, amount_msat: int = 1500, **facts: Any) -> str:
    """The L402 line of a fresh 402 by the seller's till."""
    declined = admit(market, None, amount_msat, **facts)["declined"]
    return str(declined["headers"][1][1])


def admit(market: Market, authorization: Any, amount_msat: int = 1500, **facts: Any) -> dict[str, Any]:
    request = {"service": SERVICE, "amount_msat": amount_msat, "authorization": authorization, **facts}
    return market.call(market.seller, "l402-admit", request)


def pay(market: Market, line: str, origin: str = "http://seller:1", cap_msat: int = 10_000) -> dict[str, Any]:
    request = {"challenge": line, "origin": origin, "cap_msat": cap_msat, "purpose": "test"}
    return market.call(market.buyer, "l402-pay", request)["ticket"]  # type: ignore[no-any-return]


def refused(market: Market, node: Any, method: str, params: Any) -> dict[str, Any]:
    with pytest.raises(RpcError) as caught:
        market.call(node, method, params)
    return dict(caught.value.error)


def test_first_contact_sells_a_token(market: Market) -> None:
    """Without a credential the till answers with lines of three schemes for one invoice, in whole sats."""
    declined = admit(market, None, 1234)["declined"]
    assert declined["reason"] == "payment-required"
    assert declined["amount_msat"] == 2000
    lsat, l402_line, payment = (value for _, value in declined["headers"])
    assert l402.parse_challenge([lsat]) == l402.parse_challenge([l402_line])
    assert payment.startswith("Payment ")
    decoded = market.seller.rpc.decode(l402.parse_challenge([l402_line]).invoice)
    assert decoded["amount_msat"] == 2000
    assert decoded["payee"] == market.seller.node_id


def test_a_payment_buys_one_answer(market: Market) -> None:
    """MPP's intent charge: pay the invoice of the `Payment` line, show it once, have the rest as a balance."""
    declined = admit(market, None, 2000)["declined"]
    offered = Offered(declined["headers"])
    preimage = market.buyer.rpc.xpay(offered.invoice)["payment_preimage"]
    shown = offered.as_payment(preimage)
    admitted = admit(market, shown, 1500)["admitted"]
    assert admitted["headers"][0][0] == "Payment-Receipt"
    assert admit(market, shown, 1500)["declined"]["reason"] == "already-used"
    request = {"reservation": admitted["reservation"], "charge_msat": 700}
    market.call(market.seller, "l402-settle", request)
    assert admit(market, shown, 1)["declined"]["reason"] == "already-used"
    assert admit(market, offered.as_balance(preimage), 1300)["admitted"]["balance_msat"] == 0


def test_pay_admit_settle(market: Market) -> None:
    """A paid token reserves the worst case, is charged what was delivered, and keeps the rest."""
    ticket = pay(market, challenge(market, 2000))
    admitted = admit(market, ticket["authorization"], 1500)["admitted"]
    assert admitted["balance_msat"] == 500
    request = {"reservation": admitted["reservation"], "charge_msat": 700}
    settled = market.call(market.seller, "l402-settle", request)
    assert (settled["charged_msat"], settled["balance_msat"]) == (700, 1300)
    assert market.call(market.seller, "l402-settle", request) == settled


def test_a_charge_never_exceeds_its_reservation(market: Market) -> None:
    """A seller that settles more than it reserved gets what it reserved."""
    ticket = pay(market, challenge(market, 3000))
    admitted = admit(market, ticket["authorization"], 1000)["admitted"]
    settled = market.call(market.seller, "l402-settle", [admitted["reservation"], 5000])
    assert (settled["charged_msat"], settled["balance_msat"]) == (1000, 2000)


def test_the_same_challenge_is_paid_once(market: Market) -> None:
    """Asking the purse twice returns the same credential and moves money once."""
    line = challenge(market, 1000)
    before = market.settled_msat(market.buyer)
    first = pay(market, line)
    again = pay(market, line)
    assert again["authorization"] == first["authorization"]
    assert (first["amount_msat"], again["amount_msat"]) == (1000, 0)
    assert before - market.settled_msat(market.buyer) == 1000 + first["fee_msat"]


def test_parallel_payments_of_one_challenge_are_one(market: Market) -> None:
    """Eight callers that pay one challenge at once get one credential for one payment."""
    line = challenge(market, 1000)
    before = market.settled_msat(market.buyer)
    with ThreadPoolExecutor(8) as pool:
        tickets = list(pool.map(lambda _: pay(market, line), range(8)))
    assert len({ticket["authorization"] for ticket in tickets}) == 1
    assert sum(ticket["amount_msat"] for ticket in tickets) == 1000
    assert before - market.settled_msat(market.buyer) == 1000


def test_parallel_requests_never_oversell_a_balance(market: Market) -> None:
    """Of 64 requests against a token for ten, exactly ten are admitted, and all of it is spent, no more."""
    ticket = pay(market, challenge(market, 10_000))
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: admit(market, ticket["authorization"], 1000), range(64)))
        served = [answer["admitted"]["reservation"] for answer in answers if "admitted" in answer]
        list(pool.map(lambda name: market.call(market.seller, "l402-settle", [name, 1000]), served))
    assert len(served) == 10
    assert {answer["declined"]["reason"] for answer in answers if "declined" in answer} == {"exhausted"}
    token = market.call(market.seller, "l402-verify", [SERVICE, ticket["authorization"]])
    assert (token["spent_msat"], token["reserved_msat"], token["balance_msat"]) == (10_000, 0, 0)


def _altered(header: str) -> str:
    credential = l402.parse_authorization([header])
    assert isinstance(credential, l402.Credential)
    flipped = credential.macaroon[:-1] + bytes([credential.macaroon[-1] ^ 1])
    return l402.Credential(flipped, credential.preimage).header()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda _: "L402 ????", "malformed-credential"),
        (lambda header: header[:-64] + "00" * 32, "bad-preimage"),
        (lambda header: _with_caveat(header, "lyceum_valid_until", "1"), "expired"),
        (lambda header: _with_caveat(header, "lyceum_valid_until", "99999999999"), "widened"),
        (lambda header: _with_caveat(header, "lyceum_model", "other"), "wrong-model"),
        (lambda header: _with_caveat(header, "weather", "sunny"), "unknown-caveat"),
        (_altered, "bad-signature"),
    ],
)
def test_a_spoilt_credential_is_refused_with_its_reason(market: Market, spoil: Any, reason: str) -> None:
    """What is wrong with a credential is said, and a fresh challenge comes along."""
    ticket = pay(market, challenge(market, 1000))
    declined = admit(market, spoil(ticket["authorization"]), 1000, model="austrian-economics")["declined"]
    assert declined["reason"] == reason
    assert len(declined["headers"]) == 3


def test_a_credential_of_another_service_is_refused(market: Market) -> None:
    """A token opens the service that it was sold for and no other."""
    ticket = pay(market, challenge(market, 1000))
    request = {"service": "weather", "amount_msat": 1000, "authorization": ticket["authorization"]}
    assert market.call(market.seller, "l402-admit", request)["declined"]["reason"] == "wrong-service"


def test_a_foreign_credential_is_refused(market: Market) -> None:
    """A token that another node sold is not ours."""
    foreign = market.call(market.buyer, "l402-admit", {"service": SERVICE, "amount_msat": 1000})["declined"]
    sold = l402.parse_challenge([foreign["headers"][1][1]])
    identifier = sold.identifier()
    assert identifier
    preimage = bytes(32)
    forged = l402.challenge_macaroon(bytes(32), hashlib.sha256(preimage).digest(), identifier.token_id, SERVICE, 2**33)
    declined = admit(market, l402.Credential(forged, preimage).header())["declined"]
    assert declined["reason"] == "bad-signature"


def test_two_different_credentials_are_ambiguous(market: Market) -> None:
    """Which of two tokens should pay is not guessed."""
    lines = [pay(market, challenge(market, 1000))["authorization"] for _ in range(2)]
    error = refused(market, market.seller, "l402-admit", {"service": SERVICE, "amount_msat": 1, "authorization": lines})
    assert error["code"] == l402.Ambiguous.rpc_code


def test_a_revoked_token_is_refused(market: Market) -> None:
    """Revoking works at once and says so; a second time it changes nothing."""
    ticket = pay(market, challenge(market, 1000))
    token_id = market.call(market.seller, "l402-verify", [SERVICE, ticket["authorization"]])["token_id"]
    assert market.call(market.seller, "l402-revoke", [token_id])["revoked_now"] is True
    assert market.call(market.seller, "l402-revoke", [token_id])["revoked_now"] is False
    assert admit(market, ticket["authorization"])["declined"]["reason"] == "revoked"


def test_an_unpaid_challenge_opens_nothing(market: Market) -> None:
    """A credential needs the preimage, and an unpaid invoice has not revealed it."""
    sold = l402.parse_challenge([challenge(market)])
    guess = l402.Credential(sold.macaroon, bytes(32)).header()
    assert admit(market, guess)["declined"]["reason"] == "bad-preimage"


def test_the_purse_keeps_to_its_cap(market: Market) -> None:
    """An invoice above the cap is not paid and leaves no row in the journal."""
    line = challenge(market, 9000)
    error = refused(market, market.buyer, "l402-pay", [line, "http://seller:1", 8999])
    assert error["code"] == OverBudget.rpc_code
    assert "9,000 msat" in error["message"]
    assert l402.parse_challenge([line]).invoice not in _journal(market)


def test_the_node_runner_s_limit_holds_for_every_caller(market: Market) -> None:
    """lyceum-max-payment-msat caps a payment whatever the caller allows; setconfig changes it at once."""
    line = challenge(market, 9000)
    with configured(market, {"lyceum-max-payment-msat": 5000}):
        assert refused(market, market.buyer, "l402-pay", [line, "http://seller:1", 99_000])["code"] == 40301


def test_a_budget_for_four_pays_four_of_twelve(market: Market) -> None:
    """Twelve calls at once, each for a challenge of its own: four reach the wallet, and the node's list says so."""
    challenges = [challenge(market, 1000) for _ in range(12)]
    terms = {"origin": "http://seller:1", "cap_msat": 1000, "fee_cap_msat": 0, "purpose": "parallel"}

    def codes(line: str) -> int:
        try:
            market.call(market.buyer, "l402-pay", {**terms, "challenge": line})
        except RpcError as error:
            return int(error.error["code"])
        return 0

    with configured(market, {"lyceum-budget-purpose-msat": 4000}), ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(codes, challenges)) == [0] * 4 + [OverBudget.rpc_code] * 8
    labels = [pay.get("label") for pay in market.buyer.rpc.listpays()["pays"]]
    assert labels.count("lyceum: parallel") == 4


def test_over_budget_says_which_budget_and_until_when(market: Market) -> None:
    """The option to raise, what is left of it, and when enough of it is free again."""
    terms = {"origin": "http://seller:1", "cap_msat": 1000, "fee_cap_msat": 0, "purpose": "twice"}
    with configured(market, {"lyceum-budget-purpose-msat": 1500}):
        market.call(market.buyer, "l402-pay", {**terms, "challenge": challenge(market, 1000)})
        error = refused(market, market.buyer, "l402-pay", {**terms, "challenge": challenge(market, 1000)})
    assert "500 msat are left of the 1,500 msat that lyceum-budget-purpose-msat allows for 'twice'" in error["message"]
    assert "enough is free from 20" in error["message"]


def test_a_budget_that_is_no_amount_is_refused(market: Market) -> None:
    """setconfig changes nothing then."""
    with pytest.raises(RpcError):
        market.buyer.rpc.call("setconfig", ["lyceum-budget-day-msat", -1])


def test_an_invoice_of_another_payee_is_not_paid(market: Market) -> None:
    """The payee that the buyer expects must be the one that the invoice pays."""
    request = {"challenge": challenge(market), "origin": "http://x:1", "cap_msat": 9000, "payee": market.buyer.node_id}
    assert refused(market, market.buyer, "l402-pay", request)["code"] == BadInvoice.rpc_code


def test_an_expired_invoice_is_not_paid(market: Market) -> None:
    """An invoice that has run out is refused before the journal."""
    line = _challenge_of(market, amount_msat=1000, expiry=1)
    time.sleep(2)
    error = refused(market, market.buyer, "l402-pay", [line, "http://seller:1", 9000])
    assert error["code"] == BadInvoice.rpc_code
    assert "expired" in error["message"]


def test_an_amountless_invoice_is_not_paid(market: Market) -> None:
    """A price that the payer must guess is no price."""
    error = refused(market, market.buyer, "l402-pay", [_challenge_of(market, "any"), "http://seller:1", 9000])
    assert error["code"] == BadInvoice.rpc_code
    assert "amount" in error["message"]


def test_an_invoice_for_another_network_is_not_paid(market: Market) -> None:
    """A mainnet invoice means nothing to a node on regtest."""
    line = f'L402 macaroon="YWJj", invoice="{mainnet_invoice(1000)}"'
    assert refused(market, market.buyer, "l402-pay", [line, "http://seller:1", 10**9])["code"] == BadInvoice.rpc_code


def test_a_swapped_invoice_is_not_paid(market: Market) -> None:
    """The macaroon names the hash of its invoice; another invoice would buy nothing."""
    theirs = l402.parse_challenge([challenge(market)])
    other = l402.parse_challenge([challenge(market)])
    line = l402.Challenge(theirs.macaroon, other.invoice).header_lines()[-1]
    error = refused(market, market.buyer, "l402-pay", [line, "http://seller:1", 9000])
    assert error["code"] == BadInvoice.rpc_code


def test_another_origin_cannot_claim_a_paid_token(market: Market) -> None:
    """A seller that shows another one's paid invoice does not get that credential."""
    line = challenge(market, 1000)
    pay(market, line, "http://seller:1")
    error = refused(market, market.buyer, "l402-pay", [line, "http://thief:1", 9000])
    assert error["code"] == BadInvoice.rpc_code


def test_a_failed_payment_says_so_and_spends_nothing(market: Market) -> None:
    """When the node finds no way to pay, the purse reports a failure, and its journal too."""
    capacity_msat = market.settled_msat(market.buyer)
    line = _challenge_of(market, amount_msat=capacity_msat * 2)
    unlimited = {f"lyceum-budget-{name}-msat": 0 for name in ("hour", "day", "peer")}
    with configured(market, {"lyceum-max-payment-msat": capacity_msat * 4} | unlimited):
        error = refused(market, market.buyer, "l402-pay", [line, "http://seller:1", capacity_msat * 3])
    assert error["code"] == PaymentFailed.rpc_code
    assert market.settled_msat(market.buyer) == capacity_msat


def test_a_kept_token_is_found_by_its_origin_only(market: Market) -> None:
    """What was bought from one origin is offered for that origin, newest first, until it is discarded."""
    origin = "http://kept:1"
    bought = [pay(market, challenge(market, 1000), origin) for _ in range(2)]
    kept = market.call(market.buyer, "l402-kept", [origin])["ticket"]
    assert kept["payment_hash"] in {ticket["payment_hash"] for ticket in bought}
    assert kept["amount_msat"] == 0
    assert market.call(market.buyer, "l402-kept", ["http://kept:2"]) == {}
    for ticket in bought:
        market.call(market.buyer, "l402-discard", [ticket["payment_hash"]])
    assert market.call(market.buyer, "l402-kept", [origin]) == {}


def test_the_token_that_fits_best_is_used_first(market: Market) -> None:
    """The one that holds enough and least; what its seller says it does not hold is remembered."""
    origin = "http://several:1"
    hashes = [pay(market, challenge(market, amount), origin)["payment_hash"] for amount in (1000, 9000, 3000)]

    def fits(need_msat: int) -> str | None:
        found = market.call(market.buyer, "l402-kept", {"origin": origin, "need_msat": need_msat})
        return found["ticket"]["payment_hash"] if found else None

    assert [fits(need) for need in (1000, 2500, 3001, 9001)] == [hashes[0], hashes[2], hashes[1], None]
    market.call(market.buyer, "l402-exhausted", [hashes[2], 2500])
    market.restart_plugin(market.buyer)
    assert [fits(need) for need in (2500, 2499)] == [hashes[1], hashes[2]]


def test_tokens_of_two_services_are_told_apart(market: Market) -> None:
    """A seller of two services gets for each the token that it sold for it."""
    origin, bought = "http://two-services:1", {}
    for service in ("weather", "maps"):
        declined = market.call(market.seller, "l402-admit", {"service": service, "amount_msat": 1000})["declined"]
        bought[service] = pay(market, declined["headers"][1][1], origin)["payment_hash"]
    for service, payment_hash in bought.items():
        kept = market.call(market.buyer, "l402-kept", [origin, service])["ticket"]
        assert kept["payment_hash"] == payment_hash
        admission = {"service": service, "amount_msat": 1, "authorization": kept["authorization"]}
        assert "admitted" in market.call(market.seller, "l402-admit", admission)
    assert market.call(market.buyer, "l402-kept", [origin, SERVICE]) == {}


def test_a_call_that_waits_does_not_block_the_plugin(market: Market) -> None:
    """While lyceum-ask waits for a peer that never answers, the same plugin answers everybody else."""
    with silent_seller() as url:
        market.buyer.rpc.call("setconfig", ["lyceum-peers", url])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(refused, market, market.buyer, "lyceum-ask", ["why?", 1000])
            market.call(market.buyer, "l402-stats", {})
            assert not waiting.done()
            assert "no specialist could be reached" in waiting.result()["message"]
        market.buyer.rpc.call("setconfig", ["lyceum-peers", ""])


def test_a_network_is_limited(market: Market) -> None:
    """Above lyceum-challenges-per-minute it is told when to come back; others and tokens get in."""
    ticket, crowd = pay(market, challenge(market, 1000)), "198.51.100.0/24"
    market.seller.rpc.call("setconfig", ["lyceum-challenges-per-minute", 2])
    try:
        for amount_msat in (1000, 2000):
            assert "declined" in admit(market, None, amount_msat, client=crowd)
        limited = admit(market, None, 3000, client=crowd)["limited"]
        assert limited["code"] == "rate-limited"
        assert 0 < limited["retry_after_s"] <= 30
        with pytest.raises(RateLimited) as caught:
            asyncio.run(NodeGate(PluginCalls(market.seller.rpc), SERVICE).admit(Entry((), "m", 1, 4000, crowd)))
        assert 0 < caught.value.retry_after_s <= 30
        assert "declined" in admit(market, None, 3000, client="203.0.113.0/24")
        assert "admitted" in admit(market, ticket["authorization"], 1000, client=crowd)
    finally:
        market.seller.rpc.call("setconfig", ["lyceum-challenges-per-minute", 30])


def test_open_invoices_have_a_ceiling(market: Market) -> None:
    """No more rows of challenges in the node's books than lyceum-open-challenges, whoever asks."""
    market.seller.rpc.call("setconfig", ["lyceum-open-challenges", 1])
    try:
        answers = [admit(market, None, 1000 * number) for number in range(1, 4)]
        before = market.seller.rpc.listinvoices()["invoices"]
        assert answers[-1]["limited"]["code"] == "too-many-open-challenges"
        assert admit(market, None, 9000)["limited"]["retry_after_s"] > 0
        assert market.seller.rpc.listinvoices()["invoices"] == before
    finally:
        market.seller.rpc.call("setconfig", ["lyceum-open-challenges", 1000])


def test_prices_change_while_it_runs(market: Market) -> None:
    """By setconfig, in challenges and in what a server is told; who was quoted the old price still pays that."""
    held = pay(market, challenge(market, 2000, model="economist"))["authorization"]
    market.seller.rpc.call("setconfig", ["lyceum-prices", "economist=150,*=90"])
    market.seller.rpc.call("setconfig", ["lyceum-price-per-waiting", 50])
    try:
        assert admit(market, None, 2000, model="economist")["declined"]["amount_msat"] == 3000
        assert admit(market, None, 2000, model="economist", waiting=1)["declined"]["percent"] == 225
        assert admit(market, None, 20_000, model="poet")["declined"]["amount_msat"] == 18_000
        assert admit(market, held, 2000, model="economist")["admitted"]["percent"] == 100
        terms = asyncio.run(NodeGate(PluginCalls(market.seller.rpc), SERVICE).terms())
        assert terms.tariff.percent("economist", 1) == 225
        error = refused(market, market.seller, "setconfig", ["lyceum-prices", "economist"])
        assert "economist=150" in error["message"]
    finally:
        market.seller.rpc.call("setconfig", ["lyceum-prices", ""])
        market.seller.rpc.call("setconfig", ["lyceum-price-per-waiting", 0])


def test_free_requests_survive_a_restart(market: Market) -> None:
    """A network has as many as lyceum-freebies says, also when the plugin is started anew in between."""
    market.seller.rpc.call("setconfig", ["lyceum-freebies", 2])
    try:
        assert admit(market, None, client="192.0.2.0/24")["admitted"]["reservation"] == ""
        market.restart_plugin(market.seller)
        market.seller.rpc.call("setconfig", ["lyceum-freebies", 2])
        assert "admitted" in admit(market, None, client="192.0.2.0/24")
        assert "declined" in admit(market, None, client="192.0.2.0/24")
        assert "admitted" in admit(market, None, client="2001:db8::/48")
    finally:
        market.seller.rpc.call("setconfig", ["lyceum-freebies", 0])


def test_the_same_network_is_shown_the_same_challenge(market: Market) -> None:
    """Until it is paid: one invoice in the node's books, however often it asks."""
    client = "192.0.2.0/24"
    first = challenge(market, 7000, client=client)
    before = len(market.seller.rpc.listinvoices()["invoices"])
    assert {challenge(market, 7000, client=client) for _ in range(5)} == {first}
    assert len(market.seller.rpc.listinvoices()["invoices"]) == before
    pay(market, first)
    assert challenge(market, 7000, client=client) != first


def test_stats_and_tokens_show_no_secret(market: Market) -> None:
    """Neither listing holds a preimage, a macaroon or an invoice, and their sums agree."""
    ticket = pay(market, challenge(market, 1000))
    admit(market, ticket["authorization"], 1000)
    sold = market.call(market.seller, "l402-tokens", [1000])["sold"]
    stats = market.call(market.seller, "l402-stats", {})["sold"]
    assert stats["credit_msat"] == sum(token["credit_msat"] for token in sold)
    assert stats["credit_msat"] == stats["spent_msat"] + stats["reserved_msat"] + stats["balance_msat"]
    text = json.dumps([market.call(node, "l402-tokens", {}) for node in (market.buyer, market.seller)])
    macaroon, preimage = ticket["authorization"].removeprefix("L402 ").split(":")
    assert macaroon not in text
    assert preimage not in text


@pytest.mark.parametrize(
    ("method", "params", "word"),
    [
        ("l402-admit", {"service": "two words", "amount_msat": 1}, "service"),
        ("l402-admit", {"service": SERVICE, "amount_msat": "much"}, "amount_msat"),
        ("l402-admit", {"service": SERVICE, "amount_msat": 0}, "amount_msat"),
        ("l402-settle", {"reservation": "none", "charge_msat": 1}, "reservation"),
        ("l402-settle", {"reservation": "none", "charge_msat": -1}, "charge_msat"),
        ("l402-pay", {"challenge": "Basic x", "origin": "o", "cap_msat": 1}, "L402"),
        ("l402-revoke", {"token_id": "abc"}, "64"),
        ("l402-tokens", {"limit": 0}, "limit"),
        ("lyceum-ask", {"question": "why?", "budget_msat": "lots"}, "budget_msat"),
    ],
)
def test_wrong_parameters_are_named(market: Market, method: str, params: dict[str, Any], word: str) -> None:
    """A mistake in a call names the parameter, has our code, and drags no traceback along."""
    error = refused(market, market.seller, method, params)
    assert word in error["message"]
    assert error["code"] == BadRequest.rpc_code
    assert "File" not in str(error.get("traceback"))


def test_the_node_s_help_explains_every_method(market: Market) -> None:
    """`lightning-cli help` lists each method with its parameters and a sentence."""
    for name in ("admit", "settle", "verify", "pay", "tokens", "revoke", "stats"):
        (entry,) = market.seller.rpc.help(f"l402-{name}")["help"]
        assert len(entry["command"].split("\n")) > 1
    for name in ("ask", "models", "peers"):
        assert market.seller.rpc.help(f"lyceum-{name}")["help"]


def test_the_plugin_restarts_with_its_books(market: Market) -> None:
    """After `plugin stop` and `plugin start` tokens, balances and kept credentials are as before."""
    ticket = pay(market, challenge(market, 2000), "http://restart:1")
    admitted = admit(market, ticket["authorization"], 1000)["admitted"]
    market.call(market.seller, "l402-settle", [admitted["reservation"], 400])
    for node in (market.seller, market.buyer):
        market.restart_plugin(node)
    found = market.call(market.seller, "l402-verify", [SERVICE, ticket["authorization"]])
    assert found["balance_msat"] == 1600
    assert market.call(market.buyer, "l402-kept", ["http://restart:1"])["ticket"]["payment_hash"]


def test_what_was_open_at_a_crash_is_looked_up_on_start(market: Market) -> None:
    """Two rows are open when the plugin starts: the node has paid one, and its token is kept; it never heard of the
    other, which gives its money back."""
    origin = f"http://crash{time.monotonic_ns()}:1"
    paid = pay(market, challenge(market, 1000), origin)
    books = market.buyer.rpc_path.parent / "lyceum.sqlite3"
    market.buyer.rpc.plugin_stop(str(market.plugin))
    with closing(sqlite3.connect(books)) as db, db:
        db.execute(
            "UPDATE purchases SET outcome = 'pending', preimage = '' WHERE payment_hash = ?", (paid["payment_hash"],)
        )
        db.execute(
            "INSERT INTO purchases (payment_hash, origin, purpose, bolt11, amount_msat, fee_cap_msat, created_at,"
            " macaroon, outcome) VALUES (?, ?, 'crash', 'lnbcrt1q', 7000, 0, 1, 'bWFj', 'unknown')",
            (secrets.token_hex(32), origin),
        )
    market.buyer.rpc.plugin_start(str(market.plugin))
    deadline = time.monotonic() + 30
    while market.call(market.buyer, "l402-stats", {})["bought"]["open_msat"] and time.monotonic() < deadline:
        time.sleep(0.1)
    rows = [row for row in market.call(market.buyer, "l402-tokens", {})["bought"] if row["origin"] == origin]
    assert {row["amount_msat"]: row["outcome"] for row in rows} == {1000: "settled", 7000: "failed"}
    kept = market.call(market.buyer, "l402-kept", [origin])["ticket"]
    assert kept["authorization"] == paid["authorization"]


@contextmanager
def configured(market: Market, options: Mapping[str, int]) -> Iterator[None]:
    """The buyer's options, and as they were before."""
    configs = {name: market.buyer.rpc.listconfigs(name)["configs"][name] for name in options}
    before = {name: config.get("value_int", config.get("value_str")) for name, config in configs.items()}
    try:
        for name, value in options.items():
            market.buyer.rpc.setconfig(name, value)
        yield
    finally:
        for name, was in before.items():
            market.buyer.rpc.setconfig(name, was)


@contextmanager
def silent_seller() -> Iterator[str]:
    """The URL of a listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _with_caveat(header: str, condition: str, value: str) -> str:
    credential = l402.parse_authorization([header])
    assert isinstance(credential, l402.Credential)
    narrowed = l402.attenuate(credential.macaroon, l402.Caveat(condition, value))
    return l402.Credential(narrowed, credential.preimage).header()


def _challenge_of(market: Market, amount_msat: int | str, expiry: int = 600) -> str:
    """A challenge around an invoice that the seller's till would not have made."""
    label = f"test/{time.monotonic_ns()}"
    made = market.seller.rpc.invoice(amount_msat, label, "test", expiry)
    macaroon = l402.challenge_macaroon(bytes(32), bytes.fromhex(made["payment_hash"]), bytes(32), SERVICE, 2**33)
    return l402.Challenge(macaroon, made["bolt11"]).header_lines()[-1]


def _journal(market: Market) -> str:
    with sqlite3.connect(market.buyer.rpc_path.parent / "lyceum.sqlite3") as books:
        return str(books.execute("SELECT group_concat(bolt11) FROM purchases").fetchone()[0])
