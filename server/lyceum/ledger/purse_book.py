"""What was bought: the journal of payments."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from lyceum.books import Purchase
from lyceum.ledger.database import Database
from lyceum.ports import Outcome, Payment


class PurseBook:
    """What was bought; a `PurseLedger`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def purchase(self, payment_hash: str) -> Purchase | None:
        return next(iter(self._all("WHERE payment_hash = ?", payment_hash)), None)

    def begin(self, purchase: Purchase) -> Purchase:
        with self._db.write() as db:
            db.execute("DELETE FROM purchases WHERE payment_hash = ? AND outcome = 'failed'", (purchase.payment_hash,))
            db.execute(
                "INSERT INTO purchases (payment_hash, origin, purpose, bolt11, amount_msat, fee_cap_msat, created_at,"
                " macaroon, outcome) VALUES (:payment_hash, :origin, :purpose, :bolt11, :amount_msat, :fee_cap_msat,"
                " :created_at, :macaroon, 'pending')",
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
        return self._all("WHERE origin = ? AND outcome = 'settled' AND usable ORDER BY created_at DESC", origin)

    def discard(self, payment_hash: str) -> None:
        with self._db.write() as db:
            db.execute("UPDATE purchases SET usable = 0 WHERE payment_hash = ?", (payment_hash,))

    def unfinished(self) -> Sequence[Purchase]:
        return self._all("WHERE outcome IN ('pending', 'unknown')")

    def purchases(self, limit: int) -> Sequence[Purchase]:
        return self._all("ORDER BY created_at DESC LIMIT ?", limit)

    def spending(self) -> dict[str, int]:
        return self._db.totals(
            "SELECT COUNT(*) FILTER (WHERE outcome = 'settled') AS payments,"
            " SUM(amount_msat) FILTER (WHERE outcome = 'settled') AS paid_msat,"
            " SUM(fee_msat) FILTER (WHERE outcome = 'settled') AS fee_msat,"
            " SUM(amount_msat + fee_cap_msat) FILTER (WHERE outcome IN ('pending', 'unknown')) AS open_msat"
            " FROM purchases"
        )

    def _row(self, payment_hash: str) -> Purchase:
        return self._all("WHERE payment_hash = ?", payment_hash)[0]

    def _all(self, condition: str, *values: object) -> list[Purchase]:
        return [_purchase(row) for row in self._db.read(f"SELECT * FROM purchases {condition}", *values)]  # noqa: S608


def _purchase(row: sqlite3.Row) -> Purchase:
    return Purchase(**{**dict(row), "outcome": Outcome(row["outcome"]), "usable": bool(row["usable"])})
