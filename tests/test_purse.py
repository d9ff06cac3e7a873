"""The buyer: checks before the journal, the journal before the wallet, one payment a hash."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest

from fakes import MASTER, NODE, Clock, FakeWallet, challenge_of, invoice_of, preimage_of
from lyceum.errors import BadInvoice, Distrusted, LyceumError, NodeError, OverBudget, PaymentFailed, PaymentUnknown
from lyceum.l402 import Challenge, Credential, challenge_macaroon
from lyceum.ledger import BillBook, Database, PurseBook
from lyceum.ports import Delivery, Invoice, Outcome, Payment, Terms, Usage, Wanted
from lyceum.purse import LONGEST_PAYMENT_S, WINDING_UP_S, Bills, Purse, PurseLimits, PursePayer
from lyceum.purse.limits import DAY_S, HOUR_S

SHOP = "https://shop.example:443"
INVOICE = invoice_of(1)
CHALLENGE = challenge_of(INVOICE)
TERMS = Terms(cap_msat=3000, fee_cap_msat=50, payee=NODE, purpose="ask", model="economist")
CREDENTIAL = Credential(CHALLENGE.macaroon, preimage_of(1)).header()
FAILED = Payment(Outcome.FAILED, detail="no route")
PENDING = Payment(Outcome.PENDING)
UNKNOWN = Payment(Outcome.UNKNOWN)


class PowerCut(BaseException):
    """The process ends here."""


class Buyer:
    """A purse with all that stands around it."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.wallet = FakeWallet(self.clock)
        self.wallet.knows(INVOICE)
        self.database = Database(path)
        self.ledger = PurseBook(self.database)
        self.purse = self.restarted()

    def restarted(self) -> Purse:
        limits = PurseLimits(payment_msat=10_000)
        bills = Bills(BillBook(self.database), now=self.clock)
        return Purse(self.wallet, self.ledger, bills, now=self.clock, limits=limits, pause=self.clock.pause)

    def allow(self, **limits: int) -> None:
        self.purse.limits = replace(self.purse.limits, **limits)

    def outcomes(self) -> list[str]:
        return [row.outcome.value for row in self.ledger.purchases(9)]


@pytest.fixture
def buyer(tmp_path: Path) -> Iterator[Buyer]:
    buyer = Buyer(tmp_path / "books.sqlite3")
    yield buyer
    buyer.database.close()


# Paying


def test_a_settled_payment_is_a_ticket(buyer: Buyer) -> None:
    """The credential to send, and what it cost."""
    ticket = buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert ticket.authorization == CREDENTIAL
    assert (ticket.payment_hash, ticket.amount_msat, ticket.fee_msat) == (INVOICE.payment_hash, 3000, 2)
    assert buyer.wallet.paid == [(INVOICE, 50)]
    assert buyer.outcomes() == ["settled"]


@pytest.mark.parametrize(
    ("payment", "error"), [(FAILED, PaymentFailed), (UNKNOWN, PaymentUnknown), (PENDING, PaymentUnknown)]
)
def test_other_outcomes_are_errors(buyer: Buyer, payment: Payment, error: type[LyceumError]) -> None:
    """Failed, or not known yet: no ticket, and the journal has the outcome as the node said it."""
    buyer.wallet.pays, buyer.wallet.finds = [payment], [PENDING] * 99
    with pytest.raises(error):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert buyer.outcomes() == [payment.outcome]
    assert buyer.purse.kept(Wanted(SHOP)) is None


@pytest.mark.parametrize("payment", [UNKNOWN, PENDING])
def test_an_open_payment_counts_as_spent(buyer: Buyer, payment: Payment) -> None:
    """Amount and highest fee, and the error says so."""
    buyer.wallet.pays, buyer.wallet.finds = [payment], [PENDING] * 99
    with pytest.raises(PaymentUnknown, match="3,050 msat count as spent"):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert buyer.purse.spending()["open_msat"] == 3050


@pytest.mark.parametrize(("last", "error"), [(FAILED, PaymentFailed), (PENDING, PaymentUnknown)])
def test_a_payment_that_winds_up_is_given_a_moment(buyer: Buyer, last: Payment, error: type[LyceumError]) -> None:
    """A failed one is still pending until its last part came back; it is waited for, but not for long."""
    buyer.wallet.pays, buyer.wallet.finds = [PENDING], [PENDING, PENDING, *[last] * 99]
    with pytest.raises(error):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert buyer.clock.now - 1000 <= WINDING_UP_S
    assert buyer.outcomes() == [last.outcome]


