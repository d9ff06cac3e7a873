"""What the holder of a token asks for beside answers."""

from __future__ import annotations

from lyceum.errors import BadRequest
from lyceum.money import MAX_MSAT
from lyceum.wire.body import integer_of, object_of, text_of

MAX_ADDRESS = 4096


def read_topup(body: bytes) -> int:
    """The amount in msat that a holder wants to add to its token. Raises BadRequest."""
    amount_msat = integer_of(object_of(body), "amount_msat")
    if amount_msat is None or not 1 <= amount_msat <= MAX_MSAT:
        raise BadRequest(f"amount_msat must be a number of msat from 1 to {MAX_MSAT}", "amount_msat")
    return amount_msat


def read_refund(body: bytes) -> str:
    """Where a holder wants its refund. Raises BadRequest."""
    address = text_of(object_of(body), "address")
    if len(address) > MAX_ADDRESS:
        raise BadRequest(f"address has {len(address)} characters; at most {MAX_ADDRESS} are read", "address")
    return address
