"""Macaroons as L402 uses them: binary V2, location `lsat`, first-party caveats, over pymacaroons.

Keys are arguments; this module keeps none. It signs caveats and must not know what they mean,
except that it never signs a token that names no service.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pymacaroons
from pymacaroons.serializers import BinarySerializer
from pymacaroons.utils import create_initial_signature, sign_first_party_caveat

from lyceum.l402 import caveats as own
from lyceum.l402.caveats import Caveat
from lyceum.l402.identifier import Identifier
from lyceum.l402.refusal import Malformed, reading

MAX_CAVEATS = 32
MAX_CAVEAT_BYTES = 512
MAX_BYTES = 20 * 1024
_V2 = b"\x02"
_NO_LOCATION = b"\x01\x00"
_KEY_INFO = b"lyceum l402 token key"


@dataclass(frozen=True, slots=True)
class Macaroon:
    """What was read, not yet believed. Caveat bytes need not be UTF-8 and may hold a preimage."""

    identifier: bytes
    caveats: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.signature) != 32:
            raise ValueError("its signature is not 32 bytes")
        if len(self.caveats) > MAX_CAVEATS:
            raise ValueError(f"it has more than {MAX_CAVEATS} caveats")
        if any(len(caveat) > MAX_CAVEAT_BYTES for caveat in self.caveats):
            raise ValueError(f"one of its caveats is longer than {MAX_CAVEAT_BYTES} bytes")


def token_key(master: bytes, identifier: bytes) -> bytes:
    """The root key of one token, so that nothing need be stored before it is paid for.

    One block of HKDF-Expand with SHA-256 (RFC 5869, 2.3); `master` is random, so Extract is left out.
    """
    if len(master) < 32:
        raise ValueError("the master key must be at least 32 bytes")
    return hmac.digest(master, _KEY_INFO + identifier + b"\x01", "sha256")


def mint(root_key: bytes, identifier: Identifier, caveats: Sequence[Caveat]) -> bytes:
    if len(root_key) != 32:
        raise ValueError("a root key is 32 bytes")
    if not any(caveat.condition == "services" for caveat in caveats):
        raise ValueError("a token that names no service is a key to all of them")
    made = pymacaroons.Macaroon("lsat", identifier.encode(), root_key, version=pymacaroons.MACAROON_V2)
    return _extended(made, caveats)


def challenge_macaroon(
    master_key: bytes, payment_hash: bytes, token_id: bytes, service: str, valid_until: int
) -> bytes:
    """The token to sell for the invoice of `payment_hash`: one service, until `valid_until`."""
    identifier = Identifier(payment_hash, token_id)
    caveats = own.services(service), own.valid_until(service, valid_until)
    return mint(token_key(master_key, identifier.encode()), identifier, caveats)


def attenuate(raw: bytes, caveat: Caveat) -> bytes:
    """The same token with one more restriction; needs no key."""
    parse(raw)
    return _extended(_read(raw), [caveat])


def parse(raw: bytes) -> Macaroon:
    """Limits come before any cryptography, so that a refusal costs little."""
    if raw[:1] != _V2:
        raise Malformed("the macaroon is not in the binary V2 format")
    if len(raw) > MAX_BYTES:
        raise Malformed(f"the macaroon is longer than {MAX_BYTES} bytes")
    found = _read(raw)
    if found.third_party_caveats():
        raise Malformed("the macaroon has a third-party caveat; L402 knows none")
    with reading("the macaroon"):
        caveats = tuple(caveat.caveat_id_bytes for caveat in found.caveats)
        return Macaroon(found.identifier_bytes, caveats, binascii.unhexlify(found.signature_bytes))


def verify_signature(root_key: bytes, macaroon: Macaroon) -> bool:
    """The chain step by step: pymacaroons' Verifier fails on caveats that are not UTF-8."""
    signature = binascii.unhexlify(create_initial_signature(root_key, macaroon.identifier))
    for caveat in macaroon.caveats:
        signature = binascii.unhexlify(sign_first_party_caveat(signature, caveat))
    return hmac.compare_digest(signature, macaroon.signature)


def _read(raw: bytes) -> Any:
    """pymacaroons' object, if it writes the same bytes again: it ignores whatever follows a macaroon."""
    try:
        found = BinarySerializer().deserialize_raw(raw)
        written = BinarySerializer().serialize_raw(found)
    except Exception:  # it raises bare Exception, struct, Unicode and its own errors
        raise Malformed("the macaroon cannot be read") from None
    if written not in (raw, _V2 + _NO_LOCATION + raw[1:]):
        raise Malformed("the macaroon is followed by other bytes or written unusually")
    return found


def _extended(made: Any, caveats: Sequence[Caveat]) -> bytes:
    for caveat in caveats:
        made.add_first_party_caveat(caveat.encode())
    raw: bytes = BinarySerializer().serialize_raw(made)
    parse(raw)
    return raw
