"""A GGUF file as a Model: asyncio's side of the engine. Never calls llama.cpp but to count tokens.

What cannot be served is refused before it waits: the numbers in the refusal are exact.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from lyceum.engine import shape
from lyceum.engine.card import FETCH_AGAIN, Card, check_adapter, digest_of, read_card
from lyceum.engine.core import ADD_TEMPLATE, Core
from lyceum.engine.fleet import Fleet, Needs
from lyceum.engine.line import Job
from lyceum.engine.settings import EngineSettings
from lyceum.errors import BadRequest, ConfigError, ModelError, TooLong
from lyceum.ports import CHARS_PER_TOKEN, Ask, Chunk, End, Limits, Offer, Usage

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
        self._berth = fleet.join(offer.model, needs(settings, self.card), lambda: Core(settings, self.card))

    @classmethod
    def load(cls, settings: EngineSettings, offer: Offer, fleet: Fleet | None = None) -> Engine:
        """Blocks until the model can answer, or leaves it unloaded where the fleet has no room yet."""
        fleet = fleet or Fleet()
        engine = cls(settings, offer, fleet)
        fleet.load_now(engine._berth)
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
        return self._berth.core is not None

    async def weigh(self, ask: Ask) -> Usage:
        """Exact for what is read. Raises BadRequest, TooLong, Busy or ModelError."""
        async with self._fleet.awake(self._berth) as core:
            core.line.check_room()
            prompt, answer = await asyncio.to_thread(self._plan, core, ask)
            return Usage(len(prompt), answer, ask.input_chars, answer * CHARS_PER_TOKEN)

    async def stream(self, ask: Ask) -> AsyncGenerator[Chunk, None]:
        """Raises as `weigh` does. Closed early, it stops before the next step; others do not notice."""
        async with self._fleet.awake(self._berth) as core:
            prompt, answer = await asyncio.to_thread(self._plan, core, ask)
            inbox: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
            job = Job(ask, prompt, answer, _post(inbox))
            core.line.join(job)
            try:
                while True:
                    chunk = await inbox.get()
                    if isinstance(chunk, Exception):
                        raise chunk
                    yield chunk
                    if isinstance(chunk, End):
                        return
            finally:
                core.line.leave(job)

    def close(self) -> None:
        """Whoever is being served or waits gets End("cancelled"). Blocks for a step; may be repeated."""
        self._fleet.retire(self._berth)

    def _plan(self, core: Core, ask: Ask) -> tuple[list[int], int]:
        """The prompt, and how many tokens the answer may have: what was asked for, or else what fits."""
        limits = self._offer.limits
        _check_values(ask, limits)
        shape.check(ask, core.vocab)
        if ask.input_chars > limits.context_tokens * core.vocab.longest:
            raise TooLong(
                f"{ask.input_chars:,} characters cannot fit {limits.context_tokens} tokens; shorten the messages"
            )
        prompt = core.template.tokens(ask.messages)
        room = limits.context_tokens - len(prompt)
        if room < (ask.max_tokens or 1):
            raise TooLong(_too_long(len(prompt), ask.max_tokens, limits.context_tokens))
        return prompt, min(room, limits.answer_tokens(ask.max_tokens))


def needs(settings: EngineSettings, card: Card, pooled: bool = False) -> Needs:
    """The weights are shared by all contexts over one file."""
    adapter = settings.lora.stat().st_size if settings.lora else 0
    own = card.memory_bytes(settings.n_ctx, pooled) - card.size_bytes + adapter
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


def _too_long(prompt: int, wanted: int | None, context: int) -> str:
    answer = wanted or 1
    mend = f"shorten the messages by {prompt + answer - context} tokens"
    if wanted and prompt < context:
        mend += f", or set max_tokens to at most {context - prompt}"
    return f"{prompt} tokens of prompt and {answer} of answer exceed the context of {context} tokens; {mend}"


def _check_values(ask: Ask, limits: Limits) -> None:
    if ask.max_tokens is not None and ask.max_tokens > limits.max_tokens:
        raise BadRequest(f"max_tokens must be at most {limits.max_tokens}, not {ask.max_tokens}", "max_tokens")
    if not 0 <= ask.temperature <= 2:
        raise BadRequest(f"temperature must be from 0 to 2, not {ask.temperature}", "temperature")
    for name in ("top_p", "min_p"):
        if not 0 <= getattr(ask, name) <= 1:
            raise BadRequest(f"{name} must be from 0 to 1, not {getattr(ask, name)}", name)
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


def _post(inbox: asyncio.Queue[Chunk | Exception]) -> Callable[[Chunk | Exception], None]:
    """Puts into `inbox` from any thread."""
    loop = asyncio.get_running_loop()

    def post(chunk: Chunk | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody reads any more
            loop.call_soon_threadsafe(inbox.put_nowait, chunk)

    return post
