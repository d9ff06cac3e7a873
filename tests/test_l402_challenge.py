"""The challenge, from a seller's lines to a buyer's value."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, accepted, rows
from lyceum.l402 import Caveat, Challenge, Identifier, Malformed, attenuate, challenge_macaroon, parse_challenge
from lyceum.l402.headers import from_base64

INVOICE = "lnbcrt100n1p3qqkygpp5xzj85m5mpvatnapgpuyfxtxhypa5gr6sskqd8664v04550vqp8lsdq8f3f5z4qc"
MACAROON = challenge_macaroon(b"m" * 32, b"\x01" * 32, b"\x02" * 32, "llm", 2000)
CHALLENGE = Challenge(MACAROON, INVOICE)
LSAT, L402 = CHALLENGE.header_lines()
TEXT = CHALLENGE.macaroon_text
HEADERS = [vector for vector in rows("challenge_headers_upstream") if "is_challenge" not in vector]
REAL = rows("macaroons_real")


@pytest.mark.parametrize("vector", HEADERS, ids=lambda vector: vector["header"][:60])
def test_published_challenges(vector: Row) -> None:
    """Every published header is read or refused as upstream; placeholders are refused, see `lyceum.why`."""
    if not accepted(vector):
        with pytest.raises(Malformed):
            parse_challenge([vector["header"]])
        return
    challenge = parse_challenge([vector["header"]])
    assert challenge.macaroon_text == vector.get("macaroon", challenge.macaroon_text)
    assert challenge.invoice == vector.get("invoice", challenge.invoice)


@pytest.mark.parametrize("vector", [v for v in REAL if "invoice" in v], ids=lambda v: v["source"])
def test_real_challenges_name_their_invoice(vector: Row) -> None:
    """The identifier is found in the 66 byte form and in Boltwall's hex of it."""
    raw = from_base64(vector["macaroon_b64"])
    challenge = Challenge(raw, vector["invoice"])
    payment_hash, token_id = bytes.fromhex(vector["payment_hash"]), bytes.fromhex(vector["token_id"])
    assert challenge.identifier() == Identifier(payment_hash, token_id)


@pytest.mark.parametrize("macaroon", [b"opaque", bytes(66), b"\x02\x02\x03xyz\x00\x00\x06\x20" + bytes(32)])
def test_another_dialect_has_no_identifier(macaroon: bytes) -> None:
    """A token that is no macaroon, or names itself otherwise, is still a challenge."""
    assert Challenge(macaroon, INVOICE).identifier() is None


def test_a_challenge_names_its_service() -> None:
    """By the last caveat that restricts it, as the seller's own check reads it."""
    assert CHALLENGE.service() == "llm"
    narrowed = attenuate(MACAROON, Caveat("services", "maps:0"))
    assert Challenge(narrowed, INVOICE).service() == "maps"


@pytest.mark.parametrize(
    "macaroon",
    [
        b"opaque",
        attenuate(MACAROON, Caveat("services", "llm:0,maps:0")),
        attenuate(MACAROON, Caveat("services", "loop/path:0")),
        attenuate(MACAROON, Caveat("services", "")),
    ],
)
def test_a_challenge_may_name_no_service_of_ours(macaroon: bytes) -> None:
    """No macaroon, several services, or another dialect: nothing is guessed."""
    assert Challenge(macaroon, INVOICE).service() == ""


def test_a_hex_identifier_of_something_else_is_none() -> None:
    """132 characters that are not hex of the 66 bytes name nothing."""
    for named in (b"z" * 132, b"ff" * 66, b"\xff" * 132):
        raw = b"\x02\x02\x84\x01" + named + b"\x00\x00\x06\x20" + bytes(32)
        assert Challenge(raw, INVOICE).identifier() is None


def test_the_lines_are_apertures() -> None:
    """LSAT first, macaroon before invoice, double quotes, a comma and one space; what is newer comes after."""
    assert f'LSAT macaroon="{TEXT}", invoice="{INVOICE}"' == LSAT
    assert f'L402 macaroon="{TEXT}", invoice="{INVOICE}", version="0", token="{TEXT}"' == L402


