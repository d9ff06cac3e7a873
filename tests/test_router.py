"""Which specialists are asked for which part, and with how much money."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.money import MAX_MSAT
from lyceum.ports import Ask, Limits, Message, Offer, Price
from lyceum.router import Caps, Part, caps, fee_allowance_msat, first_payment_msat, part_of, plan

PRICE = Price(base_msat=100, input_per_1k_msat=200, output_per_1k_msat=1000)
ECONOMICS = Offer(
    "austrian-economics",
    "Short answers on the Austrian School of economics: its people, books and ideas, from Menger to Kirzner.",
    (
        *("Austrian School", "Carl Menger", "Ludwig von Mises", "Friedrich Hayek", "Murray Rothbard", "Israel Kirzner"),
        *("praxeology", "subjective value", "marginal utility", "capital", "interest", "business cycle", "money"),
        *("gold standard", "central banking", "inflation", "economic calculation", "socialism", "knowledge problem"),
        *("spontaneous order", "entrepreneurship", "competition", "interventionism", "price controls"),
    ),
    PRICE,
    Limits(512, 200),
    bundle_msat=1000,
)
CULTURE = Offer(
    "american-culture",
    "Short answers on American culture: films, music, books, sports, food and holidays of the United States.",
    (
        *("Hollywood", "western films", "jazz", "blues", "rock and roll", "country music", "hip hop", "Broadway"),
        *("Mark Twain", "Ernest Hemingway", "Harlem Renaissance", "baseball", "American football", "basketball"),
        *("Thanksgiving", "Independence Day", "Super Bowl", "comic books", "television", "fast food", "barbecue"),
        *("Route 66", "Silicon Valley", "civil rights movement"),
    ),
    PRICE,
    Limits(512, 200),
    bundle_msat=1000,
)
OFFERS = (ECONOMICS, CULTURE)
BOTH = "How does inflation change prices, and what does jazz owe to the blues?"


def ask_of(question: str, max_tokens: int | None = None, budget_msat: int = 0) -> Ask:
    messages = (Message("system", "be brief"), Message("user", question))
    return Ask("ensemble", messages, max_tokens, budget_msat=budget_msat)


# Which


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("What is praxeology?", 0),
        ("Why is economic calculation impossible under socialism?", 0),
        ("Who wrote about the knowledge problem and spontaneous order?", 0),
        ("Who invented rock and roll?", 1),
        ("What is eaten at Thanksgiving?", 1),
        ("Name a novel by Mark Twain and say what it is about.", 1),
    ],
)
def test_a_question_of_one_field_stays_whole(question: str, first: int) -> None:
    """One part, in its own words, for the specialist of that field."""
    (part,) = plan(question, OFFERS)
    assert part.text == question
    assert part.candidates[0] == first


@pytest.mark.parametrize(
    ("question", "texts", "firsts"),
    [
        (BOTH, ["How does inflation change prices", "what does jazz owe to the blues?"], [0, 1]),
        (
            "Who played jazz in Harlem? What did Hayek say about central banking?",
            ["Who played jazz in Harlem?", "What did Hayek say about central banking?"],
            [1, 0],
        ),
        (
            "Explain marginal utility. Give an example. Then tell me when the Super Bowl is played.",
            ["Explain marginal utility. Give an example.", "tell me when the Super Bowl is played."],
            [0, 1],
        ),
        (
            "Hello there! Why do price controls fail, and who was Mark Twain?",
            ["Hello there! Why do price controls fail", "who was Mark Twain?"],
            [0, 1],
        ),
        (
            "I have two questions. What did Menger and Mises say for so long on interest or money? And jazz saxophone",
            ["What did Menger and Mises say for so long on interest or money?", "jazz saxophone"],
            [0, 1],
        ),
        (
            "Who was Carl Menger? A man on a raft goes down a river in a novel by Mark Twain, which one?",
            ["Who was Carl Menger?", "A man on a raft goes down a river in a novel by Mark Twain which one?"],
            [0, 1],
        ),
    ],
)
def test_a_question_of_two_fields_is_cut(question: str, texts: list[str], firsts: list[int]) -> None:
    """Each clause goes to its specialist, in order; clauses that say nothing by themselves stay with a neighbour."""
    parts = plan(question, OFFERS)
    assert [part.text for part in parts] == texts
    assert [part.candidates[0] for part in parts] == firsts


def test_a_clause_that_says_enough_is_cut_off_whatever_its_pronouns() -> None:
    """They are about what stands in the clause itself; where little does, they point back."""
    parts = plan("What is marginal utility? And tell me why rock music shook the television when it began?", OFFERS)
    assert [part.text for part in parts] == [
        "What is marginal utility?",
        "tell me why rock music shook the television when it began?",
    ]
    (part,) = plan("What is marginal utility? And how did it reach television?", OFFERS)
    assert part.candidates[0] == 0


def test_neighbours_of_one_field_stay_together() -> None:
    """Three clauses, two of them for the same specialist: two parts."""
    parts = plan("What is capital? What is interest? Who played the blues?", OFFERS)
    assert [part.text for part in parts] == ["What is capital? What is interest?", "Who played the blues?"]


@pytest.mark.parametrize("question", ["How do I repair a bicycle chain?", "", "?!", "of the and", "Как дела?"])
def test_an_unknown_topic_has_no_part(question: str) -> None:
    """Nobody's field: nobody is asked, nothing is paid."""
    assert plan(question, OFFERS) == []


