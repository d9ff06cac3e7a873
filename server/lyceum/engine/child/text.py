"""Bytes in, text out: never half a character, never the beginning of a stop string. Knows no tokens."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """`push` gives what can be shown already; the end of a character or a stop string may still come."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [word for word in stop if word]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        text = self._held + self._decoder.decode(data)
        found = [at for word in self._stop if (at := text.find(word)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        shown = len(text) - max((_overlap(text, word) for word in self._stop), default=0)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """What was held back for a stop string that did not come. Half a character is dropped."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of `text` begin `word`."""
    longest = min(len(text), len(word) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(word[:n])), 0)