@pytest.mark.parametrize(
    "lines",
    [
        [LSAT, L402],
        [L402],
        [f"{LSAT}, {L402}"],
        [L402.replace(", ", ",\r\n ")],
        [L402.lower().replace(TEXT.lower(), TEXT)],
        ['Payment id="a", method="lightning", request="e30=", expires="L402 x"', LSAT],
        [f'Bearer realm="api", {L402}'],
        [L402, 'Payment id="a", macaroon="AAAA", invoice="lnbc1a"'],
        [f'L402 realm="x, y", invoice="{INVOICE}", macaroon="{TEXT}"'],
        [f'L402 version="0", token="{TEXT}", invoice="{INVOICE}"'],
        [f'L402 version="0", token="{TEXT}", macaroon="{TEXT}", invoice="{INVOICE}"'],
        [f"L402 macaroon='{TEXT}', invoice='{INVOICE}'"],
        [f"L402 macaroon={TEXT},invoice={INVOICE}"],
        [f'L402  macaroon = "{TEXT}" , invoice = "{INVOICE}"'],
        [f'L402 MACAROON="{TEXT}", Invoice="{INVOICE}"'],
        [f'L402 macaroon="{TEXT.rstrip("=")}", invoice="{INVOICE}"'],
        [f'L402 macaroon="{TEXT.replace("+", "-").replace("/", "_")}", invoice="{INVOICE}"'],
    ],
)
def test_every_dialect_is_the_same_challenge(lines: list[str]) -> None:
    """Two lines or one, folded, mixed with other schemes, renamed, requoted, reordered, other base64."""
    assert parse_challenge(lines) == CHALLENGE


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["L402"],
        ['Payment method="lightning"'],
        [f'L402 macaroon="{TEXT}", token="AAAA", invoice="{INVOICE}"'],
        [f'L402 macaroon="{TEXT}", invoice="{INVOICE}", invoice="lnbc1qq"'],
        [f'L402 macaroon="", invoice="{INVOICE}"'],
        [f'L402 macaroon="{TEXT}'],
        [f'L402 macaroon="{TEXT}", invoice="lightning:{INVOICE}"'],
        [f'L402 macaroon="{TEXT}", invoice="{INVOICE}\\\r\nx: y"'],
        [f'L402 macaroon="{TEXT}", invoice="lno1qq"'],
        [f'Basic realm="{L402.replace(chr(34), "")}"'],
        [LSAT + " " * 40_000],
    ],
)
def test_what_is_no_single_challenge_is_refused(lines: list[str]) -> None:
    """None, incomplete, contradictory, injected, quoted inside another scheme, or far too long."""
    with pytest.raises(Malformed):
        parse_challenge(lines)


def test_the_macaroon_is_echoed_as_it_was_written() -> None:
    """A foreign server gets back its own base64, not ours."""
    challenge = parse_challenge([f'L402 macaroon="-_8", invoice="{INVOICE}"'])
    assert challenge.macaroon == b"\xfb\xff"
    assert challenge.macaroon_text == "-_8"
    assert challenge.header_lines()[1] == f'L402 macaroon="-_8", invoice="{INVOICE}", version="0", token="-_8"'


def test_an_uppercase_invoice_is_an_invoice() -> None:
    """BOLT 11 text may be all upper case."""
    assert Challenge(MACAROON, INVOICE.upper()).invoice == INVOICE.upper()


@pytest.mark.parametrize(
    ("macaroon", "invoice", "text"),
    [(b"", INVOICE, ""), (MACAROON, 'lnbc1qq", x="', ""), (MACAROON, "", ""), (MACAROON, INVOICE, "AAAA")],
)
def test_a_wrong_challenge_cannot_be_built(macaroon: bytes, invoice: str, text: str) -> None:
    """No macaroon, no invoice, an invoice that would break the header, another macaroon's text."""
    with pytest.raises(ValueError, match=r"macaroon|invoice"):
        Challenge(macaroon, invoice, text)


def test_repr_hides_the_macaroon() -> None:
    """Routing nodes learn the preimage, so the macaroon is the half that must not be logged."""
    assert TEXT not in repr(CHALLENGE)
    assert repr(MACAROON) not in repr(CHALLENGE)


@given(st.binary(min_size=1, max_size=500), st.sampled_from(["{0}|{1}", "{1}", "{0}, {1}", "{0},\n {1}"]))
def test_challenges_survive_the_round_trip(macaroon: bytes, folding: str) -> None:
    """Whatever the macaroon is and however the lines are folded, buyer and seller hold the same value."""
    challenge = Challenge(macaroon, INVOICE)
    assert parse_challenge(folding.format(*challenge.header_lines()).split("|")) == challenge


@given(st.lists(st.text() | st.text().map(lambda text: f'L402 macaroon="AAAA", invoice={text}'), max_size=3))
def test_random_lines_are_read_or_malformed(lines: list[str]) -> None:
    """Parsing raises nothing but Malformed."""
    with contextlib.suppress(Malformed):
        parse_challenge(lines)
