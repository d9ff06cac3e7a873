"""Errors as responses: the one place that maps them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from lyceum import wire
from lyceum.errors import LyceumError
from lyceum.ports import Declined, Offer

NO_STORE = {"Cache-Control": "no-store"}
CLIENT_GONE = 499


class Refused(LyceumError):
    """The till declined; carries what it said, headers and all."""

    status, code = 402, "payment-required"

    def __init__(self, declined: Declined, offer: Offer) -> None:
        super().__init__(declined.detail)
        self.declined = declined
        self.offer = offer


async def _payment_required(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    declined = error.declined
    body = wire.problem(
        error.status,
        "Payment Required",
        declined.reason,
        declined.detail,
        amount_msat=declined.amount_msat,
        model=error.offer.model,
        price=asdict(error.offer.price),
    )
    response = JSONResponse(body, error.status, NO_STORE, "application/problem+json")
    for name, value in declined.headers:
        response.headers.append(name, value)
    return response


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, LyceumError)  # noqa: S101
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return JSONResponse(wire.error_body(error), error.status, headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "no-such-route"}}
    return JSONResponse(body, error.status_code, error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Refused: _payment_required,
    LyceumError: _failed,
    HTTPException: _no_route,
    ClientDisconnect: _gone,
}
