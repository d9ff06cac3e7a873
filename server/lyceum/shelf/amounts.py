"""Sizes and times as a person reads them."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: int) -> str:
    """Decimal units, three figures: 4.26 MB."""
    number, unit = float(count), 0
    while number >= 999.5 and unit < len(UNITS) - 1:
        number, unit = number / 1000, unit + 1
    digits = 0 if unit == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
