"""One specialist of another node, asked over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import httpx2 as httpx

from lyceum import replies, wire
from lyceum.errors import LyceumError, PeerError
from lyceum.peers.auth import L402Auth, origin_of
from lyceum.peers.reckoning import Reckoning
from lyceum.ports import Ask, Chunk, Delivery, End, Member, Offer, Payer, Terms, Ticket, Usage
from lyceum.replies import MAX_ANSWER, MAX_ERROR, PLAIN
from lyceum.router import first_payment_msat

log = logging.getLogger(__name__)

BROKEN_OFF = "broken-off"
"""The asker left before the end; what the seller charged for its part of an answer is not known."""


class PeerModel:
    """A model that another node sells. Its `End` always carries one Member: what was paid, and how it went."""

    def __init__(self, client: httpx.AsyncClient, url: str, offer: Offer, payer: Payer, purpose: str = "ask") -> None:
        self.offer = offer
        self._purpose = purpose
        self._client = client
        self._url = f"{url.rstrip('/')}/v1/chat/completions"
        self._payer = payer

    async def weigh(self, ask: Ask) -> Usage:
        return self.offer.worst_case(ask)

    async def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        """Spends at most `ask.budget_msat`: the listed price first, what is left on routing."""
        price_msat = first_payment_msat(self.offer, ask)
        cap_msat = min(price_msat, ask.budget_msat)
        terms = Terms(cap_msat, ask.budget_msat - cap_msat, self.offer.node_id, self._purpose, self.offer.model)
        auth = L402Auth(self._payer, terms, self.offer.price.cost_msat(self.offer.worst_case(ask)))
        reckoning = Reckoning(self.offer, ask)
        body = wire.write_chat(ask)
        try:
            async with self._client.stream(
                "POST", self._url, json=body, headers=PLAIN, auth=auth, follow_redirects=False
            ) as response:
                await _accept(response)
                reckoning.quoted = auth.quoted
                async with aclosing(replies.answer(response, MAX_ANSWER)) as chunks:
                    async for chunk in chunks:
                        if isinstance(chunk, End):
                            end = self._accounted(chunk, reckoning, auth.ticket)
                        else:
                            reckoning.hear(chunk)
                            yield chunk
        except LyceumError as error:
            end = self._failed(error.message, error.code, auth.ticket)
        except replies.NETWORK_ERRORS as error:
            end = self._failed(replies.network_fault(error), PeerError.code, auth.ticket)
        except (asyncio.CancelledError, GeneratorExit):
            await self._write_down(self._failed(BROKEN_OFF, BROKEN_OFF, auth.ticket), reckoning)
            raise
        await self._write_down(end, reckoning)
        yield end

    def _accounted(self, end: End, reckoning: Reckoning, ticket: Ticket | None) -> End:
        member = replace(self._account(ticket), charged_msat=reckoning.due_msat(end.usage))
        if end.bill:
            complaint = reckoning.complaint(end.bill, end.usage)
            member = replace(
                member,
                charged_msat=end.bill.charged_msat,
                credit_msat=end.bill.balance_msat,
                complaint=complaint,
            )
        return replace(end, members=(member,))

    def _failed(self, error: str, code: str, ticket: Ticket | None) -> End:
        return End("error", members=(replace(self._account(ticket), ok=False, error=error, code=code),))

    def _account(self, ticket: Ticket | None) -> Member:
        member = Member(self.offer.node_id, self.offer.model)
        if ticket is None:
            return member
        return replace(member, payment_hash=ticket.payment_hash, paid_msat=ticket.amount_msat, fee_msat=ticket.fee_msat)

    async def _write_down(self, end: End, reckoning: Reckoning) -> None:
        """In the buyer's books, if a token was used. An answer is not lost because they cannot be written."""
        (member,) = end.members
        if not member.payment_hash:
            return
        delivery = Delivery(
            origin=origin_of(httpx.URL(self._url)),
            model=self.offer.model,
            purpose=self._purpose,
            payment_hash=member.payment_hash,
            usage=reckoning.counted(end.usage),
            charged_msat=member.charged_msat,
            recounted_msat=reckoning.due_msat(end.usage),
            balance_msat=end.bill.balance_msat if end.bill else None,
            complaint=member.complaint,
            error=member.code,
        )
        try:
            await self._payer.report(delivery)
        except LyceumError as error:
            log.warning("an answer of %s could not be written down: %s", delivery.origin, error.message)


async def _accept(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.OK:
        return
    said = replies.reason(await replies.whole(response, MAX_ERROR))
    if response.status_code == httpx.codes.PAYMENT_REQUIRED:
        raise PeerError(f"asks for payment again after it was paid: {said}")
    raise PeerError(f"answered {response.status_code}: {said}")
