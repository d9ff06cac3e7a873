"""An embedding GGUF as an Embedder: the side of it that the server sees."""

from __future__ import annotations

import asyncio
import struct
from base64 import b64decode

from lyceum.engine.card import read_card
from lyceum.engine.engine import check_context, needs, with_digest
from lyceum.engine.fleet import Fleet
from lyceum.engine.settings import EngineSettings
from lyceum.errors import BadRequest, ConfigError, ModelError
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
        self._fleet = fleet
        self._berth = fleet.join(
            offer.model,
            needs(settings, self.card, pooled=True),
            lambda: fleet.workers.open(settings, offer.limits, "embedding"),
        )

    @classmethod
    def load(cls, settings: EngineSettings, offer: Offer, fleet: Fleet | None = None) -> EmbeddingEngine:
        """Blocks until it is loaded, or leaves it unloaded where the fleet has no room yet. For use outside of an event
        loop."""
        fleet = fleet or Fleet()
        engine = cls(settings, offer, fleet)
        asyncio.run(fleet.load_now(engine._berth))
        return engine

    async def weigh(self, batch: TextBatch) -> Usage:
        """Exact. Raises BadRequest, TooLong naming the text, Busy or ModelError."""
        _check_count(batch)
        async with self._fleet.awake(self._berth) as core:
            tokens = await core.worker.answer(core.texts("count", batch.texts))
            return Usage(input_tokens=tokens, input_chars=batch.input_chars)

    async def embed(self, batch: TextBatch) -> Embeddings:
        """Raises as `weigh` does. Cancelled, it stops before the next step."""
        _check_count(batch)
        async with self._fleet.awake(self._berth) as core:
            inbox, over = core.texts("embed", batch.texts), False
            try:
                found = await core.worker.answer(inbox)
                over = True
            finally:
                core.leave(inbox, over)
            vectors = tuple(_vector(text) for text in found["vectors"])
            return Embeddings(vectors, Usage(input_tokens=found["tokens"], input_chars=batch.input_chars))

    def close(self) -> None:
        self._fleet.retire(self._berth)


def _check_count(batch: TextBatch) -> None:
    if len(batch.texts) > MOST_TEXTS:
        raise BadRequest(f"{len(batch.texts)} texts; at most {MOST_TEXTS} are read at once", "input")


def _vector(packed: str) -> tuple[float, ...]:
    """Little-endian float32 in base64."""
    raw = b64decode(packed)
    return struct.unpack(f"<{len(raw) // 4}f", raw)
