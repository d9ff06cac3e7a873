"""Both sides of the books as one list of postings, in order of time, page by page."""

from __future__ import annotations

from collections.abc import Sequence

from lyceum.books import Posting
from lyceum.ledger.database import Database

POSTINGS = """
    SELECT tokens.created_at AS at, 'sold' AS side, 'token' AS kind, token_id AS party, service, '' AS model,
        '' AS purpose, payment_hash,
        credit_msat - COALESCE((SELECT SUM(received_msat) FROM topups
            WHERE topups.token_id = tokens.token_id AND credited_at IS NOT NULL), 0) AS amount_msat,
        0 AS fee_msat, 't' || token_id AS mark
        FROM tokens
    UNION ALL SELECT credited_at, 'sold', 'topup', token_id, service, '', '', topups.payment_hash, received_msat, 0,
        'u' || topups.payment_hash
        FROM topups JOIN tokens USING (token_id) WHERE credited_at IS NOT NULL
    UNION ALL SELECT settled_at, 'sold', 'answer', token_id, service, '', '', payment_hash, charged_msat, 0,
        'r' || reservation
        FROM reservations JOIN tokens USING (token_id) WHERE charged_msat > 0
    UNION ALL SELECT payouts.created_at, 'sold', 'refund', token_id, service, '', '', payouts.payment_hash,
        amount_msat, fee_msat, 'p' || number
        FROM payouts JOIN tokens USING (token_id) WHERE outcome = 'settled'
    UNION ALL SELECT created_at, 'bought', 'token', origin, service, model, purpose, payment_hash, amount_msat,
        fee_msat, 'b' || payment_hash
        FROM purchases WHERE outcome = 'settled'
    UNION ALL SELECT delivered_at, 'bought', 'answer', origin, '', model, purpose, payment_hash, charged_msat, 0,
        'd' || number
        FROM deliveries
"""


class Journal:
    """A `JournalLedger`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def postings(self, since: int, after: str, limit: int) -> Sequence[Posting]:
        rows = self._db.read(
            f"SELECT * FROM ({POSTINGS}) WHERE at >= ?1 AND (at > ?1 OR mark > ?2) ORDER BY at, mark LIMIT ?3",
            since,
            after,
            limit,
        )
        return [Posting(**dict(row)) for row in rows]
