"""Money, by chance: a till, a purse and their nodes do anything in any order, die, and still account for every msat.

Real rooms over real books; only the two nodes are stand-ins. They know the truth of every payment, and tell it,
keep it to themselves, or see their caller die before it hears.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from both_schemes import Offered
from fakes import NODE, Clock, FakeWallet, invoice_of
from lyceum.books import Payout, RefundState, Token, Topup
from lyceum.errors import (
    BadAddress,
    BadInvoice,
    BadRequest,
    OverBudget,
    PaymentFailed,
    PaymentUnknown,
    TokenRefused,
    TooManyChallenges,
    TooSmall,
)
from lyceum.l402 import Challenge
from lyceum.ledger import BillBook, Database, PurseBook, RefundBook
from lyceum.ports import Address, Admitted, Declined, Invoice, Outcome, Payment, Terms, Wanted
from lyceum.purse import Bills, Purse, PurseLimits
from lyceum.purse.limits import DAY_S, HOUR_S
from lyceum.till import RESERVATION_S, Admission, Counter, Refunds, RefundTerms
from test_till import Shop, challenge_in

IN_MEMORY = Path("/dev/shm")
"""Where there is one, a commit does not wait for a disk; nothing here pulls the plug of the machine."""

OFFERS = [f"lno1{name}" for name in ("one", "two")]
ORIGINS = ["https://one.example:443", "https://two.example:443"]
LIMITS = PurseLimits(payment_msat=6000, hour_msat=20_000, day_msat=60_000, peer_msat=40_000)
FEE_CAP_MSAT = 50
NODE_TRIES_S = 60
"""So long after the call a node may begin a payment for a caller that has died."""


class PowerCut(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class Fate:
    """What a payment does, and what its caller hears of it. `begins late`: the node is still looking for a way."""

    truth: Literal["settles", "fails", "hangs", "begins late"]
    heard: Literal["the truth", "nothing", "dies"] = "the truth"
    fee_msat: int = 0


GOOD = Fate("settles")
fates = st.one_of(
    st.just(GOOD),
    st.builds(
        Fate,
        st.sampled_from(["settles", "fails", "hangs"]),
        st.sampled_from(["the truth", "nothing", "dies"]),
        st.sampled_from([0, 2, 30]),
    ),
    st.builds(Fate, st.just("begins late"), st.sampled_from(["nothing", "dies"]), st.sampled_from([0, 2])),
)


@dataclass(frozen=True)
class Sending:
    """A payment as the node knows it."""

    invoice: Invoice
    amount_msat: int
    fee_msat: int
    fee_cap_msat: int
    begun_at: int


@dataclass
class Lightning(FakeWallet):
    """A node that pays `payee`. As a real one does, it pays one hash at most once and never more than the fee cap."""

    payee: FakeWallet = field(default_factory=FakeWallet)
    fate: Fate = GOOD
    under_way: dict[str, Sending] = field(default_factory=dict)
    begun_late: dict[str, Sending] = field(default_factory=dict)
    sent: dict[str, Sending] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)

    def pay(
        self, invoice: Invoice, max_fee_msat: int, label: str, timeout_s: int, amount_msat: int | None = None
    ) -> Payment:
        hash_ = invoice.payment_hash
        if hash_ in self.sent or hash_ in self.under_way or hash_ in self.late:
            self.repeated.append(hash_)
        if hash_ not in self.sent and hash_ not in self.under_way:
            amount_msat = invoice.amount_msat or amount_msat or 0
            self._begin(Sending(invoice, amount_msat, self.fate.fee_msat, max_fee_msat, self.clock()))
        if self.fate.heard == "dies":
            raise PowerCut
        return Payment(Outcome.UNKNOWN) if self.fate.heard == "nothing" else self.lookup(hash_)

    def _begin(self, sending: Sending) -> None:
        """One that fails ends only itself: what an earlier call began late may still come."""
        if self.fate.truth == "fails" or sending.fee_msat > sending.fee_cap_msat:
            return
        self.late.pop(sending.invoice.payment_hash, None)
        places = {"begins late": self.late, "hangs": self.under_way, "settles": self.under_way}
        places[self.fate.truth][sending.invoice.payment_hash] = sending
        if self.fate.truth == "settles":
            self.land(sending.invoice.payment_hash)

    def land(self, payment_hash: str) -> None:
        sending = self.sent[payment_hash] = self.under_way.pop(payment_hash)
        preimage = self.preimage(sending.invoice).hex()
        self.settled[payment_hash] = Payment(Outcome.SETTLED, preimage, sending.amount_msat, sending.fee_msat)
        self.payee.received[payment_hash] = sending.amount_msat

    @property
    def late(self) -> dict[str, Sending]:
        """Those that it still looks for a way for; of older ones it has given up."""
        since = self.clock() - NODE_TRIES_S
        self.begun_late = {name: one for name, one in self.begun_late.items() if one.begun_at >= since}
        return self.begun_late

    def begin_late(self) -> None:
        self.under_way |= self.late
        self.begun_late = {}

    def lookup(self, payment_hash: str) -> Payment:
        if payment_hash in self.under_way:
            return Payment(Outcome.PENDING)
        return self.settled.get(payment_hash, Payment(Outcome.FAILED, detail="no way"))

    def may_leave_msat(self, since: int) -> int:
        """What left after Unix second `since`, and what may still leave, whenever that was begun."""
        gone = sum(one.amount_msat + one.fee_msat for one in self.sent.values() if one.begun_at > since)
        going = [*self.under_way.values(), *self.late.values()]
        return gone + sum(one.amount_msat + one.fee_cap_msat for one in going)


@dataclass
class Account:
    """The model: what one token's books must say."""

    received_msat: int = 0
    charged_msat: int = 0
    returned_msat: int = 0
    held: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def left_msat(self) -> int:
        return self.received_msat - self.charged_msat - self.returned_msat - self.held_msat

    @property
    def held_msat(self) -> int:
        return sum(amount_msat for amount_msat, _ in self.held.values())

    def lapse(self, now: int) -> None:
        self.held = {name: hold for name, hold in self.held.items() if hold[1] >= now}


