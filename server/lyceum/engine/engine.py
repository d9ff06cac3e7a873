"""A GGUF file as a Model: the side of it that the server sees. Knows no llama.cpp: another process does.

What cannot be served is refused before it waits: the numbers in the refusal are exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import replace

from lyceum.engine.card import ADD_TEMPLATE, FETCH_AGAIN, Card, check_adapter, digest_of, read_card
from lyceum.engine.fleet import Fleet, Needs
from lyceum.engine.messages import DELTA, END, PLAIN, News, read_delta, read_end, read_error
from lyceum.engine.settings import EngineSettings
from lyceum.errors import BadRequest, ConfigError, ModelError
from lyceum.ports import CHARS_PER_TOKEN, MOST_TOP_K, RANGES, Ask, Chunk, Delta, End, Limits, Offer, Usage

MOST_LIKELIEST = 20


class Engine:
    """One model file and its berth in a fleet; loaded when it is first asked, or by `load`.

    Raises ModelError or ConfigError for whatever is wrong with the file, as far as that can be told
    without loading it.
    """

    def __init__(self, settings: EngineSettings, offer: Offer, fleet: Fleet) -> None:
        self.card = read_card(settings.path)
        _check_kind(settings, self.card)
        check_context(settings, offer, self.card)
        self._offer = with_digest(settings, offer, self.card)
        self._fleet = fleet
        self._berth = fleet.join(
            offer.model,
            needs(settings, self.card),
            lambda: fleet.workers.open(settings, offer.limits, "chat"),
        )

    @classmethod
    def load(cls, settings: EngineSettings, offer: Offer, fleet: Fleet | None = None) -> Engine:
        """Blocks until the model can answer, or leaves it unloaded where the fleet has no room yet. For use outside
        of an event loop."""
        fleet = fleet or Fleet()
        engine = cls(settings, offer, fleet)
        asyncio.run(fleet.load_now(engine._berth))
        return engine

    @property
    def offer(self) -> Offer:
        return self._offer

    @property
    def digest(self) -> str:
        """SHA-256 of the model file, hex; `digest_of` says what it is with an adapter."""
        return self._offer.digest

    @property
    def loaded(self) -> bool:
        return self._berth.ready is not None

    async def weigh(self, ask: Ask) -> Usage:
        """Exact for what is read. Raises BadRequest, TooLong, Busy or ModelError."""
        _check_values(ask, self._offer.limits)
        async with self._fleet.awake(self._berth) as core:
            prompt, answer = await core.weigh(ask)
            return Usage(prompt, answer, ask.input_chars, answer * CHARS_PER_TOKEN)

    async def stream(self, ask: Ask) -> AsyncGenerator[Chunk, None]:
        """Raises as `weigh` does. Closed early, it stops before the next step; others do not notice."""
        _check_values(ask, self._offer.limits)
        async with self._fleet.awake(self._berth) as core:
            inbox, over = core.ask(ask), False
            try:
                while not over:
                    for chunk in _chunks(await inbox.take()):
                        over = isinstance(chunk, End)
                        yield chunk
            finally:
                core.leave(inbox, over)

    def close(self) -> None:
        """Whoever is being served or waits gets End("cancelled"). May be repeated."""
        self._fleet.retire(self._berth)


def _chunks(news: Iterable[News]) -> Iterator[Chunk]:
    """What has piled up for a slow reader becomes one piece. Ends with an End; raises what came instead."""
    text, tokens = "", 0
    for each in news:
        kind = each[1]
        if kind == DELTA and len(each) == PLAIN:
            text += each[2]
            tokens += each[3]
            continue
        if text:
            yield Delta(text, tokens)
            text, tokens = "", 0
        if kind == DELTA:
            yield read_delta(each)
        elif kind == END:
            yield read_end(each)
            return
        else:
            raise read_error(each)
    if text:
        yield Delta(text, tokens)


def needs(settings: EngineSettings, card: Card, pooled: bool = False) -> Needs:
    """The weights are shared by all contexts over one file."""
    adapter = settings.lora.stat().st_size if settings.lora else 0
    own = card.memory_bytes(settings.n_ctx, settings.parallel, pooled) - card.size_bytes + adapter
    return Needs((settings.path.resolve(), settings.n_gpu_layers), card.size_bytes, own)


def check_context(settings: EngineSettings, offer: Offer, card: Card) -> None:
    """What is offered must fit what is held, and what is held what was trained."""
    sold, held, trained = offer.limits.context_tokens, settings.n_ctx, card.n_ctx_train
    if sold > held:
        raise ConfigError(f"{offer.model} offers a context of {sold} tokens and n_ctx holds {held}; raise n_ctx")
    if trained and held > trained:
        raise ConfigError(f"n_ctx is {held} and {settings.path} was trained on {trained} tokens; lower n_ctx")


def with_digest(settings: EngineSettings, offer: Offer, card: Card) -> Offer:
    found = digest_of(card, settings.lora)
    if offer.digest not in ("", found):
        raise ModelError(f"{settings.path} has SHA-256 {found}, not {offer.digest} as offered; {FETCH_AGAIN}")
    return replace(offer, digest=found)


def _check_values(ask: Ask, limits: Limits) -> None:
    if ask.max_tokens is not None and ask.max_tokens > limits.max_tokens:
        raise BadRequest(f"max_tokens must be at most {limits.max_tokens}, not {ask.max_tokens}", "max_tokens")
    for name, (least, most) in (*RANGES.items(), ("top_k", (0, MOST_TOP_K))):
        value = getattr(ask, name)
        if not least <= value <= most:
            raise BadRequest(f"{name} must be from {least:g} to {most:g}, not {value}", name)
    if ask.logprobs is not None and not 0 <= ask.logprobs <= MOST_LIKELIEST:
        raise BadRequest(f"top_logprobs must be from 0 to {MOST_LIKELIEST}, not {ask.logprobs}", "top_logprobs")


def _check_kind(settings: EngineSettings, card: Card) -> None:
    if card.kind == "adapter":
        raise ModelError(f"{settings.path} is a LoRA adapter: set it as `lora`, and its base model as `path`")
    if not card.causal:
        raise ModelError(f'{settings.path} reads texts and cannot write any: host it with kind = "embedding"')
    if not card.chat_template:
        raise ModelError(f"{settings.path} holds no chat template; {ADD_TEMPLATE}")
    if settings.lora:
        check_adapter(settings.lora, card)
