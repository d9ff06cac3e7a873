"""What a person or a program passes to an RPC method, as checked values.

lightning-cli sends numbers as numbers and all else as text, so every parameter may come as either.
Each function raises BadRequest naming the parameter and what it should be.
"""

from __future__ import annotations

from datetime import UTC, datetime

from lyceum.errors import BadRequest
from lyceum.money import check_msat

MOST = 100_000
MOST_PERCENT = 10_000
MOST_DIGITS = 12


def msat(name: str, value: object) -> int:
    """An amount as lightningd writes it: 1000, "1000" or "1000msat"."""
    text = str(value).removesuffix("msat")
    if isinstance(value, bool) or not text.isascii() or not text.isdigit():
        raise BadRequest(f"{name} must be a number of msat such as 1000, not {value!r}", name)
    try:
        return check_msat(name, int(text))
    except ValueError as error:
        raise BadRequest(str(error), name) from None


def count(name: str, value: object, most: int = MOST, *, least: int = 1) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise BadRequest(f"{name} must be a number from {least} to {most}", name)
    return int(text)


def moment(name: str, value: object) -> int:
    """Unix seconds, from a number of them or from a date or time in ISO 8601, which is UTC unless it says otherwise."""
    text = str(value)
    if not isinstance(value, bool) and text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS:
        return int(text)
    try:
        found = datetime.fromisoformat(text)
        return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        raise BadRequest(f"{name} must be a date such as 2026-11-01, or Unix seconds, not {value!r}", name) from None


def shares(name: str, value: object) -> tuple[tuple[str, int], ...]:
    """`key=percent` pairs, separated by commas."""
    found = []
    for entry in filter(None, map(str.strip, str(value or "").split(","))):
        key, _, percent = entry.partition("=")
        if not key or not percent:
            raise BadRequest(f"{name}: {entry!r} should be a name, = and a percentage, such as economist=150", name)
        found.append((key.strip(), count(name, percent.strip(), MOST_PERCENT)))
    return tuple(found)


def tiers(name: str, value: object) -> tuple[tuple[int, int], ...]:
    """`msat=percent` pairs, separated by commas."""
    return tuple((msat(name, amount), percent) for amount, percent in shares(name, value))


def word(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name} must be a non-empty text", name)
    return value


def lines(name: str, value: object) -> tuple[str, ...]:
    """Texts such as header lines: none, one, or a list of them."""
    found = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise BadRequest(f"{name} must be a text or a list of texts", name)
    return tuple(found)


def urls(name: str, value: object) -> list[str]:
    """URLs separated by commas."""
    found = [url.strip() for url in str(value or "").split(",") if url.strip()]
    wrong = next((url for url in found if not url.startswith(("http://", "https://"))), None)
    if wrong:
        raise BadRequest(f"{name}: {wrong!r} is not a URL that starts with http:// or https://", name)
    return found