def test_who_knows_much_less_is_not_asked() -> None:
    """Of two offers that touch the question, one by a single word of it: only the other is a candidate."""
    (part,) = plan("Is inflation the same as a higher price of the gold standard in a novel?", OFFERS)
    assert part.candidates == (0,)


def test_without_offers_there_is_no_part() -> None:
    """An empty roster is not an error here."""
    assert plan(BOTH, []) == []


def test_inflected_words_meet() -> None:
    """`inflationary` and `entrepreneurial` are of the field of inflation and entrepreneurship."""
    (part,) = plan("Is inflationary policy entrepreneurial?", OFFERS)
    assert part.candidates[0] == 0


# At what price


def test_of_near_equals_the_cheaper_is_first() -> None:
    """Same field, half the price: first, and the dear one stays as a second choice."""
    cheap = replace(ECONOMICS, model="economics-austrian", price=Price(50, 100, 500))
    assert plan("What is praxeology?", [ECONOMICS, cheap, CULTURE]) == [Part("What is praxeology?", (1, 0))]


def test_a_better_match_beats_a_lower_price() -> None:
    """Free answers of someone who knows most of the question come second."""
    free = Offer("banker", topics=("capital", "inflation"))
    (part,) = plan("How does inflation change the capital and money?", [free, ECONOMICS])
    assert part.candidates == (1, 0)


def test_the_first_payment_is_what_a_seller_asks_at_first() -> None:
    """Worst case or bundle, the larger, in whole satoshis; nothing for a free model."""
    ask = ask_of("x" * 92, max_tokens=100)
    assert first_payment_msat(replace(ECONOMICS, bundle_msat=0), ask) == 1000  # 100 + 20 + 600 msat
    assert first_payment_msat(replace(ECONOMICS, bundle_msat=2500), ask) == 3000
    assert first_payment_msat(replace(ECONOMICS, price=Price()), ask) == 0


@pytest.mark.parametrize(
    ("price", "fee"), [(0, 0), (1000, 5000), (500_000, 5000), (500_001, 5001), (1_000_000, 10_000)]
)
def test_the_fee_allowance(price: int, fee: int) -> None:
    """One percent, rounded up, at least five satoshis; nothing where nothing is paid."""
    assert fee_allowance_msat(price) == fee


@given(st.lists(st.integers(0, 50_000), max_size=6), st.integers(0, 100_000))
def test_caps_stay_within_the_budget(prices: list[int], budget: int) -> None:
    """All caps together; each holds its price in full and a fee within its allowance."""
    found = caps(prices, budget)
    assert sum(share.total_msat for share in found if share) <= budget
    for price, share in zip(prices, found, strict=True):
        if share:
            assert share.price_msat == price
            assert 0 <= share.fee_msat <= fee_allowance_msat(price)


@given(st.lists(st.integers(1, 50_000), min_size=1, max_size=6), st.integers(0, 100_000))
def test_what_cannot_be_paid_gets_none(prices: list[int], budget: int) -> None:
    """Earlier parts come first; a later, cheaper one may still fit."""
    left = budget
    for price, share in zip(prices, caps(prices, budget), strict=True):
        assert (share is None) == (price > left)
        left -= price if share else 0


def test_fees_are_shared_evenly() -> None:
    """What the prices leave, up to the allowance; a free member takes none of it for itself."""
    assert caps([1000, 2000], 4000) == [Caps(1000, 500), Caps(2000, 500)]
    assert caps([1000, 2000], 1_000_000) == [Caps(1000, 5000), Caps(2000, 5000)]
    assert caps([1000, 5000, 0], 1000) == [Caps(1000, 0), None, Caps(0, 0)]


# The ask of a member


@pytest.mark.parametrize(("wanted", "given_to_it"), [(None, None), (50, 50), (9999, 200)])
def test_a_member_is_asked_for_what_it_sells(wanted: int | None, given_to_it: int | None) -> None:
    """max_tokens is clipped to the longest answer that it sells, and left open if it was open."""
    assert part_of(ask_of(BOTH, wanted), ECONOMICS, "part", Caps(1000, 50)).max_tokens == given_to_it


def test_a_member_gets_its_part_and_its_money() -> None:
    """Its own name, its part of the question after the earlier messages, the sum of its caps."""
    part = part_of(ask_of(BOTH, budget_msat=99_999), ECONOMICS, "What is money?", Caps(1000, 50))
    assert part.model == "austrian-economics"
    assert part.messages == (Message("system", "be brief"), Message("user", "What is money?"))
    assert part.budget_msat == 1050


def test_only_the_last_question_is_replaced() -> None:
    """An answer that was begun stays after it: no other message is lost."""
    messages = (
        Message("user", "one"),
        Message("assistant", "two"),
        Message("user", BOTH),
        Message("assistant", "Well"),
    )
    part = part_of(Ask("ensemble", messages), ECONOMICS, "What is money?", Caps(0, 0))
    assert part.messages == (*messages[:2], Message("user", "What is money?"), messages[3])


@given(st.integers(0, MAX_MSAT // 4), st.integers(1, 1000))
def test_amounts_are_whole_numbers(price: int, budget: int) -> None:
    """Large amounts lose nothing to floating point."""
    (share,) = caps([price], price + budget)
    assert share == Caps(price, min(budget, fee_allowance_msat(price)))
