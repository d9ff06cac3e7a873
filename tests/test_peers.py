"""Specialists of other nodes over HTTP, against sellers of every kind: honest, broken and greedy."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fakes import NODE, MemoryPayer, challenge_of, invoice_of
from lyceum.ensemble import Own
from lyceum.errors import BadInvoice, LyceumError, NodeError, OverBudget, PaymentFailed, PaymentUnknown, PeerError
from lyceum.peers import L402Auth, PeerModel, Seller, muster, origin_of, visit
from lyceum.ports import (
    Ask,
    Bill,
    Chunk,
    Delivery,
    Delta,
    End,
    Message,
    Offer,
    Price,
    Terms,
    Ticket,
    Unit,
    Usage,
    Wanted,
)
from lyceum.wire import Envelope, error_event, problem, write_offers
from servers import in_thread

pytestmark = pytest.mark.anyio
URL = "https://shop.example"
ORIGIN = "https://shop.example:443"
OFFER = Offer("economist", price=Price(100, 0, 1000), bundle_msat=2500, node_id=NODE)
ASK = Ask("ensemble", (Message("user", "What is money?"),), max_tokens=100, budget_msat=9000)
KEPT = Ticket("L402 a2VwdA==:" + "11" * 32, "kept")
ENVELOPE = Envelope("chatcmpl-1", 1, "economist")
ANSWER = (
    ENVELOPE.delta(Delta("Go"), True)
    + ENVELOPE.delta(Delta("ld."), False)
    + ENVELOPE.end(End("stop", Usage(5, 2, 14, 5), bill=Bill(105, 2895, OFFER.price, 14, 5)), True)
)

Answers = Callable[[httpx.Request], httpx.Response]


async def pieces(text: str | bytes, size: int = 7) -> AsyncIterator[bytes]:
    """A body as a socket gives it: in pieces that respect neither lines nor characters, and only once."""
    raw = text.encode() if isinstance(text, str) else text
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


def answer(text: str = ANSWER) -> httpx.Response:
    return httpx.Response(200, content=pieces(text))


def payment_required(reason: str = "payment-required", number: int = 1) -> httpx.Response:
    lines = challenge_of(invoice_of(number)).header_lines()
    body = json.dumps(problem(402, reason, f"why: {reason}"))
    return httpx.Response(402, headers=[("WWW-Authenticate", line) for line in lines], content=pieces(body))


@dataclass
class Shop:
    """A seller that gives these answers in turn, the last one for ever; notes which tokens it was shown."""

    answers: list[Callable[[], httpx.Response]]
    asked: list[httpx.Request] = field(default_factory=list)
    shown: list[str | None] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        self.shown.append(request.headers.get("Authorization"))
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])()


async def heard(
    shop: Answers, payer: MemoryPayer, ask: Ask = ASK, offer: Offer = OFFER, **options: Any
) -> tuple[str, End]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(shop), **options) as client:
        *deltas, end = [chunk async for chunk in PeerModel(client, URL + "/", offer, payer).stream(ask)]
    assert isinstance(end, End)
    assert len(end.members) == 1
    return "".join(delta.text for delta in deltas if isinstance(delta, Delta)), end


def kept_payer() -> MemoryPayer:
    return MemoryPayer({ORIGIN: KEPT})


# Buying


async def test_a_free_answer_needs_no_payment() -> None:
    """Nothing is sent as authorization, nothing is bought."""
    shop, payer = Shop([answer]), MemoryPayer()
    text, end = await heard(shop, payer)
    assert (text, end.finish, shop.shown, payer.bought) == ("Gold.", "stop", [None], [])


async def test_a_402_is_paid_within_the_terms() -> None:
    """At most the listed first payment, the rest of the budget for the route, to the node of the offer."""
    shop, payer = Shop([payment_required, answer]), MemoryPayer()
    text, end = await heard(shop, payer)
    (challenge, origin, terms) = payer.bought[0]
    assert (text, end.finish, len(payer.bought)) == ("Gold.", "stop", 1)
    assert challenge == challenge_of(invoice_of(1))
    assert origin == ORIGIN
    assert terms == Terms(cap_msat=3000, fee_cap_msat=6000, payee=NODE, purpose="ask", model="economist")
    first, second = shop.shown
    assert first is None
    assert second
    assert second.startswith(f"L402 {challenge.macaroon_text}:")


async def test_the_second_request_repeats_the_first() -> None:
    """Same model, same part of the question, streamed."""
    shop = Shop([payment_required, answer])
    await heard(shop, MemoryPayer())
    first, second = (json.loads(request.content) for request in shop.asked)
    assert first == second
    assert first["stream"] is True
    assert first["messages"] == [{"role": "user", "content": "What is money?"}]
    assert {str(request.url) for request in shop.asked} == {"https://shop.example/v1/chat/completions"}


@pytest.mark.parametrize("folded", [False, True])
async def test_the_401_of_early_drafts_is_paid_too(folded: bool) -> None:
    """If it carries an L402 challenge, alone or in one line with what other schemes ask for."""
    refused = payment_required()
    lines = [*refused.headers.get_list("WWW-Authenticate"), 'Payment id="a", method="lightning"']
    lines = [", ".join(lines)] if folded else lines
    old = httpx.Response(401, headers=[("WWW-Authenticate", line) for line in lines], content=pieces("{}"))
    payer = MemoryPayer()
    text, _ = await heard(Shop([lambda: old, answer]), payer)
    assert (text, payer.bought[0][0]) == ("Gold.", challenge_of(invoice_of(1)))


async def test_any_other_401_is_not_paid() -> None:
    """A seller that wants a password, or another scheme's money, is not one of ours."""
    asks = [("WWW-Authenticate", 'Basic realm="x"'), ("WWW-Authenticate", 'Payment id="a", realm="r"')]
    payer = MemoryPayer()
    _, end = await heard(Shop([lambda: httpx.Response(401, headers=asks)]), payer)
    assert (end.finish, payer.bought) == ("error", [])


