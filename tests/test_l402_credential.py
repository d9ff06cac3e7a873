"""The credential, in every header that carries one."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, accepted, rows
from lyceum.l402 import (
    MAX_HEADER_BYTES,
    Ambiguous,
    Caveat,
    Challenge,
    Credential,
    Malformed,
    PaymentCredential,
    attenuate,
    challenge_macaroon,
    parse_authorization,
    parse_challenge,
    parse_metadata,
)

PREIMAGE = bytes(range(0xA0, 0xC0))
HASH = hashlib.sha256(PREIMAGE).digest()
MACAROON = challenge_macaroon(b"m" * 32, HASH, b"\xfb\xff" * 16, "llm", 2000)
CREDENTIAL = Credential(MACAROON, PREIMAGE)
HEADER = CREDENTIAL.header()
TEXT = CREDENTIAL.macaroon_text
PAIR = f"{TEXT}:{PREIMAGE.hex()}"
OTHER = f"L402 {TEXT}:{bytes(32).hex()}"
METADATA = attenuate(MACAROON, Caveat("preimage", PREIMAGE.hex())).hex()


def from_headers(headers: dict[str, list[str]]) -> Credential | PaymentCredential | None:
    """As a server would: Authorization, and the two gRPC names where it is absent."""
    texts = headers.get("Grpc-Metadata-Macaroon", []) + headers.get("Macaroon", [])
    return parse_authorization(headers.get("Authorization") or [f"Macaroon {text}" for text in texts])


@pytest.mark.parametrize("vector", rows("authorization_accept_table"), ids=lambda vector: vector["name"])
def test_published_requests(vector: Row) -> None:
    """A credential is found in exactly the requests in which Aperture finds one."""
    found = None
    with contextlib.suppress(Malformed):
        found = from_headers(vector["headers"])
    assert (found is not None) == vector["accept"]


@pytest.mark.parametrize("vector", rows("token_header_other_clients"), ids=lambda vector: vector["header"])
def test_published_headers_of_other_clients(vector: Row) -> None:
    """None carries 32 bytes of preimage, so none is taken; another scheme is not even looked at."""
    assert not accepted(vector)
    if vector["header"].startswith("Bearer"):
        assert parse_authorization([vector["header"]]) is None
    else:
        with pytest.raises(Malformed):
            parse_authorization([vector["header"]])


def test_the_canonical_header() -> None:
    """`L402`, one space, padded standard base64, a colon, 64 lower-case hex digits."""
    assert f"L402 {PAIR}" == HEADER
    assert "+" in TEXT
    assert len(TEXT) % 4 == 0


@pytest.mark.parametrize(
    "lines",
    [
        [HEADER],
        [f"LSAT {PAIR}", HEADER],
        [f"LSAT {PAIR}, {HEADER}"],
        [f"l402  {PAIR} "],
        [f"Lsat\t{PAIR}"],
        [f"L402 {TEXT}:{PREIMAGE.hex().upper()}"],
        [f"L402 {TEXT.rstrip('=')}:{PREIMAGE.hex()}"],
        [f"L402 {TEXT.replace('+', '-').replace('/', '_')}:{PREIMAGE.hex()}", HEADER],
        [HEADER, "Bearer sk-0123"],
        ["Basic dXNlcjpwYXNz", HEADER],
        ['Digest id="a"', HEADER, ""],
        [f"Bearer {PAIR}"],
        [f"bearer L402 {PAIR}"],
        [f"Bearer LSAT {PAIR}", HEADER],
    ],
)
def test_every_dialect_is_the_same_credential(lines: list[str]) -> None:
    """Both names, any case, either base64, folded or not, beside other schemes, or as a Bearer key."""
    assert parse_authorization(lines) == CREDENTIAL


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        [",,"],
        ["Bearer"],
        ["Bearer sk-0123"],
        ["Bearer a:b"],
        [f"Bearer {PAIR}0"],
        [f"Bearer x {PAIR}"],
        ["Basic dXNlcjpwYXNz"],
        [PAIR],
        [f"L4020 {PAIR}"],
    ],
)
def test_other_schemes_are_no_credential(lines: list[str]) -> None:
    """Nothing, or something for somebody else, is None and not an error."""
    assert parse_authorization(lines) is None


@pytest.mark.parametrize(
    "line",
    [
        "L402",
        "L402 ",
        "Bearer L402",
        f"L402 {TEXT}",
        f"L402 {PAIR}0",
        f"L402 {PAIR[:-1]}",
        f"L402 {PAIR[:-1]}g",
        f"L402 x{PAIR}",
        f"L402 {TEXT}: {PREIMAGE.hex()}",
        f"L402 {PAIR} {PAIR}",
        f"L402 :{PREIMAGE.hex()}",
        f"L402 {TEXT},{PAIR}",
    ],
)
def test_a_broken_credential_is_malformed(line: str) -> None:
    """What says L402 must be L402; the good one beside it does not help."""
    with pytest.raises(Malformed) as refused:
        parse_authorization([line])
    with pytest.raises(Malformed):
        parse_authorization([HEADER, line])
    assert PREIMAGE.hex() not in refused.value.message


def test_two_different_credentials_are_ambiguous() -> None:
    """Servers disagree on which line counts, so neither does."""
    for lines in ([HEADER, OTHER], [f"{HEADER}, {OTHER}"], [f"Bearer {PAIR}", OTHER]):
        with pytest.raises(Ambiguous):
            parse_authorization(lines)


def test_more_than_8_kib_is_refused_before_it_is_read() -> None:
    """The lines count together; exactly 8 KiB is read."""
    room = MAX_HEADER_BYTES - len(HEADER)
    assert parse_authorization([HEADER, " " * room]) == CREDENTIAL
    with pytest.raises(Malformed, match="longer than 8192"):
        parse_authorization([HEADER, " " * (room + 1)])
    with pytest.raises(Malformed, match="longer than 8192"):
        parse_metadata("00" * 4097)


def test_metadata_is_a_macaroon_with_a_preimage_caveat() -> None:
    """The gRPC form gives the same preimage; of several preimages the last counts."""
    found = parse_metadata(METADATA)
    assert (found.preimage, found.macaroon.hex()) == (PREIMAGE, METADATA)
    twice = attenuate(found.macaroon, Caveat("preimage", bytes(32).hex()))
    assert parse_metadata(twice.hex()).preimage == bytes(32)


@pytest.mark.parametrize(
    "text", ["", "zz", MACAROON.hex(), attenuate(MACAROON, Caveat("preimage", "ab")).hex(), METADATA + "00"]
)
def test_metadata_without_a_preimage_is_malformed(text: str) -> None:
    """No hex, no macaroon, no preimage or a short one."""
    with pytest.raises(Malformed):
        parse_metadata(text)


def test_a_foreign_macaroon_is_echoed_as_it_was_written() -> None:
    """What a buyer keeps of a challenge makes the header that its seller expects."""
    challenge = parse_challenge(['L402 macaroon="-_8", invoice="lnbc1qq"'])
    credential = Credential.of(challenge.macaroon_text, PREIMAGE.hex())
    assert credential.header() == f"L402 -_8:{PREIMAGE.hex()}"


def test_a_credential_knows_its_payment_hash() -> None:
    """SHA-256 of the 32 bytes, not of their hex."""
    assert CREDENTIAL.payment_hash == HASH


@pytest.mark.parametrize(
    ("macaroon", "preimage", "text"),
    [(b"", PREIMAGE, ""), (MACAROON, PREIMAGE[1:], ""), (MACAROON, PREIMAGE, "AAAA")],
)
def test_a_wrong_credential_cannot_be_built(macaroon: bytes, preimage: bytes, text: str) -> None:
    """No macaroon, a short preimage, another macaroon's text."""
    with pytest.raises(ValueError, match="macaroon"):
        Credential(macaroon, preimage, text)


