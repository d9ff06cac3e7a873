"""Other OpenAI-compatible servers as models: real ones, and small ones that cut off, stall, lie and flood."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lyceum import replies
from lyceum.app import Stock, create_app
from lyceum.config import load
from lyceum.devnet.process import Daemon
from lyceum.errors import BadRequest, Busy, ConfigError, PeerError, TooLong
from lyceum.host import Host
from lyceum.ports import Ask, Delta, Embeddings, End, Limits, Message, Offer, Price, TextBatch, Unit, Usage
from lyceum.upstream import Patience, Pool, UpstreamEmbedder, UpstreamModel, UpstreamSettings
from lyceum.upstream import pool as pools
from lyceum.upstream import server as servers
from lyceum.wire import Envelope
from servers import free_port, in_thread, server_process, serving, weights

pytestmark = pytest.mark.anyio
OFFER = Offer("large", limits=Limits(200, 50))
ASK = Ask("large", (Message("user", "What is money?"),), max_tokens=20)
ENVELOPE = Envelope("chatcmpl-1", 1, "org/large")
ECONOMICS = "austrian-economics"
KEY = "sk-sesame"

Answer = Callable[[Request], Awaitable[Response]]


def said(*words: str, end: End | None = None) -> list[str]:
    """The events of an answer of these words."""
    end = end or End("stop", Usage(9, len(words), 14, 0))
    return [ENVELOPE.delta(Delta(word), True) for word in words] + [ENVELOPE.end(end, True)]


def streamed(*events: str | bytes, pause_s: float = 0, stall: bool = False) -> Answer:
    """Answers with these events and, where it stalls, with comments for ever after."""

    async def answer(_: Request) -> Response:
        async def body() -> AsyncIterator[str | bytes]:
            for event in events:
                yield event
                await asyncio.sleep(pause_s)
            while stall:
                yield ": still here\n\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(body(), media_type="text/event-stream")

    return answer


def refusing(status: int, said: str = "no", headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: Request) -> Response:
        return JSONResponse({"error": {"message": said}}, status, headers)

    return answer


async def cut_off(_: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        yield said("Go")[0]
        raise ConnectionError

    return StreamingResponse(body(), media_type="text/event-stream")


def in_turn(*answers: Answer) -> Answer:
    """The first answer, then the next one, the last one for ever."""
    left = list(answers)

    async def answer(request: Request) -> Response:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


@dataclass
class Other:
    """An OpenAI-compatible server of our making. Notes what it was sent, and how many asked at once."""

    answer: Answer = field(default_factory=lambda: streamed(*said("Go", "ld.")))
    names: list[str] = field(default_factory=lambda: ["org/large"])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    looks: int = 0
    now: int = 0
    most: int = 0
    broken_off: int = 0

    async def models(self, request: Request) -> Response:
        self.looks += 1
        return JSONResponse({"object": "list", "data": [{"id": name} for name in self.names]})

    async def post(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        response = await self.answer(request)
        if isinstance(response, StreamingResponse):
            response.body_iterator = self._counted(response.body_iterator)
        return response

    async def _counted(self, events: Any) -> AsyncIterator[Any]:
        self.now += 1
        self.most = max(self.most, self.now)
        done = False
        try:
            async for event in events:
                yield event
            done = True
        finally:
            self.now -= 1
            self.broken_off += not done

    def app(self) -> Starlette:
        paths = ("/v1/chat/completions", "/v1/embeddings")
        return Starlette(
            routes=[Route("/v1/models", self.models), *(Route(path, self.post, methods=["POST"]) for path in paths)]
        )


@contextmanager
def running(*others: Other) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(in_thread(other.app())) for other in others]


def settings_for(*urls: str, **options: Any) -> UpstreamSettings:
    return UpstreamSettings(urls, **({"patience": Patience(2, 2, 2)} | options))


@asynccontextmanager
async def upstream(*others: Other, offer: Offer = OFFER, **options: Any) -> AsyncIterator[UpstreamModel]:
    with running(*others) as urls:
        async with model_at(*urls, offer=offer, **options) as model:
            yield model


@asynccontextmanager
async def model_at(*urls: str, offer: Offer = OFFER, **options: Any) -> AsyncIterator[UpstreamModel]:
    settings = settings_for(*urls, **options)
    pool = Pool(offer.model, settings)
    try:
        yield UpstreamModel(pool, settings, offer)
    finally:
        await pool.aclose()


async def heard(model: UpstreamModel, ask: Ask = ASK) -> tuple[str, End]:
    *deltas, end = [chunk async for chunk in model.stream(ask)]
    assert isinstance(end, End)
    return "".join(delta.text for delta in deltas if isinstance(delta, Delta)), end


async def until(true: Callable[[], object]) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for here is not the clock."""
    monkeypatch.setattr(servers, "RETRY_S", 0.2)
    monkeypatch.setattr(pools, "PAUSE_S", 0.05)


