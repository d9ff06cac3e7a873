"""How the web server is set up: whom it believes about a client's address, and when its pieces leave."""

from __future__ import annotations

import socket

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lyceum.service import listen, web_config

pytestmark = pytest.mark.anyio
FORGED = "198.51.100.9, 203.0.113.5"


async def who(request: Request) -> Response:
    return PlainTextResponse(request.client.host if request.client else "")


async def seen(proxy: str, address: str, **headers: str) -> str:
    """Whom the app takes for the client of a connection from `address`."""
    config = web_config(Starlette(routes=[Route("/", who)]), proxy)
    config.load()
    transport = httpx.ASGITransport(config.loaded_app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return (await client.get("/", headers=headers)).text


@pytest.mark.parametrize(
    ("proxy", "address", "client"),
    [
        ("10.0.0.1", "10.0.0.1", "203.0.113.5"),
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("", "127.0.0.1", "127.0.0.1"),
    ],
)
async def test_only_the_named_proxy_says_whose_a_request_is(
    monkeypatch: pytest.MonkeyPatch, proxy: str, address: str, client: str
) -> None:
    """The last address it wrote; from anybody else, and with no proxy named, the header is a forgery."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert await seen(proxy, address, **{"X-Forwarded-For": FORGED}) == client


async def test_no_piece_of_an_answer_waits_for_an_acknowledgement() -> None:
    """Or whoever asks a second time on a connection would get a short answer 40 ms late, and all at once."""
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as met,
    ):
        assert met.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