@dataclass
class Sold:
    """A challenge, which is a token once it is paid, and what the model knows of it."""

    offered: Offered
    challenge: Challenge
    invoice: Invoice
    origin: str
    expires_at: int
    hashes: set[str] = field(default_factory=set)
    payouts: set[str] = field(default_factory=set)
    account: Account = field(default_factory=Account)
    closed: bool = False
    revoked: bool = False

    @property
    def token_id(self) -> str:
        identifier = self.challenge.identifier()
        assert identifier
        return identifier.token_id.hex()


class Seller:
    """The till's side of the plugin; `restart` is a new process over the same file."""

    def __init__(self, path: Path, wallet: Lightning) -> None:
        self.path, self.wallet = path, wallet
        self.start()

    def start(self) -> None:
        self.shop = Shop(self.path, wallet=self.wallet)
        clock, self.book = self.wallet.clock, RefundBook(self.shop.database)
        self.refunds = Refunds(self.wallet, self.book, self.shop.topups, RefundTerms(), now=clock)
        self.counter = Counter(self.shop.till, self.shop.topups, self.refunds, now=clock)

    def restart(self) -> None:
        self.shop.database.close()
        self.start()


class Buyer:
    def __init__(self, path: Path, wallet: Lightning) -> None:
        self.path, self.wallet = path, wallet
        self.start()

    def start(self) -> None:
        clock, self.database = self.wallet.clock, Database(self.path)
        self.book, bills = PurseBook(self.database), Bills(BillBook(self.database), now=clock)
        self.purse = Purse(self.wallet, self.book, bills, now=clock, limits=LIMITS, pause=clock.pause)

    def restart(self) -> None:
        self.database.close()
        self.start()


