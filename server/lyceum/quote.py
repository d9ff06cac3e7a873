"""What a challenge promises, in 32 bytes: the id of the token that it sells.

Where an invoice is made lazily the same bytes are its payment secret, and with the node's key they give
its preimage: all that is known of an unpaid challenge can be read from them again, so none of it is
stored. No I/O; the key is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from lyceum.money import check_msat

NONCE_BYTES = 10
_LAYOUT = struct.Struct(">2s10sIQH6s")
_MARK = b"q1"


@dataclass(frozen=True, slots=True)
class Quote:
    """`percent` is the share of the list price that holds until `expires_at` (Unix seconds).

    `subject` is the digest of what is sold; `nonce` makes each quote another one, and a secret.
    """

    amount_msat: int
    expires_at: int
    percent: int
    subject: bytes
    nonce: bytes

    def __post_init__(self) -> None:
        check_msat("amount_msat", self.amount_msat, least=1)
        if not 0 <= self.expires_at < 1 << 32 or not 0 < self.percent < 1 << 16:
            raise ValueError("expires_at must fit 32 bits, and percent be from 1 to 65535")
        if len(self.subject) != 6 or len(self.nonce) != NONCE_BYTES:
            raise ValueError(f"subject must be 6 bytes, and nonce {NONCE_BYTES}")

    def encode(self) -> bytes:
        return _LAYOUT.pack(_MARK, self.nonce, self.expires_at, self.amount_msat, self.percent, self.subject)

    @classmethod
    def decode(cls, token_id: bytes) -> Quote | None:
        """None where the bytes are no quote: tokens may get their ids otherwise."""
        if len(token_id) != _LAYOUT.size or token_id[:2] != _MARK:
            return None
        _, nonce, expires_at, amount_msat, percent, subject = _LAYOUT.unpack(token_id)
        try:
            return cls(amount_msat, expires_at, percent, subject, nonce)
        except ValueError:
            return None

    def label(self, service: str) -> str:
        """The invoice's, by which the node's own tools find it."""
        return f"l402/{service}/{self.encode().hex()}"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is sold: a service (a word), and the description that its invoices carry."""

    service: str
    description: str

    @classmethod
    def of(cls, service: str, model: str | None) -> Subject:
        return cls(service, " ".join(filter(None, ["L402", service, model])))

    def encode(self) -> str:
        return f"{self.service} {self.description}"

    @classmethod
    def decode(cls, text: str) -> Subject:
        service, _, description = text.partition(" ")
        return cls(service, description)

    def digest(self) -> bytes:
        return hashlib.sha256(self.encode().encode()).digest()[:6]


def preimage(key: bytes, secret: bytes) -> bytes:
    """That of a lazy invoice. `key` is as good as the preimages of all of them."""
    return hmac.digest(key, secret, "sha256")