@pytest.mark.parametrize(("budget", "cap", "fee"), [(2000, 2000, 0), (3000, 3000, 0), (3001, 3000, 1), (0, 0, 0)])
async def test_cap_and_fee_together_are_the_budget(budget: int, cap: int, fee: int) -> None:
    """A seller that asks more than it lists finds no more money than the budget."""
    payer = MemoryPayer()
    await heard(Shop([payment_required, answer]), payer, replace(ASK, budget_msat=budget))
    terms = payer.bought[0][2]
    assert (terms.cap_msat, terms.fee_cap_msat) == (cap, fee)


async def test_the_account_of_a_bought_answer() -> None:
    """What it was charged, what left the wallet, what stays as credit."""
    _, end = await heard(Shop([payment_required, answer]), MemoryPayer())
    (member,) = end.members
    assert member.ok
    assert (member.node_id, member.model) == (NODE, "economist")
    assert (member.charged_msat, member.paid_msat, member.fee_msat, member.credit_msat) == (105, 3000, 2, 2895)
    assert member.payment_hash == invoice_of(1).payment_hash


async def test_without_a_bill_the_buyer_recounts() -> None:
    """Price times the characters that it sent and holds, whatever the seller says it read."""
    lines = ENVELOPE.delta(Delta("Gold."), True) + ENVELOPE.end(End("stop", Usage(input_chars=10**6)), True)
    offer = replace(OFFER, price=Price(100, 1000, 1000))
    _, end = await heard(Shop([lambda: answer(lines)]), MemoryPayer(), offer=offer)
    assert end.members[0].charged_msat == 100 + len(ASK.question) + len("Gold.")


# Bills


def billed(bill: Bill | None, said: str = "Gold.", outside: bool = False) -> Callable[[], httpx.Response]:
    lines = ENVELOPE.delta(Delta(said, outside=outside), True) if said else ""
    return lambda: answer(lines + ENVELOPE.end(End("stop", Usage(5, 2, 14, len(said)), bill=bill), True))


PER_TOKEN = Price(100, 0, 1000, Unit.TOKEN)
WRONG_BILLS: dict[str, tuple[Callable[[], httpx.Response], Price, str]] = {
    "more than the sum": (billed(Bill(106, 0, OFFER.price, 14, 5)), OFFER.price, "charged 106 msat.*costs 105"),
    "more characters": (billed(Bill(106, 0, OFFER.price, 14, 6)), OFFER.price, "charged 106 msat.*costs 105"),
    "a dearer price": (billed(Bill(110, 0, Price(100, 0, 2000), 14, 5)), OFFER.price, "charged 110 msat.*costs 105"),
    "an empty answer": (billed(Bill(100, 0, OFFER.price, 14, 0), ""), OFFER.price, "charged 100 msat.*costs 0"),
    "outside": (billed(Bill(105, 0, OFFER.price, 14, 5), outside=True), OFFER.price, "charged 105 msat.*costs 0"),
    "tokens": (billed(Bill(103, 0, PER_TOKEN, 5, 2)), PER_TOKEN, "charged 103 msat.*costs 102"),
    "another unit": (billed(Bill(102, 0, PER_TOKEN, 5, 2)), OFFER.price, "counts tokens"),
}


