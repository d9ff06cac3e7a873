"""The main job over real sockets: questions through the buyer's node, honest and crooked sellers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from pyln.client import RpcError

from lyceum import l402
from lyceum.demo import plugin_path
from lyceum.devnet import Node
from lyceum.errors import BadInvoice, NoAnswer, OverBudget, PaymentFailed, PeerError
from lyceum.ports import Bill, Price
from networks import CHANNEL_MSAT, Market, mainnet_invoice, open_network
from servers import Rogue, asks_for, bills, garbage, goes_silent, in_thread, serving

ECONOMICS = "Why did Mises say that economic calculation is impossible under socialism?"
CULTURE = "What was the Harlem Renaissance?"
BOTH = "How did Hayek explain the business cycle, and what was the Harlem Renaissance?"


class Street(Market):
    """The market with a second seller, and both sellers' servers."""

    second: Node
    urls: tuple[str, str]

    def ask(self, question: str, budget_msat: int = 20_000, peers: str | None = None) -> dict[str, Any]:
        self.buyer.rpc.call("setconfig", ["lyceum-peers", ",".join(self.urls) if peers is None else peers])
        return self.call(self.buyer, "lyceum-ask", {"question": question, "budget_msat": budget_msat})


@pytest.fixture(scope="module")
def street(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    directory = tmp_path_factory.mktemp("street")
    with open_network(kind, directory / "nodes") as devnet:
        buyer, vienna, harlem = (devnet.node(name, plugin=plugin_path()) for name in ("buyer", "vienna", "harlem"))
        for seller in (vienna, harlem):
            devnet.connect(buyer, seller, CHANNEL_MSAT)
        devnet.connect(harlem, buyer, CHANNEL_MSAT)
        with (
            serving(directory, vienna, "austrian-economics") as economics,
            serving(directory, harlem, "american-culture") as culture,
        ):
            street = Street(devnet, buyer, vienna)
            street.second, street.urls = harlem, (economics, culture)
            yield street


def test_a_question_finds_its_specialist(street: Street) -> None:
    """Nobody names a model: the words of the question choose, and only that seller is paid."""
    for question, model, node in (
        (ECONOMICS, "austrian-economics", street.seller),
        (CULTURE, "american-culture", street.second),
    ):
        answer = street.ask(question)
        (member,) = answer["members"]
        assert (member["model"], member["node_id"], member["ok"]) == (model, node.node_id, True)
        assert answer["answer"].endswith(f"[{model}]")


def test_a_question_of_two_fields_is_split(street: Street) -> None:
    """Each half goes to its specialist, both are paid, and the parts are attributed."""
    answer = street.ask(BOTH)
    assert [member["model"] for member in answer["members"]] == ["austrian-economics", "american-culture"]
    first, second = answer["answer"].split("\n\n")
    assert first.endswith("[austrian-economics]")
    assert second.endswith("[american-culture]")
    assert "Harlem" in second


def test_the_account_adds_up_with_the_wallets(street: Street) -> None:
    """What left the buyer's channels is what the members were paid, and the sellers got it."""
    nodes = (street.buyer, street.seller, street.second)
    before = [street.settled_msat(node) for node in nodes]
    answer = street.ask(BOTH)
    after = [street.settled_msat(node) for node in nodes]
    paid_msat = sum(member["paid_msat"] + member["fee_msat"] for member in answer["members"])
    assert answer["paid_msat"] == paid_msat <= answer["budget_msat"]
    assert before[0] - after[0] == paid_msat
    assert sum(before) == sum(after)
    assert answer["total_msat"] == sum(member["charged_msat"] + member["fee_msat"] for member in answer["members"])


def test_credit_is_used_before_a_new_token_is_bought(street: Street) -> None:
    """A second short question is answered from what is left on the token of the first."""
    street.seller.rpc.call("setconfig", ["lyceum-bundle-msat", 9000])
    _forget(street, street.urls[0])
    try:
        first = street.ask("What is time preference?", peers=street.urls[0])
        second = street.ask("What is time preference?", peers=street.urls[0])
    finally:
        street.seller.rpc.call("setconfig", ["lyceum-bundle-msat", 1000])
    assert [answer["members"][0]["paid_msat"] for answer in (first, second)] == [9000, 0]
    assert second["members"][0]["charged_msat"] > 0
    assert second["members"][0]["payment_hash"] == first["members"][0]["payment_hash"]


def test_a_token_that_was_paid_and_never_used_is_used(street: Street) -> None:
    """Bought by somebody who then crashed: the next question to that seller costs nothing new."""
    url = street.urls[0]
    _forget(street, url)
    body = {"model": "austrian-economics", "messages": [{"role": "user", "content": ECONOMICS}]}
    line = httpx.post(f"{url}/v1/chat/completions", json=body).headers.get_list("www-authenticate")[1]
    ticket = street.call(street.buyer, "l402-pay", [line, url, 50_000])["ticket"]
    before = street.settled_msat(street.buyer)
    (member,) = street.ask(ECONOMICS, peers=url)["members"]
    assert (member["payment_hash"], member["paid_msat"], member["ok"]) == (ticket["payment_hash"], 0, True)
    assert street.settled_msat(street.buyer) == before


def test_answers_are_streamed_as_notifications(street: Street) -> None:
    """A caller that enables notifications reads the answer while it is written."""
    heard: list[str] = []
    rpc = street.buyer.rpc
    rpc.call("setconfig", ["lyceum-peers", street.urls[1]])
    with rpc.notify(lambda message, **_: heard.append(message)):
        answer = rpc.call("lyceum-ask", {"question": CULTURE, "budget_msat": 20_000})
    assert "".join(heard) == answer["answer"]
    assert len(heard) > 5


def test_a_budget_of_nothing_buys_nothing(street: Street) -> None:
    """With 0 msat no seller is paid, and each member says that it was too dear."""
    before = street.settled_msat(street.buyer)
    answer = street.ask(ECONOMICS, budget_msat=0)
    assert answer["finish"] == "error"
    assert {member["code"] for member in answer["members"]} == {OverBudget.code}
    assert street.settled_msat(street.buyer) == before


def test_a_budget_for_one_pays_one(street: Street) -> None:
    """When both parts do not fit, the first is answered and the second reported as too dear."""
    _forget(street, *street.urls)
    answer = street.ask(BOTH, budget_msat=1500)
    assert [member["ok"] for member in answer["members"]] == [True, False]
    assert answer["members"][1]["code"] == OverBudget.code
    assert answer["paid_msat"] <= 1500


def test_a_question_in_nobody_s_field_costs_nothing(street: Street) -> None:
    """No field touches it: NoAnswer, naming the fields, and nothing paid."""
    before = street.settled_msat(street.buyer)
    with pytest.raises(RpcError) as caught:
        street.ask("zxqv blorp?")
    assert caught.value.error["code"] == NoAnswer.rpc_code
    assert "austrian-economics" in caught.value.error["message"]
    assert street.settled_msat(street.buyer) == before


def test_a_peer_that_is_down_is_reported_and_the_others_answer(street: Street) -> None:
    """An unreachable seller appears among the members with its reason."""
    answer = street.ask(ECONOMICS, peers=f"{street.urls[0]},http://127.0.0.1:9")
    ok, absent = answer["members"]
    assert ok["ok"]
    assert (absent["ok"], absent["model"]) == (False, "http://127.0.0.1:9")
    assert "cannot be reached" in absent["error"]


def _invoice_lines(street: Street, amount_msat: int | str, expiry: int = 600) -> tuple[str, str]:
    made = street.seller.rpc.invoice(amount_msat, f"rogue/{_invoice_lines.__name__}/{_count()}", "rogue", expiry)
    macaroon = l402.challenge_macaroon(bytes(32), bytes.fromhex(made["payment_hash"]), bytes(32), "lyceum", 2**33)
    return l402.Challenge(macaroon, made["bolt11"]).header_lines()


_numbers = iter(range(1000))


def _count() -> int:
    return next(_numbers)


def _mainnet_lines(_: Street) -> tuple[str, str]:
    return l402.Challenge(b"opaque", mainnet_invoice(1000)).header_lines()


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (lambda street: _invoice_lines(street, 10_000), OverBudget.code),
        (lambda street: _invoice_lines(street, "any"), BadInvoice.code),
        (lambda street: _invoice_lines(street, 1000, expiry=1), BadInvoice.code),
        (_mainnet_lines, BadInvoice.code),
    ],
    ids=["ten times the price", "no amount", "expired", "another network"],
)
def test_a_crooked_challenge_is_not_paid(street: Street, lines: Any, code: str) -> None:
    """An invoice that is not what the list says is refused, reported, and costs nothing."""
    rogue = Rogue(asks_for(lambda: lines(street)), street.seller.node_id)
    before = street.settled_msat(street.buyer)
    with in_thread(rogue.app()) as url:
        answer = street.ask(ECONOMICS, peers=url)
    (member,) = answer["members"]
    assert (member["ok"], member["code"], member["paid_msat"]) == (False, code, 0)
    assert street.settled_msat(street.buyer) == before
    assert rogue.paid == []


