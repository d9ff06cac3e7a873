"""Errors as responses: the one place that maps them. Each is a problem with a stable code (RFC 9457)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from lyceum import wire
from lyceum.errors import LyceumError, PaymentRequired, TokenRefused
from lyceum.ports import Declined, Offer

NO_STORE = {"Cache-Control": "no-store"}
CLIENT_GONE = 499
NO_ROUTE = "no-such-route"
INSTEAD: Mapping[str, Mapping[str, str]] = {
    "exhausted": {"topup": "/l402/topup"},
    "expired": {"refund": "/l402/refund"},
}
"""What a holder can do instead of paying for a new token."""
MANIFEST = "/.well-known/l402.json"
MANIFEST_LINK = ("Link", f'<{MANIFEST}>; rel="l402-manifest"')


class Refused(PaymentRequired):
    """The till declined; carries what it said, headers and all."""

    def __init__(self, declined: Declined, offer: Offer) -> None:
        super().__init__(declined.detail, declined.reason)
        self.declined = declined
        self.offer = offer


class Problem(JSONResponse):
    """`body` as `wire.problem` writes it. Never stored: it may be otherwise a moment later."""

    media_type = "application/problem+json"

    def __init__(self, body: wire.JsonObject, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(body, body["status"], NO_STORE)
        for name, value in headers:
            self.headers.append(name, value)


async def _payment_required(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    declined = error.declined
    body = wire.problem(
        error.status,
        declined.reason,
        declined.detail,
        kind=declined.kind,
        amount_msat=declined.amount_msat,
        model=error.offer.model,
        price=asdict(error.offer.price),
        **INSTEAD.get(declined.reason, {}),
    )
    return Problem(body, (*declined.headers, MANIFEST_LINK))


async def _token_refused(_: Request, error: Exception) -> Response:
    """401 must name a scheme (RFC 9110, 15.5.2); there is no challenge to add."""
    assert isinstance(error, TokenRefused)  # noqa: S101
    return Problem(wire.problem_of(error), [("WWW-Authenticate", "L402")])


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, LyceumError)  # noqa: S101
    retry_after_s = getattr(error, "retry_after_s", None)
    return Problem(wire.problem_of(error), [("Retry-After", str(retry_after_s))] if retry_after_s else ())


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    message = f"{request.method} {request.url.path}: {error.detail}"
    return Problem(wire.problem(error.status_code, NO_ROUTE, message), (error.headers or {}).items())


async def _broken(_: Request, __: Exception) -> Response:
    """Our own mistake. Its traceback goes to the log; to the client it would be of no use."""
    return Problem(wire.problem_of(LyceumError("this server made a mistake; its log says where")))


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Refused: _payment_required,
    TokenRefused: _token_refused,
    LyceumError: _failed,
    HTTPException: _no_route,
    ClientDisconnect: _gone,
    Exception: _broken,
}
