"""Is this HTLC for a challenge of ours, and what should the node read in it? Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lyceum.quote import Quote, preimage

_PAYMENT_DATA = 8
"""The record of BOLT 4's payload that holds payment secret and total."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An HTLC that pays `quote`. `payload` is the onion's, with the secret that lightningd expects."""

    quote: Quote
    preimage: bytes = field(repr=False)
    payload: bytes = field(repr=False)


def arrival(key: bytes, onion: Mapping[str, Any], htlc: Mapping[str, Any], now: int) -> Arrival | None:
    """None unless hash, secret, time and amount are what we promised (BOLT 4: up to twice the amount)."""
    secret = bytes.fromhex(onion["payment_secret"])
    quote, proof = Quote.decode(secret), preimage(key, secret)
    payment_hash = bytes.fromhex(htlc["payment_hash"])
    if quote is None or not hmac.compare_digest(hashlib.sha256(proof).digest(), payment_hash):
        return None
    total_msat = int(onion["total_msat"])
    if now > quote.expires_at or not quote.amount_msat <= total_msat <= 2 * quote.amount_msat:
        return None
    return Arrival(quote, proof, _with_secret(bytes.fromhex(onion["payload"]), _expected_secret(proof)))


def _expected_secret(proof: bytes) -> bytes:
    """lightningd's own for this preimage: the hash of it with the lowest bit of its first byte flipped."""
    return hashlib.sha256(bytes([proof[0] ^ 1]) + proof[1:]).digest()


def _with_secret(payload: bytes, secret: bytes) -> bytes:
    """The records without the length in front, as the hook's answer takes them. Raises ValueError if damaged."""
    _, at = _bigsize(payload, 0)
    records = payload[at:]
    at = 0
    while at < len(records):
        kind, start = _bigsize(records, at)
        length, start = _bigsize(records, start)
        if kind == _PAYMENT_DATA:
            return records[:start] + secret + records[start + len(secret) :]
        at = start + length
    raise ValueError("the payload has no payment data")


def _bigsize(raw: bytes, at: int) -> tuple[int, int]:
    """A BigSize of BOLT 1 and where it ends."""
    if at >= len(raw):
        raise ValueError("the payload breaks off")
    size = {0xFD: 2, 0xFE: 4, 0xFF: 8}.get(raw[at])
    if size is None:
        return raw[at], at + 1
    return int.from_bytes(raw[at + 1 : at + 1 + size]), at + 1 + size
