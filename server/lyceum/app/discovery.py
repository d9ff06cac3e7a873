"""Who sells what at which price, for programs that have never been here, and what one request would cost.

The manifest follows the discovery draft of L402 (lightninglabs/L402#27); a quote mints nothing.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lyceum.app import manifest
from lyceum.app.failures import MANIFEST, NO_STORE
from lyceum.app.request import entry_of, read_body
from lyceum.app.stock import Load, Stock, listed, order_of, priced
from lyceum.ports import Gate

QUOTE = "/l402/quote"


class Discovery:
    def __init__(self, stock: Stock, gate: Gate, load: Load) -> None:
        self._stock = stock
        self._gate = gate
        self._load = load

    def routes(self) -> list[Route]:
        return [Route(MANIFEST, self.manifest), Route(QUOTE, self.quote, methods=["POST"])]

    async def manifest(self, _: Request) -> Response:
        offers = await listed(self._stock.offers, self._gate, self._load)
        return JSONResponse(manifest.write(self._gate.service, offers, QUOTE))

    async def quote(self, request: Request) -> Response:
        """What the request in the body would cost at most, and what paying for it would take now."""
        order = await priced(await order_of(self._stock, await read_body(request)), self._gate, self._load)
        first_msat = await self._gate.quote(entry_of(order, request)) if order.amount_msat else 0
        said = {
            "model": order.offer.model,
            "currency": "msat",
            "price_msat": order.amount_msat,
            "first_payment_msat": first_msat,
            "counted": asdict(order.weighed),
            "price": asdict(order.offer.price),
        }
        return JSONResponse(said, headers=NO_STORE)
