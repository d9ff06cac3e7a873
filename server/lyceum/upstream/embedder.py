"""An Embedder whose vectors other servers make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx2 as httpx

from lyceum import wire
from lyceum.errors import PeerError, TooLong
from lyceum.ports import Embeddings, Offer, TextBatch, Usage
from lyceum.upstream.count import reckoned
from lyceum.upstream.pool import Pool
from lyceum.upstream.server import Failed, Server
from lyceum.upstream.settings import UpstreamSettings


class UpstreamEmbedder:
    def __init__(self, pool: Pool, settings: UpstreamSettings, offer: Offer) -> None:
        self.offer = offer
        self._pool = pool
        self._patience_s = settings.patience.first_token_s

    async def weigh(self, batch: TextBatch) -> Usage:
        """Characters are exact, tokens reckoned. Raises TooLong or Busy."""
        weighed = self._most(batch)
        await self._pool.ready()
        return weighed

    async def embed(self, batch: TextBatch) -> Embeddings:
        """Raises as `weigh` does, and PeerError when the servers fail."""
        most = self._most(batch)

        async def send(server: Server, client: httpx.AsyncClient) -> AsyncGenerator[Embeddings]:
            try:
                async with asyncio.timeout(self._patience_s):
                    body = await server.embeddings(client, wire.write_texts(batch))
                vectors, tokens = wire.read_embeddings(body, len(batch.texts))
            except TimeoutError:
                raise Failed(f"said nothing for {self._patience_s} seconds") from None
            except PeerError as error:
                raise error if isinstance(error, Failed) else Failed(error.message) from None
            read = min(tokens or most.input_tokens, most.input_tokens)
            yield Embeddings(vectors, Usage(input_tokens=read, input_chars=batch.input_chars))

        async with aclosing(self._pool.ask(send)) as found:
            return await anext(found)

    def _most(self, batch: TextBatch) -> Usage:
        longest = max(reckoned([text]) for text in batch.texts)
        if longest > self.offer.limits.context_tokens:
            raise TooLong(
                f"a text of about {longest} tokens exceeds the {self.offer.limits.context_tokens} that this model"
                " reads; cut it into shorter ones"
            )
        return Usage(input_tokens=reckoned(batch.texts), input_chars=batch.input_chars)
