"""One answer as it is written: tokens in; out come pieces of text that can be shown, and the End. Knows no model.

Law: a piece holds whole characters, nothing of a stop string, and nothing that may yet turn out to be no answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from lyceum.engine.child.field import FieldGuard
from lyceum.engine.child.text import TextStream
from lyceum.ports import Ask, Choice, Delta, End, Finish, Usage


@dataclass(frozen=True, slots=True)
class Trust:
    """When a model's answer counts as none; see `FieldGuard`."""

    refusal: str = ""
    doubt: float = 0.0


class Answer:
    """`finish` is set once it is over."""

    def __init__(self, ask: Ask, prompt_tokens: int, answer_tokens: int, trust: Trust) -> None:
        self.finish: Finish | None = None
        self._input_tokens, self._input_chars, self._most = prompt_tokens, ask.input_chars, answer_tokens
        shaped = bool(ask.schema or ask.grammar)
        self._guard = FieldGuard(trust.refusal, 0.0 if shaped else trust.doubt)
        self._refusal = trust.refusal
        self._text = TextStream(ask.stop)
        self._choices = _Choices()
        self._held = ""
        self._tokens = self._chars = self._unsaid = 0
        self._log_probability = 0.0

    def accept(self, log_probability: float, piece: bytes, choice: Choice | None) -> Delta | None:
        """One more token of the answer, and what can be shown now."""
        self._tokens += 1
        self._unsaid += 1
        self._log_probability += log_probability
        text = self._text.push(piece)
        if choice:
            self._choices.add(choice, len(piece))
        if self._refusal:
            self._guard.hear(text, log_probability)
        if self._text.stopped or self._guard.outside:
            self.finish = "stop"
        elif self._tokens == self._most:
            self.finish = "length"
        return self._say(text)

    def end(self) -> tuple[Delta | None, End]:
        """What was held back, and the End."""
        rest = self._text.flush()
        self._guard.hear(rest, 0.0)
        self._guard.end()
        if self._guard.outside:
            delta: Delta | None = self._counted(Delta(self._refusal, self._unsaid, outside=True))
        else:
            delta = self._say(rest, last=True)
        usage = Usage(self._input_tokens, self._tokens, self._input_chars, self._chars)
        confidence = self._log_probability / self._tokens if self._tokens else None
        return delta, End(self.finish or "cancelled", usage, confidence)

    def _say(self, text: str, last: bool = False) -> Delta | None:
        self._held += text
        if not self._held or self._guard.outside or not (last or not self._guard.undecided):
            return None
        delta = self._counted(Delta(self._held, self._unsaid, choices=self._choices.take(self._held)))
        self._held = ""
        return delta

    def _counted(self, delta: Delta) -> Delta:
        self._chars += len(delta.text)
        self._unsaid = 0
        return delta


class _Choices:
    """The tokens whose text is not shown yet: one that a stop string cuts away is never reported."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Choice]] = []
        self._written = self._shown = 0

    def add(self, choice: Choice, size: int) -> None:
        self._waiting.append((self._written, choice))
        self._written += size

    def take(self, text: str) -> tuple[Choice, ...]:
        """Those that `text` begins to show."""
        if not self._waiting:
            return ()
        self._shown += len(text.encode())
        taken = [choice for start, choice in self._waiting if start < self._shown]
        del self._waiting[: len(taken)]
        return tuple(taken)
