"""Adding to a token: an invoice of its own, credited once, when the node says that it is paid.

The node is asked on the token's next use, so that a crash between payment and credit loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lyceum.books import Token, Topup, TopupLedger
from lyceum.errors import TokenRefused, TooManyChallenges
from lyceum.l402 import Reason
from lyceum.money import whole_sats_msat
from lyceum.ports import Wallet

MOST_OPEN = 4
"""Unpaid invoices that one token may have at a time."""

LEAST_LIFE_S = 60
"""An open invoice is shown again, and a new one made, only with so much time to pay it."""

LATE_S = 120
"""So long after an invoice has expired no payment to it can be under way any more."""


class Topups:
    def __init__(
        self, wallet: Wallet, ledger: TopupLedger, *, now: Callable[[], int], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._wallet = wallet
        self._ledger = ledger
        self._now = now
        self._random_bytes = random_bytes

    def ask(self, token: Token, amount_msat: int, life_s: int) -> Topup:
        """An invoice that adds `amount_msat`, in whole sats, to the token; payable for `life_s` at most.

        Raises TokenRefused for a token that cannot be used any more, TooManyChallenges for too many unpaid ones.
        """
        self._check_usable(token)
        now, amount_msat = self._now(), whole_sats_msat(amount_msat)
        unpaid = [topup for topup in self._ledger.pending(token.token_id) if topup.expires_at >= now + LEAST_LIFE_S]
        same = next((topup for topup in unpaid if topup.amount_msat == amount_msat), None)
        if same:
            return same
        if len(unpaid) >= MOST_OPEN:
            raise TooManyChallenges(
                f"this token has {MOST_OPEN} unpaid top-ups: pay one of them, or wait until they expire"
            )
        return self._make(token, amount_msat, min(life_s, token.expires_at - now))

    def collect(self, token_id: str) -> bool:
        """Credit what was paid since; whether there was anything."""
        credited = False
        for topup in self._ledger.pending(token_id):
            now = self._now()
            received_msat = self._wallet.received_msat(topup.payment_hash)
            if received_msat is not None:
                self._ledger.credit(topup.payment_hash, received_msat, now)
                credited = True
            elif topup.expires_at + LATE_S < now:
                self._ledger.drop(topup.payment_hash)
        return credited

    def collect_late(self) -> None:
        """What was paid for tokens after they were closed: their refunds grow by it."""
        for token_id in self._ledger.closed_tokens():
            self.collect(token_id)

    def history(self, token_id: str, limit: int) -> Sequence[Topup]:
        return self._ledger.topups(token_id, limit)

    def _check_usable(self, token: Token) -> None:
        if token.closed_at is not None:
            raise TokenRefused("what was left on this token was taken back; pay for a new one", Reason.REFUNDED)
        if token.expires_at < self._now() + LEAST_LIFE_S:
            raise TokenRefused("the token has expired or is about to; pay for a new one", Reason.EXPIRED)

    def _make(self, token: Token, amount_msat: int, life_s: int) -> Topup:
        """The row is written before anybody can see the invoice, so that no payment to it goes unnoticed."""
        now = self._now()
        invoice = self._wallet.invoice(
            amount_msat,
            label=f"l402/{token.service}/{token.token_id}/{self._random_bytes(8).hex()}",
            description=f"L402 {token.service}: top-up",
            expiry_s=life_s,
        )
        topup = Topup(
            invoice.payment_hash,
            token.token_id,
            invoice.bolt11,
            amount_msat,
            created_at=now,
            expires_at=invoice.expires_at,
        )
        self._ledger.add(topup)
        return topup
