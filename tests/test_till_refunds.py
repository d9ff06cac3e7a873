"""Giving back what is left, over real books and a wallet that follows a script: each law, each race, each outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import Clock, FakeWallet, invoice_of
from lyceum.books import Payout, Refund, RefundState, Token, Topup
from lyceum.errors import BadAddress, NodeError, TooManyChallenges, TooSmall
from lyceum.ledger import Database, RefundBook, TillBook, TopupBook
from lyceum.ports import Address, Invoice, Outcome, Payment
from lyceum.till import Refunds, RefundTerms, Topups
from lyceum.till.refunds import BACK_OFF_S, CERTAIN_S, PAYMENT_S

TOKEN = Token("aa" * 32, "bb" * 32, "llm", credit_msat=10_000, created_at=10, expires_at=9000)
OFFER = Address("lno1offer", ("regtest",))
OTHER = Address("lno1other", ("regtest",))
FAILED = Payment(Outcome.FAILED, detail="no route")
PENDING = Payment(Outcome.PENDING)
UNKNOWN = Payment(Outcome.UNKNOWN)


class Desk:
    """Refunds with all that stands around them."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.wallet = FakeWallet(self.clock, fee_msat=0)
        self.wallet.addresses = {each.text: each for each in (OFFER, OTHER)}
        self.database = Database(path)
        self.till = TillBook(self.database)
        self.topup_book = TopupBook(self.database)
        self.till.open_token(TOKEN)
        self.restart()

    def restart(self) -> None:
        """A new process over the same books: what it knew in memory is gone."""
        self.topups = Topups(self.wallet, self.topup_book, now=self.clock, random_bytes=bytes)
        self.book = RefundBook(self.database)
        self.refunds = Refunds(self.wallet, self.book, self.topups, RefundTerms(), now=self.clock)

    def token(self) -> Token:
        token = self.till.token(TOKEN.token_id)
        assert token
        assert token.credit_msat == token.spent_msat + token.reserved_msat + token.refunded_msat + token.balance_msat
        return token

    def claim(self, address: str = OFFER.text) -> Refund:
        return self.refunds.claim(self.token(), address)

    def step(self, wait_s: int = 0) -> Refund:
        """All that is due `wait_s` seconds from now."""
        self.clock.now += wait_s
        for token_id in self.refunds.due():
            self.refunds.attempt(token_id)
        refund = self.refunds.refund(TOKEN.token_id)
        assert refund
        return refund

    def finish(self) -> Refund:
        """As often as it takes."""
        refund = self.step()
        for _ in range(100):
            if refund.state is not RefundState.OWED:
                return refund
            refund = self.step(max(refund.next_at - self.clock.now, 0))
        raise AssertionError(f"it never ends: {refund.detail}")

    def sent_msat(self) -> int:
        """What really left the wallet, whatever the books say."""
        return sum(payment.amount_msat + payment.fee_msat for payment in self.wallet.settled.values())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "books.sqlite3")
    yield desk
    desk.database.close()


def test_a_refund_is_paid_and_ends(desk: Desk) -> None:
    """The whole balance goes to an invoice of the offer, without a fee where there is such a way."""
    assert desk.claim().state is RefundState.OWED
    assert desk.token().closed_at == desk.clock.now
    assert desk.finish().state is RefundState.PAID
    assert [(invoice.amount_msat, fee) for invoice, fee in desk.wallet.paid] == [(10_000, 0)]
    assert desk.token().refunded_msat == desk.sent_msat() == 10_000
    assert desk.refunds.sums() == {
        "claims": 1,
        "owed": 0,
        "payouts": 1,
        "sent_msat": 10_000,
        "fee_msat": 0,
        "open_msat": 0,
    }


def test_the_claim_comes_before_any_payment(desk: Desk) -> None:
    """While the node pays, the books already say so: token closed, money reserved, journal written."""
    seen: list[tuple[int | None, int, Outcome]] = []

    def look(_: Invoice) -> None:
        token, payout = desk.token(), desk.book.open_payout(TOKEN.token_id)
        assert payout
        seen.append((token.closed_at, token.reserved_msat, payout.outcome))

    desk.wallet.on_pay = look
    desk.claim()
    desk.finish()
    assert seen == [(1000, 10_000, Outcome.PENDING)]


