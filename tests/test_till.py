"""The seller, over real books and a wallet that only pretends: challenge, admit, settle, revoke."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import MASTER, Clock, FakeWallet, preimage_of
from lyceum.errors import BadRequest, RateLimited, TooManyChallenges
from lyceum.l402 import Ambiguous, Challenge, Credential, attenuate, caveats, parse_challenge
from lyceum.ledger import Database, FreebieBook, TillBook, TopupBook
from lyceum.ports import Admitted, Declined, Settlement
from lyceum.tariff import Tariff
from lyceum.till import RESERVATION_S, Admission, Till, TillTerms, Topups
from lyceum.till.rate import MOST_CLIENTS, Rate

ASK = Admission((), "llm", 1500, "economist", 200)


class Shop:
    """A till with all that stands around it."""

    def __init__(
        self, path: Path, master: bytes = MASTER, terms: TillTerms | None = None, wallet: FakeWallet | None = None
    ) -> None:
        self.wallet = wallet or FakeWallet(Clock())
        self.clock = self.wallet.clock
        self.database = Database(path)
        self.ledger = TillBook(self.database)
        numbers = itertools.count(1 + len(self.wallet.made))
        self.topups = Topups(
            self.wallet,
            TopupBook(self.database),
            now=self.clock,
            random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
        )
        self.till = Till(
            self.wallet,
            self.ledger,
            master,
            terms or TillTerms(bundle_msat=2500, token_s=5000, challenge_s=600),
            now=self.clock,
            random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            topups=self.topups,
            freebies=FreebieBook(self.database),
        )

    def ask(self, header: str = "", amount_msat: int = 1500, service: str = "llm") -> Admitted | Declined:
        return self.till.admit(Admission((header,) if header else (), service, amount_msat, "economist", 200))

    def sell(self, amount_msat: int = 1500, service: str = "llm") -> Credential:
        """A buyer pays a fresh challenge."""
        declined = self.ask(amount_msat=amount_msat, service=service)
        challenge = challenge_in(declined)
        payment = self.wallet.settle(self.wallet.decode(challenge.invoice))
        return Credential(challenge.macaroon, bytes.fromhex(payment.preimage))

    def rows(self) -> int:
        tables = ("tokens", "reservations", "revocations", "purchases")
        return sum(len(self.database.read(f"SELECT 1 FROM {table}")) for table in tables)  # noqa: S608


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "books.sqlite3")
    yield shop
    shop.database.close()


def challenge_in(answer: Admitted | Declined) -> Challenge:
    assert isinstance(answer, Declined)
    return parse_challenge([line for _, line in answer.headers])


def admitted(answer: Admitted | Declined) -> Admitted:
    assert isinstance(answer, Admitted)
    return answer


# The first contact


def test_the_first_contact_is_told_to_pay(shop: Shop) -> None:
    """One invoice in every line; the old name first, since old clients read one line only, `Payment` last."""
    declined = shop.ask()
    assert isinstance(declined, Declined)
    assert declined.reason == "payment-required"
    assert [(name, line.split()[0]) for name, line in declined.headers] == [
        ("WWW-Authenticate", "LSAT"),
        ("WWW-Authenticate", "L402"),
        ("WWW-Authenticate", "Payment"),
    ]
    old, new, _ = (line for _, line in declined.headers)
    assert parse_challenge([old]) == parse_challenge([new])


def test_the_challenge_belongs_to_its_invoice(shop: Shop) -> None:
    """The macaroon names the payment hash of the invoice beside it."""
    challenge = challenge_in(shop.ask())
    identifier = challenge.identifier()
    assert identifier
    assert identifier.payment_hash.hex() == shop.wallet.decode(challenge.invoice).payment_hash


@pytest.mark.parametrize(
    ("amount", "bundle", "expected"),
    [(1, 0, 1000), (1500, 0, 2000), (1500, 2500, 3000), (3000, 2500, 3000), (3001, 2500, 4000)],
)
def test_the_first_payment(tmp_path: Path, amount: int, bundle: int, expected: int) -> None:
    """The larger of this request and the bundle, in whole satoshis, rounded up."""
    shop = Shop(tmp_path / "books.sqlite3", terms=TillTerms(bundle))
    declined = shop.ask(amount_msat=amount)
    assert isinstance(declined, Declined)
    assert declined.amount_msat == expected
    assert shop.wallet.decode(challenge_in(declined).invoice).amount_msat == expected
    shop.database.close()


def test_the_invoice_says_what_is_bought(shop: Shop) -> None:
    """Service and model, and it lives as long as the terms say."""
    invoice = shop.wallet.decode(challenge_in(shop.ask()).invoice)
    assert shop.wallet.described == ["L402 llm economist"]
    assert invoice.expires_at == shop.clock.now + 600


def test_nothing_is_written_before_payment(shop: Shop) -> None:
    """A stranger who asks, or shows an unpaid token, leaves no row behind."""
    shop.ask()
    challenge = challenge_in(shop.ask())
    shop.ask(Credential(challenge.macaroon, preimage_of(1)).header())
    shop.ask("L402 garbage")
    assert shop.rows() == 0


# Limits, before anything is minted


def knock(shop: Shop, client: str = "192.0.2.0/24", amount_msat: int = 1500, model: str = "economist") -> Declined:
    answer = shop.till.admit(Admission((), "llm", amount_msat, model, 200, client))
    assert isinstance(answer, Declined)
    return answer


def knock_differently(shop: Shop, times: int, client: str = "192.0.2.0/24") -> None:
    """Each time for another amount, so that nothing can be shown again."""
    for _ in range(times):
        knock(shop, client, 1000 * (100 + len(shop.wallet.made)))


def test_the_same_challenge_is_shown_again(shop: Shop) -> None:
    """To the same network that wants the same; minted once, however often it asks."""
    assert len({knock(shop) for _ in range(200)}) == 1
    assert len(shop.wallet.made) == 1


@pytest.mark.parametrize("other", [{"client": "198.51.100.0/24"}, {"amount_msat": 9000}, {"model": "poet"}])
def test_another_wish_is_another_challenge(shop: Shop, other: dict[str, Any]) -> None:
    """Who asks, for what and at which price make it the same."""
    assert knock(shop) != knock(shop, **other)


def test_a_stranger_without_an_address_is_nobody_s_double(shop: Shop) -> None:
    """Callers that do not say who asks are not taken for one another, nor limited together."""
    assert len({knock(shop, client="") for _ in range(100)}) == 100


def test_a_paid_challenge_is_not_shown_again(shop: Shop) -> None:
    """Whoever saw it second could not pay it any more."""
    first = knock(shop)
    shop.wallet.settle(shop.wallet.decode(challenge_in(first).invoice))
    assert knock(shop) != first


def test_a_challenge_near_its_end_is_not_shown_again(shop: Shop) -> None:
    """It has half of its time left, or it is another one."""
    first = knock(shop)
    shop.clock.now += 300
    assert knock(shop) == first
    shop.clock.now += 1
    assert knock(shop) != first


def test_a_shown_challenge_is_no_key(shop: Shop) -> None:
    """The one who pays has the preimage; the other, with the same macaroon, has nothing."""
    payer, other = challenge_in(knock(shop)), challenge_in(knock(shop))
    assert payer == other
    payment = shop.wallet.settle(shop.wallet.decode(payer.invoice))
    admitted(shop.ask(Credential(payer.macaroon, bytes.fromhex(payment.preimage)).header()))
    refused = shop.ask(Credential(other.macaroon, b"\x00" * 32).header())
    assert isinstance(refused, Declined)
    assert refused.reason == "bad-preimage"


def test_a_network_is_limited_before_anything_is_minted(shop: Shop) -> None:
    """A minute's worth at once, then one every two seconds; the sentence and the header say when."""
    knock_differently(shop, 30)
    with pytest.raises(RateLimited) as caught:
        knock_differently(shop, 1)
    assert caught.value.retry_after_s == 2
    assert len(shop.wallet.made) == 30
    shop.clock.now += 2
    knock_differently(shop, 1)
    with pytest.raises(RateLimited):
        knock_differently(shop, 1)


