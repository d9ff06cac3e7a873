"""Who is served next, and where: the line, the slots and the steps, as plain data. Knows no llama.cpp, no text and no
clock.

Laws: a slot holds one conversation at a time, and all that it may become; first come first served, those who pay
before those who do not; what a slot holds beyond the public beginning is gone on with by the payer who left it there
and by nobody else; a step reads no more of a new prompt than those who are written to will bear.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lyceum.errors import Busy

STRETCH = 2.5
"""A step that also reads a new prompt may take this many times as long as one that only writes; one that reads more of
them, so much more for each."""

TO_THE_END = 2
"""A prompt of which no more than so many newcomers' stretches is left is read to its end: a pass for a few tokens is
dear."""

LEAST_READ = 4
FIRST_READ = 16
"""Tokens of a new prompt read in a step while others are written to: at least, and before anything was measured."""

WIDEST_GAP = 2
"""Slots between two that are written to that are rather passed through than left out, which takes a pass more."""

MOST_READ = 1000
"""A token of a pass is reckoned at this part of their average at least."""

SMOOTH = 0.1


@dataclass(eq=False, slots=True)
class Slot:
    """A sequence of the context. `tokens`: what it holds. `payer`: who may go on with it; "" for nobody."""

    number: int
    tokens: list[int] = field(default_factory=list)
    payer: str = ""
    job: Job | None = None
    left: int = 0


@dataclass(eq=False, slots=True)
class Job:
    """One request. `deadline` is on whatever clock `begin` is given."""

    number: int
    prompt: Sequence[int]
    answer_tokens: int
    payer: str = ""
    deadline: float = math.inf
    written: list[int] = field(default_factory=list)
    slot: Slot | None = None

    @property
    def held(self) -> int:
        """How many of its tokens its slot holds."""
        return len(self.slot.tokens) if self.slot else 0

    @property
    def unread(self) -> int:
        """Tokens that must be read before the next one can be written."""
        return len(self.prompt) + len(self.written) - self.held


@dataclass(frozen=True, slots=True)
class Trim:
    """The sequence of a slot forgets what it holds from `start` on."""

    slot: int
    start: int


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens that a slot reads next. After the `last` that its job has, a new one is written. Without a job, it only
    fills a gap and is forgotten at once."""

    slot: Slot
    tokens: Sequence[int]
    job: Job | None
    last: bool = True

    @property
    def wanted(self) -> int:
        """Of how many of its tokens scores are computed: two where there are two, for the reason given at `writes`."""
        return min(len(self.tokens), 2) if self.last else 0


