"""The 66 bytes that name a token: version, payment hash, token id (L402 macaroon spec, "identifier").

It must not know of macaroons, nor who made the hash.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lyceum.l402.refusal import Malformed

_LAYOUT = struct.Struct(">H32s32s")
_VERSION = 0


@dataclass(frozen=True, slots=True)
class Identifier:
    payment_hash: bytes
    token_id: bytes

    def __post_init__(self) -> None:
        if len(self.payment_hash) != 32 or len(self.token_id) != 32:
            raise ValueError("payment_hash and token_id must be 32 bytes each")

    def encode(self) -> bytes:
        return _LAYOUT.pack(_VERSION, self.payment_hash, self.token_id)

    @classmethod
    def decode(cls, raw: bytes) -> Identifier:
        """Exactly 66 bytes: a longer one would sign bytes that nobody reads."""
        if len(raw) != _LAYOUT.size:
            raise Malformed(f"the macaroon's identifier has {len(raw)} bytes, not {_LAYOUT.size}")
        version, payment_hash, token_id = _LAYOUT.unpack(raw)
        if version != _VERSION:
            raise Malformed(f"the macaroon's identifier has version {version}, known is {_VERSION}")
        return cls(payment_hash, token_id)
