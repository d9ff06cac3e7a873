"""A model that turns texts into vectors: texts of several requests in one batch, one batch a step.

Only `read` is open to the thread that reads requests.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lyceum.engine.card import Card
from lyceum.engine.messages import DONE, News, write_error
from lyceum.engine.native import MOST_SEQUENCES, Vectors
from lyceum.engine.settings import EngineSettings
from lyceum.engine.slate import STEPS, Slate
from lyceum.errors import BadRequest, Busy, ModelError, TooLong
from lyceum.ports import Limits

Text = Sequence[int]


@dataclass(eq=False, slots=True)
class Batch:
    """One request's texts. `vectors` has a place for each, in order; `missing` of them are not filled yet."""

    number: int
    texts: list[Text]
    missing: int = 0
    vectors: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = len(self.texts)
        self.vectors = [np.empty(0)] * self.missing


class Embedding:
    """Blocks until it can be asked; ModelError names the file."""

    def __init__(self, settings: EngineSettings, limits: Limits, card: Card, check_tensors: bool, slate: Slate) -> None:
        self._limits, self._room, self._queue, self._slate = limits, settings.n_ctx, settings.queue, slate
        self._native = Vectors(card, settings.n_ctx, settings.n_gpu_layers, settings.threads(), check_tensors)
        self._batches: dict[int, Batch] = {}
        self._waiting: deque[tuple[Batch, int]] = deque()

    def read(self, texts: Sequence[str]) -> list[Text]:
        """Their tokens. Raises BadRequest, TooLong naming the text, or Busy."""
        self._check_room()
        return [self._read(number, text) for number, text in enumerate(texts)]

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def join(self, batch: Batch) -> None:
        """Raises Busy when the line is full."""
        self._check_room()
        self._batches[batch.number] = batch
        self._waiting.extend((batch, at) for at in range(len(batch.texts)))

    def leave(self, number: int) -> None:
        if self._batches.pop(number, None):
            self._waiting = deque(each for each in self._waiting if each[0].number != number)

    def step(self) -> Iterator[list[News]]:
        """One batch: as many texts as fit, in the order in which they came."""
        taken = self._take()
        self._slate.enter(STEPS)
        try:
            found = self._native.embed([batch.texts[at] for batch, at in taken])
        except ModelError as error:
            numbers = {batch.number for batch, _ in taken}
            for number in numbers:
                self.leave(number)
            yield [write_error(number, error) for number in numbers]
            return
        finally:
            self._slate.leave(STEPS)
        for (batch, at), vector in zip(taken, found, strict=True):
            batch.vectors[at] = vector
            batch.missing -= 1
        yield [self._done(batch) for batch in {batch for batch, _ in taken} if not batch.missing]

    def close(self) -> list[News]:
        """Whoever waits is told."""
        numbers, self._batches = list(self._batches), {}
        self._waiting.clear()
        self._native.close()
        return [write_error(number, Busy("the model is shutting down; ask another seller")) for number in numbers]

    def _take(self) -> list[tuple[Batch, int]]:
        taken: list[tuple[Batch, int]] = []
        tokens = 0
        while self._waiting and len(taken) < MOST_SEQUENCES:
            batch, at = self._waiting[0]
            tokens += len(batch.texts[at])
            if tokens > self._room:
                break
            taken.append(self._waiting.popleft())
        return taken

    def _done(self, batch: Batch) -> News:
        del self._batches[batch.number]
        vectors = [b64encode(vector.astype("<f4").tobytes()).decode() for vector in batch.vectors]
        return [batch.number, DONE, {"vectors": vectors, "tokens": sum(map(len, batch.texts))}]

    def _check_room(self) -> None:
        waiting = len(self._batches)
        if waiting >= self._queue:
            raise Busy(f"the line before this model is full ({waiting} waiting); try again in a moment")

    def _read(self, number: int, text: str) -> Text:
        room, vocab = self._limits.context_tokens, self._native.vocab
        if len(text) > room * vocab.longest:
            raise TooLong(f"input[{number}] cannot fit {room} tokens; shorten it")
        try:
            tokens = vocab.framed(text)
        except UnicodeEncodeError:
            raise BadRequest(f"input[{number}] is not valid Unicode: it holds half a surrogate pair", "input") from None
        if not tokens:
            raise BadRequest(f"input[{number}] holds nothing that this model reads", "input")
        if len(tokens) > room:
            raise TooLong(f"input[{number}] has {len(tokens)} tokens; at most {room} are read, so cut it")
        return tokens
