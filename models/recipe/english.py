"""Everyday English as tables, and what can be said of a word without knowing any field."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLES = Path(__file__).with_name("english.toml")
STEM_LETTERS = 6


@dataclass(frozen=True, slots=True)
class English:
    frames: tuple[str, ...]
    pairs: tuple[str, ...]
    errands: tuple[str, ...]
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    function_words: frozenset[str]
    synonyms: dict[str, tuple[str, ...]]
    outside: tuple[str, ...]

    def topical(self, text: str) -> list[str]:
        """The words of a text that carry a topic, as written, in order."""
        return [word for word in words(text) if word.lower() not in self.function_words]


@cache
def load() -> English:
    tables = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    return English(
        frames=tuple(tables["frames"]),
        pairs=tuple(tables["pairs"]),
        errands=tuple(tables["errands"]),
        openers=tuple(tables["openers"]),
        closers=tuple(tables["closers"]),
        function_words=frozenset(tables["function_words"].split()),
        synonyms=_synonyms(tables["synonyms"]),
        outside=tuple(re.split(r"[|\n]+", tables["outside"].strip())),
    )


def words(text: str) -> list[str]:
    return re.findall(r"\w[\w'\u2019-]*", text)


@cache
def stem(word: str) -> str:
    """Crude, and enough: `entrepreneurs` and `entrepreneurial` are one word here."""
    return re.split("['\u2019]", word.lower())[0].rstrip("s")[:STEM_LETTERS]


def _synonyms(table: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split("|") for line in table.strip().splitlines())
    return {word: tuple(others) for word, *others in rows}
