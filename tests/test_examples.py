"""The examples in contrib run as they are, beside a node with the plugin."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from networks import Market
from servers import in_thread

EXAMPLES = Path(__file__).parent.parent / "contrib" / "examples"


@pytest.fixture(scope="module")
def url(market: Market) -> Iterator[str]:
    """The service that sells prime factors, beside the seller's node."""
    spec = importlib.util.spec_from_file_location("factors", EXAMPLES / "factors.py")
    assert spec
    assert spec.loader
    example = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_RPC", str(market.seller.rpc_path))
        spec.loader.exec_module(example)
    with in_thread(example.app) as address:
        yield address


def buy(market: Market, url: str, refused: httpx.Response) -> dict[str, str]:
    line = refused.headers.get_list("www-authenticate")[1]
    ticket = market.call(market.buyer, "l402-pay", [line, url, 5000])["ticket"]
    return {"Authorization": ticket["authorization"]}


def test_any_service_sells_by_l402(market: Market, url: str) -> None:
    """402 with a challenge, one payment, ten answers; each costs what it says and the last is refused."""
    refused = httpx.get(f"{url}/factors/91")
    assert refused.status_code == 402
    paid = buy(market, url, refused)
    answers = [httpx.get(f"{url}/factors/91", headers=paid) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [402]
    assert answers[0].json() == {"number": 91, "factors": [7, 13]}
    held = market.call(market.seller, "l402-verify", ["factors", paid["Authorization"]])
    assert (held["spent_msat"], held["balance_msat"]) == (1000, 0)


def test_a_token_of_another_service_is_refused(market: Market, url: str) -> None:
    """One till, several services: a token is good for its own."""
    declined = market.call(market.seller, "l402-admit", {"service": "lyceum", "amount_msat": 1000})["declined"]
    ticket = market.call(market.buyer, "l402-pay", [declined["headers"][1][1], url, 5000])["ticket"]
    answer = httpx.get(f"{url}/factors/91", headers={"Authorization": ticket["authorization"]})
    assert (answer.status_code, answer.json()["detail"]) == (
        402,
        "the token is not good for this service; pay for one that is",
    )


def test_what_cannot_be_served_makes_no_invoice(market: Market, url: str) -> None:
    """Bad input is refused before the till."""
    before = len(market.seller.rpc.listinvoices()["invoices"])
    assert httpx.get(f"{url}/factors/1").status_code == 400
    assert len(market.seller.rpc.listinvoices()["invoices"]) == before


def test_what_the_node_gives_away_is_served(market: Market, url: str) -> None:
    """A first request that is free by the node's options has no reservation, and nothing is settled."""
    market.seller.rpc.setconfig("lyceum-freebies", 1)
    answers = [httpx.get(f"{url}/factors/91") for _ in range(2)]
    market.seller.rpc.setconfig("lyceum-freebies", 0)
    assert [answer.status_code for answer in answers] == [200, 402]


def test_who_knocks_too_often_is_told_when_to_come_back(market: Market, url: str) -> None:
    """The till's limit, passed on; who holds a token is let in all the same."""
    paid = buy(market, url, httpx.get(f"{url}/factors/91"))
    market.seller.rpc.setconfig("lyceum-challenges-per-minute", 1)
    assert httpx.get(f"{url}/factors/91").status_code == 402
    market.seller.rpc.setconfig("lyceum-bundle-msat", 2000)  # another price, so another challenge
    limited = httpx.get(f"{url}/factors/91")
    assert (limited.status_code, limited.json()["code"]) == (429, "rate-limited")
    assert int(limited.headers["retry-after"]) > 0
    assert httpx.get(f"{url}/factors/91", headers=paid).status_code == 200
