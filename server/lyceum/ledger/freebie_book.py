"""Who has had how many free requests."""

from __future__ import annotations

from lyceum.ledger.database import Database


class FreebieBook:
    """Free requests by service and client; a `FreebieLedger`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def take(self, service: str, client: str, most: int) -> bool:
        with self._db.write() as db:
            taken = db.execute(
                "INSERT INTO freebies SELECT ?1, ?2, 1 WHERE ?3 > 0"
                " ON CONFLICT DO UPDATE SET used = used + 1 WHERE used < ?3",
                (service, client, most),
            )
            return taken.rowcount == 1
