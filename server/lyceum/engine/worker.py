"""The engine's thread: takes jobs from the line and steps them, one decode a step. Knows no asyncio.

Law: whatever happens to a job, it gets one End or one exception, and the next job is served.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from lyceum.engine import shape
from lyceum.engine.field import FieldGuard
from lyceum.engine.line import Job, Line
from lyceum.engine.native import BATCH, Context, Sampler, Sampling, log_probabilities
from lyceum.engine.text import TextStream
from lyceum.errors import LyceumError, ModelError
from lyceum.ports import Candidate, Choice, Delta, End, Finish, Usage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trust:
    """When a model's answer counts as none; see `FieldGuard`."""

    refusal: str = ""
    doubt: float = 0.0


class Run:
    """A job being served: `unread` tokens to decode next, the answer so far, `finish` once it is over."""

    def __init__(self, job: Job, trust: Trust) -> None:
        self.job = job
        self.unread = job.prompt
        self.position = 0
        self.finish: Finish | None = None
        shaped = bool(job.ask.schema or job.ask.grammar)
        self._guard = FieldGuard(trust.refusal, 0.0 if shaped else trust.doubt)
        self._refusal = trust.refusal
        self._text = TextStream(job.ask.stop)
        self._choices = _Choices()
        self._held = ""
        self._tokens = self._chars = self._unsaid = 0
        self._log_probability = 0.0

    def accept(self, token: int, log_probability: float, piece: bytes, choice: Choice | None) -> None:
        """One more token of the answer."""
        self._tokens += 1
        self._unsaid += 1
        self._log_probability += log_probability
        text = self._text.push(piece)
        self._choices.add(choice, len(piece))
        self._guard.hear(text, log_probability)
        self._say(text)
        if self._text.stopped or self._guard.outside:
            self.finish = "stop"
        elif self._tokens == self.job.answer_tokens:
            self.finish = "length"
        else:
            self.unread = [token]

    def end(self) -> None:
        """Say what was held back, and End."""
        rest = self._text.flush()
        self._guard.hear(rest, 0.0)
        self._guard.end()
        if self._guard.outside:
            self._deliver(Delta(self._refusal, self._unsaid, outside=True))
        else:
            self._say(rest, last=True)
        usage = Usage(len(self.job.prompt), self._tokens, self.job.ask.input_chars, self._chars)
        confidence = self._log_probability / self._tokens if self._tokens else None
        self.job.deliver(End(self.finish or "cancelled", usage, confidence))

    def _say(self, text: str, last: bool = False) -> None:
        self._held += text
        if self._held and not self._guard.outside and (last or not self._guard.undecided):
            self._deliver(Delta(self._held, self._unsaid, choices=self._choices.take(self._held)))
            self._held = ""

    def _deliver(self, delta: Delta) -> None:
        self._chars += len(delta.text)
        self._unsaid = 0
        self.job.deliver(delta)


class _Choices:
    """The tokens whose text is not shown yet: one that a stop string cuts away is never reported."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Choice]] = []
        self._written = self._shown = 0

    def add(self, choice: Choice | None, size: int) -> None:
        if choice:
            self._waiting.append((self._written, choice))
        self._written += size

    def take(self, text: str) -> tuple[Choice, ...]:
        """Those that `text` begins to show."""
        self._shown += len(text.encode())
        taken = [choice for start, choice in self._waiting if start < self._shown]
        del self._waiting[: len(taken)]
        return tuple(taken)


def work(context: Context, line: Line, trust: Trust) -> None:
    """Serve the line until it is closed."""
    while job := line.take():
        _guarded(context, line, Run(job, trust))


def _guarded(context: Context, line: Line, run: Run) -> None:
    try:
        _serve(context, line, run)
    except LyceumError as error:
        run.job.deliver(error)
    except Exception as error:
        log.exception("an answer failed")
        run.job.deliver(ModelError(f"the engine failed: {error}"))


def _serve(context: Context, line: Line, run: Run) -> None:
    ask = run.job.ask
    sampling = Sampling(ask.temperature, ask.top_p, ask.min_p, ask.seed, shape.grammar(ask))
    sampler = Sampler(context.vocab, sampling)
    try:
        context.forget()
        while run.finish is None and not (run.job.cancelled or line.closed):
            step(context, sampler, run)
    finally:
        sampler.close()
    run.end()


def step(context: Context, sampler: Sampler, run: Run) -> None:
    """One decode: a stretch of the prompt, or the token written last."""
    tokens, run.unread = run.unread[:BATCH], run.unread[BATCH:]
    context.decode(tokens, run.position)
    run.position += len(tokens)
    if run.unread:
        return
    logits = context.logits()
    token = sampler.choose(logits)
    if token is None or token in context.vocab.ends:
        run.finish = "stop"
        return
    scores = log_probabilities(logits)
    pieces = context.vocab.pieces
    wanted = run.job.ask.logprobs
    choice = None if wanted is None else _choice(scores, pieces, token, wanted)
    run.accept(token, float(scores[token]), pieces[token], choice)


def _choice(scores: np.ndarray[Any, Any], pieces: list[bytes], token: int, wanted: int) -> Choice:
    best = np.argsort(scores)[::-1][:wanted] if wanted else ()
    return Choice(
        Candidate(pieces[token], float(scores[token])),
        tuple(Candidate(pieces[number], float(scores[number])) for number in best),
    )
