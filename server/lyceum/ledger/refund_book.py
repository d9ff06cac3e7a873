"""What was given back: claims of holders, and the journal of payments to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, replace

from lyceum.books import Payout, Refund, RefundState
from lyceum.ledger.database import Database
from lyceum.ledger.till_book import BALANCE, give_back_lapsed
from lyceum.ports import Outcome, Payment

OPEN = "outcome IN ('pending', 'unknown')"


class RefundBook:
    """A `RefundLedger`. A payment under way counts as reserved on its token, so that at most one is."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def claim(self, token_id: str, address: str, now: int) -> Refund:
        with self._db.write() as db:
            db.execute("UPDATE tokens SET closed_at = ? WHERE token_id = ? AND closed_at IS NULL", (now, token_id))
            db.execute(
                "INSERT INTO refunds (token_id, address, claimed_at, state, next_at) VALUES (?1, ?2, ?3, 'owed', ?3)"
                " ON CONFLICT (token_id) DO UPDATE SET"
                " address = excluded.address, state = 'owed', next_at = excluded.next_at, tries = 0, detail = ''",
                (token_id, address, now),
            )
        return self._refunds("WHERE token_id = ?", token_id)[0]

    def refund(self, token_id: str) -> Refund | None:
        return next(iter(self._refunds("WHERE token_id = ?", token_id)), None)

    def refunds(self, limit: int) -> Sequence[Refund]:
        return self._refunds("ORDER BY claimed_at DESC, token_id LIMIT ?", limit)

    def due(self, now: int) -> Sequence[Refund]:
        return self._refunds("WHERE state = 'owed' AND next_at <= ? ORDER BY next_at", now)

    def next_at(self) -> int | None:
        found: int | None = self._db.read("SELECT MIN(next_at) AS at FROM refunds WHERE state = 'owed'")[0]["at"]
        return found

    def idle_msat(self, token_id: str, now: int) -> int | None:
        with self._db.write() as db:
            give_back_lapsed(db, token_id, now)
            balance_msat: int | None
            reserved_msat, balance_msat = db.execute(
                f"SELECT reserved_msat, {BALANCE} FROM tokens WHERE token_id = ?",
                (token_id,),
            ).fetchone()
        return None if reserved_msat else balance_msat

    def begin(self, payout: Payout, address: str) -> Payout | None:
        with self._db.write() as db:
            taken = db.execute(
                "UPDATE tokens SET reserved_msat = ?1 FROM refunds WHERE refunds.token_id = tokens.token_id"
                " AND tokens.token_id = ?2 AND address = ?3 AND closed_at IS NOT NULL AND reserved_msat = 0"
                f" AND {BALANCE} >= ?1"
                " AND NOT EXISTS (SELECT 1 FROM payouts WHERE payment_hash = ?4 AND token_id != ?2)",
                (payout.amount_msat + payout.fee_cap_msat, payout.token_id, address, payout.payment_hash),
            )
            if not taken.rowcount:
                return None
            written = db.execute(
                "INSERT INTO payouts (token_id, payment_hash, invoice, amount_msat, fee_cap_msat, created_at, outcome)"
                " VALUES (:token_id, :payment_hash, :invoice, :amount_msat, :fee_cap_msat, :created_at, 'pending')",
                asdict(payout),
            )
        return replace(payout, outcome=Outcome.PENDING, number=int(written.lastrowid or 0))

    def open_payout(self, token_id: str) -> Payout | None:
        return next(iter(self._payouts(f"WHERE token_id = ? AND {OPEN}", token_id)), None)

    def payouts(self, token_id: str) -> Sequence[Payout]:
        return self._payouts("WHERE token_id = ? ORDER BY number", token_id)

    def is_used(self, payment_hash: str, token_id: str) -> bool:
        used = "WHERE payment_hash = ? AND (token_id != ? OR outcome = 'settled')"
        return bool(self._payouts(used, payment_hash, token_id))

    def finish(self, payout: Payout, payment: Payment) -> None:
        fee_msat = min(payment.fee_msat, payout.fee_cap_msat) if payment.outcome is Outcome.SETTLED else 0
        with self._db.write() as db:
            changed = db.execute(
                f"UPDATE payouts SET outcome = ?, fee_msat = ? WHERE number = ? AND {OPEN}",
                (payment.outcome, fee_msat, payout.number),
            )
            if not changed.rowcount or payment.outcome in (Outcome.PENDING, Outcome.UNKNOWN):
                return
            sent_msat = payout.amount_msat + fee_msat if payment.outcome is Outcome.SETTLED else 0
            db.execute(
                "UPDATE tokens SET reserved_msat = reserved_msat - ?, refunded_msat = refunded_msat + ?"
                " WHERE token_id = ?",
                (payout.amount_msat + payout.fee_cap_msat, sent_msat, payout.token_id),
            )

    def note(self, refund: Refund, least_msat: int) -> None:
        with self._db.write() as db:
            db.execute(
                "UPDATE refunds SET state = :state, next_at = :next_at, tries = :tries, detail = :detail"
                " WHERE token_id = :token_id AND address = :address AND (:state NOT IN ('paid', 'too-small') OR"
                f" (SELECT {BALANCE} + reserved_msat FROM tokens WHERE token_id = :token_id) < :least_msat)",
                asdict(refund) | {"least_msat": least_msat},
            )

    def sums(self) -> dict[str, int]:
        claims = self._db.totals(
            "SELECT COUNT(*) AS claims, COUNT(*) FILTER (WHERE state = 'owed') AS owed FROM refunds"
        )
        paid = self._db.totals(
            "SELECT COUNT(*) FILTER (WHERE outcome = 'settled') AS payouts,"
            " SUM(amount_msat) FILTER (WHERE outcome = 'settled') AS sent_msat, SUM(fee_msat) AS fee_msat,"
            f" SUM(amount_msat + fee_cap_msat) FILTER (WHERE {OPEN}) AS open_msat FROM payouts"
        )
        return claims | paid

    def _refunds(self, condition: str, *values: object) -> list[Refund]:
        rows = self._db.read(f"SELECT * FROM refunds {condition}", *values)
        return [Refund(**{**dict(row), "state": RefundState(row["state"])}) for row in rows]

    def _payouts(self, condition: str, *values: object) -> list[Payout]:
        return [_payout(row) for row in self._db.read(f"SELECT * FROM payouts {condition}", *values)]


def _payout(row: sqlite3.Row) -> Payout:
    return Payout(**{**dict(row), "outcome": Outcome(row["outcome"])})
