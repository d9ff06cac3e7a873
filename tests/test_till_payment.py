"""A `Payment` at the till: one answer of an untouched token; whatever is shown, money paid once is spent once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from both_schemes import Offered
from lyceum.l402 import Ambiguous
from lyceum.l402.canonical import from_base64url
from lyceum.ports import Admitted, Declined
from lyceum.till import LATE_S, RESERVATION_S, Admission
from test_till import Shop, admitted


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "books.sqlite3")
    yield shop
    shop.database.close()


class Buyer(Offered):
    """Pays the one invoice of a challenge, and can then show it in two ways."""

    def __init__(self, shop: Shop, declined: Admitted | Declined) -> None:
        assert isinstance(declined, Declined)
        super().__init__(declined.headers)
        preimage = shop.wallet.settle(shop.wallet.decode(self.invoice)).preimage
        self.l402, self.payment = self.as_balance(preimage), self.as_payment(preimage)


def reason(answer: Admitted | Declined) -> str:
    assert isinstance(answer, Declined)
    return answer.reason


def test_a_payment_buys_an_answer(shop: Shop) -> None:
    """The worst case is reserved as for any token, and the answer carries a receipt that names the payment."""
    buyer = Buyer(shop, shop.ask())
    answer = admitted(shop.ask(buyer.payment))
    assert (answer.amount_msat, answer.balance_msat) == (1500, 1500)
    ((name, value),) = answer.headers
    receipt = json.loads(from_base64url(value))
    assert (name, receipt["status"], receipt["challengeId"]) == ("Payment-Receipt", "success", buyer.challenge["id"])
    assert receipt["reference"] == answer.payment_hash == buyer.request["methodDetails"]["paymentHash"]


def test_a_balance_has_no_receipt(shop: Shop) -> None:
    """The header belongs to the scheme `Payment` alone."""
    assert admitted(shop.ask(Buyer(shop, shop.ask()).l402)).headers == ()


def test_it_buys_one_answer(shop: Shop) -> None:
    """Shown again, while the answer is under way or after it, it is refused; nothing more is reserved."""
    buyer = Buyer(shop, shop.ask())
    answer = admitted(shop.ask(buyer.payment))
    assert reason(shop.ask(buyer.payment)) == "already-used"
    shop.till.settle(answer.reservation, 700)
    assert reason(shop.ask(buyer.payment)) == "already-used"
    assert shop.till.sales()["reserved_msat"] == 0


def test_an_answer_that_failed_gives_the_payment_back(shop: Shop) -> None:
    """Settled at zero it can be shown again."""
    buyer = Buyer(shop, shop.ask())
    shop.till.settle(admitted(shop.ask(buyer.payment)).reservation, 0)
    admitted(shop.ask(buyer.payment))


def test_a_dead_server_gives_the_payment_back(shop: Shop) -> None:
    """A reservation that nobody settles lapses; the macaroon is good for longer than the challenge."""
    buyer = Buyer(shop, shop.ask())
    admitted(shop.ask(buyer.payment))
    shop.clock.now += RESERVATION_S + 1
    admitted(shop.ask(buyer.payment))
    shop.clock.now += RESERVATION_S + 1
    assert reason(shop.ask(buyer.payment)) == "expired"
    assert admitted(shop.ask(buyer.l402)).balance_msat == 1500


def test_what_an_answer_leaves_is_on_the_macaroon(shop: Shop) -> None:
    """Nothing of an invoice is lost, and nothing of it is spent twice, whichever way it is shown."""
    buyer = Buyer(shop, shop.ask())
    shop.till.settle(admitted(shop.ask(buyer.payment)).reservation, 700)
    answer = admitted(shop.ask(buyer.l402, amount_msat=2300))
    assert answer.balance_msat == 0
    shop.till.settle(answer.reservation, 2300)
    assert reason(shop.ask(buyer.l402, amount_msat=1)) == "exhausted"
    assert shop.till.sales()["spent_msat"] == 3000


def test_a_token_in_use_is_no_payment(shop: Shop) -> None:
    """Of a token that was shown as a balance nothing is sold by `Payment`."""
    buyer = Buyer(shop, shop.ask())
    shop.till.settle(admitted(shop.ask(buyer.l402)).reservation, 1)
    assert reason(shop.ask(buyer.payment)) == "already-used"


def test_one_payment_under_both_schemes_at_once(shop: Shop) -> None:
    """Sixteen threads show one payment for two answers in both ways: never more is reserved than was paid."""
    buyer, start = Buyer(shop, shop.ask()), Barrier(16)

    def ask(number: int) -> Admitted | Declined:
        start.wait()
        return shop.ask(buyer.payment if number % 2 else buyer.l402)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 2
    assert sum(isinstance(answer, Admitted) and bool(answer.headers) for answer in answers) <= 1
    assert shop.till.sales()["reserved_msat"] == 3000


@settings(max_examples=25, deadline=None)
@given(shown=st.lists(st.tuples(st.booleans(), st.integers(1, 3000), st.integers(0, 3000)), max_size=8))
def test_no_sequence_spends_more_than_was_paid(
    tmp_path_factory: pytest.TempPathFactory, shown: list[tuple[bool, int, int]]
) -> None:
    """In whatever order the two are shown and whatever is charged."""
    shop, charged, payments = Shop(tmp_path_factory.mktemp("till") / "books.sqlite3"), 0, 0
    buyer = Buyer(shop, shop.ask())
    for as_payment, amount_msat, charge_msat in shown:
        answer = shop.ask(buyer.payment if as_payment else buyer.l402, amount_msat)
        if isinstance(answer, Admitted):
            settled = shop.till.settle(answer.reservation, charge_msat)
            charged += settled.charged_msat
            payments += as_payment and settled.charged_msat > 0
    assert charged <= 3000
    assert payments <= 1
    assert charged == shop.till.sales()["spent_msat"]
    shop.database.close()


def test_a_cheap_payment_buys_no_dear_answer(shop: Shop) -> None:
    """What was quoted is the most that it is good for, even of a token that holds more."""
    buyer = Buyer(shop, shop.ask())
    shop.wallet.received[buyer.request["methodDetails"]["paymentHash"]] = 6000
    assert reason(shop.ask(buyer.payment, amount_msat=3001)) == "exhausted"
    assert admitted(shop.ask(buyer.payment, amount_msat=3000)).balance_msat == 3000


def test_a_useful_answer_within_the_quote_is_given(shop: Shop) -> None:
    """A price that rose since the quote shortens the answer rather than voiding the payment."""
    buyer = Buyer(shop, shop.ask())
    dear = Admission((buyer.payment,), "llm", 9000, "economist", 200, least_msat=2000)
    assert admitted(shop.till.admit(dear)).amount_msat == 3000


@pytest.mark.parametrize(
    ("service", "model", "why"), [("other", "economist", "wrong-service"), ("llm", "poet", "wrong-model")]
)
def test_a_payment_is_for_one_service_and_model(shop: Shop, service: str, model: str, why: str) -> None:
    """For anything else it buys nothing, and stays whole."""
    buyer = Buyer(shop, shop.ask())
    assert reason(shop.till.admit(Admission((buyer.payment,), service, 1500, model, 200))) == why
    admitted(shop.ask(buyer.payment))


def test_an_unpaid_challenge_buys_nothing(shop: Shop) -> None:
    """Forwarding nodes learn the preimage before the seller is paid: the node's word counts."""
    buyer = Buyer(shop, shop.ask())
    shop.wallet.received.clear()
    assert reason(shop.ask(buyer.payment)) == "not-paid"
    assert shop.rows() == 0