class Cost:
    """What a pass takes, in seconds, as a part for each of its tokens and a part for itself: weighted least squares."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0
        self._variance = self._covariance = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        if not self._tokens:
            self._tokens, self._seconds = tokens, seconds
        more, longer = tokens - self._tokens, seconds - self._seconds
        self._tokens += SMOOTH * more
        self._seconds += SMOOTH * longer
        self._variance = (1 - SMOOTH) * (self._variance + SMOOTH * more * more)
        self._covariance = (1 - SMOOTH) * (self._covariance + SMOOTH * more * longer)

    @property
    def average_s(self) -> float:
        """What a token took, its share of the pass included."""
        return self._seconds / self._tokens if self._tokens else 0.0

    @property
    def token_s(self) -> float:
        """What one more token takes: never nothing, and at most the average."""
        found = self._covariance / self._variance if self._variance else self.average_s
        return min(max(found, self.average_s / MOST_READ), self.average_s)

    @property
    def pass_s(self) -> float:
        return self._seconds - self.token_s * self._tokens


class Pace:
    """What passes take, in seconds, measured as they are taken."""

    def __init__(self) -> None:
        self._step_s = self._write_s = 0.0
        self._reading = Cost()
        self._used = 0.5

    def wrote(self, tokens: int, seconds: float) -> None:
        """A step wrote one token to each of so many."""
        self._step_s = _smoothed(self._step_s, seconds)
        self._write_s = _smoothed(self._write_s, seconds / tokens)

    def read(self, tokens: int, seconds: float) -> None:
        self._reading.add(tokens, seconds)

    def ended(self, written: int, allowed: int) -> None:
        """How much of what they may write answers use."""
        self._used += SMOOTH * (written / allowed - self._used)

    def bearable(self) -> int:
        """Tokens that a step may read while others are written to: what fits into its stretch, or, where a pass for
        itself takes most of that, as many as take as long again."""
        token_s, pass_s = self._reading.token_s, self._reading.pass_s
        if not (self._step_s and token_s):
            return FIRST_READ
        seconds = max((STRETCH - 1) * self._step_s - pass_s, pass_s)
        return max(LEAST_READ, int(seconds / token_s))

    def reckon(self, jobs: Iterable[Job]) -> float:
        """Seconds that these jobs will take in all."""
        read = write = 0
        for job in jobs:
            read += max(len(job.prompt) - job.held, 0)
            write += job.answer_tokens - len(job.written)
        return read * self._reading.average_s + write * self._used * self._write_s


class Schedule:
    """`slots` jobs at once, `queue` more may wait. A pass reads at most `batch` tokens. Every slot holds the tokens
    `public` from the start. `keeps`: sequences can be cut off, so that conversations can be gone on with."""

    def __init__(self, slots: int, queue: int, batch: int, public: Sequence[int] = (), keeps: bool = True) -> None:
        self.pace = Pace()
        self._queue, self._batch, self._public, self._keeps = queue, batch, public, keeps
        self._slots = [Slot(number, list(public)) for number in range(slots)]
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._trims: list[Trim] = []
        self._turn = 0

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def check_room(self, coming: int = 0) -> None:
        """Raises Busy where a newcomer would find no place; `coming` others are on their way. Any thread may ask."""
        waiting = len(self._waiting) + coming
        if waiting >= self._queue + len(self._slots) - len(self._running):  # who waits for the next step has a place
            retry_s = max(1, math.ceil(self.wait_s() / (waiting + 1)))
            raise Busy(f"the line before this model is full ({waiting} waiting); try again in {retry_s} s", retry_s)

    def check_wait(self, patience_s: float) -> None:
        """Raises Busy where a newcomer would not be served within `patience_s`. Any thread may ask."""
        if (wait_s := self.wait_s()) > patience_s:
            retry_s = math.ceil(wait_s - patience_s)
            raise Busy(f"the line before this model takes about {wait_s:.0f} s; try again in {retry_s} s", retry_s)

    def wait_s(self) -> float:
        """About how long a newcomer would wait: those served leave one by one, and those who wait take their places."""
        waiting, running = list(self._waiting), list(self._running)
        if not waiting and len(running) < len(self._slots):
            return 0.0
        ahead = len(waiting) + 1
        return self.pace.reckon([*waiting, *running]) * ahead / (len(waiting) + len(running))

    def join(self, job: Job) -> None:
        """Whether there is room is asked before."""
        self._waiting.append(job)

    def leave(self, job: Job, keep: bool = True) -> None:
        """However far it got; may be repeated. `keep`: what it holds is sound."""
        if job in self._waiting:
            self._waiting.remove(job)
        elif job in self._running:
            self._running.remove(job)
            self._put_away(job, keep)

    # A step

    def begin(self, now: float) -> list[Job]:
        """Admit whoever has a place. Returns those that were dropped, since their deadline has passed."""
        late = [job for job in (*self._waiting, *self._running) if job.deadline <= now]
        for job in late:
            self.leave(job)
        while self._waiting and len(self._running) < len(self._slots):
            job = next((job for job in self._waiting if job.payer), self._waiting[0])
            self._waiting.remove(job)
            self._running.append(job)
            self._place(job)
        return late

    def trims(self) -> list[Trim]:
        """What is to be forgotten before the next pass."""
        trims, self._trims = self._trims, []
        return trims

    def writes(self) -> list[list[Part]]:
        """Passes for all who lack a single token. In each, slots follow one another without a gap, as llama.cpp reads
        them at once, and there are two or more where that can be: it reckons one alone by another kernel, whose result
        differs in the last digit."""
        due = sorted((job.slot.number, job) for job in self._running if job.slot and job.unread == 1)
        passes: list[list[Part]] = []
        for number, job in due:
            part = Part(self._slots[number], self._next(job, 1), job)
            if passes and self._keeps and number - passes[-1][-1].slot.number - 1 <= WIDEST_GAP:
                passes[-1] += [*self._fill(passes[-1][-1].slot.number + 1, number), part]
            else:
                passes.append([part])
        return [self._paired(parts) for parts in passes]

    def reads(self) -> list[Part]:
        """Stretches of the prompts of those that lack more than a token, first come first served, each for a pass of
        its own. For each of them a step may read as much as is borne; while nobody is written to, a batch. Whoever is
        begun with is read to the end if that is not far, so the last of them may take a step beyond."""
        due = [job for job in self._running if job.unread > 1]
        writing = any(job.unread == 1 for job in self._running)
        stretch = self.pace.bearable() if writing else self._batch
        room = stretch * len(due) if writing else self._batch
        parts: list[Part] = []
        for job in due:
            if job.slot and room > 0:
                short = job.unread <= TO_THE_END * stretch
                tokens = self._next(job, min(self._batch, job.unread if short else room))
                parts.append(Part(job.slot, tokens, job, last=len(tokens) == job.unread))
                room -= len(tokens)
        return parts

    def advance(self, parts: Iterable[Part]) -> None:
        """These were read."""
        for part in parts:
            if part.job:
                part.slot.tokens.extend(part.tokens)
            else:
                self._trims.append(Trim(part.slot.number, len(part.slot.tokens)))

    def undo(self, parts: Iterable[Part]) -> None:
        """These may have been read, or in part."""
        self._trims += [Trim(part.slot.number, len(part.slot.tokens)) for part in parts]

    def _next(self, job: Job, most: int) -> Sequence[int]:
        prompt, held = len(job.prompt), job.held
        if held >= prompt:
            return job.written[held - prompt :]
        return job.prompt[held : held + most]

    def _paired(self, parts: list[Part]) -> list[Part]:
        if len(parts) > 1 or len(self._slots) == 1 or not self._keeps:
            return parts
        number = parts[0].slot.number
        if number:
            return [*self._fill(number - 1, number), *parts]
        return [*parts, *self._fill(1, 2)]

    def _fill(self, start: int, end: int) -> Iterator[Part]:
        for slot in self._slots[start:end]:
            yield Part(slot, [0], None)

    # Slots

    def _place(self, job: Job) -> None:
        """In the slot where it is gone on with, else in one that is kept for nobody, else in the one kept longest."""
        free = [slot for slot in self._slots if slot.job is None]
        own = [slot for slot in free if job.payer and slot.payer == job.payer]
        slot = max(own, key=lambda slot: _common(job.prompt, slot.tokens), default=None)
        public = _common(job.prompt, self._public)
        if slot is None or _common(job.prompt, slot.tokens) <= public:
            slot = min(free, key=lambda slot: (bool(slot.payer), slot.left, slot.number))
            shared = min(public, _common(job.prompt, slot.tokens))
        else:
            shared = _common(job.prompt, slot.tokens)
        slot.job, job.slot, slot.payer = job, slot, ""
        self._cut(slot, min(shared, len(job.prompt) - 1))

    def _put_away(self, job: Job, keep: bool) -> None:
        """Keep what it holds for its payer, and what is public for all."""
        slot, job.slot = job.slot, None
        assert slot  # noqa: S101
        slot.job = None
        if job.payer and keep and self._keeps:
            self._turn += 1
            slot.payer, slot.left = job.payer, self._turn
            return
        slot.left = 0
        self._cut(slot, _common(slot.tokens, self._public) if keep else 0)

    def _cut(self, slot: Slot, start: int) -> None:
        if start < len(slot.tokens):
            start = start if self._keeps else 0
            del slot.tokens[start:]
            self._trims.append(Trim(slot.number, start))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _smoothed(average: float, value: float) -> float:
    return average + SMOOTH * (value - average) if average else value
