"""The web server's contract, in one process: order of refusals, shapes, streaming, settlement."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import pytest
from starlette.requests import Request

from fakes import Speaker
from l402_vectors import Row, rows
from lyceum.app import Stock, create_app
from lyceum.app.request import network_of
from lyceum.errors import Busy, LyceumError, ModelError, NodeError, RateLimited, TooLong, TooManyChallenges
from lyceum.ports import (
    Admitted,
    Ask,
    Chunk,
    Declined,
    Delta,
    Embeddings,
    End,
    Entry,
    Gate,
    Limits,
    Member,
    Offer,
    Price,
    SaleTerms,
    Settlement,
    TextBatch,
    Unit,
    Usage,
)
from lyceum.tariff import AS_LISTED, Tariff, share_msat

pytestmark = pytest.mark.anyio
PRICE = Price(base_msat=100, output_per_1k_msat=1000)
CHAT: dict[str, Any] = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}]}
LINES = ('LSAT macaroon="YQ==", invoice="lnbc1"', 'L402 macaroon="YQ==", invoice="lnbc1"')

SAID = End("stop", Usage(2, 3, 5, 22))
RULER = Offer("ruler", price=Price(base_msat=10, input_per_1k_msat=1000), kind="embedding")


@dataclass
class Parrot:
    """A model that says given words, and may fail where it is told to."""

    words: Sequence[str] = ("Polly ", "wants ", "a cracker.")
    outside: bool = False
    weighing: LyceumError | None = None
    failure: LyceumError | None = None
    price: Price = PRICE
    pause_s: float = 0.0
    stopped: bool = False
    end: End = SAID
    payers: list[str] = field(default_factory=list)

    @property
    def offer(self) -> Offer:
        return Offer("parrot", price=self.price, limits=Limits(100, 50))

    async def weigh(self, ask: Ask) -> Usage:
        if self.weighing:
            raise self.weighing
        return Usage(2, 50, ask.input_chars, 300)

    async def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        self.payers.append(ask.payer)
        try:
            for word in self.words:
                await asyncio.sleep(self.pause_s)
                yield Delta(word, 1, outside=self.outside)
            if self.failure:
                raise self.failure
            yield self.end
        finally:
            self.stopped = True


@dataclass
class Ruler:
    """An embedder whose vectors are the lengths of texts."""

    failure: LyceumError | None = None
    offer: Offer = RULER

    async def weigh(self, batch: TextBatch) -> Usage:
        return Usage(input_tokens=3, input_chars=batch.input_chars)

    async def embed(self, batch: TextBatch) -> Embeddings:
        if self.failure:
            raise self.failure
        return Embeddings(tuple((float(len(text)), 0.5) for text in batch.texts), await self.weigh(batch))


@dataclass
class Door:
    """A gate that admits the header "good" and writes down what it was asked."""

    asked: list[Entry] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    broken: int = 0
    limit: LyceumError | None = None
    free: bool = False
    percent: int = 100
    tariff: Tariff = AS_LISTED
    left_msat: int = 10_000
    service: str = "lyceum"

    async def admit(self, entry: Entry) -> Admitted | Declined:
        self.asked.append(entry)
        if self.limit:
            raise self.limit
        if self.free:
            return Admitted("", "", "", entry.amount_msat, 0)
        if entry.authorization == ("good",) and (entry.least_msat or entry.amount_msat) <= self.left_msat:
            held_msat = min(share_msat(entry.amount_msat, self.percent), self.left_msat)
            return Admitted("r1", "t1", "h1", held_msat, 900, percent=self.percent)
        lines = tuple(("WWW-Authenticate", line) for line in LINES)
        return Declined("exhausted", "nothing left", lines, 2000, percent=self.percent)

    async def settle(self, reservation: str, charge_msat: int) -> Settlement:
        if self.broken:
            self.broken -= 1
            raise NodeError("the node is away")
        self.settled.append(charge_msat)
        return Settlement("t1", charge_msat, 900 - charge_msat)

    async def quote(self, entry: Entry) -> int:
        self.asked.append(entry)
        return max(entry.amount_msat, 3000)

    async def terms(self) -> SaleTerms:
        return SaleTerms(3000, self.tariff)


@asynccontextmanager
async def client(model: Parrot, gate: Gate | None) -> AsyncIterator[httpx.AsyncClient]:
    async with shop_of(Stock((model,)), gate) as opened:
        yield opened


@asynccontextmanager
async def shop_of(stock: Stock, gate: Gate | None) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(stock, gate), raise_app_exceptions=False)
    headers = {"Authorization": "good"}
    async with httpx.AsyncClient(transport=transport, base_url="http://shop", headers=headers) as opened:
        yield opened


async def post(model: Parrot, gate: Gate | None, body: Any = CHAT, **options: Any) -> httpx.Response:
    async with client(model, gate) as shop:
        kind = "content" if isinstance(body, bytes) else "json"
        return await shop.post("/v1/chat/completions", **{kind: body}, **options)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_a_model_hears_which_token_pays() -> None:
    """From the till, once it has admitted it; whatever is free is paid for by nobody."""
    parrot = Parrot()
    await post(parrot, Door())
    await post(parrot, None)
    assert parrot.payers == ["t1", ""]


async def test_an_answer_is_charged_for_what_was_delivered() -> None:
    """The charge is the base and the characters handed over, not the reservation."""
    door = Door()
    answer = (await post(Parrot(), door)).json()
    assert answer["choices"][0]["message"]["content"] == "Polly wants a cracker."
    assert door.asked == [Entry(("good",), "parrot", 50, 400, "", 400)]
    assert door.settled == [100 + 22]
    assert answer["lyceum"]["charge"] == {
        "charged_msat": 122,
        "balance_msat": 778,
        "price": {"base_msat": 100, "input_per_1k_msat": 0, "output_per_1k_msat": 1000, "unit": "char"},
        "input_units": 5,
        "output_units": 22,
    }
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:5:6:7::8", "2001:db8:5::/48"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("/run/lyceum.sock", ""),
        ("", ""),
    ],
)
async def test_the_till_hears_which_network_asks(address: str, network: str) -> None:
    """As much of the address as one customer of a provider cannot change; no forwarded header is believed."""
    door = Door()
    transport = httpx.ASGITransport(create_app(Stock((Parrot(),)), door), client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as shop:
        await shop.post("/v1/chat/completions", json=CHAT, headers={"X-Forwarded-For": "198.51.100.9"})
    assert [entry.client for entry in door.asked] == [network]


@pytest.mark.parametrize("vector", rows("ip_masks"), ids=lambda vector: vector["ip"])
def test_published_masks_of_addresses(vector: Row) -> None:
    """The same networks as Aperture counts by, but that an address of this machine is none."""
    scope = {"type": "http", "client": (vector["ip"], 1), "headers": []}
    masked = network_of(Request(scope)).partition("/")[0]
    assert masked == vector.get("lyceum", {}).get("network", vector["masked"])


async def test_an_answer_is_charged_at_what_the_till_says() -> None:
    """The till is asked at the list price; charge and bill are at the share that it admitted for."""
    door = Door(percent=150)
    charge = (await post(Parrot(), door)).json()["lyceum"]["charge"]
    assert door.asked[0].amount_msat == 400
    assert charge["price"] == {"base_msat": 150, "input_per_1k_msat": 0, "output_per_1k_msat": 1500, "unit": "char"}
    assert door.settled == [150 + 33]


async def test_vectors_are_charged_at_what_the_till_says() -> None:
    """As answers are."""
    door = Door(percent=200)
    async with shop_of(Stock(embedders=(Ruler(),)), door) as shop:
        await shop.post("/v1/embeddings", json={"model": "ruler", "input": "four"})
    assert door.settled == [20 + 8]


async def test_a_402_shows_the_price_that_it_sells_for() -> None:
    """Not the list's, if the till asks for another share of it."""
    response = await post(Parrot(), Door(percent=150), headers={"Authorization": "bad"})
    assert response.json()["price"]["output_per_1k_msat"] == 1500


