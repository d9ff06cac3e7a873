"""How much may leave the wallet: for one payment, and for all of an hour, a day, a peer or a purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from lyceum.books import Budget, Purchase, Shortfall
from lyceum.money import check_msat, text

HOUR_S = 3600
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class PurseLimits:
    """In msat, fees counted; 0 sets no limit, except for `payment_msat`, the invoice of one payment.

    The windows slide: what was paid counts for the hour or the day that follows. `peer_msat` and
    `purpose_msat` hold for a day.
    """

    payment_msat: int
    hour_msat: int = 0
    day_msat: int = 0
    peer_msat: int = 0
    purpose_msat: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            check_msat(field.name, getattr(self, field.name))

    def budgets(self) -> Sequence[Budget]:
        every = (
            Budget("hour", self.hour_msat, HOUR_S),
            Budget("day", self.day_msat, DAY_S),
            Budget("peer", self.peer_msat, DAY_S, "peer"),
            Budget("purpose", self.purpose_msat, DAY_S, "purpose"),
        )
        return [budget for budget in every if budget.most_msat]


def too_little(purchase: Purchase, shortfall: Shortfall) -> str:
    """Which budget does not suffice, what is left of it, and when it will."""
    budget = shortfall.budget
    whose = {"all": "", "peer": f" for {purchase.origin}", "purpose": f" for {purchase.purpose!r}"}[budget.scope]
    return (
        f"the payment may take {text(purchase.reserved_msat)}, and {text(shortfall.left_msat)} are left of the "
        f"{text(budget.most_msat)} that lyceum-budget-{budget.name}-msat allows{whose}; {_when(purchase, shortfall)}"
    )


def _when(purchase: Purchase, shortfall: Shortfall) -> str:
    if purchase.reserved_msat > shortfall.budget.most_msat:
        return "it never allows that much"
    if shortfall.frees_at is None:
        return "enough is free once payments under way are known to have failed or settled"
    return f"enough is free from {datetime.fromtimestamp(shortfall.frees_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
