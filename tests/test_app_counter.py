"""The holder's endpoints over HTTP: what is passed on, the status of each answer, and who is turned away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import pytest

from lyceum.app import Stock, create_app
from lyceum.errors import BadAddress, LyceumError, TokenRefused, TooSmall

pytestmark = pytest.mark.anyio


@dataclass
class Desk:
    """Answers with what it was asked, or fails as it is told."""

    failure: LyceumError | None = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def token(self, authorization: Sequence[str]) -> dict[str, Any]:
        return self._answer("token", authorization)

    async def top_up(self, authorization: Sequence[str], amount_msat: int) -> dict[str, Any]:
        return self._answer("top_up", authorization, amount_msat)

    async def reclaim(self, authorization: Sequence[str], address: str) -> dict[str, Any]:
        return self._answer("reclaim", authorization, address)

    def _answer(self, *asked: Any) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        self.asked.append(asked)
        return {"done": asked[0]}


@asynccontextmanager
async def counter(desk: Desk | None) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(Stock(), None, holders=desk))
    headers = {"Authorization": "L402 mine"}
    async with httpx.AsyncClient(transport=transport, base_url="http://shop", headers=headers) as client:
        yield client


async def test_each_endpoint_passes_on_what_it_was_given() -> None:
    """The credential as text, the body's one field; nothing that may be kept by a cache."""
    desk = Desk()
    async with counter(desk) as client:
        answers = [
            await client.get("/l402/token"),
            await client.post("/l402/topup", json={"amount_msat": 5000}),
            await client.post("/l402/refund", json={"address": "lno1mine"}),
        ]
    assert [(answer.status_code, answer.json()["done"]) for answer in answers] == [
        (200, "token"),
        (201, "top_up"),
        (202, "reclaim"),
    ]
    assert desk.asked == [
        ("token", ("L402 mine",)),
        ("top_up", ("L402 mine",), 5000),
        ("reclaim", ("L402 mine",), "lno1mine"),
    ]
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


async def test_a_holder_s_dialect_is_the_buyer_s() -> None:
    """Whoever paid with the header of gRPC shows the token in it here too."""
    desk = Desk()
    async with counter(desk) as client:
        await client.get("/l402/token", headers={"Authorization": "", "Macaroon": "0201"})
    assert desk.asked == [("token", ("Macaroon 0201",))]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (TokenRefused("it has expired", "expired"), 401, "expired"),
        (BadAddress("not an offer"), 400, "bad-address"),
        (TooSmall("3 msat are left"), 409, "too-small"),
    ],
)
async def test_every_refusal_is_a_problem_with_its_code(failure: LyceumError, status: int, code: str) -> None:
    """The reason as a stable word and a sentence, and no challenge where paying would not help."""
    async with counter(Desk(failure)) as client:
        answer = await client.post("/l402/refund", json={"address": "lno1mine"})
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (status, code, failure.message)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert "macaroon" not in answer.headers.get("www-authenticate", "")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/l402/topup", {}, "amount_msat"),
        ("/l402/topup", {"amount_msat": 0}, "amount_msat"),
        ("/l402/topup", {"amount_msat": "5000"}, "amount_msat"),
        ("/l402/topup", {"amount_msat": 10**20}, "amount_msat"),
        ("/l402/refund", {}, "address"),
        ("/l402/refund", {"address": 7}, "address"),
        ("/l402/refund", {"address": "lno1" + "q" * 4093}, "address"),
    ],
)
async def test_a_wrong_body_names_its_field(path: str, body: dict[str, Any], param: str) -> None:
    """Refused before the till is asked."""
    desk = Desk()
    async with counter(desk) as client:
        answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert desk.asked == []


async def test_a_shop_without_a_till_has_no_counter() -> None:
    """Where all is free there are no tokens."""
    async with counter(None) as client:
        assert (await client.get("/l402/token")).status_code == 404