def test_a_limited_network_is_limited_alone(shop: Shop) -> None:
    """Others are shown challenges, and a token of the limited one is let in."""
    header = shop.sell().header()
    knock_differently(shop, 30)
    with pytest.raises(RateLimited):
        knock_differently(shop, 1)
    knock(shop, client="198.51.100.0/24")
    admitted(shop.till.admit(Admission((header,), "llm", 1500, "economist", 200, "192.0.2.0/24")))


def test_open_invoices_have_a_ceiling(tmp_path: Path) -> None:
    """Of those in the node's books; room comes with payment and with time."""
    shop = Shop(tmp_path / "books.sqlite3", terms=TillTerms(open_challenges=3))
    credential = shop.sell()
    shop.ask()
    shop.clock.now += 10
    shop.ask()
    with pytest.raises(TooManyChallenges) as caught:
        shop.ask()
    assert caught.value.retry_after_s == 590
    assert len(shop.wallet.made) == 3
    admitted(shop.ask(credential.header()))
    shop.ask()
    with pytest.raises(TooManyChallenges):
        shop.ask()
    shop.clock.now += 591
    shop.ask()
    shop.database.close()


def test_what_the_node_does_not_keep_has_no_ceiling(tmp_path: Path) -> None:
    """A flood of lazy challenges must not shut out the honest."""
    shop = Shop(tmp_path / "books.sqlite3", terms=TillTerms(open_challenges=3))
    shop.wallet.lazy = True
    for _ in range(100):
        shop.ask()
    shop.database.close()


