"""Who sells what now: the price lists of the sellers that we were told of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx2 as httpx

from lyceum import replies, wire
from lyceum.ensemble import Roster
from lyceum.errors import Distrusted, LyceumError, PeerError
from lyceum.peers.auth import origin_of
from lyceum.peers.model import PeerModel
from lyceum.ports import Member, Model, Offer, Payer
from lyceum.replies import MAX_ANSWER, PLAIN

VISIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Seller:
    """What a visit to a peer found: its offers, or why there are none."""

    url: str
    offers: tuple[Offer, ...] = ()
    error: str = ""
    code: str = PeerError.code

    @property
    def origin(self) -> str:
        """ "" for a URL that is none."""
        try:
            return origin_of(httpx.URL(self.url))
        except httpx.InvalidURL:
            return ""

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
    """Everybody who can be asked now: our own models and those of the sellers at `urls`, paid for `purpose`.

    Who overcharged before is not called.
    """
    distrusted = await payer.distrusted()
    sellers = await asyncio.gather(*(_call(client, url, distrusted) for url in urls))
    bought = [PeerModel(client, seller.url, offer, payer, purpose) for seller in sellers for offer in seller.offers]
    absent = [Member("", seller.url, ok=False, error=seller.error, code=seller.code) for seller in sellers]
    return Roster((*own, *bought), tuple(member for member in absent if member.error))


async def _call(client: httpx.AsyncClient, url: str, distrusted: Mapping[str, str]) -> Seller:
    complaint = distrusted.get(Seller(url).origin)
    if complaint:
        return Seller(url, error=f"overcharged: {complaint}", code=Distrusted.code)
    return await visit(client, url)