def test_the_journal_comes_before_the_wallet(buyer: Buyer) -> None:
    """When the wallet is asked, the row is written: a crash cannot lose the payment."""
    seen: list[str] = []
    buyer.wallet.on_pay = lambda _: seen.extend(buyer.outcomes())
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert seen == ["pending"]


# Checks


def other_macaroon(invoice: Invoice) -> Challenge:
    return Challenge(challenge_of(invoice_of(2)).macaroon, invoice.bolt11)


CHECKS: dict[str, tuple[Invoice, Terms, type[LyceumError]]] = {
    "another network": (replace(INVOICE, network="bitcoin"), TERMS, BadInvoice),
    "another payee": (replace(INVOICE, payee="03" + "ab" * 32), TERMS, BadInvoice),
    "expired": (replace(INVOICE, expires_at=999), TERMS, BadInvoice),
    "expiring under way": (replace(INVOICE, expires_at=1004), TERMS, BadInvoice),
    "no amount": (replace(INVOICE, amount_msat=None), TERMS, BadInvoice),
    "one msat over the cap": (replace(INVOICE, amount_msat=3001), TERMS, OverBudget),
    "one msat over the most": (replace(INVOICE, amount_msat=10_001), replace(TERMS, cap_msat=99_999), OverBudget),
    "nothing allowed": (replace(INVOICE, amount_msat=1), replace(TERMS, cap_msat=0), OverBudget),
    "another hash": (replace(INVOICE, payment_hash="00" * 32), TERMS, BadInvoice),
}


@pytest.mark.parametrize("case", CHECKS)
def test_a_check_that_fails_leaves_nothing(buyer: Buyer, case: str) -> None:
    """Neither a journal row nor a call to the wallet's pay."""
    invoice, terms, error = CHECKS[case]
    buyer.wallet.made = {CHALLENGE.invoice: invoice}
    with pytest.raises(error):
        buyer.purse.pay(CHALLENGE, SHOP, terms)
    assert buyer.ledger.purchases(9) == []
    assert buyer.wallet.paid == []


def test_a_macaroon_of_another_invoice_is_refused(buyer: Buyer) -> None:
    """Paying would reveal a preimage that opens nothing."""
    with pytest.raises(BadInvoice, match="another invoice"):
        buyer.purse.pay(other_macaroon(INVOICE), SHOP, TERMS)
    assert (buyer.ledger.purchases(9), buyer.wallet.paid) == ([], [])


def test_an_invoice_that_the_node_cannot_read_is_refused(buyer: Buyer) -> None:
    """The wallet's own check is the first."""
    with pytest.raises(BadInvoice):
        buyer.purse.pay(Challenge(CHALLENGE.macaroon, "lnbcrt1qqqq"), SHOP, TERMS)
    assert (buyer.ledger.purchases(9), buyer.wallet.paid) == ([], [])


@pytest.mark.parametrize(
    ("invoice", "terms"),
    [
        (replace(INVOICE, amount_msat=10_000), replace(TERMS, cap_msat=10_000)),
        (replace(INVOICE, payee="03" + "cd" * 32), replace(TERMS, payee="")),
        (replace(INVOICE, expires_at=1005), TERMS),
    ],
)
def test_exactly_within_the_terms_is_paid(buyer: Buyer, invoice: Invoice, terms: Terms) -> None:
    """The caps themselves, any payee when none is asked for, just enough life."""
    buyer.wallet.made = {CHALLENGE.invoice: invoice}
    buyer.purse.pay(CHALLENGE, SHOP, terms)
    assert buyer.outcomes() == ["settled"]


def test_an_opaque_macaroon_may_be_bought(buyer: Buyer) -> None:
    """Other sellers' macaroons need not name the hash; the rest is checked all the same."""
    ticket = buyer.purse.pay(Challenge(b"opaque", INVOICE.bolt11), SHOP, TERMS)
    assert ticket.authorization.startswith("L402 b3BhcXVl:")


# Budgets

COST_MSAT = INVOICE.amount_msat or 0
DEAL = replace(TERMS, fee_cap_msat=0)


def deal(buyer: Buyer, number: int) -> Challenge:
    return challenge_of(buyer.wallet.knows(invoice_of(number)))