def test_nothing_is_sold_on_a_claimed_token(desk: Desk) -> None:
    """Not a msat is reserved after the claim, though the balance is still there."""
    desk.claim()
    assert desk.token().balance_msat == 10_000
    assert desk.till.reserve(TOKEN.token_id, 1, 1, 1000, 2000) is None


def test_a_fee_comes_out_of_the_refund(desk: Desk) -> None:
    """First no fee, then 1 %, then 10 % at most; what the route did not take goes back in a second payment,
    or stays and is said when it is too little."""
    desk.wallet.pays = [FAILED, FAILED]
    desk.wallet.fee_msat = 7
    desk.claim()
    refund = desk.finish()
    assert [(invoice.amount_msat, fee) for invoice, fee in desk.wallet.paid] == [(10_000, 0), (9900, 100), (9000, 1000)]
    assert refund.state is RefundState.PAID
    assert "993 msat are left" in refund.detail
    assert (desk.token().refunded_msat, desk.token().balance_msat) == (9007, 993)


def test_what_the_route_did_not_take_is_sent_after_it(desk: Desk) -> None:
    """When it is enough to be sent, nobody need ask."""
    desk.refunds.terms = RefundTerms(least_msat=500)
    desk.wallet.pays = [FAILED, FAILED]
    desk.claim()
    assert desk.finish().detail == "all of it was sent"
    assert [invoice.amount_msat for invoice, _ in desk.wallet.paid][2:] == [9000, 1000]


def test_failures_are_tried_again_with_longer_waits(desk: Desk) -> None:
    """For ever, at most an hour apart, and never with more than one payment under way."""
    desk.wallet.fetches = [NodeError("the holder's node is away") for _ in range(8)]
    desk.claim()
    waits = []
    for _ in range(8):
        refund = desk.step()
        waits.append(refund.next_at - desk.clock.now)
        assert "away" in refund.detail
        desk.clock.now = refund.next_at
    assert waits == [*BACK_OFF_S, BACK_OFF_S[-1], BACK_OFF_S[-1]]
    assert desk.finish().state is RefundState.PAID
    assert desk.sent_msat() == 10_000


@pytest.mark.parametrize("outcome", [PENDING, UNKNOWN])
def test_a_payment_that_may_arrive_is_looked_up_and_not_repeated(desk: Desk, outcome: Payment) -> None:
    """However long it takes: its money stays reserved, and no second invoice is fetched."""
    desk.wallet.pays = [outcome]
    desk.wallet.finds = [PENDING] * 5
    desk.claim()
    for _ in range(6):
        assert desk.step(10_000).state is RefundState.OWED
        assert desk.token().reserved_msat == 10_000
    assert len(desk.wallet.paid) == 1
    desk.wallet.settle(desk.wallet.paid[0][0])
    assert desk.step(10).detail == "10,000 msat sent"
    assert desk.finish().state is RefundState.PAID
    assert (len(desk.wallet.paid), desk.sent_msat()) == (1, 10_000)


def crash(_: Invoice) -> None:
    raise KeyboardInterrupt


def test_a_crash_between_journal_and_node_pays_the_same_invoice(desk: Desk) -> None:
    """The node may have begun after all, so the same hash is asked for again: the node pays it once."""
    desk.wallet.on_pay = crash
    desk.claim()
    with pytest.raises(KeyboardInterrupt):
        desk.step()
    desk.wallet.on_pay = lambda _: None
    desk.restart()
    assert desk.finish().state is RefundState.PAID
    assert len({invoice.payment_hash for invoice, _ in desk.wallet.paid}) == 1
    assert desk.sent_msat() == desk.token().refunded_msat == 10_000


def test_a_crash_after_the_payment_books_it(desk: Desk) -> None:
    """What the node paid while nobody was there to hear is found by looking it up."""

    def pay_and_crash(invoice: Invoice) -> None:
        desk.wallet.settle(invoice)
        raise KeyboardInterrupt

    desk.wallet.on_pay = pay_and_crash
    desk.claim()
    with pytest.raises(KeyboardInterrupt):
        desk.step()
    desk.restart()
    assert desk.finish().state is RefundState.PAID
    assert len(desk.wallet.paid) == 1
    assert desk.sent_msat() == desk.token().refunded_msat == 10_000


