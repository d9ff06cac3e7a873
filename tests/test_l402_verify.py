"""A whole credential against a whole request."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import rows
from lyceum.l402 import (
    Caveat,
    Credential,
    Facts,
    Identifier,
    Malformed,
    Reason,
    Refusal,
    Verified,
    attenuate,
    caveats,
    challenge_macaroon,
    mint,
    parse_metadata,
    token_key,
    verify,
)

MASTER = b"m" * 32
PREIMAGE = b"\xab" * 32
HASH = hashlib.sha256(PREIMAGE).digest()
TOKEN_ID = b"\x07" * 32
TOKEN = challenge_macaroon(MASTER, HASH, TOKEN_ID, "llm", 2000)
FACTS = Facts("llm", 1000, model="math", max_tokens=64)


def refused(macaroon: bytes, preimage: bytes = PREIMAGE, master: bytes = MASTER, facts: Facts = FACTS) -> Reason:
    found = verify(Credential(macaroon, preimage), master, facts)
    assert isinstance(found, Refusal)
    assert PREIMAGE.hex() not in found.detail
    return found.reason


def test_a_paid_token_is_good() -> None:
    """Right preimage, right key, right service, in time: whose it is and until when."""
    assert verify(Credential(TOKEN, PREIMAGE), MASTER, FACTS) == Verified(TOKEN_ID, HASH, 2000, whole=True)


def test_a_narrowed_token_is_good_for_less() -> None:
    """The earlier end counts, and the added limit holds."""
    narrowed = attenuate(attenuate(TOKEN, caveats.valid_until("llm", 1500)), caveats.max_tokens("llm", 64))
    assert verify(Credential(narrowed, PREIMAGE), MASTER, FACTS) == Verified(TOKEN_ID, HASH, 1500)
    assert refused(narrowed, facts=Facts("llm", 1500, max_tokens=64)) == Reason.EXPIRED
    assert refused(narrowed, facts=Facts("llm", 1000, max_tokens=65)) == Reason.OVER_LIMIT


def test_a_token_without_an_end_says_so() -> None:
    """No valid_until caveat is no expiry."""
    identifier = Identifier(HASH, TOKEN_ID)
    endless = mint(token_key(MASTER, identifier.encode()), identifier, [caveats.services("llm")])
    assert verify(Credential(endless, PREIMAGE), MASTER, FACTS) == Verified(TOKEN_ID, HASH, None)


def test_the_grpc_form_is_good() -> None:
    """A preimage carried as a caveat is part of the token and harms nothing."""
    carried = attenuate(TOKEN, Caveat("preimage", PREIMAGE.hex()))
    assert verify(parse_metadata(carried.hex()), MASTER, FACTS) == Verified(TOKEN_ID, HASH, 2000, whole=True)


def test_a_foreign_preimage_is_refused() -> None:
    """Having paid another invoice is not having paid this one."""
    assert refused(TOKEN, preimage=bytes(32)) == Reason.BAD_PREIMAGE


def test_a_foreign_key_is_refused() -> None:
    """A token that another seller made is not ours, even for the same invoice."""
    assert refused(TOKEN, master=b"n" * 32) == Reason.BAD_SIGNATURE


def test_a_swapped_identifier_is_refused() -> None:
    """Writing one's own payment hash into a token breaks its chain."""
    forged = TOKEN.replace(HASH, hashlib.sha256(bytes(32)).digest())
    assert refused(forged, preimage=bytes(32)) == Reason.BAD_SIGNATURE


def test_the_published_tampered_token_is_refused() -> None:
    """Last byte set to zero, as in Aperture's test, is a wrong signature."""
    assert any("last byte" in vector.get("case", "") and not vector["ok"] for vector in rows("caveat_verification"))
    assert TOKEN[-1] != 0
    assert refused(TOKEN[:-1] + b"\x00") == Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("facts", "expected"),
    [(Facts("other", 1000), Reason.WRONG_SERVICE), (Facts("llm", 2000), Reason.EXPIRED)],
)
def test_caveats_are_checked(facts: Facts, expected: Reason) -> None:
    """Another service and a later day are refused, each with its reason."""
    assert refused(TOKEN, facts=facts) == expected


def test_an_unknown_caveat_is_refused() -> None:
    """What is not understood cannot be kept; Aperture would let it pass."""
    assert refused(attenuate(TOKEN, Caveat("only_on", "sunday"))) == Reason.UNKNOWN_CAVEAT


@pytest.mark.parametrize(
    "raw",
    [
        b"opaque",
        TOKEN + b"\x00",
        b"\x02\x02\x03xyz\x00\x00\x06\x20" + bytes(32),
        attenuate(TOKEN, caveats.services("llm")).replace(b"=llm:0", b"=llm:x"),
    ],
)
def test_broken_macaroons_are_refusals(raw: bytes) -> None:
    """What cannot be read or was altered is refused by value, never by an exception."""
    assert refused(raw) in {Reason.MALFORMED, Reason.BAD_SIGNATURE}


def test_a_signed_value_that_cannot_be_read_is_a_refusal() -> None:
    """A holder may append nonsense; it is refused, not raised."""
    assert refused(attenuate(TOKEN, Caveat("llm_valid_until", "soon"))) == Reason.MALFORMED


ADDED = st.builds(
    Caveat,
    st.sampled_from(["services", "llm_valid_until", "llm_model", "llm_max_tokens", "llm_capabilities", "x"]),
    st.sampled_from(["llm:0", "llm:0,other:0", "math", "math,poet", "64", "1500", "3000", ""]),
)
REQUESTS = st.builds(
    Facts,
    st.sampled_from(["llm", "other"]),
    st.sampled_from([1000, 1500, 2500]),
    st.sampled_from([None, "math", "poet"]),
    st.sampled_from([None, 64, 2000]),
)


@given(st.lists(ADDED, max_size=3), ADDED, REQUESTS)
def test_attenuating_never_helps(earlier: list[Caveat], more: Caveat, facts: Facts) -> None:
    """On real, signed tokens: whatever is appended, a refused request stays refused."""
    token = TOKEN
    for caveat in earlier:
        token = attenuate(token, caveat)
    if isinstance(verify(Credential(token, PREIMAGE), MASTER, facts), Refusal):
        assert isinstance(verify(Credential(attenuate(token, more), PREIMAGE), MASTER, facts), Refusal)


@given(st.binary(min_size=1) | st.binary().map(lambda tail: TOKEN[:-20] + tail))
def test_random_credentials_are_refused(raw: bytes) -> None:
    """Verifying raises nothing, not even Malformed."""
    try:
        found = verify(Credential(raw, PREIMAGE), MASTER, FACTS)
    except Malformed:
        pytest.fail("verify answers with a value")
    assert isinstance(found, Refusal) or raw == TOKEN