def test_repr_hides_everything() -> None:
    """Possession is everything, so nothing is shown."""
    assert repr(CREDENTIAL) == "Credential()"


@given(st.binary(min_size=1, max_size=500), st.binary(min_size=32, max_size=32))
def test_credentials_survive_the_round_trip(macaroon: bytes, preimage: bytes) -> None:
    """What a buyer sends, a seller reads, also beside the LSAT form."""
    credential = Credential(macaroon, preimage)
    header = credential.header()
    assert parse_authorization([header.replace("L402", "LSAT"), header]) == credential


@given(st.binary(min_size=1, max_size=500))
def test_a_challenge_becomes_a_credential(macaroon: bytes) -> None:
    """From the seller's bytes through both headers and back, nothing is changed."""
    challenge = parse_challenge(Challenge(macaroon, "lnbc1qq").header_lines())
    found = parse_authorization([Credential.of(challenge.macaroon_text, PREIMAGE.hex()).header()])
    assert found == Credential(macaroon, PREIMAGE)


@given(st.lists(st.text() | st.text().map(lambda text: f"L402 {text}"), max_size=3))
def test_random_lines_are_read_or_refused(lines: list[str]) -> None:
    """Parsing raises nothing but Malformed and Ambiguous."""
    with contextlib.suppress(Malformed, Ambiguous):
        parse_authorization(lines)


@given(st.text() | st.binary().map(bytes.hex))
def test_random_metadata_is_read_or_malformed(text: str) -> None:
    """Parsing raises nothing but Malformed."""
    with contextlib.suppress(Malformed):
        parse_metadata(text)
