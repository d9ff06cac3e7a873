"""Giving back what is left on a token: claimed once, tried until it lands.

Laws: the claim closes the token before anything is paid; each payment is journaled and its money
reserved before the node is asked, so one token has at most one under way; a payment that may still
arrive is looked up, never replaced by another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lyceum.books import Payout, Refund, RefundLedger, RefundState, Token
from lyceum.errors import BadAddress, LyceumError, TooSmall
from lyceum.money import check_msat, text
from lyceum.ports import Address, Invoice, Outcome, Payment, Wallet
from lyceum.till.topups import Topups

PAYMENT_S = 60
"""How long the node may look for a way to pay."""

CERTAIN_S = PAYMENT_S + 30
"""So long after its start a payment is not begun anew by the node: if it knows of none, there is none."""

LEAST_LIFE_S = 60
"""An invoice that expires sooner is no address for a refund."""

BACK_OFF_S = (2, 10, 60, 300, 1800, 3600)
"""Waits after the first, second, ... time that no way was found; the last one for ever after."""

DEARER_S = 1
"""Until a way is looked for that may cost more."""

LOOK_AGAIN_S = 2
"""Until an answer or a payment under way is looked at again."""

CHEAP_PERCENT = 1
FEE_RUNGS = 3


@dataclass(frozen=True, slots=True)
class RefundTerms:
    """`least_msat`: less is not sent. `fee_percent` of a refund may go to routing. `window_s`: seconds after a
    token's expiry in which its holder may still ask."""

    least_msat: int = 1000
    fee_percent: int = 10
    window_s: int = 90 * 24 * 3600

    def __post_init__(self) -> None:
        check_msat("least_msat", self.least_msat, least=1)
        if not 0 <= self.fee_percent <= 50:
            raise ValueError("fee_percent must be from 0 to 50")
        if self.window_s < 0:
            raise ValueError("window_s must not be negative")


