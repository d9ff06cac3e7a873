"""`lyceum serve` over a real socket, beside a real node: OpenAI's own client, refusals, disconnects."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest
from openai import OpenAI

from networks import Market
from servers import serving

MODEL = "austrian-economics"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is time preference?"}]}


@dataclass
class Shop:
    """The seller's server, and what buying there takes."""

    market: Market
    url: str

    def post(self, body: Any = CHAT, authorization: str | None = None) -> httpx.Response:
        headers = {"Authorization": authorization} if authorization else {}
        kind = "content" if isinstance(body, bytes) else "json"
        return httpx.post(f"{self.url}/v1/chat/completions", headers=headers, timeout=60, **{kind: body})

    def buy(self, amount_msat: int = 5000) -> str:
        """A credential with this much on it."""
        request = {"service": "lyceum", "amount_msat": amount_msat}
        line = self.market.call(self.market.seller, "l402-admit", request)["declined"]["headers"][1][1]
        ticket = self.market.call(self.market.buyer, "l402-pay", [line, self.url, amount_msat])["ticket"]
        return str(ticket["authorization"])

    def balance_msat(self, authorization: str) -> int:
        found = self.market.call(self.market.seller, "l402-verify", ["lyceum", authorization])
        return int(found["balance_msat"])

    def openai(self, authorization: str) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=authorization.removeprefix("L402 "), max_retries=0)


@pytest.fixture(scope="module")
def shop(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with serving(tmp_path_factory.mktemp("shop"), market.seller, MODEL) as url:
        yield Shop(market, url)


def test_a_402_can_be_paid_and_the_answer_is_charged(shop: Shop) -> None:
    """From the 402's own header lines: pay, ask again, get an answer, and the bill can be recounted."""
    refused = shop.post()
    assert refused.status_code == 402
    line = refused.headers.get_list("www-authenticate")[1]
    ticket = shop.market.call(shop.market.buyer, "l402-pay", [line, shop.url, 5000])["ticket"]
    answer = shop.post(authorization=ticket["authorization"]).json()
    text = answer["choices"][0]["message"]["content"]
    written, read = len(text), len("What is time preference?")
    assert answer["lyceum"]["charge"]["charged_msat"] == 100 + -(-(read * 200 + written * 1000) // 1000)
    assert shop.balance_msat(ticket["authorization"]) == answer["lyceum"]["charge"]["balance_msat"]


def test_a_quote_is_what_the_402_then_asks(shop: Shop) -> None:
    """What the manifest's quote endpoint says is paid is what is paid, and asking makes no invoice."""
    manifest = httpx.get(f"{shop.url}/.well-known/l402.json").json()
    assert manifest["provider"]["node_pubkey"] == shop.market.seller.node_id
    before = len(shop.market.seller.rpc.listinvoices()["invoices"])
    quote = httpx.post(shop.url + manifest["quote_endpoint"], json=CHAT, timeout=60).json()
    assert len(shop.market.seller.rpc.listinvoices()["invoices"]) == before
    assert shop.post().json()["amount_msat"] == quote["first_payment_msat"] >= quote["price_msat"]


def test_openai_s_client_gets_an_answer(shop: Shop) -> None:
    """The public client works unchanged, with the credential as its API key."""
    answer = shop.openai(shop.buy()).chat.completions.create(**CHAT)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_openai_s_client_streams(shop: Shop) -> None:
    """Streamed pieces make the same text, and usage comes with the last chunk."""
    client = shop.openai(shop.buy())
    whole = client.chat.completions.create(**CHAT).choices[0].message.content
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens > 0
    assert len(chunks) > 5


def test_openai_s_client_lists_models(shop: Shop) -> None:
    """`models.list` needs no credential of ours and shows what is for sale."""
    models = shop.openai("L402 none").models.list().data
    assert [model.id for model in models] == [MODEL]
    assert models[0].owned_by == shop.market.seller.node_id


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"not json", 400, "bad-request"),
        ({"model": MODEL, "messages": "hello"}, 400, "bad-request"),
        (CHAT | {"max_tokens": 100_000}, 400, "bad-request"),
        (CHAT | {"model": "keynesian-economics"}, 404, "model-not-found"),
        (CHAT | {"messages": [{"role": "user", "content": "word " * 2000}]}, 413, "too-long"),
        (b"[" * (2 << 20), 413, "too-long"),
    ],
    ids=["no JSON", "wrong types", "max_tokens", "unknown model", "long prompt", "large body"],
)
def test_bad_input_is_refused_before_any_invoice(shop: Shop, body: Any, status: int, code: str) -> None:
    """What cannot be served as asked is refused with a clear error, and no invoice is made for it."""
    before = len(shop.market.seller.rpc.listinvoices()["invoices"])
    response = shop.post(body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert len(shop.market.seller.rpc.listinvoices()["invoices"]) == before


@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [
        (lambda _: None, 402, "payment-required"),
        (lambda _: "L402 nonsense", 402, "malformed-credential"),
        (lambda good: good[:-64] + "00" * 32, 402, "bad-preimage"),
        (lambda good: f"{good}, {good[:-64]}{'00' * 32}", 400, "ambiguous-credential"),
    ],
    ids=["missing", "malformed", "another's preimage", "two of them"],
)
def test_a_bad_credential_is_refused_with_its_reason(shop: Shop, spoil: Any, status: int, code: str) -> None:
    """The reason code says what is wrong with the credential."""
    response = shop.post(authorization=spoil(shop.buy(1000)))
    assert response.status_code == status
    found = response.json()
    assert (found.get("code") or found["error"]["code"]) == code