@pytest.mark.parametrize("budget", ["hour_msat", "day_msat", "peer_msat", "purpose_msat"])
def test_of_many_callers_as_many_pay_as_the_budget_is_for(buyer: Buyer, budget: str) -> None:
    """Sixteen pay at once within a budget for three: three reach the wallet, thirteen are over budget."""
    buyer.allow(**{budget: 3 * COST_MSAT})
    challenges = [deal(buyer, number) for number in range(16)]
    start = Barrier(16)

    def pay(challenge: Challenge) -> int:
        start.wait()
        try:
            return buyer.purse.pay(challenge, SHOP, DEAL).amount_msat
        except OverBudget:
            return 0

    buyer.wallet.pays = [replace(buyer.wallet.settle(INVOICE), fee_msat=0)] * 16
    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(pay, challenges)) == [0] * 13 + [COST_MSAT] * 3
    assert len(buyer.wallet.paid) == 3


@pytest.mark.parametrize(
    ("limit", "window_s", "words"),
    [
        ("hour_msat", HOUR_S, "lyceum-budget-hour-msat allows; enough is free from 1970-01-01 01:16:40 UTC"),
        ("day_msat", DAY_S, "lyceum-budget-day-msat allows; enough is free from 1970-01-02 00:16:40 UTC"),
        ("peer_msat", DAY_S, f"lyceum-budget-peer-msat allows for {SHOP}; enough is free from 1970-01-02"),
        ("purpose_msat", DAY_S, "lyceum-budget-purpose-msat allows for 'ask'; enough is free from 1970-01-02"),
    ],
)
def test_over_budget_says_which_and_until_when(buyer: Buyer, limit: str, window_s: int, words: str) -> None:
    """The budget, what is left of it, and the second from which it suffices, when it does."""
    buyer.allow(**{limit: 5000})
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    second = deal(buyer, 2)
    with pytest.raises(OverBudget) as refused:
        buyer.purse.pay(second, SHOP, TERMS)
    assert "may take 3,050 msat, and 1,998 msat are left of the 5,000 msat" in refused.value.message
    assert words in refused.value.message
    buyer.clock.now += window_s
    buyer.wallet.knows(invoice_of(2, expires_at=10**6))
    assert buyer.purse.pay(second, SHOP, TERMS).amount_msat == COST_MSAT


def test_a_budget_smaller_than_the_payment_says_so(buyer: Buyer) -> None:
    """Waiting would not help."""
    buyer.allow(day_msat=3049)
    with pytest.raises(OverBudget, match="it never allows that much"):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert (buyer.wallet.paid, buyer.outcomes()) == ([], [])


def test_an_unknown_payment_keeps_its_reservation(buyer: Buyer) -> None:
    """Nothing else fits until the node says what happened, and then only if it failed."""
    buyer.allow(day_msat=5000)
    buyer.wallet.pays, buyer.wallet.finds = [UNKNOWN], [PENDING] * 9
    with pytest.raises(PaymentUnknown):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    buyer.clock.now += LONGEST_PAYMENT_S
    with pytest.raises(OverBudget, match="once payments under way are known"):
        buyer.purse.pay(deal(buyer, 2), SHOP, TERMS)
    buyer.wallet.finds = [FAILED]
    assert buyer.purse.pay(deal(buyer, 2), SHOP, TERMS).amount_msat == COST_MSAT
    assert buyer.outcomes() == ["settled", "failed"]


def test_a_budget_of_nothing_is_none(buyer: Buyer) -> None:
    """0 sets no limit."""
    buyer.allow(hour_msat=0, day_msat=0, peer_msat=0, purpose_msat=0)
    assert [buyer.purse.pay(deal(buyer, number), SHOP, TERMS).amount_msat for number in range(5)] == [COST_MSAT] * 5


# Once


def test_the_same_challenge_is_paid_once(buyer: Buyer) -> None:
    """The second call gets the same credential and says that it paid nothing now."""
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    again = buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert again.authorization == CREDENTIAL
    assert (again.amount_msat, again.fee_msat) == (0, 0)
    assert len(buyer.wallet.paid) == 1


def test_eight_threads_pay_once(buyer: Buyer) -> None:
    """All get the credential; one of them paid for it."""
    start = Barrier(8)
    buyer.wallet.on_pay = lambda _: time.sleep(0.02)

    def pay(_: int) -> tuple[str, int]:
        start.wait()
        ticket = buyer.purse.pay(CHALLENGE, SHOP, TERMS)
        return ticket.authorization, ticket.amount_msat

    with ThreadPoolExecutor(8) as pool:
        tickets = list(pool.map(pay, range(8)))
    assert sorted(tickets) == [(CREDENTIAL, 0)] * 7 + [(CREDENTIAL, 3000)]
    assert len(buyer.wallet.paid) == 1