@pytest.mark.parametrize("case", WRONG_BILLS)
async def test_an_overcharge_is_named_and_ends_all_trust(case: str) -> None:
    """Recounted from the text held, at the listed price: the member says so, and so do the books."""
    response, price, complaint = WRONG_BILLS[case]
    payer = kept_payer()
    _, end = await heard(Shop([response]), payer, offer=replace(OFFER, price=price))
    (member,), (delivery,) = end.members, payer.deliveries
    assert member.ok
    assert re.search(complaint, member.complaint)
    assert delivery.complaint == member.complaint
    assert delivery.charged_msat == member.charged_msat
    assert list(await payer.distrusted()) == [ORIGIN]


@pytest.mark.parametrize(
    ("response", "price"),
    [
        (answer, OFFER.price),
        (billed(Bill(104, 0, OFFER.price, 14, 5)), OFFER.price),
        (billed(Bill(102, 0, PER_TOKEN, 5, 2)), PER_TOKEN),
        (billed(Bill(0, 0, OFFER.price), outside=True), OFFER.price),
        (billed(None), OFFER.price),
    ],
)
async def test_a_right_bill_is_no_complaint(response: Callable[[], httpx.Response], price: Price) -> None:
    """What it costs, or less, or nothing said."""
    payer = kept_payer()
    _, end = await heard(Shop([response]), payer, offer=replace(OFFER, price=price))
    assert [end.members[0].complaint, payer.deliveries[0].complaint] == ["", ""]


def quoting(price: Price | None) -> Callable[[], httpx.Response]:
    """A 402 that names a price."""
    lines = challenge_of(invoice_of(1)).header_lines()
    body = json.dumps(problem(402, "payment-required", "pay", price=price and asdict(price)))
    return lambda: httpx.Response(402, headers=[("WWW-Authenticate", line) for line in lines], content=pieces(body))


DEARER = Price(200, 0, 2000)
DEAREST = Price(1000, 0, 10_000)


@pytest.mark.parametrize(
    ("quote", "charged", "wrong"),
    [(DEARER, DEARER, False), (None, DEARER, True), (OFFER.price, DEARER, True), (DEAREST, DEAREST, True)],
    ids=["quoted", "not quoted", "quoted otherwise", "beyond what may be paid"],
)
async def test_a_price_that_rose_is_good_if_it_was_quoted(quote: Price | None, charged: Price, wrong: bool) -> None:
    """By the 402 that was then paid, and within the first payment that the list led to; else the list holds."""
    cost_msat = charged.cost_msat(Usage(output_chars=5))
    payer = MemoryPayer()
    offer = replace(OFFER, bundle_msat=2500)
    ask = replace(ASK, max_tokens=200)
    await heard(Shop([quoting(quote), billed(Bill(cost_msat, 0, charged, 14, 5))]), payer, ask, offer)
    (delivery,) = payer.deliveries
    assert bool(delivery.complaint) == wrong


async def test_what_was_bought_is_written_down() -> None:
    """From whom, for what, how much of it, for how much by either count, and what is left."""
    payer = MemoryPayer()
    await heard(Shop([payment_required, answer]), payer)
    counted = Usage(input_tokens=5, output_tokens=2, input_chars=14, output_chars=5)
    paid = invoice_of(1).payment_hash
    assert payer.deliveries == [Delivery(ORIGIN, "economist", "ask", paid, counted, 105, 105, 2895)]


async def test_a_free_answer_is_not_in_the_books() -> None:
    """No token was used for it."""
    payer = MemoryPayer()
    await heard(Shop([answer]), payer)
    assert payer.deliveries == []


async def test_a_token_that_bought_no_answer_is_written_down() -> None:
    """With the reason, and without a charge, which nobody told."""
    payer = MemoryPayer()
    await heard(Shop([payment_required, FAILURES["cut off"][0]]), payer)
    (delivery,) = payer.deliveries
    assert (delivery.error, delivery.charged_msat, delivery.usage.output_chars) == ("peer-error", 0, 2)


