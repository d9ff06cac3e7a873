"""One specialist of another node, asked over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import httpx2 as httpx

from lyceum import replies, wire
from lyceum.errors import LyceumError, PeerError
from lyceum.peers.auth import L402Auth
from lyceum.ports import Ask, Chunk, End, Member, Offer, Payer, Terms, Ticket, Usage
from lyceum.replies import MAX_ANSWER, MAX_ERROR, PLAIN
from lyceum.router import first_payment_msat


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
        body = wire.write_chat(ask)
        try:
            async with self._client.stream(
                "POST", self._url, json=body, headers=PLAIN, auth=auth, follow_redirects=False
            ) as response:
                await _accept(response)
                async with aclosing(replies.answer(response, MAX_ANSWER)) as chunks:
                    async for chunk in chunks:
                        yield self._accounted(ask, chunk, auth.ticket) if isinstance(chunk, End) else chunk
        except LyceumError as error:
            yield self._failed(error.message, error.code, auth.ticket)
        except replies.NETWORK_ERRORS as error:
            yield self._failed(replies.network_fault(error), PeerError.code, auth.ticket)

    def _accounted(self, ask: Ask, end: End, ticket: Ticket | None) -> End:
        recounted = replace(end.usage, input_chars=ask.input_chars)
        charged_msat = end.bill.charged_msat if end.bill else self.offer.price.cost_msat(recounted)
        credit_msat = end.bill.balance_msat if end.bill else 0
        member = replace(self._account(ticket), charged_msat=charged_msat, credit_msat=credit_msat)
        return replace(end, members=(member,))

    def _failed(self, error: str, code: str, ticket: Ticket | None) -> End:
        return End("error", members=(replace(self._account(ticket), ok=False, error=error, code=code),))

    def _account(self, ticket: Ticket | None) -> Member:
        member = Member(self.offer.node_id, self.offer.model)
        if ticket is None:
            return member
        return replace(member, payment_hash=ticket.payment_hash, paid_msat=ticket.amount_msat, fee_msat=ticket.fee_msat)


async def _accept(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.OK:
        return
    said = replies.reason(await replies.whole(response, MAX_ERROR))
    if response.status_code == httpx.codes.PAYMENT_REQUIRED:
        raise PeerError(f"asks for payment again after it was paid: {said}")
    raise PeerError(f"answered {response.status_code}: {said}")
