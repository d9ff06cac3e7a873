"""One request, bounded and watched: its body, where it comes from, and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from ipaddress import ip_address, ip_network
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from lyceum import wire
from lyceum.app.stock import Order
from lyceum.errors import TooLong
from lyceum.ports import Entry

T = TypeVar("T")

NETWORK_BITS = {4: 24, 6: 48}


async def or_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects first."""
    worker = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        raise ClientDisconnect
    finally:
        watcher.cancel()
        worker.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def network_of(request: Request) -> str:
    """The client's IPv4 /24 or IPv6 /48, which is what one customer of a provider can choose within.

    Empty where the connection has no IP address, or this machine's own: then it is a proxy's, and says
    nothing of whoever stands behind it.
    """
    try:
        address = ip_address(request.client.host if request.client else "")
    except ValueError:
        return ""
    plain = getattr(address, "ipv4_mapped", None) or address
    return "" if plain.is_loopback else str(ip_network((plain.packed, NETWORK_BITS[plain.version]), strict=False))


def credential_lines(request: Request) -> tuple[str, ...]:
    """The `Authorization` lines; where there are none, what gRPC's metadata holds, as `Macaroon <hex>`."""
    lines = [line for line in request.headers.getlist("authorization") if line.strip()]
    macaroons = (request.headers.getlist(name) for name in ("grpc-metadata-macaroon", "macaroon"))
    return tuple(lines or [f"Macaroon {text}" for texts in macaroons for text in texts])


def entry_of(order: Order, request: Request, waiting: int = 0) -> Entry:
    lines, client = credential_lines(request), network_of(request)
    return Entry(lines, order.offer.model, order.tokens, order.amount_msat, client, order.least_msat, waiting)


async def read_body(request: Request) -> bytes:
    """The body, never more of it than is allowed."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > wire.MAX_BODY:
            raise TooLong(f"the body is longer than {wire.MAX_BODY} bytes: send fewer or shorter messages")
    return body
