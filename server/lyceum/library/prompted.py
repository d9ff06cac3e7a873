"""A Model with a standing instruction from its owner. What the buyer reads on the bill is the buyer's own text."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from lyceum.ports import Ask, Chunk, End, Message, Model, Offer, Usage


class Prompted:
    """`system` stands before the buyer's own system message, in one message with it."""

    def __init__(self, model: Model, system: str) -> None:
        self._model = model
        self._system = system

    @property
    def offer(self) -> Offer:
        return self._model.offer

    async def weigh(self, ask: Ask) -> Usage:
        return billed(await self._model.weigh(self._instructed(ask)), await self._model.weigh(ask))

    async def stream(self, ask: Ask) -> AsyncGenerator[Chunk]:
        own = await self._model.weigh(ask)
        async with aclosing(self._model.stream(self._instructed(ask))) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield replace(chunk, usage=billed(chunk.usage, own)) if isinstance(chunk, End) else chunk

    def _instructed(self, ask: Ask) -> Ask:
        first, *rest = ask.messages
        if first.role != "system":
            return replace(ask, messages=(Message("system", self._system), *ask.messages))
        return replace(ask, messages=(Message("system", f"{self._system}\n\n{first.content}"), *rest))


def billed(usage: Usage, own: Usage) -> Usage:
    """What the buyer sent counts as read (`own`: the weight of the ask as it came); what the owner put beside it
    does not."""
    return replace(usage, input_chars=own.input_chars, input_tokens=min(usage.input_tokens, own.input_tokens))
