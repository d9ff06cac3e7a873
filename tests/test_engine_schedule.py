"""Who is served next, and where: the plain rules, without a model."""

from __future__ import annotations

import random

import pytest

from lyceum.engine.child.schedule import Job, Pace, Part, Schedule, Trim
from lyceum.errors import Busy

PUBLIC = [1, 2, 3, 4, 5]


def job(number: int, prompt: list[int] | None = None, payer: str = "", most: int = 4, deadline: float = 1e9) -> Job:
    return Job(number, prompt or [*PUBLIC, 100 + number, 7], most, payer, deadline)


def schedule_of(slots: int = 2, queue: int = 100, batch: int = 8, keeps: bool = True) -> Schedule:
    return Schedule(slots, queue, batch, PUBLIC if keeps else (), keeps)


def step(schedule: Schedule, now: float = 0.0) -> list[list[Part]]:
    """One step; every job that may writes a token, and leaves after its last."""
    schedule.begin(now)
    schedule.trims()
    done = [*schedule.writes()]
    for parts in done:
        take(schedule, parts)
    for part in schedule.reads():
        take(schedule, [part])
        done.append([part])
    return done


def take(schedule: Schedule, parts: list[Part]) -> None:
    schedule.advance(parts)
    for part in parts:
        if part.job and part.last:
            part.job.written.append(9)
            if len(part.job.written) == part.job.answer_tokens:
                schedule.leave(part.job)


def run(schedule: Schedule) -> None:
    while schedule.busy:
        step(schedule)


def numbers(parts: list[Part]) -> list[int]:
    return [part.job.number for part in parts if part.job]


def test_who_pays_comes_before_who_does_not() -> None:
    """Among equals the first comes first; nobody who is served is sent away."""
    schedule = schedule_of(slots=1)
    jobs = [job(0), job(1), job(2, payer="a"), job(3, payer="b"), job(4)]
    for each in jobs[:1]:
        schedule.join(each)
    schedule.begin(0)
    for each in jobs[1:]:
        schedule.join(each)
    served = []
    while schedule.busy:
        served += [number for parts in step(schedule) for number in numbers(parts)]
    assert list(dict.fromkeys(served)) == [0, 2, 3, 1, 4]


def test_what_is_public_is_not_read_again() -> None:
    """The first stretch begins after it, for whoever asks."""
    schedule = schedule_of()
    schedule.join(job(1))
    (parts,) = step(schedule)
    assert list(parts[0].tokens) == [101, 7]


@pytest.mark.parametrize(("payer", "read"), [("a", [8]), ("b", [101, 7, 9, 9, 9, 8]), ("", [101, 7, 9, 9, 9, 8])])
def test_a_conversation_is_gone_on_with_by_its_payer_alone(payer: str, read: list[int]) -> None:
    """Who comes back reads only what is new; anybody else with the same words reads all but the public part."""
    schedule = schedule_of()
    schedule.join(job(1, payer="a"))
    run(schedule)
    schedule.join(job(2, [*PUBLIC, 101, 7, 9, 9, 9, 8], payer))
    (parts, *_) = step(schedule)
    assert [token for part in parts if part.job for token in part.tokens] == read


def test_what_nobody_paid_for_is_kept_for_nobody() -> None:
    """A slot left by one who does not pay holds the public part and no more."""
    schedule = schedule_of()
    schedule.join(job(1))
    run(schedule)
    assert all(slot.tokens == PUBLIC and not slot.payer for slot in schedule._slots)
    assert Trim(0, len(PUBLIC)) in schedule.trims()


def test_the_conversation_kept_longest_makes_room() -> None:
    """A slot that is kept for nobody is taken before it."""
    schedule = schedule_of(slots=2)
    for number, payer in ((1, "a"), (2, "b"), (3, "c")):
        schedule.join(job(number, payer=payer))
        run(schedule)
    assert sorted(slot.payer for slot in schedule._slots) == ["b", "c"]


def test_a_deadline_drops_the_served_and_the_waiting() -> None:
    """Before the next step, and the slot is free again."""
    schedule = schedule_of(slots=1)
    first, second, third = job(1, deadline=5), job(2, deadline=3), job(3)
    for each in (first, second, third):
        schedule.join(each)
    assert schedule.begin(0) == []
    assert schedule.begin(3) == [second]
    assert schedule.begin(5) == [first]
    assert third.slot


def test_a_long_prompt_does_not_hold_up_those_who_are_written_to() -> None:
    """While somebody is written to a step reads as much as takes little more time than it takes anyway; else all."""
    schedule = schedule_of(slots=2, batch=60)
    schedule.join(job(1, most=1000))
    step(schedule)
    schedule.pace.wrote(1, 0.010)
    schedule.pace.read(60, 0.060)
    schedule.join(job(2, [*PUBLIC, *range(200, 400)]))
    _, (part,) = step(schedule)
    assert len(part.tokens) == 15
    alone = schedule_of(batch=60)
    alone.join(job(2, [*PUBLIC, *range(200, 400)]))
    ((part,),) = step(alone)
    assert len(part.tokens) == 60


def settled(pass_s: float, token_s: float, step_s: float) -> int:
    """Where reading settles when a pass costs so much for itself and for each token."""
    pace = Pace()
    for _ in range(100):
        pace.wrote(8, step_s)
        tokens = min(pace.bearable(), 512)
        pace.read(tokens, pass_s + token_s * tokens)
    return pace.bearable()


def test_where_tokens_cost_a_step_reads_what_its_stretch_allows() -> None:
    """As on a processor's few cores: fifteen times five are the seventy-five that a step of fifty may take more."""
    assert settled(pass_s=0, token_s=0.005, step_s=0.05) == 15


