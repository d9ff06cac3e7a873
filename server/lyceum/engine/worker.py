"""The engine's thread: takes jobs from the line and steps them, one decode a step. Knows no asyncio.

Law: whatever happens to a job, it gets one End or one exception, and the next job is served.
"""

from __future__ import annotations

import logging

from lyceum.engine.line import Job, Line
from lyceum.engine.native import BATCH, Native, Sampler
from lyceum.engine.text import TextStream
from lyceum.errors import LyceumError, ModelError
from lyceum.ports import Delta, End, Finish, Usage

log = logging.getLogger(__name__)


class Run:
    """A job being served: `unread` tokens to decode next, the answer so far, `finish` once it is over."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.unread = job.prompt
        self.position = 0
        self.finish: Finish | None = None
        self._text = TextStream(job.ask.stop)
        self._tokens = self._chars = self._unsaid = 0
        self._log_probability = 0.0

    def accept(self, token: int, log_probability: float, piece: bytes) -> None:
        """One more token of the answer."""
        self._tokens += 1
        self._unsaid += 1
        self._log_probability += log_probability
        self._say(self._text.push(piece))
        if self._text.stopped:
            self.finish = "stop"
        elif self._tokens == self.job.answer_tokens:
            self.finish = "length"
        else:
            self.unread = [token]

    def end(self) -> None:
        """Say what was held back, and End."""
        self._say(self._text.flush())
        usage = Usage(len(self.job.prompt), self._tokens, self.job.ask.input_chars, self._chars)
        confidence = self._log_probability / self._tokens if self._tokens else None
        self.job.deliver(End(self.finish or "cancelled", usage, confidence))

    def _say(self, text: str) -> None:
        if text:
            self._chars += len(text)
            self.job.deliver(Delta(text, self._unsaid))
            self._unsaid = 0


def work(native: Native, line: Line) -> None:
    """Serve the line until it is closed."""
    while job := line.take():
        _guarded(native, line, job)


def _guarded(native: Native, line: Line, job: Job) -> None:
    try:
        _serve(native, line, Run(job))
    except LyceumError as error:
        job.deliver(error)
    except Exception as error:
        log.exception("an answer failed")
        job.deliver(ModelError(f"the engine failed: {error}"))


def _serve(native: Native, line: Line, run: Run) -> None:
    ask = run.job.ask
    sampler = native.sampler(ask.temperature, ask.top_p, ask.seed)
    try:
        native.forget()
        while run.finish is None and not (run.job.cancelled or line.closed):
            step(native, sampler, run)
    finally:
        sampler.close()
    run.end()


def step(native: Native, sampler: Sampler, run: Run) -> None:
    """One decode: a stretch of the prompt, or the token written last."""
    tokens, run.unread = run.unread[:BATCH], run.unread[BATCH:]
    native.decode(tokens, run.position)
    run.position += len(tokens)
    if run.unread:
        return
    token = sampler.sample()
    if token in native.vocab.ends:
        run.finish = "stop"
    else:
        run.accept(token, native.log_probability(token), native.vocab.pieces[token])