# What is sent and what is passed on


async def test_an_answer_passes_through() -> None:
    """Its name there, an explicit limit, the key as a header; characters are counted here."""
    other = Other()
    async with upstream(other, model="org/large", key=KEY) as model:
        text, end = await heard(model)
    assert (text, end.finish, end.usage) == ("Gold.", "stop", Usage(9, 2, 14, 5))
    assert (other.bodies[0]["model"], other.bodies[0]["max_tokens"], other.bodies[0]["stream"]) == (
        "org/large",
        20,
        True,
    )
    assert other.keys == [f"Bearer {KEY}"]


async def test_without_a_key_none_is_sent() -> None:
    other = Other()
    async with upstream(other) as model:
        await heard(model)
    assert other.keys == [None]


async def test_a_limit_is_always_sent() -> None:
    """Nobody there is asked for an answer without an end."""
    other = Other()
    async with upstream(other) as model:
        await heard(model, replace(ASK, max_tokens=None))
    assert other.bodies[0]["max_tokens"] == OFFER.limits.max_tokens


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (["only/one"], "", "only/one"),
        (["other", "large"], "", "large"),
        (["other", "org/large"], "org/large", "org/large"),
    ],
)
async def test_its_name_there_is_discovered(names: list[str], wanted: str, found: str) -> None:
    """As configured, else the only one that is listed, else ours."""
    other = Other(names=names)
    async with upstream(other, model=wanted) as model:
        await heard(model)
    assert other.bodies[0]["model"] == found


async def test_one_connection_serves_many_asks() -> None:
    """The body is read to its end, so the connection goes back to the pool."""
    ports = set()

    async def noted(request: Request) -> Response:
        ports.add(request.client.port if request.client else 0)
        return await streamed(*said("yes"))(request)

    async with upstream(Other(noted)) as model:
        for _ in range(5):
            await heard(model)
    assert len(ports) == 1


# What is refused before anything is sold


@pytest.mark.parametrize(
    ("param", "asked", "feature"),
    [
        ("response_format", {"schema": '{"type": "object"}'}, "schema"),
        ("grammar", {"grammar": 'root ::= "a"'}, "grammar"),
        ("min_p", {"min_p": 0.1}, "min_p"),
        ("logprobs", {"logprobs": 0}, "logprobs"),
    ],
)
async def test_what_it_cannot_do_is_refused(param: str, asked: dict[str, Any], feature: str) -> None:
    """A server that ignores a field would sell something else; where it is said to support it, it is sent."""
    other = Other(streamed(*said()))
    ask = replace(ASK, **asked)
    async with upstream(other) as model:
        with pytest.raises(BadRequest) as refusal:
            await model.weigh(ask)
    assert refusal.value.param == param
    assert other.bodies == []
    async with upstream(other, supports=frozenset({feature})) as model:
        await model.weigh(ask)
        await heard(model, ask)
    assert param in other.bodies[0]


async def test_an_ask_is_weighed_without_a_tokenizer() -> None:
    """Characters exactly; tokens from bytes, and never more than fit."""
    async with upstream(Other()) as model:
        weighed = await model.weigh(ASK)
        assert weighed == Usage(8 + 5, 20, 14, 120)
        assert (await model.weigh(replace(ASK, max_tokens=None))).output_tokens == 50
        with pytest.raises(TooLong, match="about 208 tokens of prompt and 20 of answer exceed the context of 200"):
            await model.weigh(replace(ASK, messages=(Message("user", "\u00e9" * 300),)))
        with pytest.raises(BadRequest, match="max_tokens must be at most 50"):
            await model.weigh(replace(ASK, max_tokens=51))