@pytest.mark.parametrize("first", [UNKNOWN, PENDING])
def test_an_unknown_outcome_is_looked_up(buyer: Buyer, first: Payment) -> None:
    """Asked again, the node says that it settled: a ticket, and no second payment."""
    buyer.wallet.pays, buyer.wallet.finds = [first], [PENDING] * 99
    with pytest.raises(PaymentUnknown):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    buyer.wallet.finds = []
    buyer.wallet.settle(INVOICE)
    assert buyer.purse.pay(CHALLENGE, SHOP, TERMS).authorization == CREDENTIAL
    assert len(buyer.wallet.paid) == 1
    assert buyer.purse.spending() == {"payments": 1, "paid_msat": 3000, "fee_msat": 2, "open_msat": 0}


def test_a_pending_payment_is_waited_for(buyer: Buyer) -> None:
    """The lookup is repeated until the node knows."""
    buyer.wallet.pays, buyer.wallet.finds = [UNKNOWN], [PENDING, PENDING]
    with pytest.raises(PaymentUnknown):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    buyer.wallet.settle(INVOICE)
    assert buyer.purse.pay(CHALLENGE, SHOP, TERMS).authorization == CREDENTIAL
    assert len(buyer.wallet.looked_up) == 3


def test_waiting_ends(buyer: Buyer) -> None:
    """A payment that stays pending is unknown again after the time for a payment, and not paid twice."""
    buyer.wallet.pays, buyer.wallet.finds = [UNKNOWN], [PENDING] * 1000
    for _ in range(2):
        with pytest.raises(PaymentUnknown):
            buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert buyer.clock.now == 1000 + 60
    assert len(buyer.wallet.paid) == 1


def test_a_failed_payment_may_be_tried_again(buyer: Buyer) -> None:
    """Once for each time it is asked for."""
    buyer.wallet.pays = [FAILED]
    with pytest.raises(PaymentFailed, match="no route"):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert buyer.purse.pay(CHALLENGE, SHOP, TERMS).amount_msat == 3000
    assert len(buyer.wallet.paid) == 2


def test_a_node_that_breaks_off_leaves_the_row_open(buyer: Buyer) -> None:
    """The wallet raised instead of answering: looked up next time, not paid blindly."""

    def broken(_: Invoice) -> None:
        raise NodeError("gone")

    buyer.wallet.on_pay = broken
    with pytest.raises(NodeError):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    assert buyer.outcomes() == ["pending"]
    buyer.wallet.settle(INVOICE)
    assert buyer.purse.pay(CHALLENGE, SHOP, TERMS).authorization == CREDENTIAL
    assert len(buyer.wallet.paid) == 1


@pytest.mark.parametrize(("challenge", "origin"), [(CHALLENGE, "https://thief.example:443"), (None, SHOP)])
def test_anothers_invoice_is_refused(buyer: Buyer, challenge: Challenge | None, origin: str) -> None:
    """Another origin, or another macaroon, with a paid invoice gets no credential."""
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    with pytest.raises(BadInvoice, match="already used"):
        buyer.purse.pay(challenge or Challenge(b"opaque", INVOICE.bolt11), origin, TERMS)
    assert len(buyer.wallet.paid) == 1


# Kept tokens


def test_a_kept_token_costs_nothing_now(buyer: Buyer) -> None:
    """It is for its origin alone, until it is discarded."""
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    kept = buyer.purse.kept(Wanted(SHOP))
    assert kept
    assert (kept.authorization, kept.amount_msat, kept.fee_msat) == (CREDENTIAL, 0, 0)
    assert buyer.purse.kept(Wanted("https://other.example:443")) is None
    buyer.purse.discard(INVOICE.payment_hash)
    assert buyer.purse.kept(Wanted(SHOP)) is None


def keep(buyer: Buyer, number: int, amount_msat: int, service: str = "llm", origin: str = SHOP) -> str:
    """A token that was bought and not used; returns its payment hash."""
    invoice = buyer.wallet.knows(invoice_of(number, amount_msat))
    payment_hash = bytes.fromhex(invoice.payment_hash)
    macaroon = challenge_macaroon(MASTER, payment_hash, bytes([number]) * 32, service, 9000)
    terms = replace(TERMS, cap_msat=amount_msat)
    return buyer.purse.pay(Challenge(macaroon, invoice.bolt11), origin, terms).payment_hash


