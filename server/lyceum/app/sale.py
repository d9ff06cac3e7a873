"""One answer being sold: what it may cost is reserved, what was delivered is settled, however it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio

from lyceum.app.failures import NO_STORE
from lyceum.app.stock import Load
from lyceum.errors import LyceumError
from lyceum.ports import Admitted, Ask, Bill, Chunk, Delta, End, Gate, Model, Offer, Price, Unit, Usage
from lyceum.tariff import share_msat

log = logging.getLogger(__name__)

SETTLE_ATTEMPTS_S = (0.0, 0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Tab:
    """What one request may cost, reserved at the till; empty for what is free.

    `wanted_msat` is its worst case at the list price; less is reserved when the balance ends before that.
    """

    gate: Gate | None = None
    admitted: Admitted | None = None
    wanted_msat: int = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """For the answer: what the till says, such as a receipt."""
        return NO_STORE | dict(self.admitted.headers if self.admitted else ())

    @property
    def payer(self) -> str:
        return self.admitted.token_id if self.admitted else ""

    def price(self, offer: Offer) -> Price:
        """What this request is charged at."""
        return offer.price.at(self.admitted.percent) if self.admitted else offer.price

    def most_written(self, price: Price, read: Usage) -> int | None:
        """How many units an answer may have that was admitted on the rest of a balance; None for any other."""
        admitted = self.admitted
        if admitted is None or admitted.amount_msat >= share_msat(self.wanted_msat, admitted.percent):
            return None
        return price.most_written(price.units(read)[0], admitted.amount_msat)

    async def settle(self, owed: Bill) -> Bill | None:
        """The bill as the till settled it; None for what is free, or when the till cannot be reached."""
        if self.gate is None or self.admitted is None:
            return None
        if not self.admitted.reservation:
            return replace(owed, charged_msat=0)
        for wait_s in SETTLE_ATTEMPTS_S:
            await asyncio.sleep(wait_s)
            try:
                settled = await self.gate.settle(self.admitted.reservation, owed.charged_msat)
            except LyceumError as error:
                log.warning("settling %s msat failed: %s", owed.charged_msat, error.message)
            else:
                return replace(owed, charged_msat=settled.charged_msat, balance_msat=settled.balance_msat)
        return None


class Sale:
    """One answer being sold: counts what is delivered, and settles it however the answer ends."""

    def __init__(self, model: Model, ask: Ask, weighed: Usage, tab: Tab, load: Load) -> None:
        self._model = model
        self._ask = replace(ask, payer=tab.payer)
        self._read = replace(weighed, output_tokens=0, output_chars=0)
        self._tab = tab
        self._load = load
        self._price = tab.price(model.offer)

    async def chunks(self, piecemeal: bool) -> AsyncGenerator[Chunk]:
        """The model's chunks; the `End` comes after the till has settled, and carries the bill.

        An answer that the model failed to finish costs nothing, nor does one that says only that the
        question lies outside its field. One that the buyer broke off costs what was handed over until
        then: `piecemeal` as it was written, else nothing.
        """
        delivered, owed, end, outside = self._read, self._read, End("error"), False
        try:
            async with aclosing(self._affordable()) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, End):
                        end = chunk
                        delivered = _exact(delivered, chunk.usage)
                        owed = self._read if outside else delivered
                        break
                    yield chunk
                    outside = outside or chunk.outside
                    delivered = _after(delivered, chunk)
                    owed = delivered if piecemeal and not outside else owed
        except Exception:
            owed = self._read
            raise
        finally:
            with anyio.CancelScope(shield=True):
                bill = await self._tab.settle(Bill.for_answer(self._price, owed))
        yield replace(end, usage=delivered, bill=bill)

    async def _served(self) -> AsyncGenerator[Chunk]:
        """The model's chunks; as long as they come, it is serving one more."""
        with self._load.one_more(self._model.offer.model):
            async with aclosing(self._model.stream(self._ask)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk

    async def _affordable(self) -> AsyncGenerator[Chunk]:
        """The model's chunks as far as the balance pays for them, then an `End` that says that it ended."""
        price = self._price
        left = self._tab.most_written(price, self._read)
        async with aclosing(self._served()) as chunks:
            async for chunk in chunks:
                if left is None or isinstance(chunk, End) or chunk.outside:
                    yield chunk
                    continue
                size = len(chunk.text) if price.unit is Unit.CHAR else chunk.tokens
                if size > left:
                    if price.unit is Unit.CHAR and left:
                        yield Delta(chunk.text[:left], chunk.tokens, chunk.member)
                    yield End("length", exhausted=True)
                    return
                left -= size
                yield chunk


def _after(usage: Usage, delta: Delta) -> Usage:
    return replace(
        usage,
        output_tokens=usage.output_tokens + delta.tokens,
        output_chars=usage.output_chars + len(delta.text),
    )


def _exact(counted: Usage, reported: Usage) -> Usage:
    """Tokens as the model reports them at its end; characters as they were handed over."""
    return replace(
        counted,
        input_tokens=reported.input_tokens or counted.input_tokens,
        output_tokens=reported.output_tokens or counted.output_tokens,
    )
