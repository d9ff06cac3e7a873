"""What a buyer shows: macaroon and preimage, and the header texts that carry the two, or a `Payment`.

Possession is everything, so neither is ever shown by `repr`. Whether they are good is for `verify`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lyceum.l402 import macaroon as macaroons
from lyceum.l402.caveats import Caveat
from lyceum.l402.headers import MAX_HEADER_BYTES, SCHEMES, echoed, from_base64
from lyceum.l402.payment import PaymentCredential
from lyceum.l402.refusal import Ambiguous, Malformed, reading

_PAIR = re.compile(r"([A-Za-z0-9+/_-]+={0,2}):([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Credential:
    """`macaroon_text` is the base64 as the seller wrote it, so that it is sent back unchanged."""

    macaroon: bytes = field(repr=False)
    preimage: bytes = field(repr=False)
    macaroon_text: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.macaroon or len(self.preimage) != 32:
            raise ValueError("a credential needs a macaroon and a preimage of 32 bytes")
        object.__setattr__(self, "macaroon_text", echoed(self.macaroon, self.macaroon_text))

    @classmethod
    def of(cls, macaroon_text: str, preimage_hex: str) -> Credential:
        """From the two texts that a buyer keeps, or that a header carries."""
        return cls(from_base64(macaroon_text), bytes.fromhex(preimage_hex), macaroon_text)

    @property
    def payment_hash(self) -> bytes:
        return hashlib.sha256(self.preimage).digest()

    def header(self) -> str:
        """The value of `Authorization`, in the one form that every server takes."""
        return f"L402 {self.macaroon_text}:{self.preimage.hex()}"


def parse_authorization(lines: Sequence[str]) -> Credential | PaymentCredential | None:
    """The credential in the `Authorization` lines, None if they hold only other schemes.

    What gRPC sends as the header `Macaroon: <hex>` is read as the line `Macaroon <hex>`. The same
    credential may come twice (LSAT and L402); two different ones raise Ambiguous, since servers
    disagree on which line counts.
    """
    if sum(map(len, lines)) > MAX_HEADER_BYTES:
        raise Malformed(f"Authorization is longer than {MAX_HEADER_BYTES} bytes")
    parts = [part for line in lines for part in line.split(",")]
    found = {credential for part in parts if (credential := _one(part))}
    if len(found) > 1:
        raise Ambiguous("the request carries two different credentials; send one")
    return next(iter(found), None)


def parse_metadata(text: str) -> Credential:
    """The gRPC form: the macaroon in hex, with the preimage as a caveat, of which the last counts."""
    if len(text) > MAX_HEADER_BYTES:
        raise Malformed(f"the macaroon header is longer than {MAX_HEADER_BYTES} bytes")
    with reading("the macaroon header"):
        raw = bytes.fromhex(text)
        caveats = [Caveat.decode(c) for c in macaroons.parse(raw).caveats if c.startswith(b"preimage=")]
        if not caveats:
            raise ValueError("it carries no preimage caveat")
        return Credential(raw, bytes.fromhex(caveats[-1].value))


def _one(part: str) -> Credential | PaymentCredential | None:
    scheme, *rest = part.split() or [""]
    if scheme.lower() == "bearer":
        # OpenAI's clients can send nothing but `Bearer <api_key>`: the key may be a credential,
        # bare or with its scheme. Any other key belongs to someone else.
        if len(rest) == 1 and _PAIR.fullmatch(rest[0]):
            return _pair(rest[0])
        scheme, *rest = rest or [""]
    read = _READERS.get(scheme.lower())
    return read(" ".join(rest)) if read else None


def _pair(text: str) -> Credential:
    pair = _PAIR.fullmatch(text)
    if not pair:
        raise Malformed("an L402 credential is <macaroon in base64>:<preimage in 64 hex digits>")
    with reading("the L402 credential"):
        return Credential.of(pair[1], pair[2])


_READERS: Mapping[str, Callable[[str], Credential | PaymentCredential]] = {
    **dict.fromkeys(SCHEMES, _pair),
    "macaroon": parse_metadata,
    "payment": PaymentCredential.decode,
}
