"""What is counted here about an answer from elsewhere.

Rule: characters are counted here. Tokens read are reckoned from the text before anything is sold, and written ones
are one for each piece; what the server reports at the end replaces both, but never above what was reckoned, what
was asked for, or the bytes that were delivered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lyceum.ports import Delta, Usage

BYTES_PER_TOKEN = 3
"""English has about 4.5 bytes a token, program code 3, Chinese 2 to 3."""

TOKENS_PER_TEXT = 8
"""What a chat template puts around a message."""


def reckoned(texts: Iterable[str]) -> int:
    """Tokens that these texts are taken to have, without their model's tokenizer."""
    return sum(TOKENS_PER_TEXT - (-len(text.encode()) // BYTES_PER_TOKEN) for text in texts)


@dataclass(slots=True)
class Delivered:
    """An answer under way: what was handed over, of what `most` allows."""

    most: Usage
    pieces: int = 0
    chars: int = 0
    size: int = 0

    @property
    def full(self) -> bool:
        """A piece holds at least one token, so a server that says more was not asked for it."""
        return self.pieces >= self.most.output_tokens

    def add(self, delta: Delta) -> None:
        self.pieces += 1
        self.chars += len(delta.text)
        self.size += len(delta.text.encode())

    def usage(self, reported: Usage) -> Usage:
        return Usage(
            min(reported.input_tokens or self.most.input_tokens, self.most.input_tokens),
            min(reported.output_tokens or self.pieces, self.most.output_tokens, self.size),
            self.most.input_chars,
            self.chars,
        )
