"""Amounts in msat: integers only, rounded up, within all bitcoin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.money import MAX_MSAT, ceil_div, check_msat, text, whole_sats_msat

AMOUNTS = st.integers(0, MAX_MSAT)


@given(AMOUNTS, st.integers(1, 10_000))
def test_ceil_div_is_the_least_that_covers(amount: int, by: int) -> None:
    """Rounding up, never by a whole unit too much, and exactly, however large the amount."""
    found = ceil_div(amount, by)
    assert (found - 1) * by < amount <= found * by


@given(AMOUNTS)
def test_whole_sats_round_up(amount_msat: int) -> None:
    """The least whole number of satoshis that is not below the amount."""
    found = whole_sats_msat(amount_msat)
    assert found % 1000 == 0
    assert 0 <= found - amount_msat < 1000


@pytest.mark.parametrize("amount", [0, 1, MAX_MSAT])
def test_amounts_pass_unchanged(amount: int) -> None:
    """From nothing to all bitcoin, both included."""
    assert check_msat("price", amount) == amount


@pytest.mark.parametrize("amount", [-1, MAX_MSAT + 1, 1.0, "1", True, None])
def test_anything_else_is_refused(amount: object) -> None:
    """Negative, too much, or no integer: ValueError names the field."""
    with pytest.raises(ValueError, match="price"):
        check_msat("price", amount)


def test_a_least_amount_is_kept() -> None:
    """`least` moves the lower end."""
    with pytest.raises(ValueError, match="from 5 to"):
        check_msat("price", 4, least=5)


def test_text_is_for_people() -> None:
    """Thousands are set apart and the unit is named."""
    assert text(1234567) == "1,234,567 msat"
