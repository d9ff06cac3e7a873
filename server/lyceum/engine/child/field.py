"""Is this an answer, or does the model say that the question lies outside its field? Knows text and numbers only."""

from __future__ import annotations

import math

FIRST = 10
"""Tokens in which an answer of a small model is decided."""


class FieldGuard:
    """Hears an answer from its beginning. While `undecided`, nothing of it should be shown; once `outside`, none.

    `refusal`: what the model says of a question outside its field; "" switches all of this off. `doubt`: an
    answer one of whose FIRST tokens is less probable than this is not trusted.
    """

    def __init__(self, refusal: str, doubt: float) -> None:
        self.outside = False
        self._refusal = refusal
        self._least = math.log(doubt) if refusal and doubt > 0 else -math.inf
        self._text, self._tokens = "", 0

    @property
    def undecided(self) -> bool:
        doubtful = self._least > -math.inf and self._tokens < FIRST
        return bool(self._refusal) and (doubtful or self._refusal.startswith(self._text.strip()))

    def hear(self, text: str, log_probability: float) -> None:
        """One more token of the answer, and what it adds to the text."""
        if self._tokens < FIRST and log_probability < self._least:
            self.outside = True
        self._tokens += 1
        self._text += text

    def end(self) -> None:
        """The answer is over."""
        if self._refusal and self._text.strip() == self._refusal:
            self.outside = True
