"""Whom we pay no more, and what was bought from whom.

Law: one complaint about a bill, and its origin gets neither tokens nor money until a person says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lyceum.books import BillLedger, BillLine
from lyceum.errors import Distrusted
from lyceum.ports import Delivery


class Bills:
    def __init__(self, ledger: BillLedger, *, now: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now = now

    def enter(self, delivery: Delivery) -> None:
        self._ledger.enter(delivery, self._now())

    def check_trusted(self, origin: str) -> None:
        """Raises Distrusted, with the complaint and how to forgive it."""
        complaint = self._ledger.distrusted().get(origin)
        if complaint:
            raise Distrusted(f"{origin} overcharged: {complaint}. To use it again: lyceum trust {origin}")

    def distrusted(self) -> Mapping[str, str]:
        return self._ledger.distrusted()

    def trust(self, origin: str) -> bool:
        return self._ledger.trust(origin)

    def bill(self, since: int) -> Sequence[BillLine]:
        return self._ledger.bill(since)

    def prune(self, before: int) -> int:
        return self._ledger.prune(before)