def test_the_limiter_s_memory_is_bounded() -> None:
    """A million networks leave ten thousand; the one seen last is still known."""
    rate = Rate()
    for number in range(MOST_CLIENTS + 500):
        assert rate.take(f"net {number}", 1, 1000) == 0
    assert len(rate) == MOST_CLIENTS
    assert rate.take(f"net {MOST_CLIENTS + 499}", 1, 1000) == 60


def test_a_clock_that_goes_back_gives_nothing(shop: Shop) -> None:
    """Neither a challenge nor a longer wait."""
    rate = Rate()
    assert [rate.take("net", 2, now) for now in (1000, 1000, 1000, 500, 500)] == [0, 0, 30, 30, 30]


def test_a_quote_is_what_the_first_payment_will_be(shop: Shop) -> None:
    """The larger of the request and the bundle, in whole satoshis; nothing is made for it."""
    assert [shop.till.quote(amount, "") for amount in (1, 2500, 3001)] == [3000, 3000, 4000]
    assert shop.wallet.made == {}


def test_quotes_are_limited_apart_from_challenges(shop: Shop) -> None:
    """A network that looks at prices too often is told when to come back, and may still buy."""
    for _ in range(shop.till.terms.challenges_per_minute):
        shop.till.quote(1, "192.0.2.0/24")
    with pytest.raises(RateLimited) as limited:
        shop.till.quote(1, "192.0.2.0/24")
    assert limited.value.retry_after_s > 0
    assert shop.till.quote(1, "198.51.100.0/24")
    assert isinstance(shop.till.admit(replace(ASK, client="192.0.2.0/24")), Declined)


# Prices of the day


def priced(shop: Shop, **tariff: Any) -> None:
    shop.till.terms = replace(shop.till.terms, tariff=Tariff(**tariff))


def test_a_stranger_pays_the_price_of_the_day(shop: Shop) -> None:
    """The model's share and the load's, in the challenge and in what is reserved for it."""
    priced(shop, models=(("economist", 200),), per_waiting=50)
    declined = shop.till.admit(replace(ASK, amount_msat=2000, waiting=1))
    assert isinstance(declined, Declined)
    assert (declined.percent, declined.amount_msat) == (300, 6000)
    header = shop.sell(amount_msat=2000).header()
    admission = replace(ASK, authorization=(header,), amount_msat=1000, least_msat=10)
    assert (admitted(shop.till.admit(admission)).percent, shop.till.sales()["reserved_msat"]) == (200, 2000)


def test_a_quoted_price_holds_as_long_as_its_challenge(shop: Shop) -> None:
    """The price rises after the payment: for the same model it is the old one until the challenge's time is over."""
    header = shop.sell(amount_msat=3000).header()
    priced(shop, models=(("*", 150),))
    assert admitted(shop.ask(header, amount_msat=1000)).percent == 100
    shop.clock.now += 600
    assert admitted(shop.ask(header, amount_msat=1000)).amount_msat == 1000
    shop.clock.now += 1
    refused = shop.ask(header, amount_msat=1000)
    assert isinstance(refused, Declined)
    assert refused.percent == 150