async def test_when_nobody_answers_it_is_busy_before_an_invoice() -> None:
    """503 with Retry-After from `weigh`, which the shop asks before its till."""
    async with model_at(f"http://127.0.0.1:{free_port()}") as model:
        with pytest.raises(Busy, match="no server behind large answers now"):
            await model.weigh(ASK)


async def test_a_full_line_is_busy_before_an_invoice() -> None:
    """One is served, one waits, the third is told to come back; a place is given back when an answer ends."""
    other = Other(streamed(*said("a", "b"), pause_s=0.1))
    async with upstream(other, parallel=1, queue=1) as model:
        asked = [asyncio.create_task(heard(model)) for _ in range(2)]
        await until(lambda: other.now)
        with pytest.raises(Busy, match="full"):
            await model.weigh(ASK)
        assert [text for text, _ in await asyncio.gather(*asked)] == ["ab", "ab"]
        assert other.most == 1
        await model.weigh(ASK)


async def test_no_more_are_under_way_than_it_bears() -> None:
    other = Other(streamed(*said("a", "b"), pause_s=0.02))
    async with upstream(other, parallel=3, queue=20) as model:
        texts = await asyncio.gather(*(heard(model) for _ in range(12)))
    assert {text for text, _ in texts} == {"ab"}
    assert other.most == 3


# Several servers, and those that fail


async def test_the_least_busy_one_is_asked() -> None:
    """Twelve at once over two servers: six each. One after the other: in turn."""
    both = [Other(streamed(*said("a", "b"), pause_s=0.05)) for _ in range(2)]
    async with upstream(*both) as model:
        await asyncio.gather(*(heard(model) for _ in range(12)))
        assert [len(other.bodies) for other in both] == [6, 6]
        for _ in range(4):
            await heard(model)
    assert [len(other.bodies) for other in both] == [8, 8]


async def test_whoever_is_busy_is_not_asked() -> None:
    """One answers for as long as the test likes; meanwhile the other one gets all there is."""
    go_on = threading.Event()

    async def held(request: Request) -> Response:
        await asyncio.to_thread(go_on.wait)
        return await streamed(*said("late"))(request)

    slow, fast = Other(held), Other()
    async with upstream(slow, fast, patience=Patience(2, 60, 60)) as model:
        waiting = asyncio.create_task(heard(model))
        await until(lambda: slow.bodies)
        assert {text for text, _ in [await heard(model) for _ in range(5)]} == {"Gold."}
        go_on.set()
        assert (await waiting)[0] == "late"
    assert (len(slow.bodies), len(fast.bodies)) == (1, 5)


FAILURES: dict[str, Answer] = {
    "503": refusing(503),
    "429": refusing(429),
    "500": refusing(500),
    "wrong key": refusing(401),
    "wants to be paid": refusing(402),
    "redirect": refusing(307, headers={"Location": "http://thief.example/"}),
    "silent": streamed(stall=True),
    "garbage": streamed("data: }{\n\n"),
    "HTML": streamed("<html>\nWelcome\n</html>\n"),
    "nothing": streamed(),
    "a giant line": streamed(b"data: " + b"x" * 40_000),
    "a flood": streamed(*[": hm\n" * 1000] * 20),
    "compressed": streamed(gzip.compress("".join(said("Gold.")).encode())),
    "an error event": streamed('data: {"error": {"message": "out of memory"}}\n\n'),
    "gives up": streamed(*said(end=End("cancelled"))),
    "endless error": refusing(500, "x" * 50_000),
}


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "MAX_ANSWER", 60_000)
    monkeypatch.setattr(replies, "MAX_ERROR", 10_000)
    monkeypatch.setattr(replies, "MAX_LINE", 20_000)


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("case", FAILURES)
async def test_before_the_first_token_another_server_is_asked(case: str) -> None:
    """Whatever the first one does instead of answering, whoever asked notices nothing."""
    bad, good = Other(FAILURES[case]), Other()
    async with upstream(bad, good, patience=Patience(2, 1, 1)) as model:
        assert (await heard(model))[0] == "Gold."
    assert (len(bad.bodies), len(good.bodies)) == (1, 1)


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("case", FAILURES)
async def test_alone_it_is_an_error(case: str) -> None:
    """With a status of its own, never an empty answer; the same server is asked again only when it was busy."""
    other = Other(FAILURES[case])
    async with upstream(other, patience=Patience(2, 1, 1)) as model:
        with pytest.raises(Busy if case in ("503", "429") else PeerError):
            await heard(model)
    assert len(other.bodies) == (2 if case in ("503", "429") else 1)