class Money(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
        self.clock, directory = Clock(), Path(self.folder.name)
        buyer, seller = Lightning(self.clock), Lightning(self.clock)
        buyer.made, buyer.payee, seller.payee = seller.made, seller, buyer
        seller.addresses = {text: Address(text, ("regtest",)) for text in OFFERS}
        self.buyer, self.seller = Buyer(directory / "buyer", buyer), Seller(directory / "seller", seller)
        self.sold: list[Sold] = []
        self.topups: list[tuple[Sold, Topup]] = []
        self.reservations: list[tuple[Sold, str]] = []

    # What can happen

    @rule(amount_msat=st.sampled_from([1000, 1500, 5500]), origin=st.sampled_from(ORIGINS), fate=fates)
    def buy(self, amount_msat: int, origin: str, fate: Fate) -> None:
        declined = self.seller.shop.ask(amount_msat=amount_msat)
        assert isinstance(declined, Declined)
        challenge = challenge_in(declined)
        invoice, token_s = self.seller.wallet.decode(challenge.invoice), self.seller.shop.till.terms.token_s
        sold = Sold(
            Offered(declined.headers), challenge, invoice, origin, self.clock() + token_s, {invoice.payment_hash}
        )
        self.sold.append(sold)
        self._pay(sold, fate)

    @precondition(lambda self: self.sold)
    @rule(which=st.integers(0), fate=fates)
    def pay_the_same_again(self, which: int, fate: Fate) -> None:
        self._pay(self._some(which), fate)

    def _pay(self, sold: Sold, fate: Fate) -> None:
        terms = Terms(cap_msat=6000, fee_cap_msat=FEE_CAP_MSAT, payee=NODE, purpose="ask")
        with self._dying(self.buyer, fate), suppress(OverBudget, PaymentFailed, PaymentUnknown, BadInvoice):
            ticket = self.buyer.purse.pay(sold.challenge, sold.origin, terms)
            assert self._is_credential(ticket.authorization, sold)
            assert ticket.amount_msat in (0, sold.invoice.amount_msat)

    @rule()
    def recover(self) -> None:
        self.buyer.purse.recover()

    @rule(origin=st.sampled_from(ORIGINS), need_msat=st.sampled_from([0, 1000, 4000]))
    def use_what_is_kept(self, origin: str, need_msat: int) -> None:
        """It was really paid, to this origin, and holds as much as its seller has not denied."""
        ticket = self.buyer.purse.kept(Wanted(origin, need_msat=need_msat))
        if ticket:
            sold = next(one for one in self.sold if one.invoice.payment_hash == ticket.payment_hash)
            assert sold.origin == origin
            assert self._is_credential(ticket.authorization, sold)
            answer = self.seller.shop.ask(ticket.authorization, max(need_msat, 1))
            if isinstance(answer, Declined):
                self.buyer.purse.exhausted(ticket.payment_hash, max(need_msat, 1))
            else:
                self._hold(sold, answer)

    @precondition(lambda self: self._paid())
    @rule(
        which=st.integers(0),
        amount_msat=st.sampled_from([1, 700, 1500, 4000]),
        least_msat=st.sampled_from([1, 700, 4000]),
        by_payment=st.booleans(),
    )
    def admit(self, which: int, amount_msat: int, least_msat: int, by_payment: bool) -> None:
        sold = self._some_paid(which)
        self._receive(sold)
        header = sold.offered.as_payment(self._preimage(sold)) if by_payment else self._header(sold)
        admission = Admission((header,), "llm", amount_msat, "economist", 200, least_msat=least_msat)
        answer = self.seller.shop.till.admit(admission)
        if self._admits(sold, amount_msat, min(least_msat, amount_msat), by_payment):
            assert isinstance(answer, Admitted)
            assert answer.amount_msat == min(amount_msat, sold.account.left_msat, self._most_msat(sold, by_payment))
            self._hold(sold, answer)
        else:
            assert isinstance(answer, Declined)

    @precondition(lambda self: self.reservations)
    @rule(which=st.integers(0), charge_msat=st.sampled_from([0, 1, 600, 9000]))
    def settle(self, which: int, charge_msat: int) -> None:
        """Also twice, and long after it lapsed."""
        sold, name = self.reservations[which % len(self.reservations)]
        amount_msat, until = sold.account.held.pop(name, (0, 0))
        try:
            settled = self.seller.shop.till.settle(name, charge_msat)
        except BadRequest:
            assert until < self.clock()
            return
        if amount_msat:
            assert settled.charged_msat == min(charge_msat, amount_msat)
            sold.account.charged_msat += settled.charged_msat

    @precondition(lambda self: self._paid())
    @rule(which=st.integers(0), amount_msat=st.sampled_from([1000, 2000, 3000]))
    def ask_for_a_topup(self, which: int, amount_msat: int) -> None:
        sold = self._some_paid(which)
        self._receive(sold)
        with suppress(TokenRefused, TooManyChallenges):
            topup = self.seller.counter.top_up([self._header(sold)], "llm", amount_msat)
            self.topups.append((sold, topup))

    @precondition(lambda self: self.topups)
    @rule(which=st.integers(0), percent=st.sampled_from([100, 150, 200]))
    def pay_a_topup(self, which: int, percent: int) -> None:
        """Up to twice the amount, as BOLT 4 has it, also after its token was closed."""
        sold, topup = self.topups.pop(which % len(self.topups))
        if self.clock() <= topup.expires_at:
            self.seller.wallet.received.setdefault(topup.payment_hash, topup.amount_msat * percent // 100)
            sold.hashes.add(topup.payment_hash)

    @precondition(lambda self: self._paid())
    @rule(which=st.integers(0), address=st.sampled_from([*OFFERS, "any", 1000, 2000]))
    def take_back(self, which: int, address: str | int) -> None:
        sold = self._some_paid(which)
        self._receive(sold)
        with suppress(TokenRefused, BadAddress, TooSmall):
            self.seller.counter.reclaim([self._header(sold)], "llm", self._address(address))
            sold.closed = True

    @rule(fate=fates)
    def try_refunds(self, fate: Fate) -> None:
        with self._dying(self.seller, fate):
            for token_id in self.seller.refunds.due():
                self.seller.refunds.attempt(token_id)

    @precondition(lambda self: self._paid())
    @rule(which=st.integers(0))
    def look(self, which: int) -> None:
        """Whoever looks at a token sees all that was ever paid for it."""
        sold = self._some_paid(which)
        self._receive(sold)
        with suppress(TokenRefused):
            token = self.seller.counter.token([self._header(sold)], "llm")
            assert token.credit_msat == sold.account.received_msat

    @precondition(lambda self: self._paid())
    @rule(which=st.integers(0))
    def revoke(self, which: int) -> None:
        sold = self._some_paid(which)
        if self.seller.shop.ledger.token(sold.token_id):
            self.seller.shop.till.revoke(sold.token_id)
            sold.revoked = True

    @rule(settles=st.booleans(), whose=st.sampled_from(["buyer", "seller"]))
    def payments_end(self, settles: bool, whose: Literal["buyer", "seller"]) -> None:
        wallet: Lightning = getattr(self, whose).wallet
        wallet.begin_late()
        for payment_hash in list(wallet.under_way):
            if settles:
                wallet.land(payment_hash)
            else:
                del wallet.under_way[payment_hash]

    @rule(seconds=st.sampled_from([1, 3, 40, 100, RESERVATION_S + 1, HOUR_S]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(whose=st.sampled_from(["buyer", "seller"]))
    def crash(self, whose: Literal["buyer", "seller"]) -> None:
        getattr(self, whose).restart()

    # What must be true after each of them

    @invariant()
    def every_token_is_as_the_model_says(self) -> None:
        for sold in self.sold:
            token = self.seller.shop.ledger.token(sold.token_id)
            if token:
                self._agree(sold, token)

    def _agree(self, sold: Sold, token: Token) -> None:
        payout, account, wallet = self.seller.book.open_payout(token.token_id), sold.account, self.seller.wallet
        sold.payouts.update(one.payment_hash for one in self.seller.book.payouts(token.token_id))
        sent = [wallet.sent[hash_] for hash_ in sold.payouts & set(wallet.sent)]
        account.returned_msat = sum(one.amount_msat + one.fee_msat for one in sent)
        assert min(token.balance_msat, token.spent_msat, token.reserved_msat, token.refunded_msat) >= 0
        assert token.credit_msat <= sum(self.seller.wallet.received.get(hash_, 0) for hash_ in sold.hashes)
        assert token.spent_msat == account.charged_msat
        assert account.returned_msat - token.refunded_msat in self._not_booked(payout)
        reserved_msat = payout.amount_msat + payout.fee_cap_msat if payout else 0
        if token.reserved_msat != account.held_msat + reserved_msat:
            account.lapse(self.clock())
        assert token.reserved_msat == account.held_msat + reserved_msat

    def _not_booked(self, payout: Payout | None) -> tuple[int, ...]:
        """What may have left for a refund without the books knowing: the one that they say is open."""
        sending = payout and self.seller.wallet.sent.get(payout.payment_hash)
        return (sending.amount_msat + sending.fee_msat,) if sending else (0,)

    @invariant()
    def one_refund_of_a_token_at_a_time(self) -> None:
        wallet = self.seller.wallet
        for sold in self.sold:
            assert len(sold.payouts & {*wallet.under_way, *wallet.late}) <= 1

    @invariant()
    def the_purse_never_pays_a_hash_again(self) -> None:
        assert not self.buyer.wallet.repeated

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        wallet, now = self.buyer.wallet, self.clock()
        assert wallet.may_leave_msat(now - HOUR_S) <= LIMITS.hour_msat
        assert wallet.may_leave_msat(now - DAY_S) <= LIMITS.day_msat

    def teardown(self) -> None:
        """When all is over, what was received was spent or went back, to the last msat that can be sent."""
        try:
            self._finish()
            self._balance_the_books()
        finally:
            self.buyer.database.close()
            self.seller.shop.database.close()
            self.folder.cleanup()

    def _finish(self) -> None:
        self.payments_end(True, "buyer")
        self.payments_end(True, "seller")
        self.time_passes(RESERVATION_S + 1)
        assert not self.buyer.purse.recover()
        for sold in self._paid():
            with suppress(TokenRefused):
                self.seller.counter.token([self._header(sold)], "llm")
            token = self.seller.shop.ledger.token(sold.token_id)
            if token:
                with suppress(TooSmall):
                    self.seller.refunds.claim(token, OFFERS[0])
        for _ in range(100):
            self.try_refunds(GOOD)
            self.time_passes(self.seller.refunds.wait_s(HOUR_S))
        self.every_token_is_as_the_model_says()

    def _balance_the_books(self) -> None:
        seller, buyer = self.seller.wallet, self.buyer.wallet
        states = {refund.state for refund in self.seller.refunds.refunds(1000)}
        assert states <= {RefundState.PAID, RefundState.TOO_SMALL}
        sums = self.seller.shop.till.sales()
        assert sums["credit_msat"] == sum(seller.received.values())
        assert sums["credit_msat"] == sums["spent_msat"] + sums["refunded_msat"] + sums["balance_msat"]
        assert sums["refunded_msat"] == seller.may_leave_msat(0)
        assert sums["reserved_msat"] == 0
        assert sums["balance_msat"] < 1000 * max(1, sums["tokens"])
        spending = self.buyer.purse.spending()
        assert spending["paid_msat"] + spending["fee_msat"] == buyer.may_leave_msat(0)
        assert spending["open_msat"] == 0

    # Small helps

    @contextmanager
    def _dying(self, side: Buyer | Seller, fate: Fate) -> Iterator[None]:
        """With this fate for payments; who dies of it is started again."""
        side.wallet.fate = fate
        try:
            yield
        except PowerCut:
            side.restart()

    def _some(self, which: int) -> Sold:
        return self.sold[which % len(self.sold)]

    def _paid(self) -> list[Sold]:
        return [sold for sold in self.sold if sold.invoice.payment_hash in self.seller.wallet.received]

    def _some_paid(self, which: int) -> Sold:
        paid = self._paid()
        return paid[which % len(paid)]

    def _preimage(self, sold: Sold) -> str:
        return self.seller.wallet.preimage(sold.invoice).hex()

    def _header(self, sold: Sold) -> str:
        return sold.offered.as_balance(self._preimage(sold))

    def _is_credential(self, authorization: str, sold: Sold) -> bool:
        return sold in self._paid() and authorization == self._header(sold)

    def _receive(self, sold: Sold) -> None:
        """Whatever was paid until now is on the token from now on."""
        sold.account.received_msat = sum(self.seller.wallet.received.get(hash_, 0) for hash_ in sold.hashes)

    def _hold(self, sold: Sold, admitted: Admitted) -> None:
        self._receive(sold)
        sold.account.lapse(self.clock())
        sold.account.held[admitted.reservation] = (admitted.amount_msat, self.clock() + RESERVATION_S)
        self.reservations.append((sold, admitted.reservation))
        assert admitted.balance_msat == sold.account.left_msat

    def _admits(self, sold: Sold, amount_msat: int, least_msat: int, by_payment: bool) -> bool:
        if sold.closed or sold.revoked or self.clock() >= (self._late(sold) if by_payment else sold.expires_at):
            return False
        most_msat = self._most_msat(sold, by_payment)
        if by_payment and min(amount_msat, most_msat) < least_msat:
            return False
        sold.account.lapse(self.clock())
        left_msat, received_msat = sold.account.left_msat, sold.account.received_msat
        return left_msat >= least_msat and (not by_payment or left_msat == received_msat)

    def _late(self, sold: Sold) -> int:
        return sold.invoice.expires_at + 600

    def _most_msat(self, sold: Sold, by_payment: bool) -> int:
        return (sold.invoice.amount_msat or 0) if by_payment else 10**9

    def _address(self, wanted: str | int) -> str:
        """An offer, or a fresh invoice of the buyer's, of any amount or of this one."""
        if wanted in OFFERS:
            return str(wanted)
        amount_msat = wanted if isinstance(wanted, int) else None
        made = self.seller.wallet.made
        return self.seller.wallet.knows(invoice_of(len(made), amount_msat, self.clock() + 7200)).bolt11


TestMoney = Money.TestCase
TestMoney.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