def test_a_quote_holds_for_its_model_alone(shop: Shop) -> None:
    """A cheap one is no key to a dear one."""
    header = shop.sell(amount_msat=3000).header()
    priced(shop, models=(("poet", 200),))
    assert admitted(shop.ask(header, amount_msat=100)).percent == 100
    assert admitted(shop.till.admit(Admission((header,), "llm", 100, "poet", 200))).percent == 200


def test_a_price_that_fell_is_the_lower_one(shop: Shop) -> None:
    """A quote is the most that is asked."""
    priced(shop, models=(("*", 200),))
    header = shop.sell(amount_msat=1000).header()
    priced(shop)
    assert admitted(shop.ask(header, amount_msat=100)).percent == 100


def test_a_raised_price_is_another_challenge(shop: Shop) -> None:
    """Though both are for the bundle: the open one was promised at another price."""
    first = knock(shop, amount_msat=100)
    priced(shop, models=(("*", 150),))
    second = knock(shop, amount_msat=100)
    assert first.amount_msat == second.amount_msat
    assert (first.percent, second.percent, len(shop.wallet.made)) == (100, 150, 2)


def test_who_prepaid_more_pays_less(shop: Shop) -> None:
    """By what the token was credited in all, however much of it is spent."""
    priced(shop, tiers=((5000, 80),))
    small, large = shop.sell(amount_msat=4000).header(), shop.sell(amount_msat=5000).header()
    assert admitted(shop.ask(small, amount_msat=1000)).percent == 100
    assert admitted(shop.ask(large, amount_msat=5000)).percent == 80
    assert admitted(shop.ask(large, amount_msat=1000)).amount_msat == 800


# Free requests


def test_a_network_has_its_free_requests_and_then_pays(tmp_path: Path) -> None:
    """Counted by service, kept in the books; nothing is minted for them and nothing is to be settled."""
    terms = TillTerms(freebies=2)
    shop = Shop(tmp_path / "books.sqlite3", terms=terms)
    ask = Admission((), "llm", 1500, "economist", 200, "192.0.2.0/24")
    assert [admitted(shop.till.admit(ask)).reservation for _ in range(2)] == ["", ""]
    assert shop.wallet.made == {}
    shop.database.close()
    again = Shop(tmp_path / "books.sqlite3", terms=terms)
    assert isinstance(again.till.admit(ask), Declined)
    admitted(again.till.admit(replace(ask, service="other")))
    admitted(again.till.admit(replace(ask, client="198.51.100.0/24")))
    assert again.till.sales()["answers"] == 0
    again.database.close()


@pytest.mark.parametrize(
    ("freebies", "client", "header"), [(0, "192.0.2.0/24", ""), (9, "", ""), (9, "192.0.2.0/24", "L402 abc")]
)
def test_nothing_is_free_by_mistake(tmp_path: Path, freebies: int, client: str, header: str) -> None:
    """Not without the option, not for a stranger without an address, not in place of a bad credential."""
    shop = Shop(tmp_path / "books.sqlite3", terms=TillTerms(freebies=freebies))
    assert isinstance(shop.till.admit(Admission((header,) if header else (), "llm", 1, client=client)), Declined)
    shop.database.close()


def test_a_token_is_charged_before_anything_is_free(tmp_path: Path) -> None:
    """Whoever shows one wants to pay with it, and keeps the free requests."""
    shop = Shop(tmp_path / "books.sqlite3", terms=TillTerms(freebies=1))
    ask = Admission((shop.sell().header(),), "llm", 1000, client="192.0.2.0/24")
    assert admitted(shop.till.admit(ask)).reservation
    assert not admitted(shop.till.admit(replace(ask, authorization=()))).reservation
    shop.database.close()


def test_parallel_free_requests_are_no_more(tmp_path: Path) -> None:
    """Of eight at once against three, three are free."""
    shop, start = Shop(tmp_path / "books.sqlite3", terms=TillTerms(freebies=3)), Barrier(8)

    def ask(_: int) -> Admitted | Declined:
        start.wait()
        return shop.till.admit(Admission((), "llm", 1500, client="192.0.2.0/24"))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 3
    shop.database.close()


# A paid token


def test_a_paid_token_gets_in(shop: Shop) -> None:
    """Its balance is what was received, less what is now reserved."""
    credential = shop.sell()
    answer = admitted(shop.ask(credential.header()))
    assert (answer.amount_msat, answer.balance_msat) == (1500, 3000 - 1500)
    assert answer.payment_hash == credential.payment_hash.hex()


