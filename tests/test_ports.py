"""The values that rooms exchange: what cannot be built, and what a price charges."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.money import MAX_MSAT
from lyceum.ports import Ask, Bill, Limits, Message, Offer, Outcome, Payment, Price, Terms, Ticket, Unit, Usage

HELLO = (Message("system", "be brief"), Message("user", "hello"), Message("assistant", "hi"))
PRICE = Price(base_msat=100, input_per_1k_msat=200, output_per_1k_msat=1300)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(input_chars=1000, output_chars=1000), 1600),
        (Usage(input_chars=1, output_chars=1), 102),  # 0.2 + 1.3 makes 2; rounding each would make 3
        (Usage(input_chars=4, output_chars=1), 103),  # 0.8 + 1.3
    ],
)
def test_a_price_is_rounded_up_once(usage: Usage, expected: int) -> None:
    """Base plus what was read and written, rounded up on the total."""
    assert PRICE.cost_msat(usage) == expected


@given(*(st.integers(0, 5000) for _ in range(5)))
def test_a_price_is_exact(base: int, per_read: int, per_written: int, read: int, written: int) -> None:
    """Never below the exact amount, never a whole msat above it."""
    cost = Price(base, per_read, per_written).cost_msat(Usage(input_chars=read, output_chars=written + 1))
    exact_in_thousandths = base * 1000 + read * per_read + (written + 1) * per_written
    assert 0 <= cost * 1000 - exact_in_thousandths < 1000


@pytest.mark.parametrize("unit", list(Unit))
def test_an_empty_answer_costs_nothing(unit: Unit) -> None:
    """Neither the base nor what was read is charged when nothing was written."""
    nothing = Usage(input_tokens=9, input_chars=40)
    assert Price(100, 200, 1000, unit).cost_msat(nothing) == 0


def test_the_unit_decides_what_counts() -> None:
    """The same answer by characters and by tokens."""
    usage = Usage(input_tokens=1000, output_tokens=2000, input_chars=4000, output_chars=9000)
    assert Price(0, 1, 10, Unit.CHAR).cost_msat(usage) == 94
    assert Price(0, 1, 10, Unit.TOKEN).cost_msat(usage) == 21


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Price(base_msat=-1), "base_msat"),
        (lambda: Price(input_per_1k_msat=True), "input_per_1k_msat"),
        (lambda: Price(output_per_1k_msat=1.5), "output_per_1k_msat"),  # type: ignore[arg-type]
        (lambda: Limits(context_tokens=10, max_tokens=11), "max_tokens"),
        (lambda: Limits(context_tokens=10, max_tokens=0), "max_tokens"),
        (lambda: Ask("m", ()), "messages"),
        (lambda: Ask("m", HELLO, max_tokens=0), "max_tokens"),
        (lambda: Ask("m", HELLO, budget_msat=-1), "budget_msat"),
        (lambda: Bill(-1, 0, PRICE), "charged_msat"),
        (lambda: Bill(0, 0, PRICE, -1), "input_units"),
        (lambda: Bill(0, 0, PRICE, 0, 1.5), "output_units"),  # type: ignore[arg-type]
        (lambda: Terms(-1, 0), "cap_msat"),
        (lambda: Terms(0, MAX_MSAT + 1), "fee_cap_msat"),
    ],
)
def test_a_wrong_value_cannot_be_built(build: Callable[[], object], field: str) -> None:
    """The constructor refuses and names the field."""
    with pytest.raises(ValueError, match=field):
        build()


def test_the_question_is_the_last_thing_the_user_said() -> None:
    """Not a system message, not the beginning of an answer; empty when the user said nothing."""
    assert Ask("m", HELLO).question == "hello"
    assert Ask("m", HELLO[:1]).question == ""


@pytest.mark.parametrize(("wanted", "expected"), [(None, 512), (7, 7), (9999, 512)])
def test_the_longest_answer(wanted: int | None, expected: int) -> None:
    """What is asked for, at most what is sold."""
    assert Limits(2048, 512).answer_tokens(wanted) == expected


@given(st.text(max_size=50), st.integers(1, 600) | st.none(), st.integers(0, 3000))
def test_the_worst_case_covers_every_answer(question: str, wanted: int | None, written: int) -> None:
    """An answer within its tokens, six characters each, never costs more than was reserved for it."""
    offer = Offer("m", price=PRICE)
    ask = Ask("m", (Message("user", question),), wanted)
    worst = offer.worst_case(ask)
    tokens = min(written, offer.limits.answer_tokens(wanted))
    used = Usage(len(question), tokens, ask.input_chars, tokens * 6)
    assert offer.price.cost_msat(used) <= offer.price.cost_msat(worst)


ANSWERED = Usage(input_tokens=6, output_tokens=9, input_chars=20, output_chars=40)


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("usage", [ANSWERED, Usage(input_tokens=6, input_chars=20)])
def test_a_bill_can_be_recomputed(unit: Unit, usage: Usage) -> None:
    """From its own units and price comes what the price charges; a failed answer counts nothing and costs nothing."""
    price = Price(100, 200, 1300, unit)
    bill = Bill.for_answer(price, usage)
    assert bill.due_msat == bill.charged_msat == price.cost_msat(usage)
    reading = Bill.for_reading(price, usage)
    assert reading.due_msat == reading.charged_msat == price.reading_msat(usage)
    assert not bill.complaint(price, usage)
    assert not reading.complaint(price, usage)


FAIR = Bill.for_answer(PRICE, ANSWERED)


@pytest.mark.parametrize(
    ("bill", "complaint"),
    [
        (replace(FAIR, charged_msat=FAIR.charged_msat - 1), ""),
        (replace(FAIR, price=Price(100, 200, 1200)), "charges"),
        (replace(FAIR, price=Price(0, 200, 1300), charged_msat=1), ""),
        (replace(FAIR, charged_msat=FAIR.charged_msat + 1), "charges"),
        (Bill(1, 0, PRICE), "charges"),
        (Bill.for_answer(replace(PRICE, base_msat=101), ANSWERED), "charges"),
        (Bill.for_answer(PRICE, replace(ANSWERED, output_chars=41)), "where there are 20[+]40"),
        (Bill.for_answer(PRICE, replace(ANSWERED, input_chars=21)), "where there are 20[+]40"),
        (Bill.for_answer(replace(PRICE, unit=Unit.TOKEN), ANSWERED), "counts tokens"),
    ],
)
def test_an_overcharge_is_named(bill: Bill, complaint: str) -> None:
    """More than the units come to, more units than there are, a dearer price or another unit; less is no complaint."""
    assert re.search(complaint or "^$", bill.complaint(PRICE, ANSWERED))


@given(*(st.integers(0, 3000) for _ in range(5)))
def test_the_most_that_an_amount_pays_for(base: int, per_read: int, per_written: int, read: int, amount: int) -> None:
    """So many units cost no more than the amount, and one more would."""
    price = Price(base, per_read, per_written)
    most = price.most_written(read, amount)
    if most is None:
        assert price.total_msat(read, 10**9) <= amount
    else:
        assert not most or price.total_msat(read, most) <= amount
        assert price.total_msat(read, most + 1) > amount


@pytest.mark.parametrize("value", [Ticket("L402 mac:secret", "h"), Payment(Outcome.SETTLED, "secret")])
def test_secrets_stay_out_of_repr(value: object) -> None:
    """A log line or a traceback shows no credential."""
    assert "secret" not in repr(value)
