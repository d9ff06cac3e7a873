"""Postings as CSV: what any spreadsheet reads, and nothing that one would run."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from lyceum import csvfile

POSTING = {
    "at": 1793491200,
    "side": "bought",
    "kind": "answer",
    "party": "https://a:443",
    "service": "",
    "model": "gold, and silver",
    "purpose": 'the "desk"',
    "payment_hash": "cc" * 32,
    "amount_msat": 140,
    "fee_msat": 0,
    "mark": "d1",
}


def written(*postings: dict[str, Any]) -> list[dict[str, str]]:
    file = io.StringIO()
    assert csvfile.write(file, postings) == len(postings)
    return list(csv.DictReader(io.StringIO(file.getvalue())))


def test_the_columns_are_those_that_are_described() -> None:
    """Quotes and commas survive, times are UTC, and our own mark stays out."""
    (row,) = written(POSTING)
    assert list(row) == list(csvfile.COLUMNS)
    assert (row["time"], row["model"], row["purpose"]) == ("2026-11-01T00:00:00Z", "gold, and silver", 'the "desk"')
    assert (row["amount_msat"], row["fee_msat"]) == ("140", "0")


def test_nothing_is_heads_alone() -> None:
    """So that a program that reads it finds its columns."""
    assert written() == []


@pytest.mark.parametrize("model", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1"])
def test_a_cell_is_never_a_formula(model: str) -> None:
    """A seller's name for its model is text, whatever it looks like."""
    (row,) = written(POSTING | {"model": model})
    assert row["model"] == f"'{model}"