def test_a_peer_that_asks_for_ever_is_paid_once(street: Street) -> None:
    """A seller that takes the money and asks again is paid once, and the loss is in the account."""
    rogue = Rogue(asks_for(lambda: _invoice_lines(street, 1000)), street.seller.node_id)
    with in_thread(rogue.app()) as url:
        answer = street.ask(ECONOMICS, peers=url)
    (member,) = answer["members"]
    assert (member["ok"], member["code"], member["paid_msat"]) == (False, PeerError.code, 1000)
    assert rogue.asked == 2
    assert answer["paid_msat"] == 1000


def test_an_invoice_of_a_stranger_is_not_paid(street: Street) -> None:
    """The node that a seller lists itself under is the node that must be paid."""
    rogue = Rogue(asks_for(lambda: _invoice_lines(street, 1000)), street.second.node_id)
    with in_thread(rogue.app()) as url:
        (member,) = street.ask(ECONOMICS, peers=url)["members"]
    assert member["code"] == BadInvoice.code


@pytest.mark.parametrize("answer", [garbage, goes_silent], ids=["garbage", "falls silent"])
def test_a_peer_that_answers_wrongly_is_reported_and_another_answers(street: Street, answer: Any) -> None:
    """Garbage or silence from one seller leaves the question to the next one of that field."""
    rogue = Rogue(answer)
    street.buyer.rpc.call("setconfig", ["lyceum-patience", 2])
    with in_thread(rogue.app()) as url:
        found = street.ask(ECONOMICS, peers=f"{url},{street.urls[0]}")
    street.buyer.rpc.call("setconfig", ["lyceum-patience", 30])
    assert rogue.asked == 1
    assert [member["code"] for member in found["members"] if not member["ok"]] == [PeerError.code]


