"""What is for sale, and the protocols of those who answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lyceum.ports.asks import Ask, Chunk, Kind
from lyceum.ports.prices import CHARS_PER_TOKEN, Price, Usage


@dataclass(frozen=True, slots=True)
class Limits:
    """`context_tokens` holds prompt and answer; `max_tokens` is the longest answer sold."""

    context_tokens: int
    max_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= self.context_tokens:
            raise ValueError("max_tokens must be from 1 to context_tokens")

    def answer_tokens(self, wanted: int | None) -> int:
        return self.max_tokens if wanted is None else min(wanted, self.max_tokens)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as its seller lists it. `bundle_msat` is the least first payment; `digest` the
    file's SHA-256; `node_id` the seller's node."""

    model: str
    description: str = ""
    topics: tuple[str, ...] = ()
    price: Price = Price()
    limits: Limits = Limits(context_tokens=2048, max_tokens=512)
    kind: Kind = "chat"
    bundle_msat: int = 0
    digest: str = ""
    node_id: str = ""

    def worst_case(self, ask: Ask) -> Usage:
        """The most that `ask` can use, without a tokenizer: every token is at least one character."""
        tokens = self.limits.answer_tokens(ask.max_tokens)
        chars = ask.input_chars
        return Usage(chars, tokens, chars, tokens * CHARS_PER_TOKEN)


class Model(Protocol):
    """Anything that answers: a GGUF file, a specialist on another node, a council of all of them."""

    @property
    def offer(self) -> Offer: ...

    async def weigh(self, ask: Ask) -> Usage:
        """The most that `ask` can use; cheap. Raises TooLong or Busy, before anything is paid."""
        ...

    def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        """The answer: any number of `Delta`, then one `End`. Closing the iterator stops the work."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How the `server`th of those behind a model is: why it is passed over, "" if it is well; how many requests
    it was sent, and how many of them it is working on."""

    model: str
    server: int
    trouble: str
    served: int
    outstanding: int


class Watched(Protocol):
    """Servers behind a model, which may come and go."""

    def standing(self) -> Sequence[Standing]:
        """What is known now; asking starts a new look where that is old."""
        ...


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts to turn into vectors, as OpenAI's embeddings request has them."""

    model: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.texts or not all(self.texts):
            raise ValueError("input must hold at least one text, and no empty one")

    @property
    def input_chars(self) -> int:
        return sum(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector of length 1 for each text, in order, and what was read."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage


class Embedder(Protocol):
    """A model that turns texts into vectors. Its price counts what is read; a base price is one a request."""

    @property
    def offer(self) -> Offer: ...

    async def weigh(self, batch: TextBatch) -> Usage:
        """Exact, and cheap. Raises TooLong or Busy, before anything is paid."""
        ...

    async def embed(self, batch: TextBatch) -> Embeddings: ...
