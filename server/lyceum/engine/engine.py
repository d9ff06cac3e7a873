"""A GGUF file as a Model: asyncio's side of the engine. Never calls llama.cpp but to count tokens.

What cannot be served is refused before it waits: the numbers in the refusal are exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from dataclasses import replace

from lyceum.engine.card import FETCH_AGAIN, Card, digest, read_card
from lyceum.engine.line import Job, Line
from lyceum.engine.native import Native
from lyceum.engine.prompt import ChatTemplate
from lyceum.engine.settings import EngineSettings
from lyceum.engine.worker import work
from lyceum.errors import BadRequest, ConfigError, ModelError, TooLong
from lyceum.ports import CHARS_PER_TOKEN, Ask, Chunk, End, Limits, Offer, Usage

ADD_TEMPLATE = "take an instruction-tuned GGUF, or add one with gguf_new_metadata.py --chat-template-file"


class Engine:
    """One model file, its thread, and the line before it. Made by `load`; `close` gives the memory back."""

    def __init__(self, settings: EngineSettings, offer: Offer, card: Card) -> None:
        self.card = card
        self._offer = offer
        self._line = Line(settings.queue)
        ready: Future[Native] = Future()
        self._thread = threading.Thread(
            target=_live, args=(settings, self._line, ready), name=f"engine {offer.model}", daemon=True
        )
        self._thread.start()
        self._vocab = ready.result().vocab
        try:
            self._template = ChatTemplate(card.chat_template, self._vocab)
        except ModelError as error:
            self.close()
            raise ModelError(f"{settings.path}: {error.message}; {ADD_TEMPLATE}") from None

    @classmethod
    def load(cls, settings: EngineSettings, offer: Offer) -> Engine:
        """Blocks until the model can answer. ModelError names the file and says how to mend it."""
        card = read_card(settings.path)
        _check_context(settings, offer, card)
        if not card.chat_template:
            raise ModelError(f"{settings.path} holds no chat template; {ADD_TEMPLATE}")
        return cls(settings, _with_digest(settings, offer), card)

    @property
    def offer(self) -> Offer:
        return self._offer

    @property
    def digest(self) -> str:
        """SHA-256 of the model file, hex."""
        return self._offer.digest

    async def weigh(self, ask: Ask) -> Usage:
        """Exact for what is read. Raises BadRequest, TooLong or Busy."""
        self._line.check_room()
        prompt, answer = await asyncio.to_thread(self._plan, ask)
        return Usage(len(prompt), answer, ask.input_chars, answer * CHARS_PER_TOKEN)

    async def stream(self, ask: Ask) -> AsyncGenerator[Chunk, None]:
        """Raises as `weigh` does. Closed early, it stops before the next step; others do not notice."""
        prompt, answer = await asyncio.to_thread(self._plan, ask)
        inbox: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        job = Job(ask, prompt, answer, _post(inbox))
        self._line.join(job)
        try:
            while True:
                chunk = await inbox.get()
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
                if isinstance(chunk, End):
                    return
        finally:
            self._line.leave(job)

    def close(self) -> None:
        """Whoever is being served or waits gets End("cancelled"). Blocks for a step; may be repeated."""
        for job in self._line.close():
            job.deliver(End("cancelled"))
        self._thread.join()

    def _plan(self, ask: Ask) -> tuple[list[int], int]:
        """The prompt, and how many tokens the answer may have: what was asked for, or else what fits."""
        limits = self._offer.limits
        _check_values(ask, limits)
        if ask.input_chars > limits.context_tokens * self._vocab.longest:
            raise TooLong(
                f"{ask.input_chars:,} characters cannot fit {limits.context_tokens} tokens; shorten the messages"
            )
        prompt = self._template.tokens(ask.messages)
        room = limits.context_tokens - len(prompt)
        if room < (ask.max_tokens or 1):
            raise TooLong(_too_long(len(prompt), ask.max_tokens, limits.context_tokens))
        return prompt, min(room, limits.answer_tokens(ask.max_tokens))


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
    if not 0 <= ask.top_p <= 1:
        raise BadRequest(f"top_p must be from 0 to 1, not {ask.top_p}", "top_p")


def _check_context(settings: EngineSettings, offer: Offer, card: Card) -> None:
    """What is offered must fit what is held, and what is held what was trained."""
    sold, held, trained = offer.limits.context_tokens, settings.n_ctx, card.n_ctx_train
    if sold > held:
        raise ConfigError(f"{offer.model} offers a context of {sold} tokens and n_ctx holds {held}; raise n_ctx")
    if trained and held > trained:
        raise ConfigError(f"n_ctx is {held} and {settings.path} was trained on {trained} tokens; lower n_ctx")


def _with_digest(settings: EngineSettings, offer: Offer) -> Offer:
    found = digest(settings.path)
    if offer.digest not in ("", found):
        raise ModelError(f"{settings.path} has SHA-256 {found}, not {offer.digest} as offered; {FETCH_AGAIN}")
    return replace(offer, digest=found)


def _post(inbox: asyncio.Queue[Chunk | Exception]) -> Callable[[Chunk | Exception], None]:
    """Puts into `inbox` from any thread."""
    loop = asyncio.get_running_loop()

    def post(chunk: Chunk | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody reads any more
            loop.call_soon_threadsafe(inbox.put_nowait, chunk)

    return post


def _live(settings: EngineSettings, line: Line, ready: Future[Native]) -> None:
    """The engine's thread, from loading to freeing: OpenMP keeps a team per calling thread."""
    try:
        native = Native(settings.path, settings.n_ctx, settings.n_gpu_layers, settings.threads())
    except Exception as error:
        ready.set_exception(error)
        return
    ready.set_result(native)
    try:
        work(native, line)
    finally:
        native.close()
