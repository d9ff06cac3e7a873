"""What common clients read and send, each by a small emulation of its own rule; and what pages may do.

The table of challenges is what was found by running those clients' rules; it proves the emulations
before they are let loose on what this server writes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from fakes import Speaker
from lyceum.app import Stock, create_app
from lyceum.errors import ModelError
from lyceum.l402 import Caveat, Malformed, attenuate, challenge_macaroon, parse_challenge
from lyceum.l402.canonical import from_base64url
from lyceum.ports import Admitted, Declined, Entry, Offer, Price, SaleTerms, Settlement
from lyceum.till import Admission
from test_till import Shop
from test_till_payment import Buyer

pytestmark = pytest.mark.anyio

INVOICE = "lnbcrt100n1p3qqkygpp5xzj85m5mpvatnapgpuyfxtxhypa5gr6sskqd8664v04550vqp8lsdq8f3f5z4qc"
MACAROON = base64.b64encode(challenge_macaroon(b"m" * 32, b"\x01" * 32, b"\x02" * 32, "llm", 2000)).decode()
Found = tuple[str, str] | None


# How public clients read a challenge


def aperture(lines: list[str]) -> Found:
    """Aperture's interceptor: one exact spelling, anywhere in any line; standard base64."""
    matches = (re.search(r'(?:LSAT|L402) macaroon="(.*?)", invoice="(.*?)"', line) for line in lines)
    return next((_standard(match[1], match[2]) for match in matches if match), None)


def lnget(lines: list[str]) -> Found:
    """The first line alone, and it must begin with the scheme, in any case."""
    match = re.match(r'(?i:LSAT|L402)\s+macaroon="([^"]+)",\s*invoice="([^"]+)"', lines[0], re.IGNORECASE)
    return _standard(match[1], match[2]) if match else None


def l402_requests(lines: list[str]) -> Found:
    """All lines as one; macaroon, then invoice, in quotes or without."""
    header = ", ".join(lines)
    quoted = re.search(r'(?:L402|LSAT)\s+macaroon="([^"]+)"\s*,\s*invoice="([^"]+)"', header, re.IGNORECASE)
    bare = re.search(r"(?:L402|LSAT)\s+macaroon=([^\s,]+)\s*,?\s*invoice=([^\s,]+)", header, re.IGNORECASE)
    match = quoted or bare
    return (match[1], match[2]) if match else None


def alby(lines: list[str]) -> Found:
    """All lines as one; every `name=value` wherever it stands, the last of a name wins."""
    header = ", ".join(lines).replace("L402", "", 1).replace("LSAT", "", 1)
    pairs = re.findall(r"""(\w+)=(?:"([^"]*)"|'([^']*)'|([^,]*))""", header)
    said = {name: double or single or bare for name, double, single, bare in pairs}
    token = said.get("token") or said.get("macaroon")
    return (token, said["invoice"]) if token and "invoice" in said else None


def l402sdk(lines: list[str]) -> Found:
    """The first line alone, its scheme in capitals; then a list of parameters in any order."""
    scheme, _, rest = lines[0].partition(" ")
    if scheme not in ("L402", "LSAT"):
        return None
    said: dict[str, str] = {}
    for part in re.findall(r'(?:[^,"]|"[^"]*")+', rest):
        name, _, value = part.partition("=")
        said[name.strip().lower()] = value.strip().strip('"')
    return (said["macaroon"], said["invoice"]) if {"macaroon", "invoice"} <= set(said) else None


def _standard(macaroon: str, invoice: str) -> Found:
    base64.b64decode(macaroon, validate=True)
    return macaroon, invoice


CLIENTS: dict[str, Callable[[list[str]], Found]] = {
    "Aperture": aperture,
    "lnget": lnget,
    "l402-requests": l402_requests,
    "Alby": alby,
    "L402sdk": l402sdk,
}
PAIR = f'macaroon="{MACAROON}", invoice="{INVOICE}"'
NEWER = f'version="0", token="{MACAROON}"'
# A challenge, and who reads it: Aperture, lnget, l402-requests, Alby, L402sdk.
MATRIX: list[tuple[list[str], str]] = [
    ([f"LSAT {PAIR}", f"L402 {PAIR}"], "yyyyy"),
    ([f"L402 {PAIR}, {NEWER}"], "yyyyy"),
    ([f'L402 {NEWER}, invoice="{INVOICE}"'], "nnnyn"),
    ([f"L402 {NEWER}, {PAIR}"], "nnnyy"),
    ([f"L402 {PAIR.replace(', ', ',')}"], "nyyyy"),
    ([f'L402 invoice="{INVOICE}", macaroon="{MACAROON}"'], "nnnyy"),
    ([f'L402 realm="x", {PAIR}'], "nnnyy"),
    ([f"l402 {PAIR}"], "nyyyn"),
    (['Basic realm="x"', f"L402 {PAIR}"], "ynyyn"),
    ([f"LSAT {PAIR}, L402 {PAIR}"], "yyyyy"),
]


