"""What is for sale and what it would cost, for programs that have never been here: manifest and quote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest

from fakes import NODE, Speaker
from lyceum.app import Stock, create_app
from lyceum.errors import RateLimited
from lyceum.ports import Embedder, Entry, Limits, Offer, Price, Unit
from lyceum.tariff import Tariff
from test_app import Door, Ruler

pytestmark = pytest.mark.anyio

ECONOMIST = Offer(
    "economist", "prices and time", ("mises",), Price(100, 200, 1000), Limits(512, 50), "chat", node_id=NODE
)
CLERK = Offer("clerk", price=Price(500, unit=Unit.TOKEN), limits=Limits(512, 50))
CHAT: dict[str, Any] = {"model": "economist", "messages": [{"role": "user", "content": "What is money?"}]}


@asynccontextmanager
async def visitor(door: Door | None, *embedders: Embedder) -> AsyncIterator[httpx.AsyncClient]:
    stock = Stock((Speaker(ECONOMIST), Speaker(CLERK)), embedders)
    transport = httpx.ASGITransport(create_app(stock, door), client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


async def test_the_manifest_says_what_is_sold_at_which_price() -> None:
    """Where to ask, what it costs, the least that a first payment is, and which caveats are understood."""
    async with visitor(Door(), Ruler()) as client:
        manifest = (await client.get("/.well-known/l402.json")).json()
    assert manifest["version"] == "1.0"
    assert manifest["provider"] == {"name": "Lyceum", "node_pubkey": NODE}
    (service,) = manifest["services"]
    economist, clerk, ruler = service["resources"]
    assert service["name"] == "lyceum"
    assert economist == {
        "path": "/v1/chat/completions",
        "method": "POST",
        "description": "prices and time",
        "pricing": {
            "model": "formula",
            "base_msat": 100,
            "components": [
                {"constraint": "input", "price_msat_per_unit": 200, "unit": "1000 characters"},
                {"constraint": "output", "price_msat_per_unit": 1000, "unit": "1000 characters"},
            ],
            "first_payment_at_least_msat": 3000,
        },
        "constraints": {"model": "economist", "max_tokens": 50},
    }
    assert clerk["pricing"]["model"] == "fixed"
    assert clerk["pricing"]["price_msat"] == 500
    assert ruler["path"] == "/v1/embeddings"
    assert set(manifest["caveats"]) == {"services", "lyceum_valid_until", "lyceum_model", "lyceum_max_tokens"}


async def test_a_quote_is_what_the_till_would_be_asked_for() -> None:
    """The same weighing as for the answer itself: worst case, first payment, what was counted, at which price."""
    door = Door()
    async with visitor(door) as client:
        quote = (await client.post("/l402/quote", json=CHAT)).json()
        await client.post("/v1/chat/completions", json=CHAT)
    weighed, asked = door.asked
    assert weighed == asked
    assert asked.client == "192.0.2.0/24"
    assert quote == {
        "model": "economist",
        "currency": "msat",
        "price_msat": asked.amount_msat,
        "first_payment_msat": 3000,
        "counted": {"input_tokens": 14, "output_tokens": 50, "input_chars": 14, "output_chars": 300},
        "price": {"base_msat": 100, "input_per_1k_msat": 200, "output_per_1k_msat": 1000, "unit": "char"},
    }


async def test_quote_list_and_manifest_agree() -> None:
    """On the price that a stranger pays now."""
    async with visitor(Door(tariff=Tariff(models=(("economist", 150),)))) as client:
        quote = (await client.post("/l402/quote", json=CHAT)).json()
        offer = (await client.get("/v1/models/economist")).json()["lyceum"]
        (service,) = (await client.get("/.well-known/l402.json")).json()["services"]
    assert quote["price"] == offer["price"]
    assert quote["price"]["output_per_1k_msat"] == 1500
    assert service["resources"][0]["pricing"]["base_msat"] == 150
    assert quote["price_msat"] == -(-(100 + 303) * 150 // 100)


async def test_vectors_are_quoted_too() -> None:
    """By the model that the body names."""
    async with visitor(Door(), Ruler()) as client:
        quote = (await client.post("/l402/quote", json={"model": "ruler", "input": "four"})).json()
    assert quote["price_msat"] == 10 + 4


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad-request"),
        (b'{"model": "economist"}', 400, "bad-request"),
        (b'{"model": "eagle", "messages": []}', 404, "model-not-found"),
        (b"[" * (2 << 20), 413, "too-long"),
    ],
)
async def test_what_cannot_be_sold_cannot_be_quoted(body: bytes, status: int, code: str) -> None:
    """The same refusals as for the answer, before the till is asked."""
    door = Door()
    async with visitor(door) as client:
        response = await client.post("/l402/quote", content=body)
    assert (response.status_code, response.json()["code"], door.asked) == (status, code, [])


async def test_quotes_are_limited() -> None:
    """The till's limit is passed on, with the time after which to come back."""

    class Full(Door):
        async def quote(self, entry: Entry) -> int:
            raise RateLimited("too many", 7)

    async with visitor(Full()) as client:
        response = await client.post("/l402/quote", json=CHAT)
    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (
        429,
        "rate-limited",
        "7",
    )


async def test_where_all_is_free_nothing_is_advertised() -> None:
    """No till, no manifest, no quote."""
    async with visitor(None) as client:
        assert (await client.get("/.well-known/l402.json")).status_code == 404
        assert (await client.post("/l402/quote", json=CHAT)).status_code == 404
