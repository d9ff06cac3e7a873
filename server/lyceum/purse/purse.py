"""One payment from the challenge to the credential, and what is kept of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from lyceum.books import Purchase, PurseLedger, Shortfall
from lyceum.errors import BadInvoice, OverBudget, PaymentFailed, PaymentUnknown
from lyceum.l402 import Challenge, Credential
from lyceum.money import text
from lyceum.ports import Invoice, Outcome, Payment, Terms, Ticket, Wallet, Wanted
from lyceum.purse.bills import Bills
from lyceum.purse.limits import PurseLimits, too_little
from lyceum.purse.tokens import best_fitting

LEAST_LIFE_S = 5
"""An invoice that lives shorter than this may expire under way."""

PAYMENT_S = 60
"""How long the node may look for a way to pay."""

WINDING_UP_S = 5
"""lightningd calls a failed payment pending until its last part is taken back, a moment after xpay's error."""

LONGEST_PAYMENT_S = PAYMENT_S + WINDING_UP_S + 5
"""After so long `pay` has answered, whatever the answer, and the node tries no more for a caller that died."""

OPEN = frozenset({Outcome.PENDING, Outcome.UNKNOWN})


class Purse:
    def __init__(
        self,
        wallet: Wallet,
        ledger: PurseLedger,
        bills: Bills,
        *,
        now: Callable[[], int],
        limits: PurseLimits,
        timeout_s: int = PAYMENT_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wallet = wallet
        self._ledger = ledger
        self.bills = bills
        self._now = now
        self._timeout_s = timeout_s
        self._pause = pause
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self.limits = limits

    def kept(self, wanted: Wanted) -> Ticket | None:
        """The token that fits best of those that were paid for and may be used there.

        Payments to this origin whose outcome is open are looked up first: what was paid is used, not paid again.
        Raises Distrusted.
        """
        self.bills.check_trusted(wanted.origin)
        for row in self._ledger.unfinished():
            if row.origin == wanted.origin:
                self._resolve(row)
        found = best_fitting(self._ledger.kept(wanted.origin), wanted)
        return _ticket(found, paid_now=False) if found else None

    def exhausted(self, payment_hash: str, need_msat: int) -> None:
        self._ledger.exhausted(payment_hash, need_msat)

    def discard(self, payment_hash: str) -> None:
        self._ledger.discard(payment_hash)

    def pay(self, challenge: Challenge, origin: str, terms: Terms) -> Ticket:
        """Pay a challenge of `origin` once, however often it is asked.

        Raises Distrusted, OverBudget, BadInvoice or PaymentFailed, after which nothing was paid; and
        PaymentUnknown, after which the money may still go: asking again looks it up first.
        """
        self.bills.check_trusted(origin)
        invoice = self._wallet.decode(challenge.invoice)
        with self._one_at_a_time(invoice.payment_hash):
            row = self._ledger.purchase(invoice.payment_hash)
            if row:
                _check_same_deal(row, challenge, origin)
            if row and row.outcome is Outcome.SETTLED:
                return _ticket(row, paid_now=False)
            if row and row.outcome is not Outcome.FAILED:
                return _ticket(
                    self._conclude(row, self._wait_for(row, self._what_became, self._timeout_s)), paid_now=True
                )
            self._check(invoice, challenge, terms)
            return self._pay(_purchase(challenge, invoice, origin, terms, self._now()), invoice)

    def recover(self) -> Sequence[Purchase]:
        """After a start: ask the node what became of every open row; returns those still open."""
        for row in self._ledger.unfinished():
            self._resolve(row)
        return self._ledger.unfinished()

    def spending(self) -> dict[str, int]:
        return self._ledger.spending()

    def purchases(self, limit: int) -> Sequence[Purchase]:
        return self._ledger.purchases(limit)

    def _one_at_a_time(self, payment_hash: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(payment_hash, threading.Lock())

    def _resolve(self, row: Purchase) -> None:
        """What became of an open row; waits for a call that is just paying it."""
        with self._one_at_a_time(row.payment_hash):
            now = self._ledger.purchase(row.payment_hash)
            if now and now.outcome in OPEN:
                self._ledger.finish(row.payment_hash, self._what_became(now))

    def _pay(self, purchase: Purchase, invoice: Invoice) -> Ticket:
        row = self._begin(purchase)
        payment = self._wallet.pay(invoice, row.fee_cap_msat, row.label, self._timeout_s)
        if payment.outcome is Outcome.PENDING:
            payment = self._wait_for(row, lambda row: self._wallet.lookup(row.payment_hash), WINDING_UP_S)
        return _ticket(self._conclude(row, payment), paid_now=True)

    def _begin(self, purchase: Purchase) -> Purchase:
        """Journal and reserve. What a dead caller left open is looked up before it refuses anybody."""
        budgets = self.limits.budgets()
        begun = self._ledger.begin(purchase, budgets)
        if isinstance(begun, Shortfall):
            for row in self._ledger.unfinished():
                if row.created_at + LONGEST_PAYMENT_S <= self._now():
                    self._resolve(row)
            begun = self._ledger.begin(purchase, budgets)
        if isinstance(begun, Shortfall):
            raise OverBudget(too_little(purchase, begun))
        return begun

    def _check(self, invoice: Invoice, challenge: Challenge, terms: Terms) -> None:
        identifier = challenge.identifier()
        if identifier and identifier.payment_hash.hex() != invoice.payment_hash:
            raise BadInvoice("the macaroon belongs to another invoice: paying this one would buy nothing")
        if invoice.network != self._wallet.network():
            raise BadInvoice(f"the invoice is for {invoice.network}, this node is on {self._wallet.network()}")
        if terms.payee and invoice.payee != terms.payee:
            raise BadInvoice("the invoice pays another node than the seller's")
        if invoice.expires_at < self._now() + LEAST_LIFE_S:
            raise BadInvoice("the invoice has expired: ask the seller for a new one")
        if invoice.amount_msat is None:
            raise BadInvoice("the invoice names no amount, so the price is open: refused")
        cap_msat = min(terms.cap_msat, self.limits.payment_msat)
        if invoice.amount_msat > cap_msat:
            raise OverBudget(f"the seller asks {text(invoice.amount_msat)}, the limit is {text(cap_msat)}")

    def _what_became(self, row: Purchase) -> Payment:
        """The node's word on an open row, except that a payment nobody waits for any more may still start:
        until the node has given up looking for a way, "never heard of it" says nothing."""
        payment = self._wallet.lookup(row.payment_hash)
        if payment.outcome is Outcome.FAILED and self._now() < row.created_at + LONGEST_PAYMENT_S:
            return Payment(Outcome.PENDING, detail="the node may still be looking for a way")
        return payment

    def _wait_for(self, row: Purchase, find: Callable[[Purchase], Payment], patience_s: int) -> Payment:
        deadline = self._now() + patience_s
        payment = find(row)
        while payment.outcome is Outcome.PENDING and self._now() < deadline:
            self._pause(0.25)
            payment = find(row)
        return payment

    def _conclude(self, row: Purchase, payment: Payment) -> Purchase:
        row = self._ledger.finish(row.payment_hash, payment)
        if payment.outcome is Outcome.SETTLED:
            return row
        if payment.outcome is Outcome.FAILED:
            raise PaymentFailed(f"the payment of {text(row.amount_msat)} failed: {payment.detail}")
        raise PaymentUnknown(
            f"the payment is under way and may still succeed; {text(row.reserved_msat)} count as spent until it is "
            "known. Ask again to look it up: it will not be paid twice"
        )


def _check_same_deal(row: Purchase, challenge: Challenge, origin: str) -> None:
    """A seller who shows another seller's invoice must not be handed that one's credential."""
    if (row.origin, row.macaroon) != (origin, challenge.macaroon_text):
        raise BadInvoice("this invoice was already used for another token or another seller")


def _purchase(challenge: Challenge, invoice: Invoice, origin: str, terms: Terms, now: int) -> Purchase:
    return Purchase(
        payment_hash=invoice.payment_hash,
        origin=origin,
        purpose=terms.purpose,
        bolt11=challenge.invoice,
        amount_msat=invoice.amount_msat or 0,
        fee_cap_msat=terms.fee_cap_msat,
        created_at=now,
        macaroon=challenge.macaroon_text,
        payee=invoice.payee,
        model=terms.model,
        service=challenge.service(),
    )


def _ticket(row: Purchase, paid_now: bool) -> Ticket:
    header = Credential.of(row.macaroon, row.preimage).header()
    if not paid_now:
        return Ticket(header, row.payment_hash)
    return Ticket(header, row.payment_hash, row.amount_msat, row.fee_msat)