async def test_an_answer_that_its_asker_leaves_is_written_down() -> None:
    """The token was used, and the seller charges what it handed over."""
    payer = kept_payer()
    async with httpx.AsyncClient(transport=httpx.MockTransport(Shop([answer]))) as client:
        chunks = PeerModel(client, URL, OFFER, payer).stream(ASK)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
    (delivery,) = payer.deliveries
    assert (delivery.error, delivery.recounted_msat) == ("broken-off", 102)


async def test_books_that_cannot_be_written_do_not_lose_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The node is away for a moment: the answer is passed on, and the log says what is missing."""
    payer = Unwritable({ORIGIN: KEPT})
    text, end = await heard(Shop([answer]), payer)
    assert (text, end.members[0].ok) == ("Gold.", True)
    assert f"an answer of {ORIGIN} could not be written down: gone" in caplog.text


class Unwritable(MemoryPayer):
    async def report(self, delivery: Delivery) -> None:
        raise NodeError("gone")


async def test_who_overcharged_is_not_even_called() -> None:
    """It is absent with the complaint, until somebody trusts it again; others are called."""
    shop = Shop([lambda: httpx.Response(200, json=write_offers([OFFER]))])
    payer = MemoryPayer(deliveries=[Delivery(ORIGIN, "economist", "ask", "kept", Usage(), 9, 1, 0, "it charged 9")])
    async with httpx.AsyncClient(transport=httpx.MockTransport(shop)) as client:
        roster = await muster(client, [URL, "https://other.example"], payer)
    assert [request.url.host for request in shop.asked] == ["other.example"]
    (absent,) = roster.absent
    assert (absent.model, absent.code, absent.error) == (URL, "distrusted", "overcharged: it charged 9")


# Kept tokens


async def test_a_kept_token_is_sent_first() -> None:
    """It is good: nothing is bought."""
    shop, payer = Shop([answer]), kept_payer()
    _, end = await heard(shop, payer)
    assert shop.shown == [KEPT.authorization]
    assert payer.bought == []
    assert (end.members[0].paid_msat, end.members[0].payment_hash) == (0, "kept")


@pytest.mark.parametrize("reason", ["expired", "revoked", "bad-signature", "bad-preimage", "unknown-token", "refunded"])
async def test_a_token_that_is_no_good_is_discarded(reason: str) -> None:
    """And a new one is bought at once."""
    shop, payer = Shop([lambda: payment_required(reason), answer]), kept_payer()
    text, end = await heard(shop, payer)
    assert text == "Gold."
    assert payer.discarded == ["kept"]
    assert shop.shown[0] == KEPT.authorization
    assert shop.shown[1] not in (None, KEPT.authorization)
    assert end.members[0].paid_msat == 3000


@pytest.mark.parametrize("reason", ["exhausted", "over-limit", "wrong-service", "who knows"])
async def test_a_token_that_may_fit_another_ask_is_kept(reason: str) -> None:
    """A new one is bought, but what is left on the old one is not thrown away."""
    payer = kept_payer()
    await heard(Shop([lambda: payment_required(reason), answer]), payer)
    assert payer.discarded == []
    assert len(payer.bought) == 1


async def test_an_exhausted_token_is_remembered_with_what_it_does_not_hold() -> None:
    """The worst case of this ask, so that the next one does not try it in vain."""
    payer = kept_payer()
    await heard(Shop([lambda: payment_required("exhausted"), answer]), payer)
    need_msat = OFFER.price.cost_msat(OFFER.worst_case(ASK))
    assert payer.empty == [("kept", need_msat)]
    assert payer.wanted[0] == Wanted(ORIGIN, need_msat=need_msat)


async def test_a_token_of_the_service_that_the_challenge_names_is_tried_before_buying() -> None:
    """The first one was for another service of that seller; the second opens this one, and nothing is bought."""
    second = replace(KEPT, payment_hash="second", authorization="L402 c2Vjb25k:" + "22" * 32)
    payer = TwoTokens({ORIGIN: KEPT}, then=second)
    shop = Shop([lambda: payment_required("wrong-service"), answer])
    _, end = await heard(shop, payer)
    assert shop.shown == [KEPT.authorization, second.authorization]
    assert (payer.bought, end.members[0].payment_hash) == ([], "second")
    assert [(wanted.service, wanted.tried) for wanted in payer.wanted] == [("", ()), ("llm", ("kept",))]


@dataclass
class TwoTokens(MemoryPayer):
    """Has another token when the first one was refused."""

    then: Ticket = KEPT

    async def kept(self, wanted: Wanted) -> Ticket | None:
        return await super().kept(wanted) or self.then


async def test_kept_tokens_are_not_tried_for_ever() -> None:
    """A seller that refuses them all is paid after a few, once."""
    payer = TwoTokens({ORIGIN: KEPT}, then=KEPT)
    shop = Shop([lambda: payment_required("exhausted")])
    await heard(shop, payer)
    assert (len(shop.asked), len(payer.bought)) == (4, 1)


# Origins


def elsewhere() -> httpx.Response:
    return httpx.Response(307, headers={"Location": "https://thief.example/v1/chat/completions"})


async def test_a_token_is_sent_to_its_own_origin_only() -> None:
    """Another port and another scheme are other sellers."""
    stranger = Shop([answer])
    await heard(stranger, MemoryPayer({"https://shop.example:8443": KEPT, "http://shop.example:443": KEPT}))
    assert stranger.shown == [None]


@dataclass
class Redirection:
    """A shop that sends everybody on to a thief, both real servers; the thief answers 402 and notes what it saw."""

    shop: str
    thief: str
    seen: list[dict[str, str]]


@pytest.fixture
def redirection() -> Iterator[Redirection]:
    seen: list[dict[str, str]] = []

    async def steal(request: Request) -> Response:
        seen.append(dict(request.headers))
        lines = challenge_of(invoice_of(1)).header_lines()
        return Response("", 402, {"WWW-Authenticate": lines[-1]})

    async def send_on(_: Request) -> Response:
        return RedirectResponse(f"{thief}/v1/chat/completions", 307)

    methods = ["GET", "POST"]
    with in_thread(Starlette(routes=[Route("/v1/chat/completions", steal, methods=methods)])) as thief:
        shop_app = Starlette(routes=[Route("/v1/chat/completions", send_on, methods=methods)])
        with in_thread(shop_app) as shop:
            yield Redirection(shop, thief, seen)


async def test_a_peer_that_redirects_is_not_followed(redirection: Redirection) -> None:
    """Not even by a client that follows others: neither question, token nor money reaches the other origin."""
    payer = MemoryPayer({redirection.shop: KEPT})
    async with httpx.AsyncClient(follow_redirects=True) as client:
        model = PeerModel(client, redirection.shop, OFFER, payer)
        (end,) = [chunk async for chunk in model.stream(ASK)]
    assert isinstance(end, End)
    assert end.members[0].error == "answered 307: no reason given"
    assert (redirection.seen, payer.bought) == ([], [])


async def test_a_redirect_carries_no_token_and_its_402_is_not_paid(redirection: Redirection) -> None:
    """Any client with this auth: the thief sees no credential, and its challenge is not taken for the shop's."""
    payer = MemoryPayer({redirection.shop: KEPT})
    auth = L402Auth(payer, Terms(9000, 0))
    async with httpx.AsyncClient(auth=auth, follow_redirects=True) as client:
        with pytest.raises(PeerError, match=f"redirects to {redirection.thief}, which gets neither"):
            await client.get(f"{redirection.shop}/v1/chat/completions")
    assert len(redirection.seen) == 1
    assert "authorization" not in redirection.seen[0]
    assert (payer.bought, payer.discarded) == ([], [])


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/v1", "https://a.example:443"),
        ("http://a.example", "http://a.example:80"),
        ("http://A.example:9402/x?y", "http://a.example:9402"),
    ],
)
async def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    """The port is always named, so that a default one is the same origin as its number."""
    assert origin_of(httpx.URL(url)) == origin