async def test_the_list_shows_what_strangers_pay_now() -> None:
    """Each model's share, and more for each request that it is serving; it falls again when they end."""
    door = Door(tariff=Tariff(models=(("parrot", 200),), per_waiting=25))
    serving, done = asyncio.Semaphore(0), asyncio.Event()

    async def wait() -> None:
        serving.release()
        await done.wait()

    speaker = Speaker(Offer("parrot", price=PRICE), before=wait)
    async with shop_of(Stock((speaker,)), door) as shop:

        async def listed() -> int:
            offer = (await shop.get("/v1/models/parrot")).json()
            return int(offer["lyceum"]["price"]["output_per_1k_msat"])

        before = await listed()
        asking = [asyncio.create_task(shop.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
        await serving.acquire()
        await serving.acquire()
        during = await listed()
        asking.append(asyncio.create_task(shop.post("/v1/chat/completions", json=CHAT)))
        await serving.acquire()
        done.set()
        await asyncio.gather(*asking)
        after = await listed()
    assert (before, during, after) == (2000, 3000, 2000)
    assert [entry.waiting for entry in door.asked] == [0, 0, 2]


async def test_a_free_request_is_settled_by_nobody() -> None:
    """The bill says what it would have cost, and that it cost nothing."""
    door = Door(free=True)
    answer = (await post(Parrot(), door)).json()
    charge = answer["lyceum"]["charge"]
    assert answer["choices"][0]["message"]["content"] == "Polly wants a cracker."
    assert (charge["charged_msat"], charge["output_units"]) == (0, 22)
    assert door.settled == []


@pytest.mark.parametrize(
    ("limit", "status"), [(RateLimited("too often", 7), 429), (TooManyChallenges("too many", 7), 503)]
)
async def test_a_limit_says_when_to_come_back(limit: LyceumError, status: int) -> None:
    """In place of a challenge: status, code and Retry-After, and nothing is generated."""
    parrot = Parrot()
    response = await post(parrot, Door(limit=limit))
    assert (response.status_code, response.headers["retry-after"]) == (status, "7")
    assert response.json()["code"] == limit.code
    assert "www-authenticate" not in response.headers
    assert not parrot.stopped


async def test_a_stream_carries_usage_and_bill_in_its_last_chunk() -> None:
    """Deltas come as they are written; the last chunk has the finish reason, usage and charge."""
    response = await post(Parrot(), Door(), CHAT | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-1]] == ["Polly ", "wants ", "a cracker."]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert chunks[-1]["lyceum"]["charge"]["charged_msat"] == 122


LONG = ("x" * 40,) * 12
"""480 characters, for 580 msat; the useful part of it, 384 characters, costs 484."""


@dataclass
class Talker(Parrot):
    """Says more than some balances pay for."""

    words: Sequence[str] = LONG

    async def weigh(self, ask: Ask) -> Usage:
        return Usage(2, 200, ask.input_chars, 1200)


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_ends_with_the_balance_and_says_so(stream: bool, unit: Unit) -> None:
    """What is left is reserved; the answer stops where it is used up, is charged exactly, and names the reason."""
    price = Price(100, 0, 1000 if unit is Unit.CHAR else 4000, unit)
    model, door = Talker(price=price), Door(left_msat=100 + 64 * 4 if unit is Unit.TOKEN else 515)
    if unit is Unit.TOKEN:
        model.words = ("x" * 6,) * 80
    response = await post(model, door, CHAT | {"stream": stream})
    last = events(response)[-1] if stream else response.json()
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["lyceum"]["stopped"]["code"] == "exhausted"
    assert "/l402/topup" in last["lyceum"]["stopped"]["detail"]
    assert door.settled == [door.left_msat]
    assert last["lyceum"]["output_chars"] == (415 if unit is Unit.CHAR else 64 * 6)
    assert last["lyceum"]["charge"]["output_units"] == (415 if unit is Unit.CHAR else 64)
    assert model.stopped


@pytest.mark.parametrize("more", [{"max_tokens": 200}, {"grammar": 'root ::= "x"'}])
async def test_who_wants_a_length_or_a_shape_gets_all_of_it_or_a_402(more: dict[str, Any]) -> None:
    """Such an answer is of no use when it is cut off, so the whole worst case is reserved."""
    response = await post(Talker(), Door(left_msat=515), CHAT | more)
    assert response.status_code == 402


async def test_a_balance_that_pays_for_no_useful_answer_is_refused() -> None:
    """One msat less than question and 64 tokens cost."""
    assert (await post(Talker(), Door(left_msat=484))).status_code == 200
    assert (await post(Talker(), Door(left_msat=483))).status_code == 402


async def test_an_answer_that_just_fits_is_not_called_cut() -> None:
    """The balance ends exactly with the answer."""
    door = Door(left_msat=580)
    answer = (await post(Talker(), door)).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert "stopped" not in answer["lyceum"]
    assert door.settled == [580]


async def test_include_usage_gives_a_chunk_without_choices() -> None:
    """OpenAI's `stream_options.include_usage` puts usage on a closing chunk of its own."""
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    chunks = events(await post(Parrot(), Door(), body))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 5
    assert "usage" not in chunks[-2]


async def test_a_refusal_by_the_till_is_a_402_that_can_be_paid() -> None:
    """402 carries both challenge lines, the reason code, the price, and must not be cached."""
    response = await post(Parrot(), Door(), headers={"Authorization": "bad"})
    assert response.status_code == 402
    assert response.headers.get_list("www-authenticate") == list(LINES)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["link"] == '</.well-known/l402.json>; rel="l402-manifest"'
    found = response.json()
    assert (found["code"], found["status"], found["amount_msat"]) == ("exhausted", 402, 2000)
    assert found["error"]["code"] == "exhausted"
    assert found["topup"] == "/l402/topup"


@pytest.mark.parametrize(
    ("model", "body", "status", "code"),
    [
        (Parrot(), b"{", 400, "bad-request"),
        (Parrot(), {"model": "parrot"}, 400, "bad-request"),
        (Parrot(), CHAT | {"model": "eagle"}, 404, "model-not-found"),
        (Parrot(), CHAT | {"messages": [{"role": "user", "content": "x" * (1 << 20)}]}, 413, "too-long"),
        (Parrot(weighing=TooLong("prompt and answer do not fit")), CHAT, 413, "too-long"),
        (Parrot(weighing=Busy("16 wait already")), CHAT, 503, "busy"),
    ],
)
async def test_what_cannot_be_delivered_is_refused_before_the_till(
    model: Parrot, body: Any, status: int, code: str
) -> None:
    """400, 404, 413 and 503 come before any invoice, as problems with OpenAI's error object beside them."""
    door = Door()
    response = await post(model, door, body, headers={"Authorization": "bad"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == response.json()["error"]["code"] == code
    assert door.asked == []


async def test_our_own_mistake_is_a_problem_too() -> None:
    """500 with a code; what went wrong is for the log and not for the client."""
    response = await post(Parrot(price=None), Door())  # type: ignore[arg-type]
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "internal-error"
    assert "NoneType" not in response.text


async def test_busy_says_when_to_come_back() -> None:
    """A 503 has Retry-After."""
    response = await post(Parrot(weighing=Busy("full")), Door())
    assert int(response.headers["retry-after"]) >= 1


async def test_an_unknown_model_names_the_known_ones() -> None:
    """The 404 helps: it lists what is served."""
    response = await post(Parrot(), Door(), CHAT | {"model": "eagle"})
    assert "parrot" in response.json()["error"]["message"]


async def test_a_failed_answer_costs_nothing() -> None:
    """When the model fails half-way, the reservation is settled at zero."""
    door = Door()
    response = await post(Parrot(failure=ModelError("the weights are gone")), door)
    assert response.status_code == 500
    assert door.settled == [0]


async def test_a_stream_that_fails_ends_with_an_error_event() -> None:
    """After the status line is sent, a failure is an error event, and still costs nothing."""
    door = Door()
    response = await post(Parrot(failure=ModelError("the weights are gone")), door, CHAT | {"stream": True})
    assert response.status_code == 200
    assert events(response)[-1]["error"]["message"] == "the weights are gone"
    assert door.settled == [0]


async def test_a_failure_before_the_first_word_has_its_own_status() -> None:
    """A stream that cannot even begin is answered with an error status, not with 200."""
    response = await post(Parrot(words=(), failure=Busy("gone")), Door(), CHAT | {"stream": True})
    assert response.status_code == 503


async def test_an_empty_answer_costs_nothing() -> None:
    """The base price is for an answer; no words, no charge."""
    door = Door()
    await post(Parrot(words=(), end=End("stop", Usage(2, 0, 5, 0))), door)
    assert door.settled == [0]


async def test_an_ensemble_in_which_nobody_answers_is_an_error() -> None:
    """End("error") becomes 502 with every member's reason, streamed or not."""
    end = End("error", members=(Member("", "vienna", ok=False, error="is silent"),))
    for stream in (False, True):
        response = await post(Parrot(words=(), end=end), Door(), CHAT | {"stream": stream})
        assert response.status_code == 502
        assert "vienna: is silent" in response.json()["error"]["message"]


async def test_a_free_model_needs_no_credential() -> None:
    """Where the price is zero the till is not asked."""
    door = Door()
    response = await post(Parrot(price=Price()), door, headers={"Authorization": "bad"})
    assert response.status_code == 200
    assert door.asked == []


async def test_settling_is_tried_again() -> None:
    """A node that is away for a moment does not cost the seller the answer."""
    door = Door(broken=1)
    answer = (await post(Parrot(), door)).json()
    assert door.settled == [122]
    assert answer["lyceum"]["charge"]["charged_msat"] == 122


async def test_a_client_that_leaves_a_stream_pays_for_what_it_got() -> None:
    """On a disconnect the model stops, and the words handed over are settled."""
    door, parrot = Door(), Parrot(words=["word "] * 1000, pause_s=0.01)
    received = await _leave_after(parrot, door, stream=True, events=4)
    assert parrot.stopped
    (charged_msat,) = door.settled
    assert 100 + 5 <= charged_msat <= 100 + 5 * (received + 2)


async def test_a_client_that_leaves_a_whole_answer_stops_the_model() -> None:
    """Without streaming, a disconnect stops the generation as well; nothing was handed over, nothing is owed."""
    door, parrot = Door(), Parrot(words=["word "] * 1000, pause_s=0.01)
    await _leave_after(parrot, door, stream=False, events=0)
    assert parrot.stopped
    assert door.settled == [0]


async def test_models_are_listed_with_price_and_limits() -> None:
    """`GET /v1/models` is OpenAI's list with our facts beside each entry."""
    async with client(Parrot(), Door()) as shop:
        (entry,) = (await shop.get("/v1/models")).json()["data"]
        assert entry["id"] == "parrot"
        assert entry["lyceum"]["price"]["base_msat"] == 100
        assert entry["lyceum"]["bundle_msat"] == 3000
        assert entry["lyceum"]["limits"] == {"context_tokens": 100, "max_tokens": 50}
        assert (await shop.get("/v1/models/parrot")).json() == entry
        assert (await shop.get("/v1/models/eagle")).status_code == 404


async def test_health_is_public() -> None:
    """`GET /health` needs no credential."""
    async with client(Parrot(), Door()) as shop:
        assert (await shop.get("/health")).json() == {"status": "ok", "models": ["parrot"], "broken": [], "servers": []}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405)]
)
async def test_a_wrong_address_is_answered_in_openai_s_shape(method: str, path: str, status: int) -> None:
    """404 and 405 of the server itself are JSON errors too."""
    async with client(Parrot(), Door()) as shop:
        response = await shop.request(method, path)
        assert response.status_code == status
        assert response.json()["code"] == "no-such-route"
        assert path in response.json()["error"]["message"]


