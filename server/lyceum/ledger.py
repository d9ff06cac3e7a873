"""SQLite as the node's books: one file in the lightning-dir, one short transaction a method.

Two books share it: what was sold (tokens, reservations) and what was bought (purchases). Every
commit reaches the disk before a method returns. Knows no HTTP, no model, no Lightning call.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from lyceum.books import Purchase, Token
from lyceum.errors import ConfigError
from lyceum.ports import Outcome, Payment, Settlement

SCHEMA = (
    """
    CREATE TABLE tokens (
        token_id TEXT PRIMARY KEY,
        payment_hash TEXT NOT NULL UNIQUE,
        service TEXT NOT NULL,
        credit_msat INTEGER NOT NULL,
        spent_msat INTEGER NOT NULL DEFAULT 0,
        reserved_msat INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        CHECK (spent_msat >= 0 AND reserved_msat >= 0 AND spent_msat + reserved_msat <= credit_msat)
    ) STRICT;
    CREATE TABLE revocations (token_id TEXT PRIMARY KEY, revoked_at INTEGER NOT NULL) STRICT;
    CREATE TABLE reservations (
        reservation TEXT PRIMARY KEY,
        token_id TEXT NOT NULL REFERENCES tokens,
        amount_msat INTEGER NOT NULL,
        until INTEGER NOT NULL,
        charged_msat INTEGER,
        settled_at INTEGER
    ) STRICT;
    CREATE INDEX open_reservations ON reservations (token_id, until) WHERE settled_at IS NULL;
    CREATE TABLE purchases (
        payment_hash TEXT PRIMARY KEY,
        origin TEXT NOT NULL,
        purpose TEXT NOT NULL,
        bolt11 TEXT NOT NULL,
        amount_msat INTEGER NOT NULL,
        fee_cap_msat INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        macaroon TEXT NOT NULL,
        outcome TEXT NOT NULL,
        preimage TEXT NOT NULL DEFAULT '',
        fee_msat INTEGER NOT NULL DEFAULT 0,
        usable INTEGER NOT NULL DEFAULT 1
    ) STRICT;
    CREATE INDEX kept_purchases ON purchases (origin, created_at) WHERE outcome = 'settled' AND usable;
    """,
)
"""One script a schema version; `PRAGMA user_version` counts those that were applied."""


class Database:
    """One connection, one writer at a time. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        self._migrate(path)

    def _migrate(self, path: Path) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(SCHEMA):
            self._connection.close()
            raise ConfigError(
                f"{path} was written by a newer Lyceum (schema {version}, this one knows {len(SCHEMA)}): "
                "update cln-lyceum, or move the file away to start new books"
            )
        for number, script in enumerate(SCHEMA[version:], start=version + 1):
            self._connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def read(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def totals(self, query: str) -> dict[str, int]:
        """The one row of an aggregate query by column name; an empty sum is 0."""
        (row,) = self.read(query)
        return {key: row[key] or 0 for key in row.keys()}  # noqa: SIM118

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class TillBook:
    """What was sold; a `TillLedger`."""

    _TOKENS = "SELECT tokens.*, revoked_at IS NOT NULL AS revoked FROM tokens LEFT JOIN revocations USING (token_id)"

    def __init__(self, database: Database) -> None:
        self._db = database

    def token(self, token_id: str) -> Token | None:
        rows = self._db.read(f"{self._TOKENS} WHERE token_id = ?", token_id)
        return _token(rows[0]) if rows else None

    def tokens(self, limit: int) -> Sequence[Token]:
        rows = self._db.read(f"{self._TOKENS} ORDER BY created_at DESC, token_id LIMIT ?", limit)
        return [_token(row) for row in rows]

    def open_token(self, token: Token) -> Token:
        with self._db.write() as db:
            db.execute(
                "INSERT OR IGNORE INTO tokens (token_id, payment_hash, service, credit_msat, created_at,"
                " expires_at) VALUES (:token_id, :payment_hash, :service, :credit_msat, :created_at, :expires_at)",
                asdict(token),
            )
            row = db.execute(f"{self._TOKENS} WHERE token_id = ?", (token.token_id,)).fetchone()
        return _token(row)

    def revoke(self, token_id: str, now: int) -> bool:
        with self._db.write() as db:
            done = db.execute("INSERT OR IGNORE INTO revocations VALUES (?, ?)", (token_id, now))
            return done.rowcount == 1

    def is_revoked(self, token_id: str) -> bool:
        return bool(self._db.read("SELECT 1 FROM revocations WHERE token_id = ?", token_id))

    def reserve(self, token_id: str, amount_msat: int, now: int, until: int) -> str | None:
        with self._db.write() as db:
            _give_back_lapsed(db, token_id, now)
            taken = db.execute(
                "UPDATE tokens SET reserved_msat = reserved_msat + ?1"
                " WHERE token_id = ?2 AND credit_msat - spent_msat - reserved_msat >= ?1",
                (amount_msat, token_id),
            )
            if not taken.rowcount:
                return None
            reservation = uuid4().hex
            db.execute(
                "INSERT INTO reservations (reservation, token_id, amount_msat, until) VALUES (?, ?, ?, ?)",
                (reservation, token_id, amount_msat, until),
            )
            return reservation

    def settle(self, reservation: str, charge_msat: int, now: int) -> Settlement | None:
        with self._db.write() as db:
            db.execute(
                "UPDATE reservations SET charged_msat = MIN(MAX(?, 0), amount_msat), settled_at = ?"
                " WHERE reservation = ? AND settled_at IS NULL",
                (charge_msat, now, reservation),
            )
            if db.execute("SELECT changes()").fetchone()[0]:
                _book(db, reservation)
            row = db.execute(
                "SELECT token_id, charged_msat, credit_msat - spent_msat - reserved_msat AS balance_msat"
                " FROM reservations JOIN tokens USING (token_id) WHERE reservation = ?",
                (reservation,),
            ).fetchone()
        return Settlement(*row) if row else None

    def sales(self) -> dict[str, int]:
        return self._db.totals(
            "SELECT COUNT(*) AS tokens, SUM(credit_msat) AS credit_msat, SUM(spent_msat) AS spent_msat,"
            " SUM(reserved_msat) AS reserved_msat, SUM(credit_msat - spent_msat - reserved_msat) AS balance_msat,"
            " (SELECT COUNT(*) FROM reservations WHERE charged_msat > 0) AS answers FROM tokens"
        )


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


def _give_back_lapsed(db: sqlite3.Connection, token_id: str, now: int) -> None:
    """A server that died holds its reservations until they lapse; then they go back, uncharged."""
    lapsed = "token_id = ? AND settled_at IS NULL AND until < ?"
    (amount_msat,) = db.execute(
        f"SELECT COALESCE(SUM(amount_msat), 0) FROM reservations WHERE {lapsed}",  # noqa: S608
        (token_id, now),
    ).fetchone()
    if not amount_msat:
        return
    db.execute(f"DELETE FROM reservations WHERE {lapsed}", (token_id, now))  # noqa: S608
    db.execute("UPDATE tokens SET reserved_msat = reserved_msat - ? WHERE token_id = ?", (amount_msat, token_id))


def _book(db: sqlite3.Connection, reservation: str) -> None:
    db.execute(
        "UPDATE tokens SET spent_msat = spent_msat + charged_msat, reserved_msat = reserved_msat - amount_msat"
        " FROM reservations WHERE reservations.token_id = tokens.token_id AND reservation = ?",
        (reservation,),
    )


def _token(row: sqlite3.Row) -> Token:
    return Token(**{**dict(row), "revoked": bool(row["revoked"])})


def _purchase(row: sqlite3.Row) -> Purchase:
    return Purchase(**{**dict(row), "outcome": Outcome(row["outcome"]), "usable": bool(row["usable"])})