def hash_kept(buyer: Buyer, **wanted: Any) -> str | None:
    found = buyer.purse.kept(Wanted(SHOP, **wanted))
    return found.payment_hash if found else None


@pytest.mark.parametrize(("need_msat", "number"), [(1, 2), (1000, 2), (1001, 4), (4000, 4), (4001, 3), (9001, None)])
def test_the_token_that_holds_enough_and_least_is_used(buyer: Buyer, need_msat: int, number: int | None) -> None:
    """Remainders go before a full token is broken; one that holds too little is passed over."""
    hashes = {number: keep(buyer, number, amount_msat) for number, amount_msat in ((2, 1000), (3, 9000), (4, 4000))}
    assert hash_kept(buyer, need_msat=need_msat) == (number and hashes[number])


def test_without_a_known_need_the_fullest_token_is_used(buyer: Buyer) -> None:
    """It is the likeliest to do."""
    hashes = [keep(buyer, number, amount_msat) for number, amount_msat in ((2, 1000), (3, 9000), (4, 4000))]
    assert hash_kept(buyer) == hashes[1]


def test_an_exhausted_token_is_remembered_with_its_balance(buyer: Buyer) -> None:
    """It is passed over for what it does not hold, and still used for less, also after a restart."""
    small, large = keep(buyer, 2, 4000), keep(buyer, 3, 9000)
    buyer.purse.exhausted(small, 2500)
    buyer.purse = buyer.restarted()
    assert [hash_kept(buyer, need_msat=need) for need in (2500, 2499)] == [large, small]
    buyer.purse.exhausted(small, 4000)
    assert hash_kept(buyer, need_msat=2499) == small
    buyer.purse.exhausted(small, 1)
    assert hash_kept(buyer, need_msat=1) == large
    buyer.purse.exhausted(large, 0)
    assert hash_kept(buyer) is None


def test_a_token_opens_its_own_service(buyer: Buyer) -> None:
    """Two services of one seller do not get each other's tokens, once it is known which is asked."""
    weather, language = keep(buyer, 2, 1000, "weather"), keep(buyer, 3, 1000, "llm")
    assert hash_kept(buyer, service="weather") == weather
    assert hash_kept(buyer, service="llm") == language
    assert hash_kept(buyer, service="maps") is None
    assert hash_kept(buyer) in (weather, language)
    assert hash_kept(buyer, service="llm", tried=(language,)) is None


def test_a_token_that_names_no_service_may_open_any(buyer: Buyer) -> None:
    """Other sellers' macaroons can be opaque; the seller will say."""
    invoice = buyer.wallet.knows(invoice_of(2))
    ticket = buyer.purse.pay(Challenge(b"opaque", invoice.bolt11), SHOP, TERMS)
    assert hash_kept(buyer, service="llm") == ticket.payment_hash


# Crashes


def crash(buyer: Buyer, settled: bool) -> None:
    def power_cut(invoice: Invoice) -> None:
        if settled:
            buyer.wallet.settle(invoice)
        raise PowerCut

    buyer.wallet.on_pay = power_cut
    with pytest.raises(PowerCut):
        buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    buyer.wallet.on_pay = lambda _: None
    buyer.purse = buyer.restarted()


def test_a_crash_before_the_payment(buyer: Buyer) -> None:
    """The node never heard of it: failed, so that it can be paid when it is asked for again."""
    crash(buyer, settled=False)
    buyer.clock.now += LONGEST_PAYMENT_S
    assert buyer.purse.recover() == []
    assert buyer.outcomes() == ["failed"]
    assert buyer.purse.pay(CHALLENGE, SHOP, TERMS).amount_msat == 3000


def test_a_payment_that_starts_late_is_not_given_up(buyer: Buyer) -> None:
    """The node may still look for a way when its caller is back from a crash: unheard of is not failed."""
    crash(buyer, settled=False)
    buyer.clock.now += LONGEST_PAYMENT_S - 1
    assert [row.payment_hash for row in buyer.purse.recover()] == [INVOICE.payment_hash]
    buyer.wallet.settle(INVOICE)
    kept = buyer.purse.kept(Wanted(SHOP))
    assert kept
    assert kept.authorization == CREDENTIAL


def test_a_crash_after_the_payment(buyer: Buyer) -> None:
    """The node has it: the token is kept, and nothing is paid again."""
    crash(buyer, settled=True)
    assert buyer.purse.recover() == []
    kept = buyer.purse.kept(Wanted(SHOP))
    assert kept
    assert kept.authorization == CREDENTIAL
    assert len(buyer.wallet.paid) == 1


