"""BOLT 11 invoices as text that a node is asked to sign. It writes them; reading is the node's. No I/O.

Fields stand in the order in which lightningd writes them, so what it signs is what we wrote.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import reduce
from operator import xor

from lyceum.money import check_msat

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
# What each value of the checksum's top five bits adds to it.
_TERMS = [reduce(xor, (term for at, term in enumerate(_GENERATOR) if top >> at & 1), 0) for top in range(32)]
_PICO_PER_MSAT = 10
# Letter and how many pico-bitcoin one of it is, the largest first (BOLT 11, "Human-Readable Part").
_MULTIPLIERS = (("", 10**12), ("m", 10**9), ("u", 10**6), ("n", 10**3), ("p", 1))
_DEFAULT_EXPIRY_S = 3600
_NO_SIGNATURE = [0] * 104


@dataclass(frozen=True, slots=True)
class Hop:
    """A step of a private way to the payee (BOLT 11, field `r`)."""

    node_id: str
    short_channel_id: str
    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: int

    def encode(self) -> bytes:
        block, transaction, output = map(int, self.short_channel_id.split("x"))
        channel = block << 40 | transaction << 16 | output
        fees = self.fee_base_msat, self.fee_proportional_millionths
        return struct.pack(">33sQIIH", bytes.fromhex(self.node_id), channel, *fees, self.cltv_expiry_delta)


@dataclass(frozen=True, slots=True)
class Style:
    """What all invoices of one node have in common. `currency` is the prefix after `ln`; `cltv` in blocks."""

    currency: str
    cltv: int
    features: bytes
    routes: tuple[tuple[Hop, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """One invoice. `created_at` is Unix seconds; the description is at most 639 bytes."""

    amount_msat: int
    created_at: int
    payment_hash: bytes
    payment_secret: bytes
    description: str
    expiry_s: int

    def __post_init__(self) -> None:
        check_msat("amount_msat", self.amount_msat, least=1)
        if len(self.payment_hash) != 32 or len(self.payment_secret) != 32:
            raise ValueError("payment_hash and payment_secret must be 32 bytes each")
        if not 0 <= self.created_at < 1 << 35 or self.expiry_s < 1:
            raise ValueError("created_at must fit 35 bits, and expiry_s be at least a second")

    def unsigned(self, style: Style) -> str:
        """The invoice with zeros for its signature and a valid checksum."""
        human = f"ln{style.currency}{_amount(self.amount_msat)}"
        data = [
            *_fixed(self.created_at, 7),
            *_bytes("s", self.payment_secret),
            *_bytes("p", self.payment_hash),
            *_bytes("d", self.description.encode()),
            *(() if self.expiry_s == _DEFAULT_EXPIRY_S else _number("x", self.expiry_s)),
            *_number("c", style.cltv),
            *(group for route in style.routes for group in _bytes("r", b"".join(hop.encode() for hop in route))),
            *(_number("9", int.from_bytes(style.features)) if style.features else ()),
            *_NO_SIGNATURE,
        ]
        return f"{human}1{''.join(_CHARSET[group] for group in (*data, *_checksum(human, data)))}"


def _amount(amount_msat: int) -> str:
    """In the largest unit that divides it, which is the shortest text."""
    pico = amount_msat * _PICO_PER_MSAT
    letter, unit = next(entry for entry in _MULTIPLIERS if pico % entry[1] == 0)
    return f"{pico // unit}{letter}"


def _fixed(number: int, groups: int) -> list[int]:
    """Big-endian groups of five bits."""
    return [number >> 5 * at & 31 for at in range(groups - 1, -1, -1)]


def _tagged(letter: str, groups: list[int]) -> list[int]:
    if len(groups) > 1023:
        raise ValueError("a field of an invoice is longer than 639 bytes")
    return [_CHARSET.index(letter), *_fixed(len(groups), 2), *groups]


def _number(letter: str, number: int) -> list[int]:
    return _tagged(letter, _fixed(number, -(-number.bit_length() // 5)))


def _bytes(letter: str, raw: bytes) -> list[int]:
    bits = len(raw) * 8
    return _tagged(letter, _fixed(int.from_bytes(raw) << -bits % 5, -(-bits // 5)))


def _checksum(human: str, data: list[int]) -> list[int]:
    """BIP 173, "Checksum"."""
    letters = human.encode()
    sum_ = 1
    for group in (*(letter >> 5 for letter in letters), 0, *(letter & 31 for letter in letters), *data, *[0] * 6):
        sum_ = (sum_ & 0x1FFFFFF) << 5 ^ group ^ _TERMS[sum_ >> 25]
    return _fixed(sum_ ^ 1, 6)