# Sellers that fail


async def test_a_402_for_ever_is_paid_once() -> None:
    """The End says that it failed, and accounts for what was paid."""
    shop, payer = Shop([payment_required]), MemoryPayer()
    text, end = await heard(shop, payer)
    (member,) = end.members
    assert (text, end.finish, len(payer.bought), len(shop.asked)) == ("", "error", 1, 2)
    assert member.error == "asks for payment again after it was paid: why: payment-required"
    assert (member.ok, member.code, member.paid_msat, member.fee_msat) == (False, "peer-error", 3000, 2)


@pytest.mark.parametrize(
    "error",
    [OverBudget("too dear"), BadInvoice("wrong"), PaymentFailed("no route"), PaymentUnknown("?"), NodeError("x")],
)
async def test_a_payment_that_fails_is_an_error(error: LyceumError) -> None:
    """With the purse's own sentence and code; the seller is not asked again."""
    shop = Shop([payment_required])
    _, end = await heard(shop, MemoryPayer({ORIGIN: KEPT}, error))
    (member,) = end.members
    assert (end.finish, member.error, member.code) == ("error", error.message, error.code)
    assert (member.paid_msat, member.payment_hash) == (0, "")
    assert len(shop.asked) == 1


async def flood(piece: bytes) -> AsyncIterator[bytes]:
    for _ in range(50):
        yield piece


