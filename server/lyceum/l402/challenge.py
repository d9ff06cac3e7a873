"""What a seller answers with 402: a macaroon and the invoice that pays for it, in every dialect.

Both sides use the same value. To a buyer the macaroon is opaque, whoever made it; whether the
invoice is signed, affordable and for the same hash is for the buyer's wallet to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lyceum.l402 import macaroon as macaroons
from lyceum.l402.caveats import Caveat, check_service
from lyceum.l402.headers import MAX_HEADER_BYTES, SCHEMES, Parameters, challenges, echoed, from_base64
from lyceum.l402.identifier import Identifier
from lyceum.l402.refusal import Malformed, reading

# BOLT 11: `ln`, the network, an amount perhaps, `1`, then bech32.
_BOLT11 = re.compile(r"ln[a-z]{2,}(?:[0-9]+[munp]?)?1[02-9ac-hj-np-z]+", re.IGNORECASE | re.ASCII)
# A challenge is repeated under both names, and other schemes may stand beside it.
_MAX_CHALLENGE_BYTES = 4 * MAX_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Challenge:
    """`macaroon_text` is the base64 as the seller wrote it, empty for one of our own."""

    macaroon: bytes = field(repr=False)
    invoice: str
    macaroon_text: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.macaroon:
            raise ValueError("the macaroon is empty")
        if not _BOLT11.fullmatch(self.invoice):
            raise ValueError("the invoice is not BOLT 11")
        object.__setattr__(self, "macaroon_text", echoed(self.macaroon, self.macaroon_text))

    def header_lines(self) -> tuple[str, str]:
        """LSAT first: old clients read one line only. Order and spacing are what Aperture's client wants.

        The later draft's names for the same token come last, where the clients of the earlier one skip them.
        """
        parameters = f'macaroon="{self.macaroon_text}", invoice="{self.invoice}"'
        return f"LSAT {parameters}", f'L402 {parameters}, version="0", token="{self.macaroon_text}"'

    def identifier(self) -> Identifier | None:
        """What the macaroon names, if it is the 66 byte form or Boltwall's hex of it; else None."""
        try:
            raw = macaroons.parse(self.macaroon).identifier
            return Identifier.decode(bytes.fromhex(raw.decode()) if len(raw) == 132 else raw)
        except (Malformed, ValueError):
            return None

    def service(self) -> str:
        """The one service that the macaroon opens; "" if it opens several, or does not say so in our terms."""
        try:
            caveats = map(Caveat.decode, macaroons.parse(self.macaroon).caveats)
            *_, last = (caveat.value for caveat in caveats if caveat.condition == "services")
            return check_service(last.partition(":")[0]) if "," not in last else ""
        except (Malformed, ValueError):
            return ""


def parse_challenge(lines: Iterable[str]) -> Challenge:
    """The first L402 or LSAT challenge among the `WWW-Authenticate` lines."""
    lines = list(lines)
    if sum(map(len, lines)) > _MAX_CHALLENGE_BYTES:
        raise Malformed(f"WWW-Authenticate is longer than {_MAX_CHALLENGE_BYTES} bytes")
    parameters = next((found for scheme, found in challenges(lines) if scheme in SCHEMES), None)
    if parameters is None:
        raise Malformed("WWW-Authenticate holds no L402 challenge")
    with reading("the L402 challenge"):
        text = _single(parameters, "macaroon", "token")  # later drafts of the spec say `token`
        return Challenge(from_base64(text), _single(parameters, "invoice"), text)


def _single(parameters: Parameters, *names: str) -> str:
    values = {value for name, value in parameters if name in names}
    if len(values) != 1:
        raise ValueError(f"it needs exactly one `{names[0]}`")
    return values.pop()
