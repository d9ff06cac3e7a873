"""A model that answers: its context, its schedule and the answers being written, one decode a step.

Laws: whatever happens to a request, it gets one End or one error; only `plan` and `weigh` are open to the thread
that reads requests.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lyceum.engine.card import ADD_TEMPLATE, Card
from lyceum.engine.child import shape
from lyceum.engine.child.answer import Answer, Trust
from lyceum.engine.child.prompt import ChatTemplate
from lyceum.engine.child.schedule import Job, Part, Schedule
from lyceum.engine.messages import News, write_delta, write_end, write_error
from lyceum.engine.native import Context, Room, Sampler, Sampling, Stretch, Vocab, lend
from lyceum.engine.settings import EngineSettings
from lyceum.engine.slate import STEPS, Slate
from lyceum.errors import BadRequest, LyceumError, ModelError, TooLong
from lyceum.ports import Ask, Candidate, Choice, Limits, Message

log = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""Whoever does not say how long an answer may take would not wait longer than this for it to begin."""


@dataclass(slots=True)
class Run:
    """A request that is waiting or being served. `sampler`: none where the likeliest token is taken."""

    job: Job
    answer: Answer
    logprobs: int | None
    sampler: Sampler | None


class Chat:
    """Blocks until the model can answer; ModelError names the file and says how to mend it."""

    def __init__(self, settings: EngineSettings, limits: Limits, card: Card, check_tensors: bool, slate: Slate) -> None:
        self._limits, self._slate = limits, slate
        weights = lend(card, settings.n_gpu_layers, check_tensors)
        try:
            self._vocab = weights.vocab
            self._template = _template(card, self._vocab)
            room = _room(settings, card)
            self._context = Context(card, room)
        finally:
            weights.give_back()
        public = self._public(settings.system) if weights.cuts else []
        self._read_public(public, room.batch)
        self._schedule = Schedule(room.sequences, settings.queue, room.batch, public, weights.cuts)
        refusal = card.refusal if settings.refusal is None else settings.refusal
        self._terms = np.empty(len(self._vocab.pieces), np.float32)
        self._trust = Trust(refusal, card.doubt if settings.doubt is None else settings.doubt)
        self._runs: dict[int, Run] = {}
        self._coming: set[int] = set()

    # Open to the thread that reads requests

    def weigh(self, ask: Ask) -> tuple[int, int]:
        """Tokens of the prompt, and those that the answer may have. Raises BadRequest, TooLong or Busy."""
        self._schedule.check_room(len(self._coming))
        self._schedule.check_wait(ask.deadline_s or PATIENCE_S)
        job = self._plan(0, ask)
        shape.check(ask, self._vocab)
        return len(job.prompt), job.answer_tokens

    def plan(self, number: int, ask: Ask) -> Job:
        """What is to `join` now. Raises as `weigh` does."""
        self._schedule.check_room(len(self._coming))
        job = self._plan(number, ask)
        self._coming.add(number)
        return job

    def _plan(self, number: int, ask: Ask) -> Job:
        limits = self._limits
        if ask.input_chars > limits.context_tokens * self._vocab.longest:
            raise TooLong(
                f"{ask.input_chars:,} characters cannot fit {limits.context_tokens} tokens; shorten the messages"
            )
        prompt = self._template.tokens(ask.messages)
        room = limits.context_tokens - len(prompt)
        if room < (ask.max_tokens or 1):
            raise TooLong(_too_long(len(prompt), ask.max_tokens, limits.context_tokens))
        deadline = time.monotonic() + ask.deadline_s if ask.deadline_s else math.inf
        return Job(number, prompt, min(room, limits.answer_tokens(ask.max_tokens)), ask.payer, deadline)

    # The engine's thread

    @property
    def busy(self) -> bool:
        return self._schedule.busy

    def join(self, job: Job, ask: Ask) -> None:
        """Raises Busy when the line is full, BadRequest for a shape that cannot be followed."""
        self._coming.discard(job.number)
        self._schedule.check_room()
        answer = Answer(ask, len(job.prompt), job.answer_tokens, self._trust)
        self._runs[job.number] = Run(job, answer, ask.logprobs, self._sampler(job.number, ask))
        self._schedule.join(job)

    def leave(self, number: int) -> None:
        """Nobody wants to hear any more; nothing happens if it is over."""
        if number in self._runs:
            self._remove(self._runs[number])

    def step(self) -> Iterator[list[News]]:
        """A token for each answer that is being written, then stretches of new prompts."""
        schedule, begun = self._schedule, time.monotonic()
        yield [each for job in schedule.begin(begun) for each in self._ended(self._runs[job.number])]
        passes = schedule.writes()
        yield [each for parts in passes for each in self._pass(parts)]
        if passes:
            written = sum(part.job is not None for parts in passes for part in parts)
            schedule.pace.wrote(written, time.monotonic() - begun)
        for part in schedule.reads():
            begun = time.monotonic()
            yield self._pass([part])
            schedule.pace.read(len(part.tokens), time.monotonic() - begun)

    def close(self) -> list[News]:
        """Whoever is served or waits has been told by the server."""
        for run in list(self._runs.values()):
            self._remove(run)
        self._context.close()
        return []

    def _pass(self, parts: list[Part]) -> list[News]:
        """One decode, and what is written after it."""
        try:
            self._decode(parts)
        except Exception as error:
            log.exception("a pass failed")
            self._schedule.undo(parts)
            return [self._broken(self._runs[part.job.number], error) for part in parts if part.job]
        self._schedule.advance(parts)
        return list(self._sample(parts)) if any(part.job and part.last for part in parts) else []

    def _decode(self, parts: list[Part]) -> None:
        for trim in self._schedule.trims():
            self._context.trim(trim.slot, trim.start)
        stretches = [Stretch(part.tokens, part.slot.number, len(part.slot.tokens), part.wanted) for part in parts]
        self._slate.enter(STEPS)
        self._context.decode(stretches)
        self._slate.leave(STEPS)

    def _sample(self, parts: list[Part]) -> Iterator[News]:
        """For each job whose last token was read, the next one."""
        scores = self._context.scores(sum(part.wanted for part in parts))
        row = at = -1
        for part in parts:
            row += len(part.tokens)
            at += part.wanted
            if part.job is None:
                continue
            run = self._runs[part.job.number]
            try:
                token = self._choose(run, row, scores[at]) if run.sampler else int(scores[at].argmax())
                yield from self._written(run, token, scores[at])
            except Exception as error:
                yield self._broken(run, error)

    def _choose(self, run: Run, row: int, scores: np.ndarray[Any, Any]) -> int | None:
        sampler = run.sampler
        assert sampler  # noqa: S101
        self._slate.enter(STEPS, run.job.number if sampler.shaped else 0)
        token = sampler.choose(self._context.handle, row, scores)
        self._slate.leave(STEPS)
        return token

    def _written(self, run: Run, token: int | None, scores: np.ndarray[Any, Any]) -> Iterator[News]:
        if token is None or token in self._vocab.ends:
            run.answer.finish = "stop"
        else:
            run.job.written.append(token)
            total = self._total(scores)
            choice = None if run.logprobs is None else self._choice(scores - total, token, run.logprobs)
            piece = self._vocab.pieces[token]
            delta = run.answer.accept(float(scores[token]) - total, piece, choice)
            if delta:
                yield write_delta(run.job.number, delta)
        if run.answer.finish:
            yield from self._ended(run)

    def _total(self, scores: np.ndarray[Any, Any]) -> float:
        """The logarithm of the sum of what they are logarithms of. In memory of its own: to ask for some at every
        token takes longer than the sum."""
        peak = float(scores.max())
        np.subtract(scores, peak, out=self._terms)
        np.exp(self._terms, out=self._terms)
        return peak + math.log(float(self._terms.sum()))

    def _choice(self, scores: np.ndarray[Any, Any], token: int, wanted: int) -> Choice:
        pieces = self._vocab.pieces
        best = np.argsort(scores)[::-1][:wanted] if wanted else ()
        return Choice(
            Candidate(pieces[token], float(scores[token])),
            tuple(Candidate(pieces[number], float(scores[number])) for number in best),
        )

    def _ended(self, run: Run) -> Iterator[News]:
        self._remove(run)
        self._schedule.pace.ended(len(run.job.written), run.job.answer_tokens)
        delta, end = run.answer.end()
        if delta:
            yield write_delta(run.job.number, delta)
        yield write_end(run.job.number, end)

    def _broken(self, run: Run, error: Exception) -> News:
        if not isinstance(error, LyceumError):
            log.exception("an answer failed")
            error = ModelError(f"the engine failed: {error}")
        self._remove(run, keep=False)
        return write_error(run.job.number, error)

    def _remove(self, run: Run, keep: bool = True) -> None:
        del self._runs[run.job.number]
        self._schedule.leave(run.job, keep)
        if run.sampler:
            run.sampler.close()

    def _sampler(self, number: int, ask: Ask) -> Sampler | None:
        sampling = Sampling(
            ask.temperature,
            ask.top_p,
            ask.min_p,
            ask.seed,
            shape.grammar(ask),
            ask.top_k,
            ask.frequency_penalty,
            ask.presence_penalty,
            ask.repeat_penalty,
        )
        if sampling.plain:
            return None
        self._slate.enter(STEPS, number if sampling.grammar else 0)
        sampler = Sampler(self._vocab, sampling)
        self._slate.leave(STEPS)
        return sampler

    def _public(self, system: str) -> list[int]:
        """The tokens with which conversations begin, whatever is asked; none where the template takes no such ones."""
        first = [Message("system", system)] if system else []
        try:
            one, other = (self._template.tokens([*first, Message("user", word)]) for word in ("a", "Z"))
        except BadRequest:
            return []
        same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        return one[:same] if same <= self._limits.context_tokens // 2 else []

    def _read_public(self, public: list[int], batch: int) -> None:
        for start in range(0, len(public), batch):
            self._context.decode([Stretch(public[start : start + batch], 0, start, wanted=0)])
        if public:
            self._context.copy_to_all()


def _template(card: Card, vocab: Vocab) -> ChatTemplate:
    try:
        return ChatTemplate(card.chat_template, vocab)
    except ModelError as error:
        raise ModelError(f"{card.path}: {error.message}; {ADD_TEMPLATE}") from None


def _room(settings: EngineSettings, card: Card) -> Room:
    return Room(
        settings.n_ctx,
        card.slots(settings.n_ctx, settings.parallel),
        settings.n_gpu_layers,
        settings.threads(),
        (settings.lora, settings.lora_scale) if settings.lora else None,
    )


def _too_long(prompt: int, wanted: int | None, context: int) -> str:
    answer = wanted or 1
    mend = f"shorten the messages by {prompt + answer - context} tokens"
    if wanted and prompt < context:
        mend += f", or set max_tokens to at most {context - prompt}"
    return f"{prompt} tokens of prompt and {answer} of answer exceed the context of {context} tokens; {mend}"
