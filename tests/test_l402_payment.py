"""The `Payment` scheme: challenges that need no memory, and what is shown for them."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, accepted, row
from lyceum.l402 import Malformed, PaymentChallenge, PaymentCredential, Reason, parse_authorization, problem_type
from lyceum.l402.canonical import canonical, to_base64url
from lyceum.l402.headers import challenges
from lyceum.l402.payment import challenge_id, receipt

MPP = row("mpp_aperture_vectors")
GOLDEN = row("mpp_challenge_ids_golden")
KEY = b"k" * 32
PREIMAGE = bytes(range(32))
SLOTS = ("realm", "method", "intent", "request", "expires", "digest", "opaque")
CHALLENGE = PaymentChallenge.signed(
    KEY, realm="llm", method="lightning", intent="charge", request={"amount": "3"}, expires="2026-01-01T00:00:00Z"
)


def offered(header: str) -> list[PaymentChallenge]:
    """What a client finds usable in a header; of a repeated parameter the first counts."""
    found = []
    for scheme, parameters in challenges([header]):
        with contextlib.suppress(Malformed):
            if scheme == "payment":
                found.append(PaymentChallenge.read(dict(reversed(parameters))))
    return found


def shown(challenge: Any, payload: Any) -> str:
    return "Payment " + to_base64url(json.dumps({"challenge": challenge, "payload": payload}).encode())


def echo(challenge: PaymentChallenge) -> dict[str, str]:
    """What public clients send back: neither `digest` nor `opaque`."""
    return {name: getattr(challenge, name) for name in ("id", "realm", "method", "intent", "request", "expires")}


@pytest.mark.parametrize("vector", MPP["challengeHeaders"], ids=lambda vector: vector["name"])
def test_published_headers_are_written_and_read(vector: Row) -> None:
    """Quotes, backslashes, separators, tabs and letters beyond ASCII go there and back."""
    challenge = PaymentChallenge.read(vector["params"])
    assert challenge.header_line() == vector["header"]
    assert offered(vector["header"]) == [challenge]


@pytest.mark.parametrize("vector", MPP["challengeLists"], ids=lambda vector: vector["name"])
def test_published_lists_of_challenges(vector: Row) -> None:
    """Several in a line, among other schemes, incomplete ones passed over."""
    assert offered(vector["header"]) == [PaymentChallenge.read(found) for found in vector.get("challenges", [])]


@pytest.mark.parametrize("vector", MPP["challengeIds"], ids=lambda vector: vector["name"])
def test_published_ids(vector: Row) -> None:
    """The id is upstream's, but a slot with a `|` is refused: see `lyceum.why`."""
    key, challenge = bytes.fromhex(MPP["hmacSecretHex"]), PaymentChallenge.read(vector["params"])
    assert challenge.is_signed(key) == accepted(vector)
    if not accepted(vector):
        with pytest.raises(ValueError, match="slot"):
            challenge_id(key, (challenge.realm, challenge.method))


@pytest.mark.parametrize("vector", GOLDEN["rows"], ids=lambda vector: vector["name"])
def test_ids_of_the_shared_golden_rows(vector: Row) -> None:
    """Those that the Python, TypeScript and Rust implementations share."""
    request = canonical(vector["request"])
    assert to_base64url(request.encode()) == vector["request_b64url"]
    slots = [vector["request_b64url"] if slot == "request" else vector.get(slot, "") for slot in SLOTS]
    assert "|".join(slots) == vector["hmac_input"]
    assert challenge_id(GOLDEN["secret_utf8"].encode(), slots) == vector["id"]


@pytest.mark.parametrize("vector", MPP["credentials"], ids=lambda vector: vector["name"])
def test_published_credentials(vector: Row) -> None:
    """Refused as upstream, and where upstream reads a placeholder or a session: see `lyceum.why`."""
    assert not accepted(vector)
    if vector["header"].lower().startswith("payment"):
        with pytest.raises(Malformed):
            parse_authorization([vector["header"]])
    else:
        assert parse_authorization([vector["header"]]) is None


@pytest.mark.parametrize("vector", MPP["receipts"][:1], ids=lambda vector: vector["name"])
def test_published_receipt(vector: Row) -> None:
    """The same members with the same values; ours are in canonical order."""
    theirs = json.loads(vector["receiptJson"])
    ours = receipt(theirs["challengeId"], theirs["method"], theirs["reference"], theirs["timestamp"])
    assert json.loads(base64.urlsafe_b64decode(ours + "=" * (-len(ours) % 4))) == theirs


