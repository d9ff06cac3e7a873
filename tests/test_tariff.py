"""What share of the list price is asked: by model, load and tier, between floor and cap."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.ports import Price, Usage
from lyceum.tariff import MOST_PERCENT, Tariff, share_msat

TIERS = ((1000, 90), (100_000, 70))


@pytest.mark.parametrize(
    ("tariff", "model", "waiting", "prepaid_msat", "percent"),
    [
        (Tariff(), "economist", 9, 10**9, 100),
        (Tariff(models=(("economist", 150),)), "economist", 0, 0, 150),
        (Tariff(models=(("economist", 150),)), "poet", 0, 0, 100),
        (Tariff(models=(("economist", 150), ("*", 80))), "poet", 0, 0, 80),
        (Tariff(models=(("*", 80),)), None, 0, 0, 100),
        (Tariff(per_waiting=10), "poet", 3, 0, 130),
        (Tariff(per_waiting=10), "poet", 99, 0, 300),
        (Tariff(tiers=TIERS), "poet", 0, 999, 100),
        (Tariff(tiers=TIERS), "poet", 0, 1000, 90),
        (Tariff(tiers=TIERS), "poet", 0, 100_000, 70),
        (Tariff(tiers=((5, 10),)), "poet", 0, 5, 50),
        (Tariff(tiers=TIERS, per_waiting=10), "poet", 1, 1000, 99),
        (Tariff(models=(("poet", 1000),), per_waiting=1000), "poet", 9, 0, 3000),
        (Tariff(tiers=((0, 33),), floor=1, per_waiting=1), "poet", 1, 0, 34),
    ],
)
def test_the_share_of_the_list_price(
    tariff: Tariff, model: str | None, waiting: int, prepaid_msat: int, percent: int
) -> None:
    """A model's own share times tier and load, of which floor and cap bound what is not the seller's own choice."""
    assert tariff.percent(model, waiting, prepaid_msat) == percent


@given(
    waiting=st.integers(0, 10**6),
    prepaid_msat=st.integers(0, 10**12),
    per_waiting=st.integers(0, 1000),
    tier=st.integers(1, MOST_PERCENT),
)
def test_floor_and_cap_hold(waiting: int, prepaid_msat: int, per_waiting: int, tier: int) -> None:
    """Whatever the load and whatever was prepaid."""
    tariff = Tariff(per_waiting=per_waiting, tiers=((1000, tier),), floor=60, cap=250)
    assert 60 <= tariff.percent("poet", waiting, prepaid_msat) <= 250


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": (("a", 0),)},
        {"models": (("a", MOST_PERCENT + 1),)},
        {"tiers": ((-1, 90),)},
        {"tiers": ((1, 0),)},
        {"per_waiting": -1},
        {"floor": 0},
        {"floor": 101},
        {"cap": 99},
    ],
)
def test_a_tariff_that_makes_no_sense_cannot_be_built(wrong: dict[str, Any]) -> None:
    """No free gifts by a typing mistake, no negative prices."""
    with pytest.raises(ValueError, match=r"percent|tiers"):
        Tariff(**wrong)


@given(st.integers(0, 10**6), st.integers(1, MOST_PERCENT), st.integers(0, 10**5))
def test_a_priced_answer_is_worth_its_share(output_per_1k_msat: int, percent: int, chars: int) -> None:
    """Each part is rounded up, so it is never less than the share of the total, and at most a part of a msat more."""
    price, usage = Price(7, 0, output_per_1k_msat), Usage(output_chars=chars)
    asked_msat, share = price.at(percent).cost_msat(usage), share_msat(price.cost_msat(usage), percent)
    assert share - percent // 100 - 1 <= asked_msat <= share + 1 + chars // 1000 + 1
