"""Postings as CSV (RFC 4180), for a spreadsheet or a bookkeeper's program."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

COLUMNS = {
    "time": "when, in UTC (ISO 8601)",
    "side": "sold or bought",
    "kind": "token or topup: money moved; answer: credit used; refund: given back",
    "party": "the token's id (sold), the seller's address (bought)",
    "service": "what the token opens",
    "model": "what was asked (bought)",
    "purpose": "for whom it was bought",
    "payment_hash": "of the Lightning payment: as in listinvoices and listpays",
    "amount_msat": "how much, without fees; the kind says in which direction",
    "fee_msat": "routing fees that this node paid for it",
}

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so would be run by a spreadsheet, and sellers name their models."""


def write(file: TextIO, postings: Iterable[Mapping[str, Any]]) -> int:
    """Returns how many rows there are under the heads."""
    rows = csv.writer(file)
    rows.writerow(COLUMNS)
    count = 0
    for count, posting in enumerate(postings, start=1):  # noqa: B007
        rows.writerow([_time(posting["at"]), *(_cell(posting[name]) for name in list(COLUMNS)[1:])])
    return count


def _time(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _cell(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
