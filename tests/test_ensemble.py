"""A model of models: parallel, in order, inside the budget, whatever a member does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import Speaker
from lyceum.ensemble import Ensemble, Own, Roster
from lyceum.errors import BadRequest, BuyerError, ModelError, NoAnswer
from lyceum.ports import Ask, Chunk, Delta, End, Member, Message, Model, Offer, Price, Usage

pytestmark = pytest.mark.anyio
PRICE = Price(base_msat=100, output_per_1k_msat=1000)
MONEY = Offer("economist", topics=("money", "inflation", "capital"), price=PRICE, node_id="02aa")
MUSIC = Offer("critic", topics=("jazz", "blues", "opera"), price=PRICE, node_id="02bb")
ENSEMBLE = Offer("ensemble")
BOTH = "What is money, and what is jazz?"
FIRST_PAYMENT = 4000  # 100 + 512 tokens of 6 characters at 1 msat, in whole satoshis
PLENTY = 1_000_000


def ask_of(question: str = BOTH, budget_msat: int = PLENTY) -> Ask:
    return Ask("ensemble", (Message("user", question),), budget_msat=budget_msat)


def stream_of(
    *models: Model, ask: Ask | None = None, absent: Sequence[Member] = (), **settings: Any
) -> AsyncGenerator[Chunk]:
    async def muster() -> Roster:
        return Roster(models, tuple(absent))

    return cast("AsyncGenerator[Chunk]", Ensemble(ENSEMBLE, muster, **settings).stream(ask or ask_of()))


async def heard(chunks: AsyncIterator[Chunk]) -> tuple[str, End]:
    *deltas, end = [chunk async for chunk in chunks]
    assert isinstance(end, End)
    assert all(isinstance(delta, Delta) for delta in deltas)
    return "".join(delta.text for delta in deltas if isinstance(delta, Delta)), end


async def never() -> None:
    await asyncio.Event().wait()


def paid(offer: Offer, msat: int, code: str = "", ok: bool = False) -> Member:
    return Member(offer.node_id, offer.model, msat, paid_msat=msat, ok=ok, code=code, error=code)


# Answers


async def test_parts_are_asked_at_the_same_time() -> None:
    """Two members that wait for each other both answer: neither is asked after the other."""
    here, there = asyncio.Event(), asyncio.Event()

    def meet(mine: asyncio.Event, other: asyncio.Event) -> Callable[[], Awaitable[object]]:
        async def wait() -> None:
            mine.set()
            await other.wait()

        return wait

    models = (
        Speaker(MONEY, ("Gold.",), before=meet(here, there)),
        Speaker(MUSIC, ("Swing.",), before=meet(there, here)),
    )
    _, end = await asyncio.wait_for(heard(stream_of(*models)), 1)
    assert [member.ok for member in end.members] == [True, True]


async def test_the_text_comes_in_order_and_says_who_wrote_it() -> None:
    """The first part first, though the second was done long before; each signed with its model's name."""
    done = asyncio.Event()

    async def finish() -> None:
        done.set()

    quick = Speaker(MUSIC, ("Swing.",), after=finish)
    text, end = await heard(stream_of(Speaker(MONEY, ("Go", "ld."), before=done.wait), quick))
    assert text == "Gold. [economist]\n\nSwing. [critic]"
    assert end.finish == "stop"
    assert end.usage == Usage(input_chars=len(BOTH), output_chars=len(text))


async def test_every_delta_names_its_member() -> None:
    """Also where the words themselves do not."""
    chunks = [chunk async for chunk in stream_of(Speaker(MONEY, ("Gold.",)), Speaker(MUSIC, ("Swing.",)))]
    written = [(chunk.member, chunk.text) for chunk in chunks if isinstance(chunk, Delta)]
    assert written == [
        ("economist", "Gold."),
        ("economist", " [economist]"),
        ("", "\n\n"),
        ("critic", "Swing."),
        ("critic", " [critic]"),
    ]


async def test_each_member_gets_its_part() -> None:
    """Its own clause under its own name, and the account says so."""
    money, music = Speaker(MONEY), Speaker(MUSIC)
    _, end = await heard(stream_of(money, music))
    assert [(ask.model, ask.question) for ask in money.asked] == [("economist", "What is money")]
    assert [(ask.model, ask.question) for ask in music.asked] == [("critic", "what is jazz?")]
    assert [member.part for member in end.members] == ["What is money", "what is jazz?"]


async def test_an_answer_cut_short_is_cut_short() -> None:
    """One member that ran out of tokens makes the whole finish with `length`."""
    _, end = await heard(stream_of(Speaker(MONEY, finish="length"), Speaker(MUSIC)))
    assert end.finish == "length"


async def test_an_own_model_costs_nothing() -> None:
    """It answers without any budget and is asked to spend none."""
    own = Speaker(MONEY, ("Gold.",))
    text, end = await heard(stream_of(Own(own), ask=ask_of("What is money?", budget_msat=0)))
    assert text == "Gold. [economist]"
    assert [ask.budget_msat for ask in own.asked] == [0]
    assert end.members[0].charged_msat == 0


# Failures


