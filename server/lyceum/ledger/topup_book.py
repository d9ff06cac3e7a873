"""What was added to tokens that were sold before: the invoices for it, and when they were credited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from lyceum.books import Topup
from lyceum.ledger.database import Database


class TopupBook:
    """A `TopupLedger`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, topup: Topup) -> None:
        with self._db.write() as db:
            db.execute(
                "INSERT INTO topups (payment_hash, token_id, bolt11, amount_msat, created_at, expires_at)"
                " VALUES (:payment_hash, :token_id, :bolt11, :amount_msat, :created_at, :expires_at)",
                asdict(topup),
            )

    def pending(self, token_id: str) -> Sequence[Topup]:
        return self._all("WHERE token_id = ? AND credited_at IS NULL ORDER BY created_at", token_id)

    def topups(self, token_id: str, limit: int) -> Sequence[Topup]:
        return self._all("WHERE token_id = ? ORDER BY created_at DESC LIMIT ?", token_id, limit)

    def credit(self, payment_hash: str, received_msat: int, now: int) -> None:
        with self._db.write() as db:
            marked = db.execute(
                "UPDATE topups SET received_msat = ?, credited_at = ? WHERE payment_hash = ? AND credited_at IS NULL",
                (received_msat, now, payment_hash),
            )
            if not marked.rowcount:
                return
            of_token = "WHERE token_id = (SELECT token_id FROM topups WHERE payment_hash = ?)"
            db.execute(f"UPDATE tokens SET credit_msat = credit_msat + ? {of_token}", (received_msat, payment_hash))
            db.execute(
                f"UPDATE refunds SET state = 'owed', next_at = ? {of_token} AND state IN ('paid', 'too-small')",
                (now, payment_hash),
            )

    def drop(self, payment_hash: str) -> None:
        with self._db.write() as db:
            db.execute("DELETE FROM topups WHERE payment_hash = ? AND credited_at IS NULL", (payment_hash,))

    def closed_tokens(self) -> Sequence[str]:
        rows = self._db.read(
            "SELECT DISTINCT token_id FROM topups JOIN tokens USING (token_id)"
            " WHERE credited_at IS NULL AND closed_at IS NOT NULL"
        )
        return [row["token_id"] for row in rows]

    def _all(self, condition: str, *values: object) -> list[Topup]:
        return [Topup(**row) for row in self._db.read(f"SELECT * FROM topups {condition}", *values)]