def test_another_invoice_waits_until_the_first_is_certainly_dead(desk: Desk) -> None:
    """After a crash `listpays` knowing nothing proves nothing: the node may be about to send. Only when its
    time is over is a new invoice fetched; before that the old one is asked for."""
    desk.wallet.on_pay = crash
    desk.claim()
    with pytest.raises(KeyboardInterrupt):
        desk.step()
    desk.wallet.on_pay = lambda _: None
    desk.restart()
    desk.wallet.pays = [FAILED] * 100
    began = desk.clock.now
    while desk.clock.now <= began + PAYMENT_S:
        desk.step(2)
        assert len({invoice.payment_hash for invoice, _ in desk.wallet.paid}) == 1
        assert desk.token().reserved_msat == 10_000
    desk.clock.now = began + CERTAIN_S
    desk.step()
    assert desk.token().reserved_msat == 0
    desk.wallet.pays = []
    assert desk.finish().state is RefundState.PAID
    assert len({invoice.payment_hash for invoice, _ in desk.wallet.paid}) == 2


def test_a_new_address_waits_for_the_old_payment(desk: Desk) -> None:
    """The holder replaces the address while a payment is under way: if that one arrives, nothing is sent twice."""
    desk.wallet.pays = [PENDING]
    desk.wallet.finds = [PENDING]
    desk.claim()
    desk.step()
    desk.claim(OTHER.text)
    desk.step(5)
    assert len(desk.wallet.paid) == 1
    desk.wallet.settle(desk.wallet.paid[0][0])
    assert desk.finish().state is RefundState.PAID
    assert (len(desk.wallet.paid), desk.sent_msat()) == (1, 10_000)


def test_a_new_address_is_used_when_the_old_payment_has_failed(desk: Desk) -> None:
    """At once, from the lowest fee on, whatever wait the old one had reached."""
    desk.wallet.pays = [FAILED, FAILED, FAILED]
    desk.claim()
    for _ in range(3):
        refund = desk.step(1)
    assert refund.next_at == desk.clock.now + BACK_OFF_S[0]
    desk.claim(OTHER.text)
    desk.step()
    assert desk.wallet.paid[-1][0].amount_msat == desk.sent_msat() == 10_000


def test_an_address_replaced_during_a_try_is_not_overwritten(desk: Desk) -> None:
    """What the try has to say about the old address does not touch the claim with the new one."""

    def replace_address(_: Invoice) -> None:
        desk.claim(OTHER.text)

    desk.wallet.on_pay = replace_address
    desk.wallet.pays = [FAILED]
    desk.claim()
    refund = desk.step()
    assert (refund.address, refund.tries, refund.detail) == (OTHER.text, 0, "")