async def _leave_after(parrot: Parrot, door: Door, stream: bool, events: int) -> int:
    """Drive the app by hand and disconnect after some body events; returns how many came in all."""
    app = create_app(Stock((parrot,)), door)
    body = json.dumps(CHAT | {"stream": stream}).encode()
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
    bodies = 0

    async def send(message: Any) -> None:
        nonlocal bodies
        bodies += message["type"] == "http.response.body" and bool(message.get("body"))
        if bodies == events and events:
            inbox.put_nowait({"type": "http.disconnect"})

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"authorization", b"good")],
    }
    running = asyncio.create_task(app(scope, inbox.get, send))
    if not events:
        await asyncio.sleep(0.1)
        inbox.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(running, 5)
    return bodies


# Outside the field


@pytest.mark.parametrize("stream", [True, False])
async def test_saying_that_it_lies_outside_the_field_is_free(stream: bool) -> None:
    """The buyer reads the words, marked as no answer; the till settles zero."""
    door = Door()
    parrot = Parrot(("Not my ", "field."), outside=True)
    response = await post(parrot, door, {**CHAT, "stream": stream})
    assert door.settled == [0]
    if stream:
        said = [event for event in events(response) if event["choices"][0]["delta"].get("content")]
        assert all(event["lyceum"]["outside"] for event in said)
    else:
        answer = response.json()
        assert answer["choices"][0]["message"]["content"] == "Not my field."
        assert answer["lyceum"]["outside"] is True
        assert answer["lyceum"]["charge"]["charged_msat"] == 0


