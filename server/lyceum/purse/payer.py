"""The purse as a `Payer`: each call waits on a thread, so none holds up the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from lyceum.l402 import Challenge
from lyceum.ports import Delivery, Terms, Ticket, Wanted
from lyceum.purse.purse import Purse


class PursePayer:
    def __init__(self, purse: Purse) -> None:
        self._purse = purse

    async def kept(self, wanted: Wanted) -> Ticket | None:
        return await asyncio.to_thread(self._purse.kept, wanted)

    async def pay(self, challenge: Challenge, origin: str, terms: Terms) -> Ticket:
        return await asyncio.to_thread(self._purse.pay, challenge, origin, terms)

    async def discard(self, payment_hash: str) -> None:
        await asyncio.to_thread(self._purse.discard, payment_hash)

    async def exhausted(self, payment_hash: str, need_msat: int) -> None:
        await asyncio.to_thread(self._purse.exhausted, payment_hash, need_msat)

    async def report(self, delivery: Delivery) -> None:
        await asyncio.to_thread(self._purse.bills.enter, delivery)

    async def distrusted(self) -> Mapping[str, str]:
        return await asyncio.to_thread(self._purse.bills.distrusted)