def test_an_overpayment_is_credit(shop: Shop) -> None:
    """BOLT 4 allows a payer to send more; all that was received belongs to the token."""
    credential = shop.sell()
    shop.wallet.received[credential.payment_hash.hex()] = 5000
    assert admitted(shop.ask(credential.header())).balance_msat == 3500


def test_reserve_and_settle(shop: Shop) -> None:
    """The charge leaves the balance, the rest of the reservation returns to it."""
    header = shop.sell().header()
    first = admitted(shop.ask(header))
    assert shop.till.settle(first.reservation, 700) == Settlement(first.token_id, 700, 2300)
    second = admitted(shop.ask(header, amount_msat=2300))
    assert second.balance_msat == 0
    assert shop.till.settle(second.reservation, 0).balance_msat == 2300
    assert shop.till.sales() == {
        "tokens": 1,
        "credit_msat": 3000,
        "spent_msat": 700,
        "reserved_msat": 0,
        "balance_msat": 2300,
        "refunded_msat": 0,
        "answers": 1,
    }


def test_a_charge_never_exceeds_its_reservation(shop: Shop) -> None:
    """Nor does a repeated settlement charge again."""
    first = admitted(shop.ask(shop.sell().header()))
    assert shop.till.settle(first.reservation, 9999).charged_msat == 1500
    assert shop.till.settle(first.reservation, 9999) == Settlement(first.token_id, 1500, 1500)


def test_an_unknown_reservation_is_the_callers_fault(shop: Shop) -> None:
    """Settling what was never reserved is refused, not ignored."""
    with pytest.raises(BadRequest, match="no such reservation"):
        shop.till.settle("no such", 1)


@pytest.mark.parametrize("charge", [-1, True])
def test_a_charge_is_an_amount(shop: Shop, charge: int) -> None:
    """A negative charge would be a gift from the till."""
    with pytest.raises(ValueError, match="charge_msat"):
        shop.till.settle("any", charge)


def test_a_dead_servers_reservation_lapses(shop: Shop) -> None:
    """After its time the balance is whole again."""
    header = shop.sell().header()
    shop.ask(header, amount_msat=3000)
    assert isinstance(shop.ask(header), Declined)
    shop.clock.now += RESERVATION_S + 1
    assert admitted(shop.ask(header)).balance_msat == 1500


def test_parallel_requests_never_oversell(shop: Shop) -> None:
    """Eight threads with one token for three answers: three get in, also on its first use."""
    header, start = shop.sell(4500).header(), Barrier(8)

    def ask(_: int) -> Admitted | Declined:
        start.wait()
        return shop.ask(header)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sorted(isinstance(answer, Admitted) for answer in answers) == [False] * 5 + [True] * 3
    assert {answer.reason for answer in answers if isinstance(answer, Declined)} == {"exhausted"}
    assert shop.till.sales()["reserved_msat"] == 4500


# Refusals


def foreign(shop: Shop, tmp_path: Path) -> str:
    other = Shop(tmp_path / "other.sqlite3", master=b"n" * 32)
    credential = other.sell()
    other.database.close()
    return credential.header()


def expired(shop: Shop) -> str:
    header = shop.sell().header()
    shop.clock.now += 5000
    return header


def revoked(shop: Shop, uses: int) -> str:
    credential = shop.sell()
    for _ in range(uses):
        shop.ask(credential.header())
    identifier = Challenge(credential.macaroon, "lnbcrt1q").identifier()
    assert identifier
    assert shop.till.revoke(identifier.token_id.hex())
    return credential.header()


def narrowed(shop: Shop) -> str:
    credential = shop.sell()
    smaller = attenuate(credential.macaroon, caveats.models("llm", ["poet"]))
    return Credential(smaller, credential.preimage).header()


def unpaid(shop: Shop) -> str:
    return Credential(challenge_in(shop.ask()).macaroon, preimage_of(0)).header()


