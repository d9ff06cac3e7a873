"""What the bought tokens were spent on, and whom we pay no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lyceum.books import BillLine
from lyceum.ledger.database import Database
from lyceum.ledger.purse_book import KEPT, LEFT
from lyceum.ports import Delivery

MOST_DELIVERIES = 100_000
"""The oldest ones are forgotten beyond that; about 30 MB."""

MOST_WORDS = 300
"""Characters that are kept of a name or a sentence."""


class BillBook:
    """What was bought, answer by answer; a `BillLedger`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def enter(self, delivery: Delivery, now: int) -> None:
        words = {name: getattr(delivery, name)[:MOST_WORDS] for name in ("model", "purpose", "complaint", "error")}
        facts = {**asdict(delivery), **asdict(delivery.usage), **words, "now": now}
        del facts["usage"]
        with self._db.write() as db:
            db.execute(
                "INSERT INTO deliveries (delivered_at, origin, model, purpose, payment_hash, input_tokens,"
                " output_tokens, input_chars, output_chars, charged_msat, recounted_msat, complaint, error)"
                " VALUES (:now, :origin, :model, :purpose, :payment_hash, :input_tokens,"
                " :output_tokens, :input_chars, :output_chars, :charged_msat, :recounted_msat, :complaint, :error)",
                facts,
            )
            db.execute(
                "DELETE FROM deliveries WHERE number <= (SELECT MAX(number) FROM deliveries) - ?", (MOST_DELIVERIES,)
            )
            db.execute(
                "UPDATE purchases SET balance_msat ="
                f" MIN(amount_msat, COALESCE(:balance_msat, MAX({LEFT} - :charged_msat, 0)))"
                " WHERE payment_hash = :payment_hash",
                facts,
            )
            if delivery.complaint:
                db.execute("INSERT OR IGNORE INTO distrusted VALUES (:origin, :now, :complaint)", facts)

    def distrusted(self) -> Mapping[str, str]:
        return {row["origin"]: row["complaint"] for row in self._db.read("SELECT * FROM distrusted ORDER BY since")}

    def trust(self, origin: str) -> bool:
        with self._db.write() as db:
            return db.execute("DELETE FROM distrusted WHERE origin = ?", (origin,)).rowcount > 0

    def bill(self, since: int) -> Sequence[BillLine]:
        columns = "answers, failed, charged_msat, recounted_msat, paid_msat, fee_msat, credit_msat, disputes"
        sums = ", ".join(f"SUM({column}) AS {column}" for column in columns.split(", "))
        rows = self._db.read(
            f"SELECT origin, model, {sums} FROM ("
            " SELECT origin, model, error = '' AS answers, error <> '' AS failed, charged_msat, recounted_msat,"
            "  0 AS paid_msat, 0 AS fee_msat, 0 AS credit_msat, complaint <> '' AS disputes"
            "  FROM deliveries WHERE delivered_at >= ?1"
            " UNION ALL SELECT origin, model, 0, 0, 0, 0, amount_msat, fee_msat, 0, 0"
            "  FROM purchases WHERE outcome = 'settled' AND created_at >= ?1"
            f" UNION ALL SELECT origin, model, 0, 0, 0, 0, 0, 0, {LEFT}, 0 FROM purchases WHERE {KEPT}"
            ") GROUP BY origin, model ORDER BY origin, model",
            since,
        )
        return [BillLine(**dict(row)) for row in rows]

    def prune(self, before: int) -> int:
        with self._db.write() as db:
            return db.execute("DELETE FROM deliveries WHERE delivered_at < ?", (before,)).rowcount