# A model that could not be loaded


async def test_a_broken_model_is_named_and_the_others_serve() -> None:
    """Its buyer learns that the fault is ours, not where the file lies; health tells the owner."""
    async with shop_of(Stock((Parrot(),), broken=frozenset({"owl"})), None) as shop:
        broken = await shop.post("/v1/chat/completions", json={**CHAT, "model": "owl"})
        whole = await shop.post("/v1/chat/completions", json=CHAT)
        health = (await shop.get("/health")).json()
    assert broken.status_code == 500
    assert "could not be loaded" in broken.json()["error"]["message"]
    assert whole.status_code == 200
    assert health == {"status": "degraded", "models": ["parrot"], "broken": ["owl"], "servers": []}


# Embeddings


async def test_vectors_are_sold_by_what_is_read() -> None:
    """OpenAI's list, in order; ten for the request and one a character."""
    door = Door()
    async with shop_of(Stock(embedders=(Ruler(),)), door) as shop:
        answer = (await shop.post("/v1/embeddings", json={"model": "ruler", "input": ["four", "seven"]})).json()
    assert [entry["embedding"] for entry in answer["data"]] == [[4.0, 0.5], [5.0, 0.5]]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert answer["lyceum"]["charge"]["charged_msat"] == 19
    assert door.settled == [19]


