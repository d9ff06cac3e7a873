"""An embedding GGUF as an Embedder: one thread owns its context, asks wait for it in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from lyceum.engine.card import Card, read_card
from lyceum.engine.core import check_memory
from lyceum.engine.engine import check_context, needs, with_digest
from lyceum.engine.fleet import Fleet
from lyceum.engine.native import MOST_SEQUENCES, Vectors, Vocab
from lyceum.engine.settings import EngineSettings
from lyceum.errors import BadRequest, Busy, ConfigError, ModelError, TooLong
from lyceum.ports import Embeddings, Offer, TextBatch, Usage

MOST_TEXTS = 256
RERANKER = 4
"""llama.cpp's number for it among the ways to pool."""


class EmbeddingEngine:
    """Loaded when it is first asked, or by `load`. Any file works whose tokens can be pooled: as it says, else by
    their mean; a model that was not trained for it makes poor vectors."""

    def __init__(self, settings: EngineSettings, offer: Offer, fleet: Fleet) -> None:
        self.card = read_card(settings.path)
        if self.card.kind == "adapter":
            raise ModelError(f"{settings.path} is a LoRA adapter, not a model: set its base model as `path`")
        if self.card.pooling == RERANKER:
            raise ConfigError(f"{settings.path} ranks pairs of texts and makes no vectors; take an embedding model")
        if settings.lora:
            raise ConfigError(f"{offer.model}: an embedding model takes no `lora`")
        check_context(settings, offer, self.card)
        self.offer = with_digest(settings, offer, self.card)
        self._queue = settings.queue
        self._waiting = 0
        self._fleet = fleet
        self._berth = fleet.join(
            offer.model, needs(settings, self.card, pooled=True), lambda: VectorCore(settings, self.card)
        )

    @classmethod
    def load(cls, settings: EngineSettings, offer: Offer, fleet: Fleet | None = None) -> EmbeddingEngine:
        """Blocks until it is loaded, or leaves it unloaded where the fleet has no room yet."""
        fleet = fleet or Fleet()
        engine = cls(settings, offer, fleet)
        fleet.load_now(engine._berth)
        return engine

    async def weigh(self, batch: TextBatch) -> Usage:
        """Exact. Raises BadRequest, TooLong naming the text, Busy or ModelError."""
        async with self._fleet.awake(self._berth) as core:
            self._check_room()
            return self._usage(batch, await asyncio.to_thread(self._tokens, core.vocab, batch))

    async def embed(self, batch: TextBatch) -> Embeddings:
        """Raises as `weigh` does."""
        async with self._fleet.awake(self._berth) as core:
            tokens = await asyncio.to_thread(self._tokens, core.vocab, batch)
            self._check_room()
            self._waiting += 1
            try:
                vectors = await asyncio.wrap_future(core.thread.submit(core.embed, tokens))
            finally:
                self._waiting -= 1
            return Embeddings(vectors, self._usage(batch, tokens))

    def close(self) -> None:
        self._fleet.retire(self._berth)

    def _check_room(self) -> None:
        if self._waiting >= self._queue:
            raise Busy(f"the line before this model is full ({self._waiting} waiting); try again in a moment")

    def _tokens(self, vocab: Vocab, batch: TextBatch) -> list[list[int]]:
        room = self.offer.limits.context_tokens
        if len(batch.texts) > MOST_TEXTS:
            raise BadRequest(f"{len(batch.texts)} texts; at most {MOST_TEXTS} are read at once", "input")
        return [self._read(vocab, number, text, room) for number, text in enumerate(batch.texts)]

    @staticmethod
    def _read(vocab: Vocab, number: int, text: str, room: int) -> list[int]:
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

    def _usage(self, batch: TextBatch, tokens: Sequence[Sequence[int]]) -> Usage:
        return Usage(input_tokens=sum(map(len, tokens)), input_chars=batch.input_chars)


class VectorCore:
    """A loaded embedding model and the thread that owns it."""

    def __init__(self, settings: EngineSettings, card: Card) -> None:
        check_memory(settings, card, pooled=True)
        self._room = settings.n_ctx
        self.thread = ThreadPoolExecutor(1, f"embed {card.path.name}")
        loading = self.thread.submit(Vectors, card, settings.n_ctx, settings.n_gpu_layers, settings.threads())
        try:
            self._vectors = loading.result()
        except ModelError:
            self.thread.shutdown()
            raise
        self.vocab = self._vectors.vocab

    def embed(self, texts: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], ...]:
        """Runs on `thread`."""
        found = [vector for batch in self._batches(texts) for vector in self._vectors.embed(batch)]
        return tuple(tuple(float(number) for number in vector) for vector in found)

    def close(self) -> None:
        self.thread.submit(self._vectors.close).result()
        self.thread.shutdown()

    def _batches(self, texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        batch: list[Sequence[int]] = []
        for text in texts:
            if len(batch) == MOST_SEQUENCES or sum(map(len, batch)) + len(text) > self._room:
                yield batch
                batch = []
            batch.append(text)
        yield batch