def test_a_payment_that_fails_is_reported(street: Street) -> None:
    """Where the node finds no route the member says so, and nothing is lost."""
    with in_thread(Rogue(asks_for(lambda: _unreachable_lines(street))).app()) as url:
        before = street.settled_msat(street.buyer)
        (member,) = street.ask(ECONOMICS, peers=url)["members"]
    assert (member["code"], member["paid_msat"]) == (PaymentFailed.code, 0)
    assert street.settled_msat(street.buyer) == before


def _unreachable_lines(street: Street) -> tuple[str, str]:
    """A good challenge whose invoice was withdrawn before it could be paid."""
    label = f"withdrawn/{_count()}"
    made = street.seller.rpc.invoice(1000, label, "withdrawn")
    street.seller.rpc.delinvoice(label, "unpaid")
    macaroon = l402.challenge_macaroon(bytes(32), bytes.fromhex(made["payment_hash"]), bytes(32), "lyceum", 2**33)
    return l402.Challenge(macaroon, made["bolt11"]).header_lines()


def test_a_seller_that_overcharges_is_used_once(street: Street) -> None:
    """Its bill is recounted: the answer stands, the member says what is wrong, and nothing goes there again."""
    wrong = Bill(400, 600, Price(base_msat=100, output_per_1k_msat=1000), 0, 5)
    rogue = Rogue(bills(lambda: _invoice_lines(street, 1000), wrong), street.seller.node_id)
    with in_thread(rogue.app()) as url:
        first = street.ask(ECONOMICS, peers=url)
        before, asked = street.settled_msat(street.buyer), rogue.asked
        with pytest.raises(RpcError, match="overcharged: it charged 400 msat for an answer that costs 105"):
            street.ask(ECONOMICS, peers=url)
        refused = [street.call(street.buyer, name, {})[name.removeprefix("lyceum-")] for name in LISTINGS]
        bill = street.call(street.buyer, "lyceum-bill", {})["bill"]
        assert (rogue.asked, street.settled_msat(street.buyer)) == (asked, before)
        assert street.call(street.buyer, "lyceum-trust", [url]) == {"origin": url, "trusted_now": True}
        again = street.ask(ECONOMICS, peers=url)
        street.call(street.buyer, "lyceum-trust", [url])
    assert first["answer"].startswith("Gold.")
    assert [answer["members"][0]["complaint"] for answer in (first, again)] == [
        "it charged 400 msat for an answer that costs 105 by the price it showed"
    ] * 2
    assert all("it charged 400 msat" in row["complaint"] for (row,) in refused)
    (line,) = [line for line in bill if line["origin"] == url]
    assert (line["answers"], line["charged_msat"], line["recounted_msat"], line["disputes"]) == (1, 400, 105, 1)
    assert (line["paid_msat"], line["credit_msat"]) == (1000, 600)