# Our own


@pytest.mark.parametrize("name", SLOTS)
def test_every_slot_is_signed(name: str) -> None:
    """Whatever a buyer changes, the seller knows it for not its own."""
    assert CHALLENGE.is_signed(KEY)
    assert not CHALLENGE.is_signed(b"x" * 32)
    assert not replace(CHALLENGE, **{name: getattr(CHALLENGE, name) + "a"}).is_signed(KEY)
    assert not replace(CHALLENGE, **{name: "a|b"}).is_signed(KEY)


@pytest.mark.parametrize("made_up", ["é", "0", CHALLENGE.id + "=", CHALLENGE.id.lower()])
def test_a_made_up_id_is_none(made_up: str) -> None:
    """Also one that is no base64 and no ASCII."""
    assert not replace(CHALLENGE, id=made_up).is_signed(KEY)


@pytest.mark.parametrize("spoilt", [{"realm": ""}, {"id": ""}, {"request": "a\r\nSet-Cookie: b"}, {"realm": "\0"}])
def test_a_wrong_challenge_cannot_be_built(spoilt: dict[str, str]) -> None:
    """Something is missing, or would break out of the header."""
    with pytest.raises(ValueError, match=r"needs|control"):
        replace(CHALLENGE, **spoilt)


@pytest.mark.parametrize("scheme", ["Payment", "payment", "PAYMENT", "Bearer Payment"])
def test_a_credential_is_read(scheme: str) -> None:
    """The scheme in any case, or as the key of a client that knows nothing but keys."""
    header = shown(echo(CHALLENGE), {"preimage": PREIMAGE.hex()}).replace("Payment", scheme)
    assert parse_authorization([header]) == PaymentCredential(CHALLENGE, PREIMAGE)


@pytest.mark.parametrize(
    "header",
    [
        "Payment",
        "Payment e30",
        "Payment W10",
        "Payment " + to_base64url(b"[" * 5000),
        "Payment " + to_base64url(b"\xff"),
        shown([], {"preimage": PREIMAGE.hex()}),
        shown({"id": "a"}, {"preimage": PREIMAGE.hex()}),
        shown(echo(CHALLENGE) | {"realm": 1}, {"preimage": PREIMAGE.hex()}),
        shown(echo(CHALLENGE), [PREIMAGE.hex()]),
        shown(echo(CHALLENGE), {}),
        shown(echo(CHALLENGE), {"preimage": PREIMAGE.hex(" ")}),
        shown(echo(CHALLENGE), {"preimage": PREIMAGE.hex()[:-2]}),
        shown(echo(CHALLENGE), {"preimage": PREIMAGE.hex()}) + " x",
    ],
)
def test_a_broken_credential_is_malformed(header: str) -> None:
    """No base64url, no JSON, nested without end, a part missing or of the wrong kind."""
    with pytest.raises(Malformed) as refused:
        parse_authorization([header])
    assert PREIMAGE.hex() not in refused.value.message


def test_repr_hides_the_preimage() -> None:
    """The challenge may be seen; with the preimage it is money."""
    credential = PaymentCredential(CHALLENGE, PREIMAGE)
    assert PREIMAGE.hex() not in repr(credential)
    assert repr(PREIMAGE) not in repr(credential)


@given(st.text().map(lambda text: "Payment " + text) | st.binary().map(lambda raw: "Payment " + to_base64url(raw)))
def test_random_credentials_are_read_or_malformed(header: str) -> None:
    """Parsing raises nothing but Malformed."""
    with contextlib.suppress(Malformed):
        parse_authorization([header.replace(",", "")])


def test_every_reason_has_a_name_in_the_scheme() -> None:
    """A URI for each; the general one where the draft has no better."""
    assert problem_type(Reason.PAYMENT_REQUIRED) == "https://paymentauth.org/problems/payment-required"
    assert problem_type(Reason.BAD_PREIMAGE) == "https://paymentauth.org/problems/lightning/invalid-preimage"
    assert problem_type(Reason.REVOKED) == "https://paymentauth.org/problems/verification-failed"
