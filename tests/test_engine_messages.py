"""What passes between server and engine, there and back; and the page that both see."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.engine import messages
from lyceum.engine.slate import READS, STEPS, Slate
from lyceum.errors import BadRequest, Busy, LyceumError, ModelError, TooLong
from lyceum.ports import Ask, Candidate, Choice, Delta, End, Message, Usage


@given(st.lists(st.recursive(st.none() | st.integers() | st.text(), st.lists)), st.integers(1, 50))
def test_messages_arrive_whole(sent: list[object], size: int) -> None:
    """In whatever pieces the socket hands them over."""
    raw, unpacker = b"".join(map(messages.pack, sent)), messages.Unpacker()
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert [message for piece in pieces for message in unpacker.feed(piece)] == sent


def through(message: object) -> list[object]:
    (found,) = messages.Unpacker().feed(messages.pack(message))
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "ask",
    [
        Ask("m", (Message("user", "grüezi 🎓"),)),
        Ask("m", (Message("system", "a"), Message("user", "half \ud83c")), 7, 0.5, stop=("x", "y"), seed=3, payer="t"),
        Ask("m", (Message("user", "a"),), grammar='root ::= "a"', logprobs=2, repeat_penalty=1.1, deadline_s=2.5),
    ],
)
def test_an_ask_goes_there_unchanged(ask: Ask) -> None:
    assert messages.read_ask(through(messages.write_ask(ask))) == ask  # type: ignore[arg-type]


CHOICE = Choice(Candidate(b"\xf0\x9f", -0.5), (Candidate(b"a", -0.1), Candidate(b"\x00", -9.0)))


@pytest.mark.parametrize(
    "delta", [Delta("a", 1), Delta("🎓", 4, choices=(CHOICE, CHOICE)), Delta("Not mine.", 3, outside=True)]
)
def test_a_piece_comes_back_unchanged(delta: Delta) -> None:
    assert messages.read_delta(through(messages.write_delta(7, delta))) == delta


@pytest.mark.parametrize("end", [End("stop", Usage(1, 2, 3, 4), -0.25), End("cancelled")])
def test_an_end_comes_back_unchanged(end: End) -> None:
    assert messages.read_end(through(messages.write_end(7, end))) == end


@pytest.mark.parametrize(
    "error", [BadRequest("no", "grammar"), BadRequest("no"), TooLong("long"), Busy("later", 9), ModelError("broken")]
)
def test_an_error_comes_back_as_it_was(error: LyceumError) -> None:
    """Its class, its words, the field that it names, and when to come again."""
    found = messages.read_error(through(messages.write_error(7, error)))
    assert (type(found), vars(found), str(found)) == (type(error), vars(error), str(error))


def test_what_is_no_number_comes_through() -> None:
    """It is for the engine's owner to refuse."""
    found = messages.read_ask(through(messages.write_ask(Ask("m", (Message("user", "a"),), temperature=math.nan))))  # type: ignore[arg-type]
    assert math.isnan(found.temperature)


def test_the_slate_shows_who_is_in_a_call() -> None:
    """To whoever opened the same file; each lane for itself, and every call is another turn."""
    ours, file = Slate.new()
    with file:
        theirs = Slate(file.fileno())
    assert not ours.look(STEPS).busy
    theirs.enter(STEPS, 7)
    first = ours.look(STEPS)
    assert (first.busy, first.request, ours.look(READS).busy) == (True, 7, False)
    theirs.leave(STEPS)
    assert not ours.look(STEPS).busy
    theirs.enter(STEPS, 7)
    assert ours.look(STEPS) != first