async def breaking_off() -> AsyncIterator[bytes]:
    yield ENVELOPE.delta(Delta("Go"), True).encode()
    raise httpx.ReadError("reset")


FAILURES: dict[str, tuple[Callable[[], httpx.Response], str]] = {
    "garbage": (lambda: answer("\x00\xff}{"), "broke off before the end"),
    "garbage event": (lambda: answer("data: }{\n\n"), "not a chat-completions stream"),
    "wrong content": (lambda: answer('data: {"choices": [{"delta": {"content": 7}}]}\n\n'), "not a chat-completions"),
    "HTML": (lambda: httpx.Response(500, text="<html>Internal Server Error</html>"), "answered 500: no reason given"),
    "HTML with 200": (lambda: answer("<html>\nWelcome\n</html>\n"), "broke off before the end"),
    "redirect": (elsewhere, "answered 307"),
    "empty": (lambda: answer(""), "broke off before the end"),
    "one long line": (lambda: httpx.Response(200, content=flood(b"x" * 5000)), "more than 20000 bytes"),
    "many lines": (lambda: httpx.Response(200, content=flood(b": hm\n" * 1000)), "more than 20000 bytes"),
    "long error": (lambda: httpx.Response(500, content=flood(b"x" * 5000)), "more than 10000 bytes"),
    "long 402": (lambda: httpx.Response(402, content=flood(b"x" * 5000)), "more than 10000 bytes"),
    "cut off": (lambda: httpx.Response(200, content=breaking_off()), "cannot be reached (ReadError)"),
    "half": (lambda: answer(ENVELOPE.delta(Delta("Go"), True)), "broke off before the end"),
    "error event": (lambda: answer(error_event(LyceumError("out of memory"))), "the peer failed: out of memory"),
    "error object": (lambda: httpx.Response(503, json={"error": {"message": "busy now"}}), "answered 503: busy now"),
    "402 without a challenge": (lambda: httpx.Response(402), "its challenge cannot be read"),
    "402 with garbage": (lambda: httpx.Response(402, headers={"WWW-Authenticate": "L402 x=1"}), "cannot be read"),
    "wrong account": (
        lambda: answer(
            ENVELOPE.end(End("stop"), True).replace('"lyceum":{', '"lyceum":{"charge":{"charged_msat":-1},')
        ),
        "account of its answer",
    ),
}


def failing(error: Exception) -> Answers:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    return fail


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = {"MAX_ANSWER": 20_000, "MAX_ERROR": 10_000}
    for name in ("model.MAX_ANSWER", "sellers.MAX_ANSWER", "model.MAX_ERROR", "auth.MAX_ERROR"):
        monkeypatch.setattr(f"lyceum.peers.{name}", bounds[name.split(".")[1]])


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("case", FAILURES)
async def test_whatever_a_peer_does_ends_in_an_end(case: str) -> None:
    """A sentence that says what happened; nothing is raised, and nothing is bought."""
    response, why = FAILURES[case]
    payer = MemoryPayer()
    _, end = await heard(Shop([response]), payer)
    (member,) = end.members
    assert end.finish == "error"
    assert why in member.error
    assert (member.ok, member.code) == (False, "peer-error")
    assert payer.bought == []


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.ReadTimeout("slow"), OSError(101, "unreachable")])
async def test_a_peer_that_cannot_be_reached(error: Exception) -> None:
    """Silent or unreachable, without the library's own words."""
    _, end = await heard(failing(error), MemoryPayer())
    assert end.members[0].error.startswith(("is silent", "cannot be reached"))


