"""What was bought: the journal of payments."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lyceum.books import Budget, Purchase, Scope, Shortfall
from lyceum.ledger.database import Database
from lyceum.ports import Outcome, Payment

OPEN = "outcome IN ('pending', 'unknown')"
COST = f"CASE WHEN {OPEN} THEN amount_msat + fee_cap_msat ELSE amount_msat + fee_msat END"
LEFT = "COALESCE(balance_msat, amount_msat)"
KEPT = f"outcome = 'settled' AND usable AND {LEFT} > 0"
SHARED: Mapping[Scope, str] = {
    "all": "TRUE",
    "peer": "(origin = :origin OR payee = :payee AND payee <> '')",
    "purpose": "purpose = :purpose",
}
"""Which rows count in a budget of each scope."""


class PurseBook:
    """What was bought; a `PurseLedger`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def purchase(self, payment_hash: str) -> Purchase | None:
        return next(iter(self._all("WHERE payment_hash = ?", payment_hash)), None)

    def begin(self, purchase: Purchase, budgets: Sequence[Budget]) -> Purchase | Shortfall:
        with self._db.write() as db:
            for budget in budgets:
                shortfall = _shortfall(db, purchase, budget)
                if shortfall:
                    return shortfall
            db.execute("DELETE FROM purchases WHERE payment_hash = ? AND outcome = 'failed'", (purchase.payment_hash,))
            db.execute(
                "INSERT INTO purchases (payment_hash, origin, purpose, bolt11, amount_msat, fee_cap_msat, created_at,"
                " macaroon, payee, model, service, outcome) VALUES (:payment_hash, :origin, :purpose, :bolt11,"
                " :amount_msat, :fee_cap_msat, :created_at, :macaroon, :payee, :model, :service, 'pending')",
                asdict(purchase),
            )
        return self._row(purchase.payment_hash)

    def finish(self, payment_hash: str, payment: Payment) -> Purchase:
        with self._db.write() as db:
            db.execute(
                "UPDATE purchases SET outcome = ?, preimage = ?, fee_msat = ? WHERE payment_hash = ?",
                (payment.outcome, payment.preimage, payment.fee_msat, payment_hash),
            )
        return self._row(payment_hash)

    def kept(self, origin: str) -> Sequence[Purchase]:
        return self._all(f"WHERE origin = ? AND {KEPT} ORDER BY created_at DESC", origin)

    def discard(self, payment_hash: str) -> None:
        with self._db.write() as db:
            db.execute("UPDATE purchases SET usable = 0 WHERE payment_hash = ?", (payment_hash,))

    def exhausted(self, payment_hash: str, need_msat: int) -> None:
        with self._db.write() as db:
            db.execute(
                f"UPDATE purchases SET balance_msat = MIN({LEFT}, ?) WHERE payment_hash = ?",
                (max(need_msat - 1, 0), payment_hash),
            )

    def unfinished(self) -> Sequence[Purchase]:
        return self._all(f"WHERE {OPEN}")

    def purchases(self, limit: int) -> Sequence[Purchase]:
        return self._all("ORDER BY created_at DESC LIMIT ?", limit)

    def spending(self) -> dict[str, int]:
        return self._db.totals(
            "SELECT COUNT(*) FILTER (WHERE outcome = 'settled') AS payments,"
            " SUM(amount_msat) FILTER (WHERE outcome = 'settled') AS paid_msat,"
            " SUM(fee_msat) FILTER (WHERE outcome = 'settled') AS fee_msat,"
            f" SUM(amount_msat + fee_cap_msat) FILTER (WHERE {OPEN}) AS open_msat"
            " FROM purchases"
        )

    def _row(self, payment_hash: str) -> Purchase:
        return self._all("WHERE payment_hash = ?", payment_hash)[0]

    def _all(self, condition: str, *values: object) -> list[Purchase]:
        return [_purchase(row) for row in self._db.read(f"SELECT * FROM purchases {condition}", *values)]


def _purchase(row: sqlite3.Row) -> Purchase:
    return Purchase(**{**dict(row), "outcome": Outcome(row["outcome"]), "usable": bool(row["usable"])})


def _shortfall(db: sqlite3.Connection, purchase: Purchase, budget: Budget) -> Shortfall | None:
    settled = "outcome = 'settled' AND created_at > :since"
    shared = f"FROM purchases WHERE {SHARED[budget.scope]} AND"
    facts = {**asdict(purchase), "since": purchase.created_at - budget.window_s}
    costs = f"SELECT {COST} AS cost_msat {shared} {OPEN} UNION ALL SELECT {COST} {shared} {settled}"  # an index each
    (spent_msat,) = db.execute(f"SELECT COALESCE(SUM(cost_msat), 0) FROM ({costs})", facts).fetchone()
    left_msat = budget.most_msat - spent_msat
    if purchase.reserved_msat <= left_msat:
        return None
    rows = db.execute(
        f"SELECT created_at, SUM({COST}) OVER (ORDER BY created_at) AS freed_msat {shared} {settled} ORDER BY 1", facts
    )
    lacking_msat = purchase.reserved_msat - left_msat
    frees = (row["created_at"] + budget.window_s for row in rows if row["freed_msat"] >= lacking_msat)
    return Shortfall(budget, max(0, left_msat), next(frees, None))