LISTINGS = ("lyceum-models", "lyceum-peers")


def test_the_bill_is_what_the_sellers_charged(street: Street) -> None:
    """Per seller and model, answers, charges and credit as the sellers' own books have them."""
    url = street.urls[0]
    now = int(time.time())
    _forget(street, url)
    answer = street.ask(ECONOMICS, peers=url)
    (member,) = answer["members"]
    bill = street.call(street.buyer, "lyceum-bill", {"since": now})["bill"]
    (line,) = [line for line in bill if line["origin"] == url]
    assert (line["model"], line["answers"], line["failed"]) == (member["model"], 1, 0)
    assert line["charged_msat"] == line["recounted_msat"] == member["charged_msat"]
    assert (line["paid_msat"], line["fee_msat"]) == (member["paid_msat"], member["fee_msat"])
    sold = street.call(street.seller, "l402-tokens", [1])["sold"][0]
    assert line["credit_msat"] == member["credit_msat"] == sold["balance_msat"]


def test_models_and_peers_are_listed(street: Street) -> None:
    """lyceum-models and lyceum-peers show who sells what, at which price, and who is away."""
    street.buyer.rpc.call("setconfig", ["lyceum-peers", ",".join((*street.urls, "http://127.0.0.1:9"))])
    models = street.call(street.buyer, "lyceum-models", {})["models"]
    assert {model["model"] for model in models} == {"austrian-economics", "american-culture"}
    assert all(model["price"]["base_msat"] == 100 and len(model["digest"]) == 64 for model in models)
    peers = street.call(street.buyer, "lyceum-peers", {})["peers"]
    assert [peer["node_id"] for peer in peers[:2]] == [street.seller.node_id, street.second.node_id]
    assert peers[2]["error"]


def test_the_ensemble_is_served_and_sold_like_any_model(street: Street, tmp_path: Path) -> None:
    """A server that sells an ensemble buys from its peers through its own node, within its budget."""
    more = f'[ensemble]\nname = "council"\npeers = ["{street.urls[0]}", "{street.urls[1]}"]\nbase_msat = 5000\n'
    with serving(tmp_path, street.buyer, more=more) as url:
        assert [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]] == ["council"]
        body = {"model": "council", "messages": [{"role": "user", "content": BOTH}]}
        bought = _buy(street, url, body)
        assert "Harlem" in bought["choices"][0]["message"]["content"]
        assert bought["lyceum"]["charge"]["charged_msat"] == 5000
        assert [member["ok"] for member in bought["lyceum"]["members"]] == [True, True]


def _buy(street: Street, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """One paid answer, bought by the second seller's node: a node cannot pay itself."""
    challenge = httpx.post(f"{url}/v1/chat/completions", json=body).headers.get_list("www-authenticate")[1]
    ticket = street.call(street.second, "l402-pay", [challenge, url, 50_000])["ticket"]
    headers = {"Authorization": ticket["authorization"]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60).json()  # type: ignore[no-any-return]


def _forget(street: Street, *urls: str) -> None:
    """Drop the kept tokens of these sellers, so that the next ask pays."""
    for url in urls:
        while "ticket" in (kept := street.call(street.buyer, "l402-kept", [url])):
            street.call(street.buyer, "l402-discard", [kept["ticket"]["payment_hash"]])