@pytest.mark.parametrize("name", ["id", "realm", "request", "expires"])
def test_an_altered_challenge_is_none_of_ours(shop: Shop, name: str) -> None:
    """Whatever is changed, the id does not fit any more."""
    buyer = Buyer(shop, shop.ask())
    altered = buyer.as_payment("00" * 32, **{name: buyer.challenge[name] + "0"})
    assert reason(shop.ask(altered)) == "bad-signature"


def test_who_pays_in_the_last_second_is_served(shop: Shop) -> None:
    """The challenge outlives its invoice, and then ends."""
    buyer = Buyer(shop, shop.ask())
    shop.clock.now += 600 + LATE_S - 1
    shop.till.settle(admitted(shop.ask(buyer.payment)).reservation, 0)
    shop.clock.now += 1
    assert reason(shop.ask(buyer.payment)) == "expired"


def test_a_revoked_token_is_no_payment_either(shop: Shop) -> None:
    """It is the same token under another name."""
    buyer = Buyer(shop, shop.ask())
    assert shop.till.revoke(buyer.request["externalId"].split("/")[0])
    assert reason(shop.ask(buyer.payment)) == "revoked"


def test_both_at_once_are_ambiguous(shop: Shop) -> None:
    """Two ways of showing one payment in one request are two credentials: which one counts is not guessed."""
    buyer = Buyer(shop, shop.ask())
    with pytest.raises(Ambiguous):
        shop.till.admit(Admission((buyer.payment, buyer.l402), "llm", 1500, "economist", 200))


def test_a_refusal_has_the_schemes_own_name(shop: Shop) -> None:
    """The problem's type, for clients that go by it."""
    declined = shop.ask()
    assert isinstance(declined, Declined)
    assert declined.kind == "https://paymentauth.org/problems/payment-required"