async def test_a_busy_server_is_asked_once_more() -> None:
    other = Other(in_turn(refusing(503), streamed(*said("Gold."))))
    async with upstream(other) as model:
        assert (await heard(model))[0] == "Gold."


async def test_busy_says_when_to_come_back() -> None:
    """As the server said, within reason."""
    for said_s, told_s in (("7", 7), ("999999", 60), ("tomorrow", 1), ("-3", 1)):
        async with upstream(Other(refusing(503, headers={"Retry-After": said_s}))) as model:
            with pytest.raises(Busy) as refusal:
                await heard(model)
        assert refusal.value.retry_after_s == told_s


@pytest.mark.parametrize(
    "broken", [cut_off, streamed(said("Go")[0]), streamed(said("Go")[0], stall=True)], ids=["cut", "ends", "stalls"]
)
async def test_after_the_first_token_nobody_else_is_asked(broken: Answer) -> None:
    """What was passed on cannot be taken back: the answer fails, and costs nothing."""
    bad, good = Other(broken), Other()
    async with upstream(bad, good, patience=Patience(2, 2, 1)) as model, aclosing(model.stream(ASK)) as chunks:
        assert await anext(chunks) == Delta("Go", 1)
        with pytest.raises(PeerError):
            await anext(chunks)
    assert good.bodies == []


async def test_what_the_ask_is_to_blame_for_is_said_to_whoever_asked() -> None:
    """400 and 413 are passed on with the server's reason, and no other server is bothered."""
    bad, good = Other(in_turn(refusing(400, "context\nlength exceeded"), refusing(413, "too big"))), Other()
    async with upstream(bad, good) as model:
        with pytest.raises(BadRequest, match="refuses this: context length exceeded"):
            await heard(model)
        await heard(model)
        with pytest.raises(TooLong, match="too big"):
            await heard(model)
    assert len(good.bodies) == 1


async def test_a_server_that_failed_is_passed_over_until_it_is_well(caplog: pytest.LogCaptureFixture) -> None:
    """Named with its trouble, by number; its owner reads its address; after a look it is asked again."""
    other, good = Other(names=["something-else"]), Other()
    with running(other, good) as urls:
        settings = settings_for(*urls, model="org/large")
        pool = Pool("large", settings)
        model = UpstreamModel(pool, settings, OFFER)
        await heard(model)
        assert [(one.server, one.trouble) for one in pool.standing()] == [(1, "lacks the model"), (2, "")]
        assert other.bodies == []
        assert urls[0] in caplog.text
        assert "something-else" in caplog.text
        other.names = ["org/large"]
        await until(lambda: not any(one.trouble for one in pool.standing()))
        await heard(model)
        assert len(other.bodies) == 1
        await pool.aclose()


async def test_an_ask_cannot_take_the_servers_away_from_others() -> None:
    """What makes a server answer 500 is looked into at once: the next ask is served."""
    other = Other(in_turn(refusing(500), streamed(*said("Gold."))))
    async with upstream(other) as model:
        with pytest.raises(PeerError, match="large: answered 500"):
            await heard(model)
        await model.weigh(ASK)
        assert (await heard(model))[0] == "Gold."


