"""Both books as one journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of both books. `side` is sold or bought; `kind` token, topup, answer or refund.

    `at`: Unix seconds. `party`: the token's id where we sold, the origin where we bought. `mark` orders
    the postings of one second.
    """

    at: int
    side: str
    kind: str
    party: str
    service: str
    model: str
    purpose: str
    payment_hash: str
    amount_msat: int
    fee_msat: int
    mark: str


class JournalLedger(Protocol):
    def postings(self, since: int, after: str, limit: int) -> Sequence[Posting]:
        """From Unix second `since` on, in order; of that second itself only what comes after the mark `after`."""
        ...
