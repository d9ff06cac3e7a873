"""Which of the tokens that were bought before serves a request best."""

from __future__ import annotations

from collections.abc import Iterable

from lyceum.books import Purchase
from lyceum.ports import Wanted


def best_fitting(kept: Iterable[Purchase], wanted: Wanted) -> Purchase | None:
    """The one that holds enough and least, so that remainders go before a full one is broken; None if none does.

    Where the need is not known, the one that holds most.
    """
    enough = [row for row in kept if _opens(row, wanted) and row.left_msat >= wanted.need_msat]
    order = sorted(enough, key=lambda row: row.left_msat, reverse=not wanted.need_msat)
    return next(iter(order), None)


def _opens(row: Purchase, wanted: Wanted) -> bool:
    """A service that is not known, on either side, may be the right one."""
    same = not wanted.service or not row.service or row.service == wanted.service
    return same and row.payment_hash not in wanted.tried