async def test_a_server_that_keeps_failing_is_left_alone_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its list of models looks well."""
    monkeypatch.setattr(servers, "RETRY_S", 60.0)
    other = Other(refusing(500))
    async with upstream(other) as model:
        for _ in range(2):
            with pytest.raises(PeerError):
                await heard(model)
        with pytest.raises(Busy):
            await model.weigh(ASK)
    assert len(other.bodies) == 2


# Leaving


async def test_closing_the_iterator_closes_the_response() -> None:
    """The server notices at once, and the place in the line is free again."""
    other = Other(streamed(said("Go")[0], stall=True))
    async with upstream(other, parallel=1, queue=1, patience=Patience(2, 2, 60)) as model:
        async with aclosing(model.stream(ASK)) as chunks:
            assert await anext(chunks) == Delta("Go", 1)
        await until(lambda: not other.now)
        assert other.broken_off == 1
        other.answer = streamed(*said("next"))
        assert (await heard(model))[0] == "next"


async def test_a_cancelled_ask_leaves_nothing_behind() -> None:
    """Whether it waits for its turn or for its first token."""
    other = Other(streamed(stall=True))
    async with upstream(other, parallel=1, queue=5, patience=Patience(2, 60, 60)) as model:
        asked = [asyncio.create_task(heard(model)) for _ in range(3)]
        await until(lambda: other.now)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: not other.now)
        other.answer = streamed(*said("next"))
        assert (await heard(model))[0] == "next"


# What is counted


@pytest.mark.parametrize(
    ("reported", "counted"),
    [
        (Usage(9, 2), (9, 2)),
        (Usage(10**9, 10**9), (13, 5)),
        (Usage(), (13, 2)),
        (Usage(0, 4), (13, 4)),
    ],
    ids=["honest", "too much", "nothing", "half"],
)
async def test_what_is_reported_cannot_exceed_what_was_weighed(reported: Usage, counted: tuple[int, int]) -> None:
    """Read tokens as reckoned at most, written ones the limit and the bytes at most; unsaid, one for each piece."""
    other = Other(streamed(*said("Go", "ld.", end=End("stop", reported))))
    price = Price(unit=Unit.TOKEN, input_per_1k_msat=1000, output_per_1k_msat=1000)
    async with upstream(other, offer=replace(OFFER, price=price)) as model:
        weighed = await model.weigh(ASK)
        _, end = await heard(model)
    assert (end.usage.input_tokens, end.usage.output_tokens, end.usage.output_chars) == (*counted, 5)
    assert price.cost_msat(end.usage) <= price.cost_msat(weighed)


async def test_a_server_that_runs_on_is_stopped() -> None:
    """After as many pieces as it was asked for tokens; it is told by the closed connection."""
    other = Other(streamed(*said(*["x"] * 500)))
    async with upstream(other) as model:
        text, end = await heard(model)
    assert (text, end.finish, end.usage.output_tokens) == ("x" * 20, "length", 20)


async def test_log_probabilities_that_were_asked_for_must_come() -> None:
    async with upstream(Other(), supports=frozenset({"logprobs"})) as model:
        with pytest.raises(PeerError, match="left out the log-probabilities"):
            await heard(model, replace(ASK, logprobs=2))


async def test_a_number_that_is_none_is_no_answer() -> None:
    """NaN would be passed on as something that is not JSON."""
    closing = said()[0].replace('"lyceum":{', '"lyceum":{"confidence":NaN,')
    async with upstream(Other(streamed(said("Go")[0], closing))) as model:
        with pytest.raises(PeerError):
            await heard(model)


# Secrets


async def test_the_key_is_nowhere_but_in_the_header(caplog: pytest.LogCaptureFixture) -> None:
    """Not in a log, an error, a URL or a repr, even where the server sends it back."""
    caplog.set_level(logging.DEBUG)
    other = Other(in_turn(refusing(400, f"key {KEY} is wrong"), refusing(401, f"key {KEY} is wrong")))
    errors = []
    with running(other) as urls:
        settings = settings_for(*urls, key=KEY)
        pool = Pool("large", settings)
        model = UpstreamModel(pool, settings, OFFER)
        for kind in (BadRequest, PeerError):
            with pytest.raises(kind) as refusal:
                await heard(model)
            errors.append(str(refusal.value))
        shown = f"{errors} {caplog.text} {settings!r} {vars(pool)!r} {pool.standing()!r}"
        await pool.aclose()
    assert other.keys == [f"Bearer {KEY}"] * 2
    assert KEY not in shown
    assert "key (key) is wrong" in shown


@pytest.mark.parametrize(
    ("urls", "options", "why"),
    [
        ((), {}, "at least one server"),
        (("ftp://a.example",), {}, "no http:// or https:// URL"),
        (("https://me:secret@a.example",), {}, "must hold no user, password or query"),
        (("https://a.example/v1?key=secret",), {}, "must hold no user, password or query"),
        (("https://a.example", "https://a.example/v1/"), {}, "twice"),
        (("https://a.example",), {"key": "two words"}, "printable ASCII without spaces"),
        (("https://a.example",), {"supports": frozenset({"tools"})}, "known: grammar, logprobs, min_p, schema"),
    ],
)
async def test_settings_that_cannot_be_right(urls: tuple[str, ...], options: dict[str, Any], why: str) -> None:
    """Said at once, without the secret that may be in them."""
    with pytest.raises(ValueError, match=why) as refusal:
        UpstreamSettings(urls, **options)
    assert "secret" not in str(refusal.value)


# Embeddings


def vectors(*rows: list[float], tokens: int = 3) -> Answer:
    async def answer(_: Request) -> Response:
        data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
        return Response(json.dumps({"data": data[::-1], "usage": {"prompt_tokens": tokens}}))

    return answer


async def embedded(*others: Other, texts: tuple[str, ...] = ("a", "b")) -> Embeddings:
    with running(*others) as urls:
        settings = settings_for(*urls)
        pool = Pool("large", settings)
        embedder = UpstreamEmbedder(pool, settings, OFFER)
        try:
            weighed = await embedder.weigh(TextBatch("large", texts))
            found = await embedder.embed(TextBatch("large", texts))
        finally:
            await pool.aclose()
    assert found.usage.input_tokens <= weighed.input_tokens
    assert found.usage.input_chars == weighed.input_chars == 2
    return found


async def test_vectors_come_in_order_and_of_length_one() -> None:
    found = await embedded(Other(vectors([3.0, 4.0], [0.0, 2.0], tokens=10**9)))
    assert found.vectors == ((0.6, 0.8), (0.0, 1.0))


@pytest.mark.parametrize(
    "wrong",
    [vectors([1.0]), vectors([1.0], [1.0, 2.0]), vectors([0.0], [1.0]), vectors([1e999], [1.0]), refusing(500)],
    ids=["too few", "of two lengths", "of length 0", "infinite", "500"],
)
async def test_vectors_that_are_none_are_an_error(wrong: Answer) -> None:
    """Unless another server has them."""
    with pytest.raises(PeerError):
        await embedded(Other(wrong))
    assert len((await embedded(Other(wrong), Other(vectors([1.0], [1.0])))).vectors) == 2


async def test_a_text_that_is_too_long_is_refused() -> None:
    other = Other()
    with pytest.raises(TooLong, match="cut it into shorter ones"):
        await embedded(other, texts=("word " * 200,))
    assert other.bodies == []


# Real servers


def asked(url: str, **more: Any) -> httpx.Response:
    chat = {"model": "economist", "messages": [{"role": "user", "content": "What is time preference?"}], **more}
    return httpx.post(f"{url}/v1/chat/completions", json=chat, timeout=60)


def table(*urls: str, more: str = "") -> str:
    return f'[[upstream]]\nname = "economist"\nurls = {json.dumps(urls)}\nn_ctx = 512\nmax_tokens = 120\n{more}'


def test_two_workers_behind_one_shop(tmp_path: Path) -> None:
    """`lyceum serve` before `lyceum serve`: both work, the answer is the model's own, and when one is killed the
    other serves everybody; health says who is missing."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(server_process(tmp_path, None, ECONOMICS, prices="")) for _ in range(2))
        front = stack.enter_context(serving(tmp_path, None, more=table(first[0], second[0])))
        direct = httpx.post(
            f"{first[0]}/v1/chat/completions", json=json.loads(asked(front).request.content) | {"model": ECONOMICS}
        )
        assert asked(front).json()["choices"][0]["message"] == direct.json()["choices"][0]["message"]
        assert [server["trouble"] for server in httpx.get(f"{front}/health").json()["servers"]] == ["", ""]
        second[1].kill()
        assert [asked(front).status_code for _ in range(6)] == [200] * 6
        health = httpx.get(f"{front}/health").json()
        assert health["status"] == "degraded"
        assert [bool(server["trouble"]) for server in health["servers"]] == [False, True]
        first[1].kill()
        assert asked(front).status_code in (502, 503)
        refused = asked(front)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """The variable, not its value; before anything is served."""
    path = tmp_path / "lyceum.toml"
    path.write_text(table("http://127.0.0.1:1", more='key_env = "NO_SUCH_KEY"\n'))
    with pytest.raises(ConfigError, match=r"upstream economist: key_env names .* NO_SUCH_KEY, and it is not set"):
        Host(load(path), "")


