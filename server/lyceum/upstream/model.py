"""A Model whose answers other servers write. Refuses at `weigh` what they cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import httpx2 as httpx

from lyceum import wire
from lyceum.errors import BadRequest, TooLong
from lyceum.ports import CHARS_PER_TOKEN, Ask, Chunk, Delta, End, Offer, Usage
from lyceum.upstream.count import Delivered, reckoned
from lyceum.upstream.pool import Pool
from lyceum.upstream.server import Failed, Server
from lyceum.upstream.settings import Patience, UpstreamSettings


class UpstreamModel:
    def __init__(self, pool: Pool, settings: UpstreamSettings, offer: Offer) -> None:
        self.offer = offer
        self._pool = pool
        self._supports = settings.supports
        self._patience = settings.patience

    async def weigh(self, ask: Ask) -> Usage:
        """Characters are exact, tokens reckoned. Raises BadRequest, TooLong or Busy."""
        weighed = self._most(ask)
        await self._pool.ready()
        return weighed

    async def stream(self, ask: Ask) -> AsyncGenerator[Chunk]:
        """Raises as `weigh` does, and PeerError when the servers fail. Closed early, it closes the response."""
        delivered = Delivered(self._most(ask))
        body = wire.write_chat(replace(ask, max_tokens=delivered.most.output_tokens))

        def send(server: Server, client: httpx.AsyncClient) -> AsyncGenerator[Chunk]:
            return _checked(_paced(server.chat(client, body), self._patience), ask)

        async with aclosing(self._pool.ask(send)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, End):
                    yield End(chunk.finish, delivered.usage(chunk.usage), chunk.confidence, citations=chunk.citations)
                    return
                if delivered.full:
                    yield End("length", delivered.usage(Usage()))
                    return
                delivered.add(chunk)
                yield replace(chunk, tokens=1)

    def _most(self, ask: Ask) -> Usage:
        _check_supported(ask, self._supports)
        limits = self.offer.limits
        if ask.max_tokens is not None and ask.max_tokens > limits.max_tokens:
            raise BadRequest(f"max_tokens must be at most {limits.max_tokens}, not {ask.max_tokens}", "max_tokens")
        read = reckoned(message.content for message in ask.messages)
        room = limits.context_tokens - read
        if room < (ask.max_tokens or 1):
            raise TooLong(
                f"about {read} tokens of prompt and {ask.max_tokens or 1} of answer exceed the context of"
                f" {limits.context_tokens} tokens; shorten the messages, or lower max_tokens"
            )
        written = min(room, limits.answer_tokens(ask.max_tokens))
        return Usage(read, written, ask.input_chars, written * CHARS_PER_TOKEN)


def _check_supported(ask: Ask, supports: frozenset[str]) -> None:
    wanted = {
        "schema": ("response_format", ask.schema),
        "grammar": ("grammar", ask.grammar),
        "min_p": ("min_p", ask.min_p),
        "logprobs": ("logprobs", ask.logprobs is not None),
    }
    for feature, (param, set_) in wanted.items():
        if set_ and feature not in supports:
            raise BadRequest(f"this model does not support {param}: ask without it", param)


async def _checked(chunks: AsyncGenerator[Chunk], ask: Ask) -> AsyncGenerator[Chunk]:
    """An answer that broke off is none, nor is one without the log-probabilities that were asked for."""
    scored = ask.logprobs is None
    async with aclosing(chunks):
        async for chunk in chunks:
            if isinstance(chunk, End) and chunk.finish not in ("stop", "length"):
                raise Failed("gave up before the end of its answer")
            if isinstance(chunk, Delta) and not (scored or chunk.choices or chunk.outside):
                raise Failed("left out the log-probabilities that it was asked for")
            scored = True
            yield chunk


async def _paced(chunks: AsyncGenerator[Chunk], patience: Patience) -> AsyncGenerator[Chunk]:
    """Waits no longer than `patience` allows for each chunk, whatever else arrives meanwhile."""
    limit_s = patience.first_token_s
    async with aclosing(chunks):
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise Failed(f"said nothing for {limit_s} seconds") from None
            if chunk is None:
                return
            yield chunk
            limit_s = patience.between_tokens_s
