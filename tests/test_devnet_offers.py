"""BOLT12 as a refund uses it: on the stand-in as on real lightningd."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pyln.client import RpcError

from devnets import Couple, open_couple, pays, refusal, until

TIMED_OUT = 1005


@pytest.fixture(scope="module")
def couple(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Couple]:
    with open_couple(kind, tmp_path_factory.mktemp(kind)) as couple:
        yield couple


def offer(couple: Couple, amount: str = "any", description: str = "refunds", **more: Any) -> str:
    """An offer of the payee."""
    wanted = {"amount": amount, "description": description, **more}
    return str(couple.payee.rpc.call("offer", wanted)["bolt12"])


def asked(couple: Couple, wanted: dict[str, Any]) -> dict[str, Any]:
    """`fetchinvoice`, until somebody answers: lightningd drops onion messages that come too fast."""
    for chances in (2, 1, 0):
        try:
            found: dict[str, Any] = couple.payer.rpc.call("fetchinvoice", {**wanted, "timeout": 5})
        except RpcError as error:
            if error.error["code"] != TIMED_OUT or not chances:
                raise
        else:
            return found
    raise AssertionError("no chance is left")


def fetch(couple: Couple, text: str, amount_msat: int | None = 4321) -> str:
    amount = {} if amount_msat is None else {"amount_msat": amount_msat}
    found = asked(couple, {"offer": text, **amount})
    assert found["changes"] == {}
    return str(found["invoice"])


def refused_fetch(couple: Couple, text: str, amount_msat: int) -> dict[str, Any]:
    """What the payee says."""
    return refusal(asked, couple, {"offer": text, "amount_msat": amount_msat})


def test_an_offer_is_decoded(couple: Couple) -> None:
    """What a payer must know of it: kind, network, amount, end, maker."""
    ends = int(time.time()) + 1000
    free, fixed = offer(couple), offer(couple, "5000msat", absolute_expiry=ends)
    found = couple.payer.rpc.decode(free)
    chain = "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"
    assert (found["type"], found["valid"], found["offer_chains"]) == ("bolt12 offer", True, [chain])
    assert found["offer_issuer_id"] == couple.payee.node_id
    assert {"offer_amount_msat", "offer_absolute_expiry"} & set(found) == set()
    found = couple.payer.rpc.decode(fixed)
    assert (found["offer_amount_msat"], found["offer_absolute_expiry"]) == (5000, ends)


def test_the_same_offer_is_made_once(couple: Couple) -> None:
    """A second call finds the first one."""
    wanted = {"amount": "any", "description": "once"}
    first, second = (couple.payee.rpc.call("offer", wanted) for _ in range(2))
    assert (first["created"], second["created"], first["offer_id"]) == (True, False, second["offer_id"])


def test_an_invoice_is_fetched_paid_and_listed(couple: Couple) -> None:
    """For the amount that was asked; the payment moves it, and both sides list the invoice as BOLT12."""
    text = fetch(couple, offer(couple))
    found = couple.payer.rpc.decode(text)
    assert (found["type"], found["valid"], found["invoice_amount_msat"]) == ("bolt12 invoice", True, 4321)
    assert found["invoice_node_id"] == couple.payee.node_id
    assert found["invoice_relative_expiry"] == 7200
    before = couple.payee.balance_msat()
    paid = couple.payer.rpc.call("xpay", {"invstring": text, "maxfee": 0, "label": "refund"})
    payment_hash = found["invoice_payment_hash"]
    assert hashlib.sha256(bytes.fromhex(paid["payment_preimage"])).hexdigest() == payment_hash
    (row,) = pays(couple.payer, payment_hash)
    assert (row["status"], row["bolt12"], row["amount_msat"], row["label"]) == ("complete", text, 4321, "refund")
    (invoice,) = couple.payee.rpc.listinvoices(payment_hash=payment_hash)["invoices"]
    assert (invoice["status"], invoice["bolt12"], invoice["amount_received_msat"]) == ("paid", text, 4321)
    until(lambda: couple.payee.balance_msat() == before + 4321)


def test_an_invoice_of_an_offer_is_paid_once(couple: Couple) -> None:
    """As any other."""
    text = fetch(couple, offer(couple))
    couple.payer.rpc.xpay(text)
    assert refusal(couple.payer.rpc.xpay, text)["code"] == 219


def test_each_fetch_is_a_new_invoice(couple: Couple) -> None:
    """So whoever fetches again after an unknown outcome may pay twice."""
    text = offer(couple)
    hashes = {couple.payer.rpc.decode(fetch(couple, text))["invoice_payment_hash"] for _ in range(2)}
    assert len(hashes) == 2


def test_an_offer_without_an_amount_needs_one(couple: Couple) -> None:
    """And one with an amount takes no less."""
    code = refusal(couple.payer.rpc.call, "fetchinvoice", {"offer": offer(couple)})["code"]
    assert code == -32602
    fixed = offer(couple, "5000msat")
    less = refused_fetch(couple, fixed, 4000)
    assert (less["code"], "at least 5000msat" in less["data"]["error"]) == (1004, True)
    assert couple.payer.rpc.decode(fetch(couple, fixed, None))["invoice_amount_msat"] == 5000


def test_an_offer_that_has_ended_gives_nothing(couple: Couple) -> None:
    """By its own expiry, or because its maker withdrew it."""
    ended = offer(couple, absolute_expiry=int(time.time()) - 5)
    assert refusal(couple.payer.rpc.call, "fetchinvoice", {"offer": ended, "amount_msat": 1})["code"] == 1002
    withdrawn = offer(couple, description="withdrawn")
    couple.payee.rpc.call("disableoffer", {"offer_id": couple.payer.rpc.decode(withdrawn)["offer_id"]})
    refused = refused_fetch(couple, withdrawn, 1000)
    assert (refused["code"], "no longer available" in refused["data"]["error"]) == (1004, True)


def test_junk_is_no_offer(couple: Couple) -> None:
    """decode says so as for an invoice."""
    assert refusal(couple.payer.rpc.decode, "lno1qqq")["code"] == -32602


def test_an_amountless_invoice_is_paid_what_the_payer_says(couple: Couple) -> None:
    """xpay wants the amount for it, and for no other."""
    free, fixed = couple.invoice("any"), couple.invoice(1000)
    paid = couple.payer.rpc.call("xpay", {"invstring": free["bolt11"], "amount_msat": 777})
    assert paid["amount_msat"] == 777
    refused = refusal(couple.payer.rpc.call, "xpay", {"invstring": fixed["bolt11"], "amount_msat": 1000})
    assert refused["code"] == -32602


def test_a_node_that_is_down_gives_no_invoice(couple: Couple) -> None:
    """Whether the payer has noticed yet or waits in vain. The last test: it stops the payee."""
    text = offer(couple)
    couple.payee.stop()
    refused = refusal(couple.payer.rpc.call, "fetchinvoice", {"offer": text, "amount_msat": 1000, "timeout": 5})
    assert refused["code"] in {1003, 1005}
