"""Macaroons: the bytes, the limits, the chain of HMACs."""

from __future__ import annotations

import contextlib
import hashlib
import hmac

import pymacaroons
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymacaroons.serializers import BinarySerializer

from l402_vectors import Row, row, rows
from lyceum.l402 import (
    Caveat,
    Identifier,
    Macaroon,
    Malformed,
    attenuate,
    caveats,
    challenge_macaroon,
    mint,
    parse,
    token_key,
    verify_signature,
)
from lyceum.l402.headers import from_base64

KEY = bytes(range(32))
IDENTIFIER = Identifier(b"\x01" * 32, b"\x02" * 32)
SERVICES = caveats.services("llm")
TOKEN = mint(KEY, IDENTIFIER, [SERVICES])
TAIL = b"\x06\x20" + bytes(32)


def v2(*found: bytes, signature: bytes = bytes(32)) -> bytes:
    """A macaroon written by hand, as libmacaroons' format page has it; caveats below 128 bytes."""
    body = b"".join(b"\x02" + bytes([len(caveat)]) + caveat + b"\x00" for caveat in found)
    return b"\x02\x02\x03xyz\x00" + body + b"\x00\x06" + bytes([len(signature)]) + signature


@pytest.mark.parametrize("vector", rows("macaroons_real"), ids=lambda vector: vector["source"])
def test_real_macaroons_are_read(vector: Row) -> None:
    """Identifier, caveats and signature of macaroons found in the wild, also one that is not UTF-8."""
    raw = from_base64(vector["macaroon_b64"])
    macaroon = parse(raw)
    identifier = vector.get("identifier_hex") or vector["identifier_text"].encode().hex()
    assert len(raw) == vector["bytes_len"]
    assert macaroon.identifier.hex() == identifier
    assert [caveat.hex() for caveat in macaroon.caveats] == vector["caveats_hex"]
    assert macaroon.signature.hex() == vector["signature_hex"]


@pytest.mark.parametrize("vector", rows("macaroon_v2_library_vectors"))
def test_a_third_party_caveat_is_refused(vector: Row) -> None:
    """go-macaroon's own V2 example is well formed, but L402 has no third parties."""
    with pytest.raises(Malformed, match="third-party"):
        parse(bytes.fromhex(vector["v2_hex"]))


@pytest.mark.parametrize("vector", rows("macaroon_v2_packets"), ids=lambda vector: vector["data_hex"])
def test_published_packets(vector: Row) -> None:
    """As the head of a macaroon, the one good identifier packet is read and every other is refused."""
    raw = b"\x02" + bytes.fromhex(vector["data_hex"])
    if "data_text" in vector:
        assert parse(raw + b"\x00\x00" + TAIL).identifier == vector["data_text"].encode()
        return
    with pytest.raises(Malformed):
        parse(raw)


@pytest.mark.parametrize("vector", rows("macaroon_v2_sections"), ids=lambda vector: vector["data_hex"])
def test_published_sections(vector: Row) -> None:
    """An empty section ends the caveats; a head needs exactly an identifier; bad ones are refused."""
    data = bytes.fromhex(vector["data_hex"])
    if vector.get("packets") == 0:
        assert parse(b"\x02\x02\x03xyz\x00" + data + TAIL).caveats == ()
    elif vector.get("packets") == 1:
        assert parse(b"\x02" + data + b"\x00" + TAIL).identifier == b"xyz"
    else:
        with pytest.raises(Malformed):
            parse(b"\x02" + data + b"\x00" + TAIL)


def test_the_chain_starts_from_the_published_derived_key() -> None:
    """The first key is HMAC("macaroons-key-generator", root key), which the spec's text leaves out."""
    vector = row("macaroon_key_generator")
    signature = bytes.fromhex(vector["derived_key_hex"])
    for signed in (IDENTIFIER.encode(), b"services=llm:0"):
        signature = hmac.digest(signature, signed, "sha256")
    token = mint(bytes.fromhex(vector["root_key_hex"]), IDENTIFIER, [SERVICES])
    assert parse(token).signature == signature


