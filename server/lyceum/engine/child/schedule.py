"""Who is served next: queues, sequences and cells as plain data. Knows no llama.cpp, no text and no clock.

Laws: whoever is admitted has the cells for its prompt and its longest answer; first come first served, those who
pay before those who do not; what one payer's sequence holds is lent to nobody else, but for the public beginning;
a step reads no more of new prompts than those who are written to will bear.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lyceum.errors import Busy

STRETCH = 2.0
"""A step that also reads a new prompt may take this many times as long as one that only writes."""

LEAST_READ = 4
FIRST_READ = 32
"""Tokens of a new prompt read in a step while others are written to: at least, and before anything was measured."""

WORTH_KEEPING = 16
"""Tokens beyond the public beginning for which a sequence is kept."""

SMOOTH = 0.1


@dataclass(eq=False, slots=True)
class Job:
    """One request. `deadline` is on whatever clock `plan` is given. `payer`: "" for nobody."""

    number: int
    prompt: Sequence[int]
    answer_tokens: int
    payer: str = ""
    deadline: float = math.inf
    sequence: int = -1
    held: int = 0
    written: list[int] = field(default_factory=list)
    cells: int = 0

    @property
    def reading(self) -> bool:
        return self.held < len(self.prompt)

    @property
    def left(self) -> int:
        """Tokens still to be read or written, at most."""
        return len(self.prompt) + self.answer_tokens - self.held


@dataclass(frozen=True, slots=True)
class Copy:
    """Sequence `target` begins with the first `count` tokens of `source`."""

    source: int
    target: int
    count: int


@dataclass(frozen=True, slots=True)
class Trim:
    """`sequence` forgets what it holds from `start` on."""

    sequence: int
    start: int


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens of a job that a step reads: some of its prompt, or the one it wrote last. After the `last` of
    these comes a new one."""

    job: Job
    tokens: Sequence[int]
    prompt: bool
    last: bool = True