REFUSALS: dict[str, Callable[[Shop, Path], str]] = {
    "not-paid": lambda shop, _: unpaid(shop),
    "bad-preimage": lambda shop, _: Credential(shop.sell().macaroon, b"\x00" * 32).header(),
    "bad-signature": foreign,
    "expired": lambda shop, _: expired(shop),
    "revoked": lambda shop, _: revoked(shop, 0),
    "revoked ": lambda shop, _: revoked(shop, 1),
    "wrong-service": lambda shop, _: shop.sell(service="other").header(),
    "wrong-model": lambda shop, _: narrowed(shop),
    "malformed-credential": lambda shop, _: "L402 abc",
    "payment-required": lambda shop, _: "Basic YTpi",
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_says_why_and_sells_a_new_token(shop: Shop, tmp_path: Path, reason: str) -> None:
    """The stable reason, a sentence, a challenge that works; and no reservation."""
    header = REFUSALS[reason](shop, tmp_path)
    invoices, reserved = len(shop.wallet.made), shop.till.sales()["reserved_msat"]
    declined = shop.ask(header)
    assert isinstance(declined, Declined)
    assert declined.reason == reason.strip()
    assert declined.detail
    assert len(shop.wallet.made) == invoices + 1
    assert shop.till.sales()["reserved_msat"] == reserved
    challenge = challenge_in(declined)
    payment = shop.wallet.settle(shop.wallet.decode(challenge.invoice))
    admitted(shop.ask(Credential(challenge.macaroon, bytes.fromhex(payment.preimage)).header()))


def test_an_exhausted_token_says_what_it_holds(shop: Shop) -> None:
    """Enough for a shorter ask, so the sentence names both amounts; the balance stays."""
    header = shop.sell().header()
    declined = shop.ask(header, amount_msat=3001)
    assert isinstance(declined, Declined)
    assert declined.reason == "exhausted"
    assert "3001" in declined.detail
    assert "holds 3000" in declined.detail
    admitted(shop.ask(header, amount_msat=3000))


def test_a_revoked_token_leaves_no_row(shop: Shop) -> None:
    """Revoked before its first use it is never opened."""
    shop.ask(revoked(shop, 0))
    assert shop.till.sales()["tokens"] == 0


def test_two_credentials_are_ambiguous(shop: Shop) -> None:
    """Whichever is charged could be the wrong one: an error, no invoice, no charge."""
    headers = (shop.sell().header(), shop.sell().header())
    invoices = len(shop.wallet.made)
    with pytest.raises(Ambiguous):
        shop.till.admit(Admission(headers, "llm", 100))
    assert len(shop.wallet.made) == invoices
    assert shop.rows() == 0


@pytest.mark.parametrize("token_id", ["", "aa", "AA" * 32, "zz" * 32, "aa" * 33])
def test_only_a_token_id_is_revoked(shop: Shop, token_id: str) -> None:
    """A typing mistake must not look like a revocation."""
    with pytest.raises(BadRequest, match="64 lower-case hex"):
        shop.till.revoke(token_id)


@pytest.mark.parametrize(("service", "amount"), [("", 1), ("LLM", 1), ("a:b", 1), ("llm", 0), ("llm", -1)])
def test_an_admission_that_cannot_be_sold_cannot_be_built(service: str, amount: int) -> None:
    """A service name that would break a caveat, an amount that is nothing."""
    with pytest.raises(ValueError, match=r"service|amount_msat"):
        Admission((), service, amount)


@pytest.mark.parametrize(("token_s", "challenge_s"), [(600, 600), (10, 0), (5, 10)])
def test_a_token_outlives_its_challenge(token_s: int, challenge_s: int) -> None:
    """Else one could pay for a token that has already expired."""
    with pytest.raises(ValueError, match="outlive"):
        TillTerms(1000, token_s, challenge_s)


@settings(max_examples=25, deadline=None)
@given(orders=st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 2500)), max_size=8))
def test_no_sequence_of_answers_overdraws(
    tmp_path_factory: pytest.TempPathFactory, orders: list[tuple[int, int]]
) -> None:
    """Whatever is reserved and charged, the token pays at most what was received for it."""
    shop = Shop(tmp_path_factory.mktemp("till") / "books.sqlite3")
    header, charged = shop.sell().header(), 0
    for amount_msat, charge_msat in orders:
        answer = shop.ask(header, amount_msat)
        if isinstance(answer, Admitted):
            charged += shop.till.settle(answer.reservation, charge_msat).charged_msat
        else:
            assert amount_msat > 3000 - charged
    assert charged <= 3000
    shop.database.close()
