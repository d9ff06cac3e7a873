"""Nothing secret is written down: after a life of sales, refusals, errors and refunds, every file is searched.

Secret are the root key, the key of lazy invoices, every preimage (also those that nobody has paid for yet) and every
macaroon that was paid for. lightningd's own share is not searched: its database, which holds the preimages of its
invoices, what a developer's node saves of its plugins' talk, and lines of its log that others than our plugins wrote.
"""

from __future__ import annotations

import base64
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from pyln.client import RpcError

from both_schemes import Offered
from cln_lyceum import ROOT_KEY
from lyceum.devnet import Node
from lyceum.lazy import KEY
from lyceum.quote import preimage
from networks import HOOK, Market
from servers import serving

MODEL = "austrian-economics"
QUESTION = "What is time preference?"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
SERVICE = "lyceum"

NEEDED = {("purchases", "macaroon"), ("purchases", "preimage")}
"""Columns of the buyer's books that are its credentials: it could not use what it bought without them."""

PATIENCE_S = 60


@dataclass
class Life:
    """Everything that can be done with a token, done once or more; `said` is what was answered in refusal."""

    market: Market
    url: str
    directory: Path
    said: list[str] = field(default_factory=list)
    macaroons: set[str] = field(default_factory=set)
    unpaid: list[str] = field(default_factory=list)
    paid: str = ""

    def challenge(self) -> list[list[str]]:
        """The header lines of a 402 that nobody else is shown."""
        request = {"service": SERVICE, "amount_msat": 3000, "model": MODEL}
        return self.market.call(self.market.seller, "l402-admit", request)["declined"]["headers"]  # type: ignore[no-any-return]

    def pay(self, line: str, origin: str) -> str:
        request = {"challenge": line, "origin": origin, "cap_msat": 10_000}
        header = str(self.market.call(self.market.buyer, "l402-pay", request)["ticket"]["authorization"])
        self.macaroons.add(_macaroon(header))
        return header

    def post(self, path: str, body: dict[str, Any], authorization: str = "") -> httpx.Response:
        headers = {"Authorization": authorization} if authorization else {}
        response = httpx.post(self.url + path, json=body, headers=headers, timeout=60)
        if response.status_code >= 400:
            self.said.append(response.text)
        return response

    def refused(self, node: Node, method: str, params: Any) -> None:
        with pytest.raises(RpcError) as caught:
            self.market.call(node, method, params)
        self.said.append(str(caught.value.error))

    def sale(self) -> str:
        """A 402, its payment, an answer, and the same by the scheme `Payment`."""
        response = self.post("/v1/chat/completions", CHAT)
        header = self.pay(response.headers.get_list("www-authenticate")[1], "http://sale:1")
        assert self.post("/v1/chat/completions", CHAT, header).status_code == 200
        offered = Offered(self.challenge())
        proof = self.market.buyer.rpc.xpay(offered.invoice)["payment_preimage"]
        assert self.post("/v1/chat/completions", CHAT, offered.as_payment(proof)).status_code == 200
        return header

    def ask(self) -> None:
        """Through the buyer's ensemble, which buys a token of its own."""
        self.market.buyer.rpc.call("setconfig", ["lyceum-peers", self.url])
        request = {"question": QUESTION, "budget_msat": 20_000}
        assert self.market.call(self.market.buyer, "lyceum-ask", request)["members"][0]["ok"]
        kept = self.market.call(self.market.buyer, "l402-kept", [self.url])["ticket"]
        self.macaroons.add(_macaroon(kept["authorization"]))

    def top_up(self, header: str) -> None:
        made = self.post("/l402/topup", {"amount_msat": 2000}, header).json()
        self.market.buyer.rpc.xpay(made["invoice"])
        token = httpx.get(f"{self.url}/l402/token", headers={"Authorization": header}).json()
        assert token["topups"][0]["credited_at"]

    def refuse(self, header: str) -> None:
        """Credentials that are spoilt, doubled, of another service or revoked; calls that are wrong."""
        gone = self.pay(self.challenge()[1][1], "http://gone:1")
        token_id = self.market.call(self.market.seller, "l402-verify", [SERVICE, gone])["token_id"]
        self.market.call(self.market.seller, "l402-revoke", [token_id])
        for spoilt in (header + "0", header[:-64] + "00" * 32, "L402 ????", gone, f"{header}, {gone}"):
            assert self.post("/v1/chat/completions", CHAT, spoilt).status_code in (400, 402)
        self.post(f"/l402/refund?token={'x' * 9}", {"address": "nowhere"}, header)
        self.post("/l402/topup", {"amount_msat": "much"}, header)
        seller, buyer = self.market.seller, self.market.buyer
        self.refused(seller, "l402-admit", {"service": "two words", "amount_msat": 1, "authorization": header})
        self.refused(seller, "l402-admit", {"service": SERVICE, "amount_msat": 1, "authorization": [header, gone]})
        self.refused(seller, "l402-admit", {"service": SERVICE, "amount_msat": 1, "authorization": {"is": header}})
        self.refused(seller, "l402-reclaim", [SERVICE, header, "nowhere"])
        self.refused(buyer, "l402-pay", [header, "http://x:1", 9000])
        self.refused(buyer, "l402-pay", [self.challenge()[1][1], "http://x:1", 1])
        self.refused(buyer, "l402-pay", [self.paid, "http://thief:1", 9000])

    def give_back(self, header: str) -> None:
        offer = self.market.call(self.market.buyer, "offer", {"amount": "any", "description": "back"})["bolt12"]
        assert self.post("/l402/refund", {"address": offer}, header).status_code < 300
        claim = [SERVICE, header]
        _until(lambda: self.market.call(self.market.seller, "l402-token", claim)["refund"]["state"] == "paid")

    def live(self) -> None:
        self.unpaid = [Offered(self.challenge()).invoice for _ in range(3)]
        self.paid = self.challenge()[1][1]
        self.pay(self.paid, "http://seller:1")
        header = self.sale()
        self.ask()
        self.top_up(header)
        self.refuse(header)
        self.give_back(header)
        for node in (self.market.buyer, self.market.seller):
            self.market.restart_plugin(node)

    def secrets(self) -> dict[str, bytes]:
        """By name, so that a failure says what leaked without showing it."""
        nodes = {"buyer": self.market.buyer, "seller": self.market.seller}
        found = {f"macaroon {n}": base64.b64decode(text) for n, text in enumerate(sorted(self.macaroons))}
        for name, node in nodes.items():
            for key in (ROOT_KEY, KEY):
                found[f"{name}'s {key}"] = _key(node, key)
            proofs = [row.get("payment_preimage") for row in node.rpc.listinvoices()["invoices"]]
            proofs += [row.get("preimage") for row in node.rpc.listpays()["pays"]]
            found |= {f"{name}'s preimage {n}": bytes.fromhex(proof) for n, proof in enumerate(proofs) if proof}
        lazy = _key(self.market.seller, KEY)
        for n, invoice in enumerate(self.unpaid):
            promised = bytes.fromhex(self.market.seller.rpc.decode(invoice)["payment_secret"])
            found[f"unpaid preimage {n}"] = preimage(lazy, promised)
        return found