def test_where_passes_cost_they_are_not_made_ever_smaller() -> None:
    """As on a GPU: a pass takes as long as a step whatever it reads, so it reads all there is."""
    assert settled(pass_s=0.005, token_s=1e-6, step_s=0.0045) > 512


def test_a_crowd_that_comes_at_once_is_not_kept_waiting_for_one_who_is_written_to() -> None:
    """Each newcomer may stretch a step by as much, so the first of them are read in one go."""
    schedule = schedule_of(slots=4, batch=60)
    schedule.join(job(1, most=1000))
    step(schedule)
    schedule.pace.wrote(1, 0.010)
    schedule.pace.read(60, 0.060)
    for number in (2, 3, 4):
        schedule.join(job(number, [*PUBLIC, *range(200, 230)]))
    _, *read = step(schedule)
    assert [len(part.tokens) for (part,) in read] == [30, 30]


def test_the_rest_of_a_prompt_is_read_at_once() -> None:
    """Where no more than two stretches are left, as with any short prompt, one pass reads them."""
    schedule = schedule_of(slots=2, batch=60)
    schedule.join(job(1, most=1000))
    step(schedule)
    schedule.pace.wrote(1, 0.010)
    schedule.pace.read(60, 0.060)
    schedule.join(job(2, [*PUBLIC, *range(200, 245)]))
    assert [len(step(schedule)[1][0].tokens) for _ in range(2)] == [15, 30]


def test_short_prompts_that_come_together_are_each_read_in_one_pass() -> None:
    """No step begins one of them with what the others left of its time: that would be a pass more for the same."""
    schedule = schedule_of(slots=6, batch=60)
    schedule.join(job(1, most=1000))
    step(schedule)
    schedule.pace.wrote(1, 0.010)
    schedule.pace.read(60, 0.060)
    for number in (2, 3, 4, 5):
        schedule.join(job(number, [*PUBLIC, *range(200, 226)]))
    assert [[len(part.tokens) for part in parts] for parts in step(schedule)[1:]] == [[26], [26], [26]]
    assert [[len(part.tokens) for part in parts] for parts in step(schedule)[1:]] == [[26]]


def test_a_full_line_says_when_to_come_back() -> None:
    """By what the others will take: 2 wait before one slot, 4 tokens each at half a second, half of them used."""
    schedule = schedule_of(slots=1, queue=2)
    schedule.pace.wrote(1, 0.5)
    for number in range(3):
        schedule.check_room()
        schedule.join(job(number))
        schedule.begin(0)
    with pytest.raises(Busy, match="2 waiting") as busy:
        schedule.check_room()
    assert busy.value.retry_after_s == 1
    with pytest.raises(Busy, match="takes about 3 s") as busy:
        schedule.check_wait(1)
    assert busy.value.retry_after_s == 2
    schedule.check_wait(10)


def test_slots_follow_one_another_in_a_pass() -> None:
    """Small gaps are filled and forgotten, wide ones begin another pass, and nobody goes alone."""
    schedule = schedule_of(slots=8)
    jobs = [job(number, most=100) for number in range(8)]
    for each in jobs:
        schedule.join(each)
    for _ in range(8):
        step(schedule)
    for each in (jobs[1], jobs[3], jobs[4], jobs[5], jobs[6]):
        schedule.leave(each)
    passes = schedule.writes()
    assert [[part.slot.number for part in parts] for parts in passes] == [[0, 1, 2], [6, 7]]
    assert [numbers(parts) for parts in passes] == [[0, 2], [7]]
    schedule.trims()
    for parts in passes:
        schedule.advance(parts)
    assert {trim.slot for trim in schedule.trims()} == {1, 6}


def test_a_model_that_cannot_cut_off_keeps_nothing() -> None:
    """Nothing is lent, filled or cut in the middle; a slot begins empty."""
    schedule = schedule_of(keeps=False)
    schedule.join(job(1, payer="a"))
    run(schedule)
    assert [slot.tokens for slot in schedule._slots] == [[], []]
    assert schedule.trims() == [Trim(0, 0)]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_a_slot_holds_what_is_read(seed: int) -> None:
    """Fuzzed: what slots hold is what was read since the last cut, jobs go on where they were, all come to an end."""
    dice = random.Random(seed)  # noqa: S311
    schedule, there, made = schedule_of(dice.choice([1, 2, 5])), list[Job](), 0
    held = {slot.number: list(PUBLIC) for slot in schedule._slots}
    while made < 20 or schedule.busy:
        if made < 20 and dice.random() < 0.4:
            prompt = [*PUBLIC[: dice.randint(0, 5)], *dice.choices(range(50, 60), k=dice.randint(1, 30))]
            there.append(job(made, prompt, dice.choice(["", "a", "b"]), dice.randint(1, 6)))
            schedule.join(there[-1])
            made += 1
        if there and dice.random() < 0.05:
            schedule.leave(dice.choice(there))
        schedule.begin(0)
        reads = schedule.reads() if dice.random() < 0.5 else []
        for parts in [[part] for part in reads] or schedule.writes():
            for trim in schedule.trims():
                del held[trim.slot][trim.start :]
            for each in parts:
                assert held[each.slot.number] == each.slot.tokens
                held[each.slot.number] += each.tokens
                if each.job:
                    conversation = [*each.job.prompt, *each.job.written]
                    assert held[each.slot.number] == conversation[: len(held[each.slot.number])]
            take(schedule, parts)
    assert not any(slot.job for slot in schedule._slots)