@pytest.mark.parametrize(("lines", "readers"), MATRIX)
def test_the_emulations_read_what_the_clients_read(lines: list[str], readers: str) -> None:
    """And nothing that those do not."""
    found = "".join("y" if read(lines) == (MACAROON, INVOICE) else "n" for read in CLIENTS.values())
    assert found == readers


@pytest.mark.parametrize("lines", [lines for lines, _ in MATRIX])
def test_our_buyer_reads_every_dialect(lines: list[str]) -> None:
    """Whatever the seller writes that any of them can read."""
    challenge = parse_challenge(lines)
    assert (challenge.macaroon_text, challenge.invoice) == (MACAROON, INVOICE)


def test_our_buyer_reads_none_where_two_names_differ() -> None:
    """`macaroon` and `token` that are not the same token: which one is sold is not guessed."""
    with pytest.raises(Malformed):
        parse_challenge([f'L402 {PAIR}, version="0", token="AAAA"'])


# How public clients show what they paid for


def _pair(scheme: str) -> Callable[[str, str], httpx.Headers]:
    return lambda macaroon, preimage: httpx.Headers({"Authorization": f"{scheme} {macaroon}:{preimage}"})


def both_lines(macaroon: str, preimage: str) -> httpx.Headers:
    """Aperture to a backend, and lnget."""
    return httpx.Headers([("Authorization", f"{scheme} {macaroon}:{preimage}") for scheme in ("LSAT", "L402")])


def metadata(name: str) -> Callable[[str, str], httpx.Headers]:
    """A gRPC client: the macaroon in hex, with the preimage as its last caveat."""

    def headers(macaroon: str, preimage: str) -> httpx.Headers:
        return httpx.Headers({name: attenuate(base64.b64decode(macaroon), Caveat("preimage", preimage)).hex()})

    return headers


def url_safe(macaroon: str, preimage: str) -> httpx.Headers:
    return _pair("L402")(macaroon.rstrip("=").replace("+", "-").replace("/", "_"), preimage.upper())


SENDERS = {
    "L402": _pair("L402"),
    "LSAT": _pair("LSAT"),
    "lower case": _pair("l402"),
    "two lines": both_lines,
    "an API key": _pair("Bearer"),
    "an API key with its scheme": _pair("Bearer L402"),
    "url-safe base64 and capitals": url_safe,
    "gRPC": metadata("Macaroon"),
    "gRPC by a gateway": metadata("Grpc-Metadata-Macaroon"),
}


class Counter:
    """A gate to a till in this process, with everything real but the wallet."""

    service = "llm"

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.asked = 0

    async def admit(self, entry: Entry) -> Admitted | Declined:
        self.asked += 1
        return self.shop.till.admit(
            Admission(entry.authorization, "llm", entry.amount_msat, entry.model, entry.max_tokens)
        )

    async def settle(self, reservation: str, charge_msat: int) -> Settlement:
        return self.shop.till.settle(reservation, charge_msat)

    async def quote(self, entry: Entry) -> int:
        return 1000

    async def terms(self) -> SaleTerms:
        return SaleTerms(1000)


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    shop = Shop(tmp_path / "books.sqlite3")
    yield Counter(shop)
    shop.database.close()


@asynccontextmanager
async def browser(counter: Counter, error: Exception | None = None) -> AsyncIterator[httpx.AsyncClient]:
    parrot = Speaker(Offer("parrot", price=Price(base_msat=100)), error=error)
    transport = httpx.ASGITransport(create_app(Stock((parrot,)), counter))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


CHAT: dict[str, Any] = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}]}


async def chat(client: httpx.AsyncClient, headers: Any = None) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=CHAT, headers=headers)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("reader", CLIENTS)
async def test_every_client_reads_our_challenge(counter: Counter, reader: str, folded: bool) -> None:
    """As three lines, and as the one that browsers and proxies make of them; `Payment` is in nobody's way."""
    async with browser(counter) as client:
        lines = (await chat(client)).headers.get_list("WWW-Authenticate")
    ours = parse_challenge(lines)
    found = CLIENTS[reader]([", ".join(lines)] if folded else lines)
    assert found == (ours.macaroon_text, ours.invoice)