FAILURES = {
    "raises": (Speaker(MONEY, ("Go",), error=ModelError("out of memory")), "out of memory"),
    "breaks": (Speaker(MONEY, (), error=ZeroDivisionError()), "failed (ZeroDivisionError)"),
    "is silent": (Speaker(MONEY, (), before=never), "silent for 0.05 s, or not done in 600 s, at 0 characters"),
    "falls silent": (Speaker(MONEY, ("Go",), after=never), "silent for 0.05 s, or not done in 600 s, at 2 characters"),
    "reports": (Speaker(MONEY, (), finish="error", member=paid(MONEY, 0, "busy")), "busy"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_member_that_fails_is_reported(case: str) -> None:
    """Why, in a sentence; the other one still answers."""
    failing, why = FAILURES[case]
    text, end = await heard(stream_of(failing, Speaker(MUSIC, ("Swing.",)), patience_s=0.05))
    assert text.endswith("Swing. [critic]")
    assert end.finish == "stop"
    assert [member.ok for member in end.members] == [False, True]
    assert end.members[0].error.startswith(why)
    assert failing.closed


async def test_a_gap_only_stands_between_answers() -> None:
    """When the first part failed, the answer does not begin with empty lines."""
    text, _ = await heard(stream_of(Speaker(MONEY, (), error=ModelError("no")), Speaker(MUSIC, ("Swing.",))))
    assert text == "Swing. [critic]"


async def test_when_all_fail_the_answer_is_an_error() -> None:
    """An End that says so and lists who failed, not an exception: money may have been spent."""
    models = [Speaker(offer, (), error=ModelError("no")) for offer in (MONEY, MUSIC)]
    text, end = await heard(stream_of(*models))
    assert (text, end.finish) == ("", "error")
    assert [member.ok for member in end.members] == [False, False]


@pytest.mark.parametrize(("models", "why"), [((Speaker(MONEY),), "economist"), ((), "no specialist could be reached")])
async def test_nobodys_field_is_no_answer(models: tuple[Model, ...], why: str) -> None:
    """Nobody is asked; the error says who is known, or that nobody could be reached and why."""
    absent = [Member("", "https://b", ok=False, error="is silent")]
    with pytest.raises(NoAnswer, match=why) as refusal:
        await heard(stream_of(*models, ask=ask_of("How do I repair a bicycle?"), absent=absent))
    assert models or "https://b: is silent" in refusal.value.message
    assert all(cast("Speaker", model).asked == [] for model in models)


async def test_who_did_not_come_is_in_the_account() -> None:
    """Peers that could not be reached stand after the members."""
    absent = Member("", "https://b", ok=False, error="is silent")
    _, end = await heard(stream_of(Speaker(MONEY), absent=[absent]))
    assert end.members[-1] == absent


async def test_closing_early_stops_every_member() -> None:
    """A caller who goes away leaves no member running."""
    models = [Speaker(offer, ("a",), after=never) for offer in (MONEY, MUSIC)]
    chunks = stream_of(*models)
    await anext(chunks)
    await asyncio.wait_for(chunks.aclose(), 1)
    assert [model.closed for model in models] == [True, True]


# Money


async def test_without_a_budget_nobody_is_contacted() -> None:
    """Every member is reported as over the budget."""
    models = Speaker(MONEY), Speaker(MUSIC)
    text, end = await heard(stream_of(*models, ask=ask_of(budget_msat=0)))
    assert (text, end.finish) == ("", "error")
    assert [member.code for member in end.members] == ["over-budget", "over-budget"]
    assert "may ask 4,000 msat" in end.members[0].error
    assert [model.asked for model in models] == [[], []]


async def test_a_member_that_is_too_dear_is_left_out() -> None:
    """The budget for one is spent on the first part."""
    music = Speaker(MUSIC)
    text, end = await heard(stream_of(Speaker(MONEY), music, ask=ask_of(budget_msat=FIRST_PAYMENT)))
    assert text == "yes [economist]"
    assert [member.code for member in end.members] == ["", "over-budget"]
    assert music.asked == []


@pytest.mark.parametrize(
    ("own", "asked", "spent"),
    [(None, 5000, 5000), (5000, 0, 5000), (5000, 900_000, 5000), (9000, 4500, 4500), (0, 900_000, None)],
)
async def test_the_seller_sets_the_most_it_spends(own: int | None, asked: int, spent: int | None) -> None:
    """A buyer may ask for less than the configured budget, never for more of the seller's money."""
    money = Speaker(MONEY)
    await heard(stream_of(money, ask=ask_of("What is money?", asked), budget_msat=own))
    assert [ask.budget_msat for ask in money.asked] == ([spent] if spent else [])


SECOND = replace(MONEY, model="monetarist", price=replace(PRICE, base_msat=101), node_id="02cc")


@pytest.mark.parametrize(
    ("first", "left"),
    [
        (Speaker(MONEY, (), finish="error", member=paid(MONEY, 0, "busy")), 9000),
        (Speaker(MONEY, (), finish="error", member=paid(MONEY, 3000, "peer-error")), 6000),
        (Speaker(MONEY, (), finish="stop", member=paid(MONEY, 3000, ok=True)), 6000),
        (Speaker(MONEY, (), finish="error", member=paid(MONEY, 8000, "peer-error")), None),
        (Speaker(MONEY, (), finish="error", member=paid(MONEY, 0, "payment-unknown")), None),
        (Speaker(MONEY, (), before=never), None),
        (Speaker(MONEY, (), error=BuyerError("?")), None),
    ],
    ids=["free", "paid", "empty", "paid much", "unknown", "silent", "raised"],
)
async def test_the_next_candidate_gets_what_is_left(first: Speaker, left: int | None) -> None:
    """Money that was or may have been spent is gone: then the next one is too dear, and not asked."""
    first.asked, second = [], Speaker(SECOND, ("Paper.",))
    text, end = await heard(stream_of(first, second, ask=ask_of("What is money?", 9000), patience_s=0.05))
    assert [ask.budget_msat for ask in second.asked] == ([left] if left else [])
    assert text == ("Paper. [monetarist]" if left else "")
    assert [member.code for member in end.members][1:] == ([""] if left else ["over-budget"])


async def test_who_answered_is_not_asked_again() -> None:
    """A second candidate is for when the first said nothing."""
    second = Speaker(SECOND)
    await heard(stream_of(Speaker(MONEY, ("Go",)), second, ask=ask_of("What is money?")))
    assert second.asked == []


@dataclass
class Spender:
    """Spends all that it is given, says nothing, and ends as told."""

    offer: Offer
    ending: str
    spent: list[int] = field(default_factory=list)

    async def weigh(self, ask: Ask) -> Usage:
        return Usage()

    async def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        self.spent.append(ask.budget_msat)
        if self.ending == "raises":
            raise ModelError("gone with the money")
        if self.ending == "is silent":
            await never()
        unknown = self.ending == "unknown"
        code = "payment-unknown" if unknown else "peer-error"
        yield End("error", members=(paid(self.offer, 0 if unknown else ask.budget_msat, code),))


SPENDERS = st.builds(
    lambda topics, base, bundle, ending: Spender(
        Offer(ending, "", topics, Price(base, 0, 10), bundle_msat=bundle), ending
    ),
    st.sampled_from([("money",), ("jazz",), ("money", "jazz"), ("opera",)]),
    st.integers(0, 3000),
    st.integers(0, 6000),
    st.sampled_from(["pays", "unknown", "raises", "is silent"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SPENDERS, min_size=1, max_size=5), st.integers(0, 40_000))
def test_all_members_together_never_get_more_than_the_budget(models: list[Spender], budget: int) -> None:
    """Even when each spends all that it is given, and then fails in its own way."""
    question = "What is money? What is jazz? What is opera?"

    async def consult() -> None:
        chunks = stream_of(*models, ask=ask_of(question, budget), patience_s=0.001)
        await heard(chunks)

    try:
        asyncio.run(consult())
    except NoAnswer:
        assert {spent for model in models for spent in model.spent} == set()
    assert sum(sum(model.spent) for model in models) <= budget


def test_an_ensemble_is_a_model() -> None:
    """It can be sold, or sit inside another one."""
    model: Model = Ensemble(ENSEMBLE, lambda: asyncio.sleep(0, Roster(())))
    assert asyncio.run(model.weigh(ask_of())) == ENSEMBLE.worst_case(ask_of())


# Outside the field


@dataclass
class Stranger:
    """A member that knows its limits."""

    offer: Offer
    asked: int = 0

    async def weigh(self, ask: Ask) -> Usage:
        return Usage()

    async def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        self.asked += 1
        yield Delta("Not my field.", 4, outside=True)
        yield End("stop", Usage(1, 4, 5, 13), -0.1)


async def test_whoever_says_that_it_lies_outside_is_passed_over() -> None:
    """Its words are not passed on; the next candidate answers, and the account names both."""
    first, second = Stranger(replace(MONEY, price=Price())), Speaker(replace(MONEY, model="banker"), ("Gold.",))
    text, end = await heard(stream_of(first, second, ask=ask_of("What is money?")))
    assert text == "Gold. [banker]"
    assert [(member.model, member.ok, member.code) for member in end.members] == [
        ("economist", False, "outside-field"),
        ("banker", True, ""),
    ]


async def test_an_ensemble_of_strangers_says_so_itself() -> None:
    """One free sentence, which another ensemble can pass over in turn."""
    chunks = [chunk async for chunk in stream_of(Stranger(MONEY), ask=ask_of("What is money?"))]
    (delta, end) = chunks
    assert isinstance(delta, Delta)
    assert delta.outside
    assert isinstance(end, End)
    assert end.finish == "stop"


@pytest.mark.parametrize("shape", [{"schema": "{}"}, {"grammar": 'root ::= "a"'}, {"logprobs": 0}])
async def test_several_answers_together_have_no_shape(shape: dict[str, Any]) -> None:
    """Refused before anybody is asked."""
    with pytest.raises(BadRequest, match="one of its specialists"):
        await Ensemble(ENSEMBLE, cast("Any", None)).weigh(replace(ask_of(), **shape))
