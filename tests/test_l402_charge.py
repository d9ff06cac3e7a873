"""One answer for one payment: what a charge promises, and for which request it is good."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from lyceum.l402 import (
    Charge,
    Facts,
    Once,
    PaymentCredential,
    Reason,
    Refusal,
    Verified,
    charge_challenge,
    charge_receipt,
    verify,
)
from lyceum.l402.canonical import from_base64url

MASTER = b"m" * 32
PREIMAGE = bytes(range(32))
CHARGE = Charge(b"\x07" * 32, hashlib.sha256(PREIMAGE).digest(), 3000, "economist")
FACTS = Facts("llm", 1000, "economist", 200)
INVOICE = "lnbcrt30n1qqq"
CHALLENGE = charge_challenge(MASTER, "llm", CHARGE, INVOICE, "regtest", 2000)
CREDENTIAL = PaymentCredential(CHALLENGE, PREIMAGE)


def test_what_the_challenge_asks() -> None:
    """Whole satoshis as text, the invoice, its hash, the draft's name of the network; until when, for what."""
    assert json.loads(from_base64url(CHALLENGE.request)) == {
        "amount": "3",
        "currency": "sat",
        "description": "L402 llm economist",
        "externalId": "07" * 32 + "/economist",
        "methodDetails": {"invoice": INVOICE, "network": "regtest", "paymentHash": CHARGE.payment_hash.hex()},
    }
    assert (CHALLENGE.realm, CHALLENGE.method, CHALLENGE.intent) == ("llm", "lightning", "charge")
    assert CHALLENGE.expires == "1970-01-01T00:33:20Z"


@pytest.mark.parametrize(("network", "named"), [("bitcoin", "mainnet"), ("signet", "signet"), ("testnet", None)])
def test_the_network_goes_by_the_drafts_name(network: str, named: str | None) -> None:
    """Left out where the draft has none."""
    challenge = charge_challenge(MASTER, "llm", CHARGE, INVOICE, network, 2000)
    assert json.loads(from_base64url(challenge.request))["methodDetails"].get("network") == named


def test_what_was_paid_for_is_known_again() -> None:
    """Without any memory: the credential brings the challenge back."""
    assert verify(CREDENTIAL, MASTER, FACTS) == Verified(
        CHARGE.token_id, CHARGE.payment_hash, None, Once(CHALLENGE.id, 3000)
    )


def test_a_service_without_models() -> None:
    """Its charges name none, and are good for requests that name none."""
    charge = replace(CHARGE, model="")
    credential = PaymentCredential(charge_challenge(MASTER, "llm", charge, INVOICE, "regtest", 2000), PREIMAGE)
    assert isinstance(verify(credential, MASTER, Facts("llm", 1000)), Verified)
    assert verify(credential, MASTER, FACTS) != verify(credential, MASTER, Facts("llm", 1000))


@pytest.mark.parametrize(
    ("credential", "facts", "reason"),
    [
        (PaymentCredential(replace(CHALLENGE, id="x" * 43), PREIMAGE), FACTS, Reason.BAD_SIGNATURE),
        (PaymentCredential(replace(CHALLENGE, expires="2999-01-01T00:00:00Z"), PREIMAGE), FACTS, Reason.BAD_SIGNATURE),
        (PaymentCredential(replace(CHALLENGE, request="e30"), PREIMAGE), FACTS, Reason.BAD_SIGNATURE),
        (PaymentCredential(CHALLENGE, bytes(32)), FACTS, Reason.BAD_PREIMAGE),
        (CREDENTIAL, replace(FACTS, service="other"), Reason.WRONG_SERVICE),
        (CREDENTIAL, replace(FACTS, model="poet"), Reason.WRONG_MODEL),
        (CREDENTIAL, replace(FACTS, model=None), Reason.WRONG_MODEL),
        (CREDENTIAL, replace(FACTS, now=2000), Reason.EXPIRED),
    ],
)
def test_why_a_payment_is_refused(credential: PaymentCredential, facts: Facts, reason: Reason) -> None:
    """Not made here, another's preimage, another service or model, too late."""
    found = verify(credential, MASTER, facts)
    assert isinstance(found, Refusal)
    assert found.reason == reason


def test_another_master_key_knows_nothing_of_it() -> None:
    """And the key of charges is none of the keys of tokens."""
    found = verify(CREDENTIAL, b"n" * 32, FACTS)
    assert isinstance(found, Refusal)
    assert found.reason == Reason.BAD_SIGNATURE


def test_the_receipt_names_the_payment_and_not_its_proof() -> None:
    """Challenge, method, payment hash, time; the preimage is in it nowhere."""
    said = from_base64url(charge_receipt(CHALLENGE.id, CHARGE.payment_hash.hex(), 1500))
    assert json.loads(said) == {
        "challengeId": CHALLENGE.id,
        "method": "lightning",
        "reference": CHARGE.payment_hash.hex(),
        "status": "success",
        "timestamp": "1970-01-01T00:25:00Z",
    }


@pytest.mark.parametrize("spoilt", [{"amount_msat": 1500}, {"amount_msat": 0}, {"token_id": b""}])
def test_a_charge_that_cannot_be_asked_cannot_be_built(spoilt: dict[str, object]) -> None:
    """The scheme counts whole satoshis."""
    with pytest.raises(ValueError, match=r"satoshis|32 bytes"):
        replace(CHARGE, **spoilt)  # type: ignore[arg-type]