def test_what_is_still_open_is_reported(buyer: Buyer) -> None:
    """A payment under way stays open after a recovery."""
    crash(buyer, settled=False)
    buyer.wallet.finds = [PENDING]
    assert [row.payment_hash for row in buyer.purse.recover()] == [INVOICE.payment_hash]


def test_recovery_leaves_running_payments_alone(buyer: Buyer) -> None:
    """While a call is paying, the node may not know of it yet: a lookup now could call it failed."""
    looked_up_while_paying: list[str] = []
    recovery = Thread(target=buyer.purse.recover)

    def recover_meanwhile(_: Invoice) -> None:
        recovery.start()
        recovery.join(0.05)
        looked_up_while_paying.extend(buyer.wallet.looked_up)

    buyer.wallet.on_pay = recover_meanwhile
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    recovery.join()
    assert looked_up_while_paying == []
    assert buyer.outcomes() == ["settled"]


# Bills

WRONG = Delivery(SHOP, "economist", "ask", INVOICE.payment_hash, Usage(5, 9, 20, 40), 300, 140, 2700, "it charged 300")


def test_who_overcharged_gets_neither_tokens_nor_money(buyer: Buyer) -> None:
    """Nothing is journalled or paid, and the kept token stays where it is, until a person trusts the seller again."""
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    buyer.purse.bills.enter(WRONG)
    buyer.purse = buyer.restarted()
    why = f"it charged 300. To use it again: lyceum trust {SHOP}"
    with pytest.raises(Distrusted, match=why):
        buyer.purse.kept(Wanted(SHOP))
    with pytest.raises(Distrusted, match=why):
        buyer.purse.pay(deal(buyer, 2), SHOP, TERMS)
    assert (len(buyer.wallet.paid), buyer.outcomes()) == (1, ["settled"])
    assert [buyer.purse.bills.trust(SHOP), buyer.purse.bills.trust(SHOP)] == [True, False]
    assert hash_kept(buyer) == INVOICE.payment_hash
    assert buyer.purse.pay(deal(buyer, 2), SHOP, TERMS).amount_msat == COST_MSAT


def test_other_sellers_are_paid_as_before(buyer: Buyer) -> None:
    """Distrust is for one origin."""
    buyer.purse.bills.enter(WRONG)
    assert buyer.purse.pay(CHALLENGE, "https://honest.example:443", TERMS).amount_msat == COST_MSAT


def test_a_bill_says_what_is_left_on_the_token(buyer: Buyer) -> None:
    """What the seller says, or what is left by its charge if it says nothing; never more than was paid."""
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    for balance_msat, left_msat in ((2700, 2700), (None, 2400), (9999, 3000)):
        buyer.purse.bills.enter(replace(WRONG, complaint="", balance_msat=balance_msat))
        assert [row.left_msat for row in buyer.ledger.kept(SHOP)] == [left_msat]


# As a Payer


@pytest.mark.anyio
async def test_the_purse_as_a_payer(buyer: Buyer) -> None:
    """The same verbs, awaited."""
    payer = PursePayer(buyer.purse)
    assert (await payer.pay(CHALLENGE, SHOP, TERMS)).authorization == CREDENTIAL
    assert await payer.kept(Wanted(SHOP))
    await payer.exhausted(INVOICE.payment_hash, 2000)
    assert await payer.kept(Wanted(SHOP, need_msat=2000)) is None
    await payer.report(WRONG)
    assert await payer.distrusted() == {SHOP: "it charged 300"}
    buyer.purse.bills.trust(SHOP)
    await payer.discard(INVOICE.payment_hash)
    assert await payer.kept(Wanted(SHOP)) is None


@pytest.mark.parametrize(
    "show",
    [
        lambda buyer: repr(buyer.purse.kept(Wanted(SHOP))),
        lambda buyer: repr(buyer.ledger.purchases(9)),
        lambda buyer: repr(buyer.wallet.lookup(INVOICE.payment_hash)),
        lambda buyer: repr(CHALLENGE),
    ],
    ids=["Ticket", "Purchase", "Payment", "Challenge"],
)
def test_no_repr_shows_a_secret(buyer: Buyer, show: Callable[[Buyer], str]) -> None:
    """Neither the preimage nor the macaroon, which together are money."""
    buyer.purse.pay(CHALLENGE, SHOP, TERMS)
    shown = show(buyer)
    assert "(" in shown
    assert preimage_of(1).hex() not in shown
    assert CHALLENGE.macaroon_text not in shown