class Refunds:
    def __init__(
        self, wallet: Wallet, ledger: RefundLedger, topups: Topups, terms: RefundTerms, *, now: Callable[[], int]
    ) -> None:
        self._wallet = wallet
        self._ledger = ledger
        self._topups = topups
        self._now = now
        self._guard = threading.Lock()
        self._handed_out: set[str] = set()
        self.terms = terms

    def claim(self, token: Token, address_text: str) -> Refund:
        """Close the token and owe its holder what is left; or, when that was done, send it elsewhere.

        Asked again after all was sent, it answers with what became of it: whoever asks may have missed the first
        answer. Raises BadAddress, or TooSmall when less is left than can be sent; then nothing was changed.
        """
        if token.unspent_msat < self.terms.least_msat:
            if earlier := self._ledger.refund(token.token_id):
                return earlier
            raise TooSmall(
                f"{text(token.unspent_msat)} are left, and less than {text(self.terms.least_msat)} is not sent"
            )
        address = self._wallet.address(address_text)
        self._check(address, token)
        return self._ledger.claim(token.token_id, address.text, self._now())

    def refund(self, token_id: str) -> Refund | None:
        return self._ledger.refund(token_id)

    def refunds(self, limit: int) -> Sequence[Refund]:
        return self._ledger.refunds(limit)

    def payouts(self, token_id: str) -> Sequence[Payout]:
        return self._ledger.payouts(token_id)

    def sums(self) -> dict[str, int]:
        return self._ledger.sums()

    def due(self) -> Sequence[str]:
        """Tokens whose refund should be attempted now, also for what was paid to them after they were closed.

        Each is handed out once, until its attempt has ended.
        """
        self._topups.collect_late()
        found = {refund.token_id for refund in self._ledger.due(self._now())}
        with self._guard:
            found -= self._handed_out
            self._handed_out |= found
        return sorted(found)

    def wait_s(self, most_s: int) -> int:
        """Seconds until the next one is due, at least 1 and at most `most_s`."""
        next_at = self._ledger.next_at()
        return most_s if next_at is None else min(max(next_at - self._now(), 1), most_s)

    def attempt(self, token_id: str) -> None:
        """One try, of what `due` has handed out."""
        try:
            refund = self._ledger.refund(token_id)
            if refund and refund.state is RefundState.OWED:
                self._ledger.note(self._try(refund), self.terms.least_msat)
        finally:
            with self._guard:
                self._handed_out.discard(token_id)

    def _try(self, refund: Refund) -> Refund:
        """The claim as it stands after one try."""
        try:
            payout = self._ledger.open_payout(refund.token_id)
            return self._resume(refund, payout) if payout else self._pay_next(refund)
        except BadAddress as error:
            return replace(refund, state=RefundState.NEEDS_ADDRESS, detail=error.message)
        except LyceumError as error:
            return self._failed(refund, error.message)

    def _pay_next(self, refund: Refund) -> Refund:
        left_msat = self._ledger.idle_msat(refund.token_id, self._now())
        if left_msat is None:
            return self._look_again(refund, "an answer is still under way")
        if left_msat < self.terms.least_msat:
            return self._done(refund, left_msat)
        address = self._wallet.address(refund.address)
        self._check_payable(address, left_msat, refund.token_id)
        if address.payment_hash and self._is_under_way(address.payment_hash):
            return self._look_again(refund, "a payment to this invoice is still being wound up")
        amount_msat, fee_cap_msat = self._shares(address, left_msat, self._rung(refund.token_id))
        invoice = self._wallet.fetch(address, amount_msat)
        payout = self._ledger.begin(self._payout(refund, invoice, amount_msat, fee_cap_msat), refund.address)
        if payout is None:
            return self._look_again(refund, "the balance or the address has just changed")
        return self._book(refund, payout, self._pay(payout, invoice))

    def _resume(self, refund: Refund, payout: Payout) -> Refund:
        """A payment whose end was not seen. The node pays one hash at most once, so asking for the same again
        is safe; another invoice must wait until this one cannot be paid any more."""
        payment = self._wallet.lookup(payout.payment_hash)
        if payment.outcome is Outcome.FAILED:
            invoice = self._wallet.decode(payout.invoice)
            if invoice.expires_at > self._now():
                payment = self._pay(payout, invoice)
            if payment.outcome is Outcome.FAILED and self._now() < payout.created_at + CERTAIN_S:
                payment = replace(payment, outcome=Outcome.UNKNOWN)
        return self._book(refund, payout, payment)

    def _book(self, refund: Refund, payout: Payout, payment: Payment) -> Refund:
        self._ledger.finish(payout, payment)
        if payment.outcome is Outcome.SETTLED:
            return replace(refund, next_at=self._now(), tries=0, detail=f"{text(payout.amount_msat)} sent")
        if payment.outcome is Outcome.FAILED and self._rung(refund.token_id):
            return replace(refund, next_at=self._now() + DEARER_S, detail=payment.detail)
        if payment.outcome is Outcome.FAILED:
            return self._failed(refund, payment.detail)
        return self._look_again(refund, "a payment is under way and may still succeed: it is looked up, not repeated")

    def _pay(self, payout: Payout, invoice: Invoice) -> Payment:
        open_amount_msat = payout.amount_msat if invoice.amount_msat is None else None
        label = f"l402-refund/{payout.token_id}"
        return self._wallet.pay(invoice, payout.fee_cap_msat, label, PAYMENT_S, open_amount_msat)

    def _payout(self, refund: Refund, invoice: Invoice, amount_msat: int, fee_cap_msat: int) -> Payout:
        return Payout(
            refund.token_id, invoice.payment_hash, invoice.bolt11, amount_msat, fee_cap_msat, created_at=self._now()
        )

    def _rung(self, token_id: str) -> int:
        """How many payments failed since one succeeded or the ladder of fees began anew."""
        rung = 0
        for payout in self._ledger.payouts(token_id):
            rung = (rung + 1) % FEE_RUNGS if payout.outcome is Outcome.FAILED else 0
        return rung

    def _shares(self, address: Address, left_msat: int, rung: int) -> tuple[int, int]:
        """What is sent, and what its route may cost. Where we choose: all of it if there is a way without
        fees, then with a fee of 1 %, then of as much as the terms allow."""
        most_msat = left_msat * self.terms.fee_percent // 100
        if address.amount_msat is not None:
            return address.amount_msat, min(left_msat - address.amount_msat, most_msat)
        fee_cap_msat = (0, min(left_msat * CHEAP_PERCENT // 100, most_msat), most_msat)[rung]
        return left_msat - fee_cap_msat, fee_cap_msat

    def _check(self, address: Address, token: Token) -> None:
        network = self._wallet.network()
        if network not in address.networks:
            raise BadAddress(f"the address is for {' or '.join(address.networks)}, this node is on {network}")
        if address.expires_at is not None and address.expires_at < self._now() + LEAST_LIFE_S:
            raise BadAddress(f"the invoice must be payable for {LEAST_LIFE_S} seconds at least: make a new one")
        self._check_payable(address, token.unspent_msat, token.token_id)
        sent = {payout.payment_hash for payout in self._ledger.payouts(token.token_id)}
        if address.payment_hash and address.payment_hash not in sent and self._is_under_way(address.payment_hash):
            raise BadAddress("this node is paying this invoice for something else: make a new one")

    def _is_under_way(self, payment_hash: str) -> bool:
        """Raises BadAddress if the node has paid it: it would call a second payment settled too."""
        found = self._wallet.lookup(payment_hash).outcome
        if found is Outcome.SETTLED:
            raise BadAddress("this node has paid this invoice before: make a new one")
        return found is not Outcome.FAILED

    def _check_payable(self, address: Address, left_msat: int, token_id: str) -> None:
        if address.expires_at is not None and address.expires_at <= self._now():
            raise BadAddress("the invoice has expired: ask for the refund again with a new one, or with a BOLT12 offer")
        if address.amount_msat is not None and address.amount_msat > left_msat:
            raise BadAddress(f"the invoice asks {text(address.amount_msat)}, and {text(left_msat)} are left")
        if address.payment_hash and self._ledger.is_used(address.payment_hash, token_id):
            raise BadAddress("this invoice was used before: make a new one")

    def _done(self, refund: Refund, left_msat: int) -> Refund:
        if not left_msat:
            return replace(refund, state=RefundState.PAID, detail="all of it was sent")
        detail = f"{text(left_msat)} are left, which is less than the {text(self.terms.least_msat)} that can be sent"
        sent = any(payout.outcome is Outcome.SETTLED for payout in self._ledger.payouts(refund.token_id))
        return replace(refund, state=RefundState.PAID if sent else RefundState.TOO_SMALL, detail=detail)

    def _failed(self, refund: Refund, detail: str) -> Refund:
        wait_s = BACK_OFF_S[min(refund.tries, len(BACK_OFF_S) - 1)]
        return replace(refund, tries=refund.tries + 1, next_at=self._now() + wait_s, detail=detail)

    def _look_again(self, refund: Refund, detail: str) -> Refund:
        return replace(refund, next_at=self._now() + LOOK_AGAIN_S, detail=detail)
