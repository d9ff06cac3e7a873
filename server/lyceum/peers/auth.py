"""Answers a 402 through a `Payer`: an httpx `Auth`, so it serves any client of any L402 seller.

Laws: a token goes to the origin that it was bought from and nowhere else; what is kept is tried before
anything is bought; one request buys at most once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import httpx2 as httpx

from lyceum import replies, wire
from lyceum.errors import PeerError
from lyceum.l402 import Challenge, Malformed, parse_challenge
from lyceum.ports import Payer, Price, Terms, Ticket, Wanted
from lyceum.replies import MAX_ERROR

MOST_TRIED = 3
"""Kept tokens that one request tries before it buys; each costs a round trip, and the seller a challenge."""

USELESS = frozenset({"expired", "revoked", "refunded", "bad-signature", "bad-preimage", "unknown-token"})
"""Refusals after which a kept token is of no use any more."""

EXHAUSTED = "exhausted"


class L402Auth(httpx.Auth):
    """Sends the kept token of an origin that fits best; when none is taken, buys one within `terms`.

    `need_msat`: the most that the request may cost, 0 where that is not known. `ticket` is what was sent
    last, `quoted` the price that the last 402 named. Raises PeerError for a 402 that comes from another
    origin by a redirect, and what the payer raises.
    """

    def __init__(self, payer: Payer, terms: Terms, need_msat: int = 0) -> None:
        self._payer = payer
        self._terms = terms
        self._need_msat = need_msat
        self.ticket: Ticket | None = None
        self.quoted: Price | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        wanted = Wanted(origin_of(request.url), need_msat=self._need_msat)
        self.ticket = await self._payer.kept(wanted)
        for _ in range(MOST_TRIED):
            response = yield _signed(request, self.ticket)
            if not _asks_for_payment(response):
                return
            challenge = await self._refused(response, wanted.origin)
            tried = (*wanted.tried, self.ticket.payment_hash) if self.ticket else wanted.tried
            wanted = replace(wanted, service=challenge.service(), tried=tried)
            self.ticket = await self._payer.kept(wanted)
            if self.ticket is None:
                break
        self.ticket = None
        self.ticket = await self._payer.pay(challenge, wanted.origin, self._terms)
        yield _signed(request, self.ticket)

    async def _refused(self, response: httpx.Response, origin: str) -> Challenge:
        """The challenge of a 402; what it says of the token that was sent is noted."""
        if origin_of(response.url) != origin:
            raise PeerError(f"redirects to {origin_of(response.url)}, which gets neither tokens nor money of {origin}")
        body = await replies.whole(response, MAX_ERROR)
        response._content = body  # httpx reads it again before the next request, without a bound
        self.quoted = wire.read_quote(body)
        code = _code(body)
        if self.ticket and code in USELESS:
            await self._payer.discard(self.ticket.payment_hash)
        if self.ticket and code == EXHAUSTED:
            await self._payer.exhausted(self.ticket.payment_hash, self._need_msat)
        return _challenge(response)


def _signed(request: httpx.Request, ticket: Ticket | None) -> httpx.Request:
    if ticket:
        request.headers["Authorization"] = ticket.authorization
    return request


def origin_of(url: httpx.URL) -> str:
    """Scheme, host and port, the port also where the scheme says it: where a token is good, and nowhere else."""
    port = url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
    return f"{url.scheme}://{url.host}:{port}"


def _asks_for_payment(response: httpx.Response) -> bool:
    """By 402, or by the 401 of the spec's first drafts if an L402 challenge comes with it."""
    if response.status_code != httpx.codes.UNAUTHORIZED:
        return response.status_code == httpx.codes.PAYMENT_REQUIRED
    try:
        return bool(_challenge(response))
    except PeerError:
        return False


def _challenge(response: httpx.Response) -> Challenge:
    try:
        return parse_challenge(response.headers.get_list("WWW-Authenticate"))
    except Malformed as error:
        raise PeerError(f"asks for payment, but its challenge cannot be read: {error.message}") from None


def _code(body: bytes) -> str:
    found = replies.parsed(body)
    return str(found.get("code", "")) if isinstance(found, dict) else ""
