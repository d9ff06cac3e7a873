"""What was sold: tokens, reservations, revocations."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from uuid import uuid4

from lyceum.books import Answer, Held, Token
from lyceum.ledger.database import Database
from lyceum.ports import Settlement

BALANCE = "credit_msat - spent_msat - reserved_msat - refunded_msat"
"""Of a row of `tokens`."""


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

    def reserve(
        self, token_id: str, amount_msat: int, least_msat: int, now: int, until: int, *, whole: bool = False
    ) -> Held | None:
        with self._db.write() as db:
            give_back_lapsed(db, token_id, now)
            row = db.execute(
                f"SELECT credit_msat, {BALANCE} FROM tokens WHERE token_id = ? AND closed_at IS NULL",
                (token_id,),
            ).fetchone()
            if row is None:
                return None
            credit_msat, left_msat = row
            if left_msat < max(least_msat, credit_msat if whole else 0):
                return None
            held = Held(uuid4().hex, min(amount_msat, left_msat), max(left_msat - amount_msat, 0))
            db.execute(
                "UPDATE tokens SET reserved_msat = reserved_msat + ? WHERE token_id = ?", (held.amount_msat, token_id)
            )
            db.execute(
                "INSERT INTO reservations (reservation, token_id, amount_msat, until) VALUES (?, ?, ?, ?)",
                (held.reservation, token_id, held.amount_msat, until),
            )
            return held

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
                f"SELECT token_id, charged_msat, {BALANCE} FROM reservations JOIN tokens USING (token_id)"
                " WHERE reservation = ?",
                (reservation,),
            ).fetchone()
        return Settlement(*row) if row else None

    def sales(self) -> dict[str, int]:
        return self._db.totals(
            "SELECT COUNT(*) AS tokens, SUM(credit_msat) AS credit_msat, SUM(spent_msat) AS spent_msat,"
            f" SUM(reserved_msat) AS reserved_msat, SUM({BALANCE}) AS balance_msat,"
            " SUM(refunded_msat) AS refunded_msat,"
            " (SELECT COUNT(*) FROM reservations WHERE charged_msat > 0) AS answers FROM tokens"
        )

    def lapsed_msat(self, expired_before: int) -> int:
        lapsed = f"SELECT SUM({BALANCE}) AS lapsed_msat FROM tokens WHERE closed_at IS NULL AND expires_at < ?"
        return int(self._db.read(lapsed, expired_before)[0]["lapsed_msat"] or 0)

    def answers(self, token_id: str, limit: int) -> Sequence[Answer]:
        rows = self._db.read(
            "SELECT settled_at, charged_msat FROM reservations WHERE token_id = ? AND settled_at IS NOT NULL"
            " ORDER BY settled_at DESC LIMIT ?",
            token_id,
            limit,
        )
        return [Answer(**row) for row in rows]


def give_back_lapsed(db: sqlite3.Connection, token_id: str, now: int) -> None:
    """A server that died holds its reservations until they lapse; then they go back, uncharged."""
    lapsed = "token_id = ? AND settled_at IS NULL AND until < ?"
    (amount_msat,) = db.execute(
        f"SELECT COALESCE(SUM(amount_msat), 0) FROM reservations WHERE {lapsed}",
        (token_id, now),
    ).fetchone()
    if not amount_msat:
        return
    db.execute(f"DELETE FROM reservations WHERE {lapsed}", (token_id, now))
    db.execute("UPDATE tokens SET reserved_msat = reserved_msat - ? WHERE token_id = ?", (amount_msat, token_id))


def _book(db: sqlite3.Connection, reservation: str) -> None:
    db.execute(
        "UPDATE tokens SET spent_msat = spent_msat + charged_msat, reserved_msat = reserved_msat - amount_msat"
        " FROM reservations WHERE reservations.token_id = tokens.token_id AND reservation = ?",
        (reservation,),
    )


def _token(row: sqlite3.Row) -> Token:
    return Token(**{**dict(row), "revoked": bool(row["revoked"])})
