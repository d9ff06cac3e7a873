"""A library's index: one SQLite file, found again by words (FTS5's BM25) and, with an embedder, by meaning.

Laws: a question is never FTS5 syntax; a file is read again only when it changed, in one transaction, so that
a refresh which is broken off goes on where it was; one thread at a time uses the connection.
"""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lyceum.errors import ConfigError, LyceumError, TooLong
from lyceum.library.texts import Passage, Unreadable, checked, digest, files, passages
from lyceum.ports import Embedder, TextBatch

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE file (id INTEGER PRIMARY KEY, source TEXT UNIQUE, size INTEGER, mtime_ns INTEGER, sha256 TEXT);
CREATE TABLE passage (id INTEGER PRIMARY KEY, file INTEGER REFERENCES file ON DELETE CASCADE, heading TEXT, text TEXT,
  vector BLOB, embedder TEXT);
CREATE INDEX passage_file ON passage (file);
CREATE TABLE topic (word TEXT PRIMARY KEY, passages INTEGER);
CREATE VIRTUAL TABLE words USING fts5 (heading, text, content='passage', content_rowid='id',
  tokenize='porter unicode61 remove_diacritics 2');
CREATE TRIGGER file_in AFTER INSERT ON file BEGIN DELETE FROM topic; END;
CREATE TRIGGER file_out AFTER DELETE ON file BEGIN DELETE FROM topic; END;
CREATE TRIGGER passage_in AFTER INSERT ON passage BEGIN
  INSERT INTO words (rowid, heading, text) VALUES (new.id, new.heading, new.text); END;
CREATE TRIGGER passage_out AFTER DELETE ON passage BEGIN
  INSERT INTO words (words, rowid, heading, text) VALUES ('delete', old.id, old.heading, old.text); END;
