"""Amounts are `int` millisatoshi and say so in their names; nothing here is ever a float.

Rounding is always up and always stated: a price is rounded once, on its total.
"""

from __future__ import annotations

MSAT_PER_SAT = 1000
MAX_MSAT = 21_000_000 * 100_000_000 * MSAT_PER_SAT


def ceil_div(amount: int, by: int) -> int:
    return -(-amount // by)


def whole_sats_msat(amount_msat: int) -> int:
    """The amount rounded up to whole satoshis: common L402 clients floor anything finer."""
    return ceil_div(amount_msat, MSAT_PER_SAT) * MSAT_PER_SAT


def text(amount_msat: int) -> str:
    """For people: `1,234 msat`."""
    return f"{amount_msat:,} msat"


def check_msat(name: str, amount: object, least: int = 0) -> int:
    """`amount` as msat, or ValueError naming the field: an integer from `least` to all bitcoin."""
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise ValueError(f"{name} must be an integer of msat, not {amount!r}")
    if not least <= amount <= MAX_MSAT:
        raise ValueError(f"{name} must be from {least} to {MAX_MSAT} msat, not {amount}")
    return amount