async def test_vectors_come_as_base64_too() -> None:
    """What OpenAI's own client asks for: little-endian float32."""
    async with shop_of(Stock(embedders=(Ruler(),)), None) as shop:
        body = {"model": "ruler", "input": "four", "encoding_format": "base64"}
        answer = (await shop.post("/v1/embeddings", json=body)).json()
    assert struct.unpack("<2f", base64.b64decode(answer["data"][0]["embedding"])) == (4.0, 0.5)


async def test_vectors_that_failed_cost_nothing() -> None:
    door = Door()
    async with shop_of(Stock(embedders=(Ruler(ModelError("burst")),)), door) as shop:
        response = await shop.post("/v1/embeddings", json={"model": "ruler", "input": "four"})
    assert response.status_code == 500
    assert door.settled == [0]


async def test_each_kind_of_model_has_its_own_address() -> None:
    """Whoever asks at the wrong one is told the right one."""
    async with shop_of(Stock((Parrot(),), (Ruler(),)), None) as shop:
        chat = await shop.post("/v1/chat/completions", json={**CHAT, "model": "ruler"})
        embed = await shop.post("/v1/embeddings", json={"model": "parrot", "input": "four"})
        listed = (await shop.get("/v1/models")).json()
    assert (chat.status_code, embed.status_code) == (400, 400)
    assert "/v1/embeddings" in chat.json()["error"]["message"]
    assert "/v1/chat/completions" in embed.json()["error"]["message"]
    assert [entry["lyceum"]["kind"] for entry in listed["data"]] == ["chat", "embedding"]
