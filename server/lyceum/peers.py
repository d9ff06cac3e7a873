"""Specialists on other nodes as Models, over HTTP(S): visit a seller, ask it, pay when it says 402.

`L402Auth` answers the 402 through a `Payer`; it is an httpx `Auth`, so it serves any client of any
L402 seller. Everything a peer sends is bounded and checked; whatever it does ends in an `End`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import httpx2 as httpx

from lyceum import replies, wire
from lyceum.ensemble import Roster
from lyceum.errors import LyceumError, PeerError
from lyceum.l402 import Challenge, Malformed, parse_challenge
from lyceum.ports import Ask, Chunk, End, Member, Model, Offer, Payer, Terms, Ticket, Usage
from lyceum.replies import MAX_ANSWER, MAX_ERROR, PLAIN
from lyceum.router import first_payment_msat

VISIT_S = 5.0
SPENT_REASONS = frozenset({"expired", "revoked", "wrong-service", "bad-signature", "bad-preimage", "unknown-token"})
"""Refusals after which a kept token is of no use any more; `exhausted` may still fit a shorter ask."""


class L402Auth(httpx.Auth):
    """Sends the kept token of an origin; on a 402 buys one within `terms`, once, and asks again."""

    def __init__(self, payer: Payer, terms: Terms) -> None:
        self._payer = payer
        self._terms = terms
        self.ticket: Ticket | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        origin = origin_of(request.url)
        self.ticket = await self._payer.kept(origin)
        if self.ticket:
            request.headers["Authorization"] = self.ticket.authorization
        response = yield request
        if response.status_code != httpx.codes.PAYMENT_REQUIRED:
            return
        body = await replies.whole(response, MAX_ERROR)
        response._content = body  # httpx reads it again before the second request, without a bound
        code = _code(body)
        if self.ticket and code in SPENT_REASONS:
            await self._payer.discard(self.ticket.payment_hash)
        self.ticket = None
        challenge = _challenge(response)
        self.ticket = await self._payer.pay(challenge, origin, self._terms)
        request.headers["Authorization"] = self.ticket.authorization
        yield request


def origin_of(url: httpx.URL) -> str:
    """Scheme, host and port: where a token is good, and nowhere else."""
    port = url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
    return f"{url.scheme}://{url.host}:{port}"


@dataclass(frozen=True, slots=True)
class Seller:
    """What a visit to a peer found: its offers, or why there are none."""

    url: str
    offers: tuple[Offer, ...] = ()
    error: str = ""

    @property
    def node_id(self) -> str:
        return next((offer.node_id for offer in self.offers), "")


async def visit(client: httpx.AsyncClient, url: str) -> Seller:
    """The price list of the seller at `url`, fetched anew. Never raises for what the seller does."""
    try:
        address = f"{url.rstrip('/')}/v1/models"
        async with client.stream("GET", address, headers=PLAIN, timeout=VISIT_S) as response:
            body = await replies.whole(response, MAX_ANSWER)
            if response.status_code != httpx.codes.OK:
                raise PeerError(f"answered {response.status_code} instead of its list of models")
            return Seller(url, tuple(wire.read_offers(body)))
    except LyceumError as error:
        return Seller(url, error=error.message)
    except replies.NETWORK_ERRORS as error:
        return Seller(url, error=replies.network_fault(error))


async def muster(
    client: httpx.AsyncClient, urls: Sequence[str], payer: Payer, own: Sequence[Model] = (), purpose: str = "ask"
) -> Roster:
    """Everybody who can be asked now: our own models and those of the sellers at `urls`, paid for `purpose`."""
    sellers = await asyncio.gather(*(visit(client, url) for url in urls))
    bought = [PeerModel(client, seller.url, offer, payer, purpose) for seller in sellers for offer in seller.offers]
    absent = [Member("", seller.url, ok=False, error=seller.error, code=PeerError.code) for seller in sellers]
    return Roster((*own, *bought), tuple(member for member in absent if member.error))


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
        auth = L402Auth(self._payer, terms)
        body = wire.write_chat(ask)
        try:
            async with self._client.stream("POST", self._url, json=body, headers=PLAIN, auth=auth) as response:
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


def _challenge(response: httpx.Response) -> Challenge:
    try:
        return parse_challenge(response.headers.get_list("WWW-Authenticate"))
    except Malformed as error:
        raise PeerError(f"asks for payment, but its challenge cannot be read: {error.message}") from None


def _code(body: bytes) -> str:
    found = replies.parsed(body)
    return str(found.get("code", "")) if isinstance(found, dict) else ""
