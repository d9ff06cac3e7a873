"""What share of the list price is asked now: by model, by how much is waiting, by what was prepaid. Pure.

All in whole percent, rounded up; the list prices themselves are the server's.
"""

from __future__ import annotations

from dataclasses import dataclass

from lyceum.money import ceil_div, check_msat

LIST_PRICE = 100
MOST_PERCENT = 10_000
ANY_MODEL = "*"

Shares = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Tariff:
    """`models`: a share for each, `*` for those that are not named. `tiers`: from so many msat prepaid on, this share.

    Each request that is being served adds `per_waiting`. Tier and load together stay between `floor` and `cap`.
    """

    models: Shares = ()
    per_waiting: int = 0
    tiers: tuple[tuple[int, int], ...] = ()
    floor: int = 50
    cap: int = 300

    def __post_init__(self) -> None:
        for least_msat, _ in self.tiers:
            check_msat("tiers", least_msat)
        shares = [share for _, share in (*self.models, *self.tiers)]
        if not all(1 <= share <= MOST_PERCENT for share in shares) or self.per_waiting < 0:
            raise ValueError(f"a share of the list price is from 1 to {MOST_PERCENT} percent")
        if not 1 <= self.floor <= LIST_PRICE <= self.cap <= MOST_PERCENT:
            raise ValueError(f"floor must be from 1 to 100 percent, and cap from 100 to {MOST_PERCENT}")

    def percent(self, model: str | None, waiting: int, prepaid_msat: int = 0) -> int:
        """For a request behind `waiting` others, of somebody who prepaid so much in all; None is no model of ours."""
        named = dict(self.models)
        own = named.get(model, named.get(ANY_MODEL, LIST_PRICE)) if model else LIST_PRICE
        tier = max(((least, share) for least, share in self.tiers if prepaid_msat >= least), default=(0, LIST_PRICE))[1]
        moved = ceil_div(tier * (LIST_PRICE + self.per_waiting * waiting), 100)
        return min(ceil_div(own * min(max(moved, self.floor), self.cap), 100), MOST_PERCENT)


AS_LISTED = Tariff()


def share_msat(amount_msat: int, percent: int) -> int:
    """So many percent of an amount, rounded up."""
    return ceil_div(amount_msat * percent, 100)
