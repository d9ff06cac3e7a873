"""Why a credential is refused, and the two errors for text that cannot be used at all.

Nothing here may carry a preimage, a macaroon or a token: these sentences are sent and logged.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from lyceum.errors import BadRequest


class Reason(enum.StrEnum):
    """Stable codes; the last seven are decided by whoever keeps the book of tokens."""

    PAYMENT_REQUIRED = "payment-required"
    MALFORMED = "malformed-credential"
    AMBIGUOUS = "ambiguous-credential"
    BAD_PREIMAGE = "bad-preimage"
    BAD_SIGNATURE = "bad-signature"
    UNKNOWN_CAVEAT = "unknown-caveat"
    WIDENED = "widened"
    WRONG_SERVICE = "wrong-service"
    EXPIRED = "expired"
    WRONG_MODEL = "wrong-model"
    OVER_LIMIT = "over-limit"
    NOT_CAPABLE = "not-capable"
    UNKNOWN_TOKEN = "unknown-token"
    NOT_PAID = "not-paid"
    REVOKED = "revoked"
    EXHAUSTED = "exhausted"
    ALREADY_USED = "already-used"
    REFUNDED = "refunded"
    NARROWED = "narrowed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """`detail` is a sentence for the caller: what is wrong and how to mend it."""

    reason: Reason
    detail: str


class Malformed(BadRequest):
    """What was sent as L402 is not L402."""

    code = Reason.MALFORMED
    reason: ClassVar[Reason] = Reason.MALFORMED


class Ambiguous(BadRequest):
    """Two different credentials in one request; whichever is used could be the wrong one."""

    rpc_code = 40105
    code = Reason.AMBIGUOUS
    reason: ClassVar[Reason] = Reason.AMBIGUOUS


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Values refuse to be built with ValueError; in a decoder that is the sender's fault.

    The cause is cut off because library errors keep the bytes that they failed on.
    """
    try:
        yield
    except ValueError as error:
        raise Malformed(f"{what} cannot be read: {error}") from None