async def test_what_was_paid_before_a_failure_is_accounted_for() -> None:
    """The seller took the money and broke off: the account shows it."""
    text, end = await heard(Shop([payment_required, FAILURES["cut off"][0]]), MemoryPayer())
    assert text == "Go"
    assert (end.finish, end.members[0].paid_msat, end.members[0].fee_msat) == ("error", 3000, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_pieces_are_put_together(size: int) -> None:
    """A character cut in two by the network is whole again; other newlines do not end a line."""
    said = "caf\u00e9 \u2028 \U0001f600"
    lines = ENVELOPE.delta(Delta(said), True) + ENVELOPE.end(End("stop"), True)
    text, _ = await heard(Shop([lambda: httpx.Response(200, content=pieces(lines, size))]), MemoryPayer())
    assert text == said


async def test_deltas_come_as_they_are_said() -> None:
    """The first word is there before the last one was sent."""
    chunks: list[Chunk] = []

    async def slowly() -> AsyncIterator[bytes]:
        yield ENVELOPE.delta(Delta("Go"), True).encode()
        assert chunks == [Delta("Go")]
        yield ENVELOPE.end(End("stop"), True).encode()

    shop = Shop([lambda: httpx.Response(200, content=slowly())])
    async with httpx.AsyncClient(transport=httpx.MockTransport(shop)) as client:
        async for chunk in PeerModel(client, URL, OFFER, MemoryPayer()).stream(ASK):
            chunks.append(chunk)
    assert isinstance(chunks[-1], End)


# Price lists


async def visited(shop: Answers) -> Seller:
    async with httpx.AsyncClient(transport=httpx.MockTransport(shop)) as client:
        return await visit(client, URL + "/")


async def test_a_visit_finds_the_offers() -> None:
    """The list of /v1/models, and the node that it names."""
    shop = Shop([lambda: httpx.Response(200, json=write_offers([OFFER]))])
    seller = await visited(shop)
    assert seller == Seller(URL + "/", (OFFER,))
    assert seller.node_id == NODE
    assert [str(request.url) for request in shop.asked] == ["https://shop.example/v1/models"]


def wrong_price() -> httpx.Response:
    listed = write_offers([OFFER])
    listed["data"][0]["lyceum"]["price"]["base_msat"] = -1
    return httpx.Response(200, json=listed)


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize(
    ("response", "why"),
    [
        (lambda: httpx.Response(200, text="<html>"), "check the URL"),
        (lambda: httpx.Response(200, content=b'{"data": [7]}'), "check the URL"),
        (lambda: httpx.Response(404, text="nothing here"), "answered 404"),
        (wrong_price, "check the URL"),
        (lambda: httpx.Response(200, content=flood(b" " * 5000)), "more than 20000 bytes"),
        (lambda: httpx.Response(200, content=breaking_off()), "cannot be reached"),
    ],
)
async def test_a_visit_says_why_there_are_no_offers(response: Callable[[], httpx.Response], why: str) -> None:
    """Garbage, no such page, wrong prices, too much: a Seller with an error, never an exception."""
    seller = await visited(Shop([response]))
    assert seller.offers == ()
    assert why in seller.error


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.ConnectError("no"), OSError()])
async def test_a_silent_seller_is_named_as_such(error: Exception) -> None:
    """A timeout and a refused connection are told apart."""
    expected = "is silent" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    assert (await visited(failing(error))).error.startswith(expected)


async def test_a_url_that_is_none_is_an_error() -> None:
    """A typing mistake in the list of peers does not stop the others."""
    async with httpx.AsyncClient() as client:
        assert (await visit(client, "https://[")).error


async def test_a_roster_has_own_models_peers_and_the_absent() -> None:
    """Whoever could not be reached is listed with the reason, and the others can be asked."""

    def shops(request: httpx.Request) -> httpx.Response:
        if request.url.host == "gone.example":
            raise httpx.ConnectError("no")
        return httpx.Response(200, json=write_offers([OFFER]))

    async with httpx.AsyncClient(transport=httpx.MockTransport(shops)) as client:
        own = Own(PeerModel(client, URL, replace(OFFER, model="ours"), MemoryPayer()))
        roster = await muster(client, [URL, "https://gone.example"], MemoryPayer(), [own])
    assert [model.offer.model for model in roster.models] == ["ours", "economist"]
    assert [(member.model, member.ok) for member in roster.absent] == [("https://gone.example", False)]
    assert roster.absent[0].error.startswith("cannot be reached")
