"""The file: one connection, its schema brought up to date, transactions that reach the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyceum.errors import ConfigError
from lyceum.ledger.schema import SCHEMA


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