def test_a_chain_without_key_derivation_is_refused() -> None:
    """A token made from the spec's text alone is signed wrongly."""
    signature = hmac.digest(KEY, b"xyz", "sha256")
    assert not verify_signature(KEY, Macaroon(b"xyz", (), signature))


def test_the_bytes_of_a_token() -> None:
    """Version 2, location lsat, identifier, caveats, signature, nothing else."""
    signature = parse(TOKEN).signature
    head = b"\x02\x01\x04lsat\x02\x42" + IDENTIFIER.encode() + b"\x00"
    assert head + b"\x02\x0eservices=llm:0\x00" + b"\x00\x06\x20" + signature == TOKEN


def test_pymacaroons_own_verifier_agrees() -> None:
    """The reference verifier accepts our token under its key."""
    verifier = pymacaroons.Verifier()
    verifier.satisfy_exact("services=llm:0")
    assert verifier.verify(BinarySerializer().deserialize_raw(TOKEN), KEY)


def test_the_signature_needs_the_right_key_and_bytes() -> None:
    """Another key, another identifier, a caveat less and a caveat more all break the chain."""
    macaroon = parse(TOKEN)
    assert verify_signature(KEY, macaroon)
    assert not verify_signature(bytes(32), macaroon)
    for forged in (
        Macaroon(b"other", macaroon.caveats, macaroon.signature),
        Macaroon(macaroon.identifier, (), macaroon.signature),
        Macaroon(macaroon.identifier, (*macaroon.caveats, b"a=b"), macaroon.signature),
    ):
        assert not verify_signature(KEY, forged)


def test_caveats_that_are_not_utf8_are_signed_bytes_too() -> None:
    """The chain does not care what caveat bytes are."""
    signature = parse(TOKEN).signature
    longer = hmac.digest(signature, b"\x95=\xff", "sha256")
    macaroon = Macaroon(IDENTIFIER.encode(), (b"services=llm:0", b"\x95=\xff"), longer)
    assert verify_signature(KEY, macaroon)


def test_attenuating_needs_no_key_and_keeps_the_chain() -> None:
    """A holder's caveat is last, signed, and cannot be taken off again."""
    narrowed = parse(attenuate(TOKEN, caveats.max_tokens("llm", 8)))
    assert narrowed.caveats == (b"services=llm:0", b"llm_max_tokens=8")
    assert verify_signature(KEY, narrowed)
    assert not verify_signature(KEY, Macaroon(narrowed.identifier, narrowed.caveats[:1], narrowed.signature))


def test_a_broken_macaroon_is_not_attenuated() -> None:
    """A caveat would give it a signature of the right length and hide the fault."""
    with pytest.raises(Malformed, match="signature"):
        attenuate(v2(signature=bytes(31)), Caveat("a", "b"))


def test_a_macaroon_without_location_is_fine() -> None:
    """The location is informational and optional."""
    assert parse(v2(b"a=b")).caveats == (b"a=b",)
    assert parse(attenuate(v2(b"a=b"), Caveat("c", "d"))).caveats == (b"a=b", b"c=d")


def test_thirty_two_caveats_are_the_most() -> None:
    """The 33rd is refused, read or added."""
    full = v2(*[b"a=b"] * 32)
    assert len(parse(full).caveats) == 32
    with pytest.raises(Malformed, match="more than 32"):
        parse(v2(*[b"a=b"] * 33))
    with pytest.raises(Malformed, match="more than 32"):
        attenuate(full, Caveat("a", "b"))


def test_512_bytes_are_the_longest_caveat() -> None:
    """One more byte is refused."""
    assert attenuate(TOKEN, Caveat("a", "b" * 510))
    with pytest.raises(Malformed, match="longer than 512"):
        attenuate(TOKEN, Caveat("a", "b" * 511))


