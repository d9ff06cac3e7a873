"""The holder's endpoints: what is on a token, adding to it, taking back what is left."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lyceum import wire
from lyceum.app.failures import NO_STORE
from lyceum.app.request import credential_lines, read_body
from lyceum.ports import Holders


class Counter:
    def __init__(self, holders: Holders) -> None:
        self._holders = holders

    def routes(self) -> list[Route]:
        return [
            Route("/l402/token", self.token),
            Route("/l402/topup", self.top_up, methods=["POST"]),
            Route("/l402/refund", self.refund, methods=["POST"]),
        ]

    async def token(self, request: Request) -> Response:
        return JSONResponse(await self._holders.token(credential_lines(request)), headers=NO_STORE)

    async def top_up(self, request: Request) -> Response:
        amount_msat = wire.read_topup(await read_body(request))
        made = await self._holders.top_up(credential_lines(request), amount_msat)
        return JSONResponse(made, 201, NO_STORE)

    async def refund(self, request: Request) -> Response:
        """202: it is owed from now on, and paid as soon as there is a way; the token's page says when it was."""
        address = wire.read_refund(await read_body(request))
        return JSONResponse(await self._holders.reclaim(credential_lines(request), address), 202, NO_STORE)