async def test_a_shop_without_its_upstream_makes_no_invoice() -> None:
    """The till is not asked when nobody could answer."""

    class Shut:
        service = "lyceum"

        async def admit(self, *_: object) -> Any:
            raise AssertionError("the till was asked")

        settle = quote = terms = admit

    async with model_at(f"http://127.0.0.1:{free_port()}", offer=replace(OFFER, price=Price(100))) as model:
        transport = httpx.ASGITransport(create_app(Stock((model,)), Shut()))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as shop:
            chat = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
            response = await shop.post("/v1/chat/completions", json=chat)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "busy")
    assert int(response.headers["retry-after"]) >= 0


@pytest.fixture
def llama_server(tmp_path: Path) -> Iterator[str]:
    found = shutil.which("llama-server")
    if not found:
        pytest.skip("llama-server is not on PATH")
    port = free_port()
    words = [found, "-m", str(weights(ECONOMICS)), "--port", str(port), "-c", "2048", "-np", "2", "-t", "1"]
    server = Daemon("llama-server", words, tmp_path / "llama.log")
    server.spawn()
    try:
        server.await_ready(lambda: _well(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.end()


def _well(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


async def test_llama_server(llama_server: str) -> None:
    """Discovery, streaming, counting, log-probabilities, grammar and a limit, as llama.cpp's own server has them."""
    offer = Offer("economist", limits=Limits(512, 120))
    features = frozenset({"logprobs", "grammar", "schema", "min_p"})
    question = (Message("user", "What is time preference?"),)
    async with model_at(llama_server, offer=offer, supports=features, patience=Patience(5, 60, 20)) as model:
        text, end = await heard(model, Ask("economist", question))
        assert len(text) == end.usage.output_chars > 20
        assert 0 < end.usage.input_tokens <= (await model.weigh(Ask("economist", question))).input_tokens
        assert end.finish == "stop"
        short, end = await heard(model, Ask("economist", question, max_tokens=4))
        assert (text.startswith(short), end.finish, end.usage.output_tokens) == (True, "length", 4)
        shaped, _ = await heard(model, Ask("economist", question, grammar='root ::= "yes" | "no"'))
        assert shaped in ("yes", "no")
        chunks = [chunk async for chunk in model.stream(Ask("economist", question, max_tokens=4, logprobs=2))]
        assert all(chunk.choices for chunk in chunks if isinstance(chunk, Delta))


# The examples


def test_the_runnable_example_runs() -> None:
    """Two workers share the work, one is killed and nobody notices, and the bill adds up."""
    script = Path(__file__).parent.parent / "contrib" / "upstream" / "two_workers.py"
    ended = subprocess.run([sys.executable, str(script), "--json"], check=True, capture_output=True, timeout=300)
    found = json.loads(ended.stdout)
    assert [one["answers"] for one in found["rounds"]] == [8, 8, 8]
    assert min(found["rounds"][0]["sent"]) >= 1
    assert found["rounds"][1]["trouble"][1]
    assert found["rounds"][2]["trouble"] == ["", ""]
    assert found["rounds"][2]["sent"][1] > found["rounds"][1]["sent"][1]
    assert found["charged_msat"] + found["left_msat"] == found["paid_msat"]


def test_the_other_examples_can_be_read() -> None:
    """Their cluster is not here, but the shop's file is valid."""
    config = load(Path(__file__).parent.parent / "contrib" / "upstream" / "shop.toml")
    assert [table.name for table in config.upstreams] == ["large"]