def test_a_full_macaroon_fits_and_a_huge_one_is_not_read() -> None:
    """32 caveats of 512 bytes are within the size limit; a megabyte is refused unread."""
    full = TOKEN
    for _ in range(31):
        full = attenuate(full, Caveat("a", "b" * 510))
    assert len(parse(full).caveats) == 32
    with pytest.raises(Malformed, match="longer than 20480"):
        parse(b"\x02" + bytes(1 << 20))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02",
        TOKEN[:-1],
        TOKEN + b"\x00",
        TOKEN + TOKEN[-35:],
        b"\x03" + TOKEN[1:],
        b"\x02\x82\x00\x03xyz\x00\x00" + TAIL,
        b"\x02\x01\x01\xff\x02\x03xyz\x00\x00" + TAIL,
        v2(signature=bytes(31)),
        v2(signature=bytes(33)),
        b"0013location lsat\n",
    ],
)
def test_unusual_bytes_are_refused(raw: bytes) -> None:
    """Nothing, cut short, followed by bytes, another version, long varints, bad location, odd signature."""
    with pytest.raises(Malformed):
        parse(raw)


def test_a_token_that_names_no_service_is_never_minted() -> None:
    """Elsewhere it would open every service."""
    with pytest.raises(ValueError, match="names no service"):
        mint(KEY, IDENTIFIER, [caveats.valid_until("llm", 1)])


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_root_key_is_32_bytes(key: bytes) -> None:
    """pymacaroons would not sign at all with an empty one."""
    with pytest.raises(ValueError, match="root key"):
        mint(key, IDENTIFIER, [SERVICES])


def test_the_token_key_is_pinned() -> None:
    """Every token sold depends on this derivation, RFC 5869's T(1), so it must never change."""
    master = b"m" * 32
    block = b"lyceum l402 token key" + IDENTIFIER.encode() + b"\x01"
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in master.ljust(64, b"\0")) + block).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in master.ljust(64, b"\0")) + inner).digest()
    assert token_key(master, IDENTIFIER.encode()) == outer


def test_each_token_has_its_own_key() -> None:
    """Master, token id and payment hash all change it."""
    keys = {
        token_key(master, Identifier(payment_hash, token_id).encode())
        for master in (b"m" * 32, b"n" * 32)
        for payment_hash in (bytes(32), b"p" * 32)
        for token_id in (bytes(32), b"t" * 32)
    }
    assert len(keys) == 8


def test_a_short_master_key_is_refused() -> None:
    """The master key is 32 random bytes at least."""
    with pytest.raises(ValueError, match="master key"):
        token_key(bytes(31), IDENTIFIER.encode())


def test_a_challenge_macaroon_names_service_and_end() -> None:
    """What is sold is one service until a time, under the token's own key."""
    macaroon = parse(challenge_macaroon(b"m" * 32, IDENTIFIER.payment_hash, IDENTIFIER.token_id, "llm", 2000))
    assert macaroon.identifier == IDENTIFIER.encode()
    assert macaroon.caveats == (b"services=llm:0", b"llm_valid_until=2000")
    assert verify_signature(token_key(b"m" * 32, macaroon.identifier), macaroon)


def test_repr_shows_no_caveat_and_no_signature() -> None:
    """A caveat may be a preimage, and identifier, caveats and signature are the whole macaroon."""
    assert "services" not in repr(parse(TOKEN))
    assert "signature" not in repr(parse(TOKEN))


def damaged(at: int, byte: int) -> bytes:
    return TOKEN[:at] + bytes([byte]) + TOKEN[at + 1 :]


@given(st.integers(0, len(TOKEN) - 1), st.integers(0, 255))
def test_a_changed_byte_is_never_accepted(at: int, byte: int) -> None:
    """Whatever byte of a token is changed, it is malformed or signed wrongly; only the location is free."""
    with contextlib.suppress(Malformed):
        macaroon = parse(damaged(at, byte))
        assert verify_signature(KEY, macaroon) == (macaroon == parse(TOKEN))


@given(st.binary() | st.binary().map(lambda raw: b"\x02" + raw) | st.builds(lambda n: TOKEN[:n], st.integers(0, 120)))
def test_random_bytes_are_read_or_malformed(raw: bytes) -> None:
    """Parsing raises nothing but Malformed."""
    with contextlib.suppress(Malformed):
        parse(raw)