def test_an_address_replaced_while_its_invoice_is_fetched_gets_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetching takes seconds; the journal is written only for the address that still counts."""
    fetch, asked = desk.wallet.fetch, list[str]()

    def replacing(address: Address, amount_msat: int) -> Invoice:
        if not asked:
            desk.claim(OTHER.text)
        asked.append(address.text)
        return fetch(address, amount_msat)

    monkeypatch.setattr(desk.wallet, "fetch", replacing)
    desk.claim()
    desk.step()
    assert desk.wallet.paid == []
    assert desk.finish().state is RefundState.PAID
    assert asked == [OFFER.text, OTHER.text]


def test_an_answer_under_way_is_waited_for(desk: Desk) -> None:
    """It is charged in full before the rest is sent; a server that died gives its reservation back in the end."""
    held = desk.till.reserve(TOKEN.token_id, 4000, 4000, 1000, 1900)
    lost = desk.till.reserve(TOKEN.token_id, 1000, 1000, 1000, 1900)
    assert held
    assert lost
    desk.claim()
    assert "under way" in desk.step().detail
    desk.till.settle(held.reservation, 1500, 1001)
    assert "under way" in desk.step(5).detail
    assert desk.step(1000).detail == "8,500 msat sent"
    assert desk.token().spent_msat == 1500
    assert desk.sent_msat() == 8500


def test_two_threads_pay_once(desk: Desk) -> None:
    """The same refund attempted by eight threads at once is one payment."""
    start, inside = threading.Barrier(8), threading.Event()

    def linger(_: Invoice) -> None:
        inside.wait(0.2)

    desk.wallet.on_pay = linger
    desk.claim()

    def attempt(_: int) -> None:
        start.wait()
        for token_id in desk.refunds.due():
            desk.refunds.attempt(token_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(8)))
    assert len(desk.wallet.paid) == 1


def test_two_processes_pay_once(desk: Desk) -> None:
    """A second plugin over the same books, started while the first still pays: the books let one begin."""
    desk.claim()
    first, second = desk.book, RefundBook(desk.database)
    payout = Payout(TOKEN.token_id, "ee" * 32, "lni1first", 5000, 0, created_at=1000)
    assert first.begin(payout, OFFER.text)
    assert second.begin(replace(payout, payment_hash="cc" * 32), OFFER.text) is None


def test_an_outcome_is_booked_once(desk: Desk) -> None:
    """Two lookups that both find the payment settled, or a late one that says otherwise, change the sums once."""
    desk.claim()
    payout = desk.book.begin(Payout(TOKEN.token_id, "ee" * 32, "lni1first", 4000, 100, created_at=1000), OFFER.text)
    assert payout
    desk.book.finish(payout, Payment(Outcome.SETTLED, "ff" * 32, 4000, 30))
    for again in (Payment(Outcome.SETTLED, "ff" * 32, 4000, 30), FAILED, PENDING):
        desk.book.finish(payout, again)
    assert (desk.token().refunded_msat, desk.token().reserved_msat) == (4030, 0)
    assert [row.outcome for row in desk.book.payouts(TOKEN.token_id)] == [Outcome.SETTLED]


def test_one_hash_belongs_to_one_token(desk: Desk) -> None:
    """The books themselves refuse it, however the two attempts were timed."""
    second = replace(TOKEN, token_id="cc" * 32, payment_hash="dd" * 32)
    desk.till.open_token(second)
    for token in (TOKEN, second):
        desk.refunds.claim(token, OFFER.text)
    payout = Payout(TOKEN.token_id, "ee" * 32, "lnbcrt1", 4000, 0, created_at=1000)
    assert desk.book.begin(payout, OFFER.text)
    assert desk.book.begin(replace(payout, token_id=second.token_id), OFFER.text) is None


# A top-up that races


def late_topup(desk: Desk) -> Topup:
    invoice = desk.wallet.invoice(3000, "top-up", "", 600)
    topup = Topup(invoice.payment_hash, TOKEN.token_id, invoice.bolt11, 3000, 1000, invoice.expires_at)
    desk.topup_book.add(topup)
    return topup


def test_a_top_up_paid_after_the_refund_is_sent_too(desk: Desk) -> None:
    """Nobody need ask: closed tokens with an open top-up are watched until it cannot be paid any more."""
    topup = late_topup(desk)
    desk.claim()
    assert desk.finish().state is RefundState.PAID
    desk.wallet.received[topup.payment_hash] = 3500
    desk.step()
    assert desk.finish().state is RefundState.PAID
    assert desk.token().refunded_msat == 13_500


def test_a_top_up_credited_while_the_claim_is_closing_is_not_forgotten(desk: Desk) -> None:
    """Between "nothing is left" and writing it down, credit arrives: the claim stays open."""
    topup = late_topup(desk)
    desk.claim()
    desk.step()
    refund = desk.refunds.refund(TOKEN.token_id)
    assert refund
    closing = replace(refund, state=RefundState.PAID)
    desk.topup_book.credit(topup.payment_hash, 3000, desk.clock.now)
    desk.book.note(closing, 1000)
    assert desk.finish().state is RefundState.PAID
    assert desk.token().refunded_msat == 13_000


# Addresses


def bolt11(
    desk: Desk, number: int, amount_msat: int | None, expires_at: int = 100_000, network: str = "regtest"
) -> str:
    invoice = replace(invoice_of(number, amount_msat, expires_at), network=network)
    return desk.wallet.knows(invoice).bolt11


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (lambda desk: "junk", "not an address"),
        (lambda desk: bolt11(desk, 1, 5000, network="bitcoin"), "this node is on regtest"),
        (lambda desk: bolt11(desk, 1, 10_001), "10,000 msat are left"),
        (lambda desk: bolt11(desk, 1, 5000, expires_at=1059), "60 seconds"),
        (lambda desk: _paid(desk, 1), "paid this invoice before"),
        (lambda desk: _under_way(desk, 1), "for something else"),
    ],
)
def test_a_wrong_address_changes_nothing(desk: Desk, address: Callable[[Desk], str], words: str) -> None:
    """It says what is wrong, the token stays open, no claim is written."""
    text = address(desk)
    with pytest.raises(BadAddress, match=words):
        desk.claim(text)
    assert desk.token() == TOKEN
    assert desk.refunds.refund(TOKEN.token_id) is None


def _paid(desk: Desk, number: int) -> str:
    text = bolt11(desk, number, 5000)
    desk.wallet.settle(desk.wallet.made[text])
    return text


def _under_way(desk: Desk, number: int) -> str:
    desk.wallet.finds = [PENDING]
    return bolt11(desk, number, 5000)


def test_one_invoice_serves_one_token(desk: Desk) -> None:
    """Two tokens whose holder gives one invoice for both: the node would call the second payment settled too."""
    second = replace(TOKEN, token_id="cc" * 32, payment_hash="dd" * 32)
    desk.till.open_token(second)
    text = bolt11(desk, 500, None)
    desk.claim(text)
    desk.refunds.claim(second, text)
    for _ in range(5):
        desk.step(5)
    rows = [desk.till.token(TOKEN.token_id), desk.till.token(second.token_id)]
    assert sorted(row.refunded_msat for row in rows if row) == [0, 10_000]
    assert desk.sent_msat() == 10_000
    states = {refund.state for refund in desk.refunds.refunds(9)}
    assert states == {RefundState.PAID, RefundState.NEEDS_ADDRESS}


def test_an_invoice_for_a_part_leaves_the_rest_to_be_claimed(desk: Desk) -> None:
    """Its fee comes out of the rest; the same invoice again is refused; an offer gets what is left."""
    desk.wallet.fee_msat = 20
    text = bolt11(desk, 500, 4000)
    desk.claim(text)
    assert desk.finish().state is RefundState.NEEDS_ADDRESS
    assert desk.wallet.paid[0][1] == 1000
    with pytest.raises(BadAddress, match="used before"):
        desk.claim(text)
    desk.wallet.fee_msat = 0
    desk.claim()
    assert desk.finish().state is RefundState.PAID
    assert desk.token().refunded_msat == desk.sent_msat() == 10_000


def test_an_invoice_that_expires_asks_for_another(desk: Desk) -> None:
    """A BOLT11 address cannot wait for ever; the claim does."""
    text = bolt11(desk, 500, 6000, expires_at=1100)
    desk.wallet.pays = [FAILED] * 99
    desk.claim(text)
    refund = desk.finish()
    assert refund.state is RefundState.NEEDS_ADDRESS
    assert "expired" in refund.detail
    assert desk.token().balance_msat == 10_000
    desk.wallet.pays = []
    desk.claim()
    assert desk.finish().state is RefundState.PAID


def test_asking_again_after_it_arrived_says_so(desk: Desk) -> None:
    """Whoever missed the first answer is told what became of it, and nothing is sent twice."""
    desk.claim()
    assert desk.finish().state is RefundState.PAID
    assert desk.claim().state is RefundState.PAID
    assert desk.sent_msat() == 10_000


def test_too_little_is_said_and_not_closed(desk: Desk) -> None:
    """Below the least that is sent, the token stays usable."""
    held = desk.till.reserve(TOKEN.token_id, 9001, 9001, 1000, 2000)
    assert held
    desk.till.settle(held.reservation, 9001, 1000)
    with pytest.raises(TooSmall, match="999 msat are left"):
        desk.claim()
    assert desk.token().closed_at is None


def test_what_became_too_little_under_way_is_said(desk: Desk) -> None:
    """An answer that was under way at the claim used most of it."""
    held = desk.till.reserve(TOKEN.token_id, 9500, 9500, 1000, 2000)
    assert held
    desk.claim()
    desk.till.settle(held.reservation, 9500, 1000)
    refund = desk.finish()
    assert refund.state is RefundState.TOO_SMALL
    assert "500 msat are left" in refund.detail


# Any order of things

OUTCOMES = st.sampled_from(["settled", "failed", "pending", "unknown", "arrives late", "crash", "paid, then crash"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(1, 4000)),
        st.tuples(st.just("settle"), st.integers(0, 4000)),
        st.tuples(st.just("top up"), st.integers(1, 3000)),
        st.tuples(st.just("pay top-up"), st.integers(0, 9)),
        st.tuples(st.just("claim"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.sampled_from([1, 5, 100, 2000])),
        st.tuples(st.just("attempt"), OUTCOMES),
    ),
    max_size=25,
)


class World:
    """Deals with a desk in any order, and remembers what really happened outside the books."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.held: list[str] = []
        self.unpaid: list[str] = []
        self.late: list[Invoice] = []

    def do(self, step: str, value: int | str) -> None:
        desk, now = self.desk, self.desk.clock.now
        if step == "reserve" and (held := desk.till.reserve(TOKEN.token_id, int(value), int(value), now, now + 900)):
            self.held.append(held.reservation)
        elif step == "settle" and self.held:
            desk.till.settle(self.held.pop(0), int(value), now)
        elif step == "top up" and desk.token().closed_at is None and desk.token().expires_at > now + 60:
            with suppress(TooManyChallenges):
                self.unpaid.append(desk.topups.ask(desk.token(), int(value), 600).bolt11)
        elif step == "pay top-up" and self.unpaid:
            invoice = desk.wallet.made[self.unpaid.pop(int(value) % len(self.unpaid))]
            if invoice.expires_at > now:
                desk.wallet.received[invoice.payment_hash] = invoice.amount_msat or 0
        elif step == "claim":
            with suppress(TooSmall):
                desk.claim((OFFER, OTHER)[int(value)].text)
        elif step == "wait":
            desk.clock.now += int(value)
        elif step == "attempt":
            self.attempt(str(value))

    def attempt(self, outcome: str) -> None:
        self.desk.wallet.on_pay = lambda invoice: self.happen(outcome, invoice)
        with suppress(KeyboardInterrupt):
            for token_id in self.desk.refunds.due():
                self.desk.refunds.attempt(token_id)
        self.desk.wallet.on_pay = lambda _: None
        self.desk.wallet.pays = []
        if "crash" in outcome:
            self.desk.restart()

    def happen(self, outcome: str, invoice: Invoice) -> None:
        wallet = self.desk.wallet
        if invoice.payment_hash in wallet.settled:
            return
        if outcome in {"failed", "pending", "unknown", "arrives late"}:
            said = {"failed": FAILED, "pending": PENDING}.get(outcome, UNKNOWN)
            wallet.pays = [said]
        if outcome in {"paid, then crash", "arrives late"}:
            wallet.settle(invoice)
        if "crash" in outcome:
            raise KeyboardInterrupt

    def end(self) -> None:
        """Everything comes to its end: answers lapse, what was paid is found, what is owed is sent."""
        desk = self.desk
        desk.clock.now += 5000
        desk.topups.collect(TOKEN.token_id)
        desk.book.idle_msat(TOKEN.token_id, desk.clock.now)
        if desk.refunds.refund(TOKEN.token_id):
            desk.finish()


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_no_order_of_things_loses_or_repeats_a_payment(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int | str]]
) -> None:
    """Requests, top-ups, claims, new addresses, waits, payments of every outcome and crashes: what left the wallet
    is what the books call refunded, what came in is all accounted for, and a claim ends with nothing left to send."""
    desk = Desk(tmp_path_factory.mktemp("refunds") / "books.sqlite3")
    world = World(desk)
    for step, value in steps:
        world.do(step, value)
        token = desk.token()
        assert min(token.spent_msat, token.reserved_msat, token.refunded_msat, token.balance_msat) >= 0
    world.end()
    token, refund = desk.token(), desk.refunds.refund(TOKEN.token_id)
    refunded = [invoice.payment_hash for invoice, _ in desk.wallet.paid]
    sent_msat = sum(p.amount_msat for hash_, p in desk.wallet.settled.items() if hash_ in refunded)
    topped_up = {topup.payment_hash for topup in desk.topups.history(TOKEN.token_id, 99)}
    received_msat = sum(msat for hash_, msat in desk.wallet.received.items() if hash_ in topped_up)
    assert token.refunded_msat == sent_msat
    assert token.credit_msat == TOKEN.credit_msat + received_msat
    assert token.reserved_msat == 0
    assert refund is None or token.balance_msat < 1000
    desk.database.close()


@pytest.mark.parametrize(
    ("field", "value"), [("least_msat", 0), ("fee_percent", 51), ("fee_percent", -1), ("window_s", -1)]
)
def test_wrong_terms_cannot_be_built(field: str, value: int) -> None:
    """A refund of nothing, or one that fees eat up."""
    with pytest.raises(ValueError, match=field):
        replace(RefundTerms(), **{field: value})
