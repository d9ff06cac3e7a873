"""The 66 bytes that name a token."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, rows
from lyceum.l402 import Identifier, Malformed

HASHES = st.binary(min_size=32, max_size=32)
GOOD = [vector for vector in rows("identifiers") if not vector.get("error")]


@pytest.mark.parametrize("vector", GOOD, ids=lambda vector: vector["source"])
def test_published_identifiers_encode_and_decode(vector: Row) -> None:
    """Each published identifier has the published bytes, in both directions."""
    raw = bytes.fromhex(vector["encoded_hex"])
    identifier = Identifier(bytes.fromhex(vector["payment_hash"]), bytes.fromhex(vector["token_id"]))
    assert identifier.encode() == raw
    assert len(raw) == 66
    assert Identifier.decode(raw) == identifier


@pytest.mark.parametrize("vector", [v for v in rows("identifiers") if v.get("error")])
def test_an_unknown_version_is_refused(vector: Row) -> None:
    """The published unknown version is malformed."""
    with pytest.raises(Malformed, match="version 1"):
        Identifier.decode(vector["version"].to_bytes(2, "big") + bytes(64))


@pytest.mark.parametrize("size", [0, 2, 65, 67, 132])
def test_any_other_length_is_refused(size: int) -> None:
    """Short and long identifiers are malformed; Aperture takes both."""
    with pytest.raises(Malformed, match=f"has {size} bytes"):
        Identifier.decode(bytes(size))


@pytest.mark.parametrize(("payment_hash", "token_id"), [(bytes(31), bytes(32)), (bytes(32), bytes(33))])
def test_a_wrong_identifier_cannot_be_built(payment_hash: bytes, token_id: bytes) -> None:
    """Hash and id are 32 bytes each."""
    with pytest.raises(ValueError, match="32 bytes"):
        Identifier(payment_hash, token_id)


@given(HASHES, HASHES)
def test_identifiers_survive_the_round_trip(payment_hash: bytes, token_id: bytes) -> None:
    """Decoding what was encoded gives the same identifier."""
    identifier = Identifier(payment_hash, token_id)
    assert Identifier.decode(identifier.encode()) == identifier


@given(st.binary(max_size=70) | st.binary(min_size=66, max_size=66))
def test_random_bytes_are_read_or_malformed(raw: bytes) -> None:
    """Decoding raises nothing but Malformed, and what it takes it writes back."""
    with contextlib.suppress(Malformed):
        assert Identifier.decode(raw).encode() == raw
