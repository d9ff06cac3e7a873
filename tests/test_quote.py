"""A quote is 32 bytes and back; what is no quote is none."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.money import MAX_MSAT
from lyceum.quote import Quote, Subject, preimage

SUBJECT = Subject("llm", "L402 llm economist")
QUOTE = Quote(2000, 1_800_000_000, 130, SUBJECT.digest(), b"n" * 10)


@given(
    amount_msat=st.integers(1, MAX_MSAT),
    expires_at=st.integers(0, 2**32 - 1),
    percent=st.integers(1, 65535),
    subject=st.binary(min_size=6, max_size=6),
    nonce=st.binary(min_size=10, max_size=10),
)
def test_a_quote_survives_its_bytes(**values: Any) -> None:
    """Every amount that there can be, and every time until 2106."""
    raw = Quote(**values).encode()
    assert len(raw) == 32
    assert Quote.decode(raw) == Quote(**values)


@pytest.mark.parametrize("raw", [b"", b"\x00" * 32, b"\x07" * 32, QUOTE.encode()[:-1], b"q1" + b"\x00" * 30])
def test_other_token_ids_are_no_quotes(raw: bytes) -> None:
    """They promise nothing."""
    assert Quote.decode(raw) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_msat": 0},
        {"amount_msat": MAX_MSAT + 1},
        {"expires_at": 2**32},
        {"percent": 0},
        {"percent": 65536},
        {"subject": b"long er"},
        {"nonce": b""},
    ],
)
def test_a_quote_that_cannot_be_written_cannot_be_built(wrong: dict[str, Any]) -> None:
    """Each field in its range."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(QUOTE, **wrong)


def test_the_label_names_service_and_token() -> None:
    """As the invoices of tokens have always been labelled."""
    assert QUOTE.label("llm") == f"l402/llm/{QUOTE.encode().hex()}"


def test_a_subject_survives_its_text() -> None:
    """A service is one word, so the description may hold any."""
    assert Subject.decode(SUBJECT.encode()) == SUBJECT
    assert SUBJECT.digest() != Subject("llm", "L402 llm poet").digest()


def test_a_preimage_needs_the_key() -> None:
    """HMAC-SHA256 of the secret under it (RFC 2104, with RFC 4231's second test case)."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert preimage(b"Jefe", b"what do ya want for nothing?").hex() == expected
    assert hashlib.sha256(preimage(b"k" * 32, QUOTE.encode())).digest() != QUOTE.encode()