@dataclass(slots=True)
class Plan:
    """A step: first the moves, then the parts in one batch. `late`: jobs dropped since their deadline passed."""

    moves: list[Copy | Trim]
    parts: list[Part]
    late: list[Job]

    @property
    def written(self) -> int:
        """How many jobs are written to."""
        return sum(not part.prompt for part in self.parts)

    @property
    def read(self) -> int:
        """How many tokens of prompts are read."""
        return sum(len(part.tokens) for part in self.parts if part.prompt)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A finished conversation. `cells`: those that only it holds."""

    payer: str
    tokens: Sequence[int]
    cells: int


class Pace:
    """What steps take, in seconds, measured as they are taken."""

    def __init__(self) -> None:
        self.quiet_s = self.read_s = self.write_s = 0.0
        self.used = 0.5

    def took(self, written: int, read: int, seconds: float) -> None:
        """A step took `seconds` that wrote to `written` and read `read` tokens of prompts."""
        if not read:
            self.quiet_s = _smoothed(self.quiet_s, seconds)
            self.write_s = _smoothed(self.write_s, seconds / written)
        else:
            reading_s = seconds - self.quiet_s if written else seconds
            self.read_s = _smoothed(self.read_s, max(reading_s, 0.0) / read)

    def ended(self, written: int, allowed: int) -> None:
        """How much of what they may write answers use."""
        self.used += SMOOTH * (written / allowed - self.used)

    def bearable(self) -> int:
        """Tokens that a step may read while others are written to."""
        if not (self.quiet_s and self.read_s):
            return FIRST_READ
        return max(LEAST_READ, int((STRETCH - 1) * self.quiet_s / self.read_s))

    def reckon(self, jobs: Iterable[Job]) -> float:
        """Seconds that these jobs will take in all."""
        read = write = 0
        for job in jobs:
            unread = max(len(job.prompt) - job.held, 0)
            read += unread
            write += job.left - unread
        return read * self.read_s + write * self.used * self.write_s


class Schedule:
    """`cells` tokens for at most `parallel` jobs at once. Sequences are numbered from 0; the last is the public one,
    which holds the tokens `public` from the start. `keeps`: finished conversations may be kept."""

    def __init__(
        self, cells: int, parallel: int, queue: int, batch: int, public: Sequence[int] = (), keeps: bool = True
    ) -> None:
        self.sequences = sequences_for(parallel)
        self.pace = Pace()
        self._queue, self._parallel, self._batch, self._public, self._keeps = queue, parallel, batch, public, keeps
        self._free_cells = cells - len(public)
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._unused = list(range(self.sequences - 1))
        self._moves: list[Copy | Trim] = []

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def check_room(self, coming: int = 0) -> None:
        """Raises Busy where a newcomer would find no place; `coming` others are on their way. Any thread may ask."""
        waiting = len(self._waiting) + coming
        if waiting >= self._queue + self._parallel - len(self._running):  # who waits only for the next step has a place
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
        if not waiting and len(running) < self._parallel:
            return 0.0
        ahead = len(waiting) + 1
        return self.pace.reckon([*waiting, *running]) * ahead / (len(waiting) + len(running))

    def join(self, job: Job) -> None:
        """Raises Busy when the line is full."""
        self.check_room()
        self._waiting.append(job)

    def leave(self, job: Job, keep: bool = True) -> None:
        """However far it got; may be repeated. `keep`: it may be gone on with."""
        if job in self._waiting:
            self._waiting.remove(job)
        elif job in self._running:
            self._running.remove(job)
            self._put_away(job, keep)

    def plan(self, now: float) -> Plan:
        late = [job for job in (*self._waiting, *self._running) if job.deadline <= now]
        for job in late:
            self.leave(job)
        self._admit()
        moves, self._moves = self._moves, []
        return Plan(moves, list(self._parts()), late)

    def advance(self, plan: Plan) -> None:
        """The parts of `plan` were read."""
        for part in plan.parts:
            part.job.held += len(part.tokens)

    def _parts(self) -> Iterable[Part]:
        writing = [job for job in self._running if not job.reading]
        for job in writing:
            yield Part(job, job.written[-1:], prompt=False)
        room = self._batch - len(writing)
        if writing:
            room = min(room, self.pace.bearable())
        for job in self._running:
            if job.reading and room > 0:
                tokens = job.prompt[job.held : job.held + room]
                room -= len(tokens)
                yield Part(job, tokens, prompt=True, last=job.held + len(tokens) == len(job.prompt))

    # Admission

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._parallel:
            job = next((job for job in self._waiting if job.payer), self._waiting[0])
            if not self._place(job):
                return
            self._waiting.remove(job)
            self._running.append(job)

    def _place(self, job: Job) -> bool:
        """A sequence and cells for `job`, with as much of its prompt as is there already."""
        own = self._own(job)
        public = _common(job.prompt, self._public)
        if own is not None:
            kept = self._kept[own]
            shared = _common(kept.tokens, self._public)
            needed = len(job.prompt) + job.answer_tokens - shared
            if not self._make_room(needed - kept.cells, own):
                return False
            del self._kept[own]
            self._free_cells += kept.cells
            job.sequence, job.held = own, min(_common(job.prompt, kept.tokens), len(job.prompt) - 1)
            self._moves.append(Trim(own, job.held))
        else:
            needed = len(job.prompt) + job.answer_tokens - public
            if not self._make_room(needed):
                return False
            job.sequence, job.held = self._unused.pop(), min(public, len(job.prompt) - 1)
            if job.held:
                self._moves.append(Copy(self.sequences - 1, job.sequence, job.held))
        job.cells = needed
        self._free_cells -= needed
        return True

    def _own(self, job: Job) -> int | None:
        """The sequence of the conversation that `job` goes on with."""
        if not job.payer:
            return None
        least = _common(job.prompt, self._public) + WORTH_KEEPING
        lengths = {
            number: _common(job.prompt, kept.tokens) for number, kept in self._kept.items() if kept.payer == job.payer
        }
        best = max(lengths, key=lengths.__getitem__, default=None)
        return best if best is not None and lengths[best] >= least else None

    def _make_room(self, needed: int, spared: int | None = None) -> bool:
        """Forget the conversations kept longest until `needed` cells are free, and a sequence unless one is `spared`;
        none where that is in vain."""
        others = [number for number in self._kept if number != spared]
        if needed > self._free_cells + sum(self._kept[number].cells for number in others):
            return False
        while needed > self._free_cells or not (self._unused or spared is not None):
            self._forget(others.pop(0))
        return True

    def _forget(self, number: int) -> None:
        self._free_cells += self._kept.pop(number).cells
        self._moves.append(Trim(number, 0))
        self._unused.append(number)

    def _put_away(self, job: Job, keep: bool) -> None:
        """Keep what it holds for its payer, or give everything back."""
        self._free_cells += job.cells
        tokens = [*job.prompt, *job.written][: job.held]
        shared = _common(tokens, self._public)
        cells = len(tokens) - shared
        if keep and self._keeps and job.payer and cells >= WORTH_KEEPING:
            self._kept[job.sequence] = _Kept(job.payer, tokens, cells)
            self._free_cells -= cells
            return
        self._moves.append(Trim(job.sequence, 0))
        self._unused.append(job.sequence)


def sequences_for(parallel: int) -> int:
    """As many may be kept as are served, and one is public."""
    return 2 * parallel + 1


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _smoothed(average: float, value: float) -> float:
    return average + SMOOTH * (value - average) if average else value