def test_an_exhausted_token_is_offered_a_new_one(shop: Shop) -> None:
    """When the balance does not cover the worst case, the refusal says so and sells the next token."""
    authorization = shop.buy(1000)
    while (response := shop.post(authorization=authorization)).status_code == 200:
        pass
    assert response.json()["code"] == "exhausted"
    assert len(response.headers.get_list("www-authenticate")) == 3
    assert shop.balance_msat(authorization) > 0


def test_a_client_that_leaves_pays_for_what_it_got(shop: Shop) -> None:
    """Closing the connection stops the generation; the reservation is settled below its worst case."""
    authorization = shop.buy(5000)
    headers = {"Authorization": authorization}
    body = CHAT | {"stream": True}
    with httpx.stream("POST", f"{shop.url}/v1/chat/completions", json=body, headers=headers) as response:
        next(response.iter_lines())
    deadline = time.monotonic() + 10
    while _reserved(shop, authorization) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _reserved(shop, authorization) == 0
    assert 4000 < shop.balance_msat(authorization) < 5000


def test_a_price_per_token_is_charged_per_token(market: Market, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With unit = "token" the bill follows the usage that the answer reports."""
    prices = 'unit = "token"\nbase_msat = 10\ninput_per_1k_msat = 1000\noutput_per_1k_msat = 5000\n'
    with serving(tmp_path_factory.mktemp("tokens"), market.seller, MODEL, prices=prices) as url:
        shop = Shop(market, url)
        answer = shop.post(authorization=shop.buy(9000)).json()
    used = answer["usage"]
    cost_msat = 10 + -(-(used["prompt_tokens"] * 1000 + used["completion_tokens"] * 5000) // 1000)
    assert answer["lyceum"]["charge"]["charged_msat"] == cost_msat


def test_a_free_model_asks_for_nothing(market: Market, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A model without a price answers without a credential."""
    with serving(tmp_path_factory.mktemp("free"), market.seller, MODEL, prices="") as url:
        assert Shop(market, url).post().status_code == 200


def _reserved(shop: Shop, authorization: str) -> int:
    found = shop.market.call(shop.market.seller, "l402-verify", ["lyceum", authorization])
    return int(found["reserved_msat"])


def test_a_holder_sees_adds_to_and_takes_back_its_balance(shop: Shop) -> None:
    """Over HTTP with the credential alone: an answer, a top-up, a refund to an offer, and what each left behind."""
    shop.market.let_seller_pay()
    market, authorization = shop.market, shop.buy(2000)
    headers = {"Authorization": authorization}
    charged_msat = shop.post(authorization=authorization).json()["lyceum"]["charge"]["charged_msat"]
    seen = httpx.get(f"{shop.url}/l402/token", headers=headers).json()
    assert [answer["charged_msat"] for answer in seen["answers"]] == [charged_msat]
    assert seen["token"]["balance_msat"] == 2000 - charged_msat

    made = httpx.post(f"{shop.url}/l402/topup", headers=headers, json={"amount_msat": 3000}).json()
    market.buyer.rpc.xpay(made["invoice"])
    offer = market.buyer.rpc.call("offer", {"amount": "any", "description": f"refund {time.monotonic_ns()}"})["bolt12"]
    before = market.settled_msat(market.buyer)
    claimed = httpx.post(f"{shop.url}/l402/refund", headers=headers, json={"address": offer})
    assert (claimed.status_code, claimed.json()["state"]) == (202, "owed")

    deadline = time.monotonic() + 60
    while (seen := httpx.get(f"{shop.url}/l402/token", headers=headers).json())["refund"]["state"] != "paid":
        assert time.monotonic() < deadline, seen["refund"]
        time.sleep(0.2)
    assert seen["token"]["refunded_msat"] == 5000 - charged_msat
    assert market.settled_msat(market.buyer) - before == 5000 - charged_msat
    refused = shop.post(authorization=authorization)
    assert (refused.status_code, refused.json()["code"]) == (402, "refunded")


def test_the_rest_of_a_balance_buys_an_answer(shop: Shop) -> None:
    """Too little for the longest answer and enough for a useful one: it is reserved and the answer given."""
    authorization = shop.buy(1000)
    charge = shop.post(authorization=authorization).json()["lyceum"]["charge"]
    longest = shop.post(CHAT | {"max_tokens": 120}, authorization=authorization)
    assert (longest.status_code, longest.json()["code"]) == (402, "exhausted")
    again = shop.post(authorization=authorization).json()["lyceum"]["charge"]
    assert again["balance_msat"] == charge["balance_msat"] - again["charged_msat"]
