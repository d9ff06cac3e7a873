"""Does a model run here, and how fast? Loaded and asked as it is served, past its till and its library."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lyceum.config import Config, ModelTable
from lyceum.engine import Card, EmbeddingEngine, Engine, EngineSettings, free_memory_bytes, read_card
from lyceum.errors import ConfigError, ModelError
from lyceum.host import limits_of, name_of, settings_of
from lyceum.ports import Ask, Delta, End, Message, Offer, TextBatch

MOST_TOKENS = 64
PASSAGE = "Prices gather what nobody knows as a whole, and tell each of us what to make and what to do without. " * 4


@dataclass(frozen=True, slots=True)
class Report:
    """`read_per_s` and `written_per_s` are tokens a second; for embeddings nothing is written, and `vector` is how
    many numbers a vector has. Bytes are of memory."""

    name: str
    question: str
    answer: str
    load_s: float
    prompt_tokens: int
    answer_tokens: int
    read_per_s: float
    written_per_s: float
    needed: int
    free: int | None
    vector: int = 0


def probe(table: ModelTable, config: Config) -> Report:
    """Raises ModelError or ConfigError for whatever keeps the model from running."""
    settings = replace(settings_of(table, config), refusal="", doubt=0.0)
    card = read_card(settings.path)
    offer = _offer(table, name_of(table, config))
    free, needed = free_memory_bytes(), card.memory_bytes(settings.n_ctx, settings.parallel, table.kind == "embedding")
    started = time.perf_counter()
    if table.kind == "embedding":
        report = asyncio.run(_embed(EmbeddingEngine.load(settings, offer), started))
    else:
        report = asyncio.run(_ask(Engine.load(settings, offer), _question(table, card), started, settings))
    return replace(report, needed=needed, free=free)


def _offer(table: ModelTable, name: str) -> Offer:
    try:
        return Offer(name, limits=limits_of(table), kind=table.kind)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _question(table: ModelTable, card: Card) -> str:
    """About the first thing that it says it knows."""
    topics: Sequence[str] = table.topics or card.tags
    return f"What is {topics[0]}?" if topics else "What do you know about?"


async def _ask(engine: Engine, question: str, started: float, settings: EngineSettings) -> Report:
    load_s = time.perf_counter() - started
    name = engine.offer.model
    longest = min(MOST_TOKENS, engine.offer.limits.max_tokens)
    ask = Ask(name, (Message("user", question),), max_tokens=longest)
    try:
        await _spoken(engine, replace(ask, max_tokens=1))  # the weights come from the disk only now
        answer, end, asked, first, last = await _spoken(engine, ask)
    finally:
        engine.close()
    read, written = end.usage.input_tokens, end.usage.output_tokens
    if not written:
        raise ModelError(f"{settings.path} loads and has nothing to say to {question!r}")
    return Report(
        name,
        question,
        answer,
        load_s,
        read,
        written,
        _rate(read, first - asked),
        _rate(written - 1, last - first),
        0,
        0,
    )


async def _spoken(engine: Engine, ask: Ask) -> tuple[str, End, float, float, float]:
    """The answer, its end, and when it was asked, began and was over."""
    asked, first, text = time.perf_counter(), 0.0, ""
    end = End("error")
    async for chunk in engine.stream(ask):
        first = first or time.perf_counter()
        if isinstance(chunk, Delta):
            text += chunk.text
        elif isinstance(chunk, End):
            end = chunk
    return text, end, asked, first, time.perf_counter()


async def _embed(engine: EmbeddingEngine, started: float) -> Report:
    load_s = time.perf_counter() - started
    batch = TextBatch(engine.offer.model, (PASSAGE[: engine.offer.limits.context_tokens],))
    try:
        await engine.embed(batch)
        asked = time.perf_counter()
        found = await engine.embed(batch)
    finally:
        engine.close()
    read, vector = found.usage.input_tokens, len(found.vectors[0])
    rate = _rate(read, time.perf_counter() - asked)
    return Report(engine.offer.model, batch.texts[0], "", load_s, read, 0, rate, 0.0, 0, 0, vector)


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds > 0 and tokens > 0 else 0.0