def _key(node: Node, name: str) -> bytes:
    return bytes.fromhex(node.rpc.makesecret(string=name)["secret"])


def _macaroon(header: str) -> str:
    return header.removeprefix("L402 ").split(":")[0]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def life(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Lived to its end, with the server's output on the disk."""
    market.buyer.rpc.xpay(market.seller.rpc.invoice(100_000_000, "funds", "funds")["bolt11"])
    market.call(market.seller, "plugin", ["start", str(HOOK)])
    directory = tmp_path_factory.mktemp("server")
    with serving(directory, market.seller, MODEL) as url:
        life = Life(market, url, directory)
        life.live()
        yield life


def forms(secret: bytes) -> list[bytes]:
    """As it is, and as texts that somebody might write."""
    plain = secret.hex().encode()
    coded = [base64.b64encode(secret), base64.urlsafe_b64encode(secret)]
    return [secret, plain, plain.upper(), *(text.rstrip(b"=") for text in coded)]


def leaks(raw: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in raw for form in forms(secret))]


LIGHTNINGD_S_OWN = ("lightningd.sqlite3", "plugin-io")
OUR_PLUGINS = (b"plugin-cln_lyceum", b"plugin-cln-lyceum")


def content(path: Path) -> bytes:
    """Of a node's log what our plugins wrote; of any other file all."""
    raw = path.read_bytes()
    if path.name != "log":
        return raw
    return b"\n".join(line for line in raw.splitlines() if any(name in line for name in OUR_PLUGINS))


def files(life: Life) -> Iterator[Path]:
    """Of server and nodes; the buyer's books are searched by column."""
    for folder in (life.directory, life.market.buyer.log_path.parent, life.market.seller.log_path.parent):
        for path in sorted(folder.rglob("*")):
            skipped = path.name.startswith(LIGHTNINGD_S_OWN) or path.parent.name in LIGHTNINGD_S_OWN
            if path.is_file() and not skipped and not str(path).startswith(str(books(life.market.buyer))):
                yield path


def books(node: Node) -> Path:
    return node.rpc_path.parent / "lyceum.sqlite3"


def test_what_is_searched_is_found(life: Life) -> None:
    """The search knows a leak in each form, and the flow made secrets of every kind."""
    secrets = life.secrets()
    kinds = ("macaroon", "seller's lyceum", "seller's preimage", "buyer's preimage", "unpaid preimage")
    assert all(any(name.startswith(kind) for name in secrets) for kind in kinds)
    for name, secret in secrets.items():
        assert all(leaks(b"said: " + form + b".", secrets) for form in forms(secret)), name
    assert len(life.macaroons) == 4


def test_no_file_holds_a_secret(life: Life) -> None:
    """Logs of the nodes and plugins, the server's output and configuration, and the seller's books as raw bytes."""
    secrets, searched = life.secrets(), list(files(life))
    assert {"log", "lyceum.sqlite3", "lyceum.sqlite3-wal"} <= {path.name for path in searched}
    assert {path: found for path in searched if (found := leaks(content(path), secrets))} == {}


def test_no_refusal_holds_a_secret(life: Life) -> None:
    """Bodies of the server's errors, and errors of the plugin's methods."""
    assert len(life.said) > 12
    assert not leaks("\n".join(life.said).encode(), life.secrets())


def test_the_books_hold_only_the_credentials_that_they_need(life: Life) -> None:
    """Column by column, in both nodes' books."""
    secrets, holding = life.secrets(), set()
    for node in (life.market.buyer, life.market.seller):
        with closing(sqlite3.connect(books(node))) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            for table in tables:
                rows = database.execute(f"SELECT * FROM {table}")  # noqa: S608  (names from the schema)
                columns = [entry[0] for entry in rows.description]
                for row in rows:
                    holding |= {
                        (table, name) for name, value in zip(columns, row, strict=True) if _held(value, secrets)
                    }
    assert holding == NEEDED


def _held(value: object, secrets: dict[str, bytes]) -> bool:
    return bool(leaks(value if isinstance(value, bytes) else str(value).encode(), secrets))
