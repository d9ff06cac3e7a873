"""Invoices written by hand: the text against a library that reads, and against the nodes' own, byte for byte."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import bech32
import bolt11
import pytest

from lyceum.bolt11 import Draft, Hop, Style
from lyceum.devnet import invoices
from networks import Market

KEY = b"\x11" * 32
STYLE = Style("bcrt", 10, bytes.fromhex("024100"))
DRAFT = Draft(1500, 1_700_000_000, b"\x22" * 32, b"\x33" * 32, "tea & cakes, für zwei", 600)
HOP = Hop("02" + "44" * 32, "103x1x0", 1000, 10, 6)


def read(draft: Draft, style: Style = STYLE) -> Any:
    return bolt11.decode(invoices.sign(draft.unsigned(style), KEY))


def test_what_was_written_is_read() -> None:
    """A public library finds every field, and under the key that signed."""
    found = read(DRAFT)
    assert (found.currency, found.amount_msat, found.date, found.expiry) == ("bcrt", 1500, 1_700_000_000, 600)
    assert (found.payment_hash, found.payment_secret) == ("22" * 32, "33" * 32)
    assert (found.description, found.min_final_cltv_expiry) == ("tea & cakes, für zwei", 10)


@pytest.mark.parametrize(
    ("amount_msat", "prefix"),
    [
        (100_000_000_000, "lnbcrt11"),
        (200_000_000, "lnbcrt2m1"),
        (150_000, "lnbcrt1500n1"),
        (2_000, "lnbcrt20n1"),
        (100_000, "lnbcrt1u1"),
        (1, "lnbcrt10p1"),
        (1_234_567, "lnbcrt12345670p1"),
    ],
)
def test_an_amount_takes_the_largest_unit(amount_msat: int, prefix: str) -> None:
    """BOLT 11: the shortest text; msat are tenths of it where nothing larger divides."""
    draft = replace(DRAFT, amount_msat=amount_msat)
    assert draft.unsigned(STYLE).startswith(prefix)
    assert read(draft).amount_msat == amount_msat


def test_private_channels_are_written() -> None:
    """A payer finds a node without public channels by the hops that the invoice names."""
    ways = read(DRAFT, replace(STYLE, routes=((HOP,), (HOP, replace(HOP, short_channel_id="7x8x9"))))).route_hints
    assert [[hop.short_channel_id for hop in way.routes] for way in ways] == [["103x1x0"], ["103x1x0", "7x8x9"]]
    (first,) = ways[0].routes
    assert (first.public_key, first.base_fee, first.ppm_fee, first.cltv_expiry_delta) == (HOP.node_id, 1000, 10, 6)


def test_the_unsigned_text_has_a_valid_checksum() -> None:
    """A node that is asked to sign checks it first (BIP 173)."""
    assert bech32.bech32_decode(DRAFT.unsigned(STYLE))[0] == "lnbcrt15n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_msat": 0},
        {"payment_hash": b"short"},
        {"payment_secret": b""},
        {"expiry_s": 0},
        {"created_at": 1 << 35},
    ],
)
def test_an_invoice_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """Before there is any text."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(DRAFT, **wrong)


def test_a_description_has_its_limit() -> None:
    """BOLT 11 counts a field's length in ten bits: 639 bytes fit, 640 do not."""
    assert read(replace(DRAFT, description="x" * 639)).description == "x" * 639
    with pytest.raises(ValueError, match="639"):
        replace(DRAFT, description="x" * 640).unsigned(STYLE)


def test_the_node_s_own_invoices_byte_for_byte(market: Market) -> None:
    """Forty invoices of the node, written again from what `decode` shows and signed by it, are the same texts."""
    chance, node = random.Random(11), market.seller.rpc  # noqa: S311
    for number in range(40):
        expiry_s = chance.choice([1, 60, 3600, 86400, 3_000_000])
        words = "".join(chance.choice("abc äöü &☂") for _ in range(chance.randrange(60)))
        made = node.invoice(chance.randrange(1, 10**12), f"bytes/{time.monotonic_ns()}/{number}", words, expiry_s)
        found = node.decode(made["bolt11"])
        style = Style(found["currency"], found["min_final_cltv_expiry"], bytes.fromhex(found["features"]))
        draft = Draft(
            found["amount_msat"],
            found["created_at"],
            bytes.fromhex(found["payment_hash"]),
            bytes.fromhex(found["payment_secret"]),
            words,
            found["expiry"],
        )
        assert market.call(market.seller, "signinvoice", [draft.unsigned(style)])["bolt11"] == made["bolt11"]