@pytest.mark.parametrize("sender", SENDERS)
async def test_every_client_gets_in(counter: Counter, sender: str) -> None:
    """Whatever it calls the header, the scheme and the alphabet."""
    async with browser(counter) as client:
        challenge = parse_challenge((await chat(client)).headers.get_list("WWW-Authenticate"))
        preimage = counter.shop.wallet.settle(counter.shop.wallet.decode(challenge.invoice)).preimage
        answer = await chat(client, SENDERS[sender](challenge.macaroon_text, preimage))
    assert answer.status_code == 200
    assert answer.json()["lyceum"]["charge"]["charged_msat"] == 100


def mpp_client(lines: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """A client of MPP that pays by Lightning: every quoted parameter of the `Payment` line, and what it asks."""
    line = next(line for line in lines if line.lower().startswith("payment "))
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', line))
    assert (challenge["method"], challenge["intent"]) == ("lightning", "charge")
    asked = challenge["request"]
    return challenge, json.loads(base64.urlsafe_b64decode(asked + "=" * (-len(asked) % 4)))


@pytest.mark.parametrize("echoed", [("id", "intent", "method", "realm", "request", "expires"), ()])
async def test_clients_of_the_payment_scheme_get_in(counter: Counter, echoed: tuple[str, ...]) -> None:
    """Whether they send back all parameters or only those that they know, in whatever order and spacing."""
    async with browser(counter) as client:
        challenge, asked = mpp_client((await chat(client)).headers.get_list("WWW-Authenticate"))
        invoice = counter.shop.wallet.decode(asked["methodDetails"]["invoice"])
        assert int(asked["amount"]) * 1000 == invoice.amount_msat
        preimage = counter.shop.wallet.settle(invoice).preimage
        sent = {name: challenge[name] for name in echoed or challenge}
        said = json.dumps({"payload": {"preimage": preimage}, "source": "did:key:z6Mk", "challenge": sent})
        token = base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")
        answer = await chat(client, {"Authorization": f"Payment {token}"})
    assert (answer.status_code, "payment-receipt" in answer.headers) == (200, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_payment_buys_one_answer_and_a_failure_gives_it_back(counter: Counter, stream: bool) -> None:
    """MPP's intent charge: a 5xx has no receipt and costs nothing, the answer has one, a third is refused."""
    async with browser(counter) as client:
        buyer = Buyer(counter.shop, Declined("", "", tuple((await chat(client)).headers.items()), 0))
    shown = {"Authorization": buyer.payment}
    async with browser(counter, ModelError("the weights are gone")) as client:
        failed = await chat(client, shown)
    async with browser(counter) as client:
        answered = await client.post("/v1/chat/completions", json=CHAT | {"stream": stream}, headers=shown)
        refused = await chat(client, shown)
    assert (failed.status_code, "payment-receipt" in failed.headers) == (500, False)
    receipt = json.loads(from_base64url(answered.headers["payment-receipt"]))
    assert (answered.status_code, receipt["challengeId"]) == (200, buyer.challenge["id"])
    assert (refused.status_code, refused.json()["code"]) == (402, "already-used")
    assert refused.json()["type"] == "https://paymentauth.org/problems/invalid-challenge"


# Pages of other origins


async def test_a_page_may_ask_with_a_token(counter: Counter) -> None:
    """The preflight allows what OpenAI's client in a browser sends, and never reaches the till."""
    asks = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
    }
    async with browser(counter) as client:
        allowed = (await client.options("/v1/chat/completions", headers=asks)).headers
    assert allowed["Access-Control-Allow-Origin"] == "*"
    assert {"authorization", "content-type", "x-stainless-os"} <= _listed(allowed["Access-Control-Allow-Headers"])
    assert "post" in _listed(allowed["Access-Control-Allow-Methods"])
    assert counter.asked == 0


async def test_a_page_may_read_the_challenge(counter: Counter) -> None:
    """Once, in one place, for whatever is answered; cookies are not let in."""
    async with browser(counter) as client:
        for answer in (await chat(client, {"Origin": "https://page.example"}), await client.options("/v1/models")):
            assert len(answer.headers.get_list("Access-Control-Allow-Origin")) == (answer.status_code == 402)
        headers = (await chat(client, {"Origin": "https://page.example"})).headers
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert {"www-authenticate", "payment-receipt", "retry-after"} <= _listed(headers["Access-Control-Expose-Headers"])
    assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/nowhere"])
async def test_options_never_reaches_the_till(counter: Counter, path: str) -> None:
    """Also one that no browser would send."""
    async with browser(counter) as client:
        await client.options(path)
    assert counter.asked == 0


def _listed(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",")}