"""

MOST_PASSAGES = 1_000_000
MOST_WORDS = 48
FUSION = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""

NEAR = 0.5
"""A passage of which a text this close (cosine) is asked counts as touched by it, without a common word."""

EMBED_AT_ONCE = 64
_WORD = re.compile(r"\w+")
_FUNCTION = frozenset(
    _WORD.findall(
        "a about am an and any are as at be been being but by can could did do does for from give had has have he her"
        " his how i if in into is it its like me mean my of on one or our please say she should so some such tell than"
        " that the their them then there these they this those to us was we were what when where which who whom whose"
        " why will with would you your explain describe between also question questions thing things word words"
        " plain simple short brief language terms exactly actually really simply basically"
    )
)


@dataclass(frozen=True, slots=True)
class Found:
    """`coverage`: how much of what the question's words say stands in the passage, 0 to 1. `closeness`: how well
    it fits beside the best one, which has 1."""

    passage: Passage
    coverage: float
    closeness: float = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int
    source: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Counts of files; `complaints` are sentences about those that could not be read."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    passages: int = 0
    complaints: tuple[str, ...] = ()


class Index:
    """`open` it, `refresh` it from a folder, then `search`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._kept = _Vectors()

    @classmethod
    def open(cls, path: Path) -> Index:
        """Makes the file if there is none. Raises ConfigError if it is none of ours."""
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
                version = SCHEMA_VERSION
        except sqlite3.DatabaseError as error:
            connection.close()
            raise ConfigError(f"{path} is no index of a library ({error}); delete it, it is made anew") from None
        if version != SCHEMA_VERSION:
            connection.close()
            raise ConfigError(
                f"{path} was made by another version of Lyceum, or is no index; move it, one is made anew"
            )
        return cls(path, connection)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def refresh(self, folder: Path, report: Callable[[Progress], None] | None = None) -> Refreshed:
        """Reads what changed since the last time. Raises ConfigError if `folder` is none."""
        try:
            paths = files(folder)
        except Unreadable as error:
            raise ConfigError(f"{error}; name a folder of .md, .txt and .pdf files") from None
        sources = {path.relative_to(folder).as_posix(): path for path in paths}
        done, unreadable = Refreshed(), set[str]()
        for number, (source, path) in enumerate(sources.items(), 1):
            try:
                done = self._refresh_file(path, source, done)
            except Unreadable as error:
                unreadable.add(source)
                done = replace(done, complaints=(*done.complaints, str(error)))
            if report:
                report(Progress(number, len(paths), source))
        gone = self._forget_all_but(set(sources) - unreadable)
        return replace(done, removed=len(gone - unreadable), passages=len(self))

    async def embed(self, embedder: Embedder, report: Callable[[Progress], None] | None = None) -> int:
        """Gives every passage that has none a vector of this embedder; returns how many it gave."""
        model, given, last = embedder.offer.digest, 0, 0
        total = self._count("embedder IS NOT ?", model)
        while rows := await asyncio.to_thread(self._without_vector, model, last):
            vectors = await _embedded(embedder, [f"{heading}\n{text}" for _, heading, text in rows])
            await asyncio.to_thread(self._keep_vectors, [row[0] for row in rows], vectors, model)
            given, last = given + len(rows), rows[-1][0]
            if report:
                report(Progress(given, total, ""))
        return given

    async def search(self, question: str, limit: int, embedder: Embedder | None = None) -> list[Found]:
        """The passages that the question most likely is about, best first."""
        vector, model = None, embedder.offer.digest if embedder else None
        if embedder and question:
            with suppress(LyceumError):  # busy or too long: words alone must do
                (vector,) = (await embedder.embed(TextBatch(embedder.offer.model, (question,)))).vectors
        return await asyncio.to_thread(self._search, question, limit, vector, model)

    def topics(self, most: int) -> tuple[str, ...]:
        """The words that the passages are about, in the order of how many use them. Counted anew only after a
        refresh that changed something."""
        with self._lock:
            query = "SELECT word FROM topic ORDER BY passages DESC, rowid LIMIT ?"
            found = self._connection.execute(query, (most,)).fetchall()
            if not found:
                self._count_topics()
                found = self._connection.execute(query, (most,)).fetchall()
        return tuple(word for (word,) in found)

    def _count_topics(self) -> None:
        rows = self._connection.execute("SELECT heading, text FROM passage")
        counts = Counter(
            word for heading, text in rows for word in set(_content_words(f"{heading} {text}", len(heading + text)))
        )
        told = [(word, count) for word, count in counts.most_common() if len(word) > 2 and word.isalpha()]
        with _transaction(self._connection):
            self._connection.executemany("INSERT INTO topic (word, passages) VALUES (?, ?)", told)

    def __len__(self) -> int:
        return self._count("1 = ?", 1)

    def _count(self, condition: str, value: object) -> int:
        with self._lock:
            query = f"SELECT count(*) FROM passage WHERE {condition}"  # noqa: S608 (two conditions of this module)
            return int(self._connection.execute(query, (value,)).fetchone()[0])

    # refreshing

    def _refresh_file(self, path: Path, source: str, done: Refreshed) -> Refreshed:
        state = checked(path, source)
        known = self._row("SELECT size, mtime_ns, sha256 FROM file WHERE source = ?", source)
        if known and known[:2] == (state.st_size, state.st_mtime_ns):
            return replace(done, unchanged=done.unchanged + 1)
        sha256 = digest(path, source)
        if known and known[2] == sha256:
            self._touch(source, state.st_size, state.st_mtime_ns)
            return replace(done, unchanged=done.unchanged + 1)
        found = passages(path, source)
        if len(self) + len(found) > MOST_PASSAGES:
            raise Unreadable(f"{source} is left out: a library holds at most {MOST_PASSAGES:,} passages")
        self._replace_file(source, (state.st_size, state.st_mtime_ns, sha256), found)
        return replace(done, changed=done.changed + 1) if known else replace(done, added=done.added + 1)

    def _row(self, query: str, *values: object) -> tuple[object, ...] | None:
        with self._lock:
            row: tuple[object, ...] | None = self._connection.execute(query, values).fetchone()
            return row

    def _touch(self, source: str, size: int, mtime_ns: int) -> None:
        with self._lock:
            self._connection.execute(
                "UPDATE file SET size = ?, mtime_ns = ? WHERE source = ?", (size, mtime_ns, source)
            )

    def _replace_file(self, source: str, state: tuple[int, int, str], found: Sequence[Passage]) -> None:
        with self._lock, _transaction(self._connection):
            self._connection.execute("DELETE FROM file WHERE source = ?", (source,))
            row = self._connection.execute(
                "INSERT INTO file (source, size, mtime_ns, sha256) VALUES (?, ?, ?, ?)", (source, *state)
            )
            self._connection.executemany(
                "INSERT INTO passage (file, heading, text) VALUES (?, ?, ?)",
                [(row.lastrowid, passage.heading, passage.text) for passage in found],
            )

    def _forget_all_but(self, sources: set[str]) -> set[str]:
        with self._lock:
            gone = {source for (source,) in self._connection.execute("SELECT source FROM file")} - sources
            self._connection.executemany("DELETE FROM file WHERE source = ?", [(source,) for source in gone])
        return gone

    def _without_vector(self, model: str, after: int) -> list[tuple[int, str, str]]:
        with self._lock:
            query = "SELECT id, heading, text FROM passage WHERE id > ? AND embedder IS NOT ? ORDER BY id LIMIT ?"
            return self._connection.execute(query, (after, model, EMBED_AT_ONCE)).fetchall()

    def _keep_vectors(self, ids: Sequence[int], vectors: Sequence[Sequence[float]], model: str) -> None:
        rows = [
            (np.asarray(vector, np.float32).tobytes(), model, number)
            for number, vector in zip(ids, vectors, strict=True)
        ]
        with self._lock, _transaction(self._connection):
            self._connection.executemany("UPDATE passage SET vector = ?, embedder = ? WHERE id = ?", rows)

    # searching

    def _search(self, question: str, limit: int, vector: Sequence[float] | None, model: str | None) -> list[Found]:
        with self._lock:
            words = _content_words(question)
            scores = self._by_words(words, limit if vector is None else limit * 4)
            near = self._by_vector(vector, model, limit * 4) if vector is not None else {}
            if near:
                scores = _fused(list(scores), list(near))
            weights, best = self._weights(words), max(scores.values(), default=1.0)
            ranked = sorted(scores.items(), key=lambda item: -item[1])[:limit]
            return [
                replace(self._found(number, weights, near.get(number, 0.0)), closeness=score / best)
                for number, score in ranked
            ]

    def _by_words(self, words: Sequence[str], limit: int) -> dict[int, float]:
        """BM25 of the best passages; FTS5 gives it negative."""
        if not words:
            return {}
        query = "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
        return dict(self._connection.execute(query, (_any(words), limit)).fetchall())

    def _by_vector(self, vector: Sequence[float], model: str | None, limit: int) -> dict[int, float]:
        """Cosines of the nearest passages, nearest first. All are compared."""
        kept = self._vectors(model)
        if not kept.ids:
            return {}
        cosines = kept.matrix @ np.asarray(vector, np.float32)
        return {kept.ids[at]: float(cosines[at]) for at in np.argsort(-cosines)[:limit]}

    def _vectors(self, model: str | None) -> _Vectors:
        """Kept in memory until this or another process writes: to read 20,000 takes 100 ms, to compare them 5."""
        (others,) = self._connection.execute("PRAGMA data_version").fetchone()
        state = (model, others, self._connection.total_changes)
        if self._kept.state != state:
            query = "SELECT id, vector FROM passage WHERE embedder = ?"
            rows = self._connection.execute(query, (model,)).fetchall()
            matrix = np.frombuffer(b"".join(row[1] for row in rows), np.float32)
            self._kept = _Vectors(state, [row[0] for row in rows], matrix.reshape(len(rows) or 1, -1))
        return self._kept

    def _weights(self, words: Sequence[str]) -> dict[str, float]:
        """What each word tells: ln(1 + N/df), as in inverse document frequency; unknown words tell most."""
        (total,) = self._connection.execute("SELECT count(*) FROM passage").fetchone()
        counts = {word: self._matches(word) for word in words}
        return {word: math.log(1 + total / max(1, count)) for word, count in counts.items()}

    def _matches(self, word: str) -> int:
        query = "SELECT count(*) FROM words WHERE words MATCH ?"
        return int(self._connection.execute(query, (_any([word]),)).fetchone()[0])

    def _found(self, number: int, weights: dict[str, float], cosine: float) -> Found:
        source, heading, text = self._connection.execute(
            "SELECT source, heading, text FROM passage JOIN file ON file.id = passage.file WHERE passage.id = ?",
            (number,),
        ).fetchone()
        query = "SELECT 1 FROM words WHERE words MATCH ? AND rowid = ?"
        told = sum(
            weight
            for word, weight in weights.items()
            if self._connection.execute(query, (_any([word]), number)).fetchone()
        )
        coverage = told / (sum(weights.values()) or 1.0)
        return Found(Passage(source, heading, text), max(coverage, cosine if cosine >= NEAR else 0.0))


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Those of one embedder, a row each, as they were at `state`."""

    state: tuple[str | None, int, int] | None = None
    ids: Sequence[int] = ()
    matrix: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty((0, 0), np.float32))


class _transaction:  # noqa: N801 (reads as a verb)
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, kind: object, *_: object) -> None:
        self._connection.execute("ROLLBACK" if kind else "COMMIT")


async def _embedded(embedder: Embedder, texts: Sequence[str]) -> Sequence[Sequence[float]]:
    """Texts that are too long for the embedder are cut until they are not."""
    longest = max(map(len, texts))
    while True:
        try:
            batch = TextBatch(embedder.offer.model, tuple(text[:longest] for text in texts))
            return (await embedder.embed(batch)).vectors
        except TooLong:
            if longest == 1:
                raise
            longest //= 2


def _content_words(text: str, most: int = MOST_WORDS) -> list[str]:
    words = list(dict.fromkeys(_WORD.findall(text.lower())))
    return ([word for word in words if word not in _FUNCTION] or words)[:most]


def _any(words: Iterable[str]) -> str:
    """An FTS5 query for any of these words. A word has letters, digits and `_` only, and stands in quotes."""
    return " OR ".join(f'"{word}"' for word in words)


def _fused(*rankings: Sequence[int]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (FUSION + rank)
    return scores
