"""Challenges: a stranger is limited first, shown an open one where there is one, and only then is anything minted.

One challenge may be shown to many: its macaroon is worth nothing without the preimage, which only the
one who pays learns, and whoever pays a second time fails and loses nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from lyceum import l402
from lyceum.errors import RateLimited, TooManyChallenges
from lyceum.ports import Invoice, Wallet
from lyceum.quote import NONCE_BYTES, Quote, Subject
from lyceum.till.rate import Rate
from lyceum.till.terms import Admission, TillTerms

MOST_REMEMBERED = 10_000
"""Challenges that may be shown again; one that is forgotten can still be paid."""

LATE_S = 600
"""How long a `Payment` challenge outlives its invoice: who paid in the last second must still be served."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a challenge is for; who wants the same is shown the same."""

    client: str
    service: str
    model: str | None
    amount_msat: int
    percent: int

    @property
    def subject(self) -> Subject:
        return Subject.of(self.service, self.model)


@dataclass(frozen=True, slots=True)
class Shown:
    """The lines of a 402, and the invoice that is in all of them."""

    lines: tuple[str, ...] = field(repr=False)
    invoice: Invoice


class Challenges:
    """Thread-safe; one is made at a time, which is as fast as the node signs."""

    def __init__(
        self, wallet: Wallet, master_key: bytes, now: Callable[[], int], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._wallet = wallet
        self._master_key = master_key
        self._now = now
        self._random_bytes = random_bytes
        self._lock = threading.Lock()
        self._rate = Rate()
        self._quotes = Rate()
        self._shown: OrderedDict[Wish, Shown] = OrderedDict()
        self._kept: dict[str, int] = {}

    def issue(self, admission: Admission, amount_msat: int, percent: int, terms: TillTerms) -> tuple[str, ...]:
        """The lines of the header; what they sell costs `percent` of the list price as long as they are good.

        Raises RateLimited or TooManyChallenges, before anything is minted.
        """
        wish = Wish(admission.client, admission.service, admission.model, amount_msat, percent)
        with self._lock:
            shown = self._shown.get(wish)
            if not shown or not self._is_open(shown.invoice, terms):
                self._limit(wish.client, terms)
                shown = self._mint(wish, terms)
                self._remember(wish, shown)
        return shown.lines

    def limit_quotes(self, client: str, terms: TillTerms) -> None:
        """Raises RateLimited. Quotes are counted apart: who looks at prices may still buy."""
        with self._lock:
            wait_s = self._quotes.take(client, terms.challenges_per_minute, self._now()) if client else 0
        if wait_s:
            raise RateLimited("too many quotes for your network; the manifest lists the prices", wait_s)

    def paid(self, payment_hash: str) -> None:
        """The node has received it, so it is open no more."""
        with self._lock:
            self._kept.pop(payment_hash, None)

    def _is_open(self, invoice: Invoice, terms: TillTerms) -> bool:
        """With half of its time left, so that who sees it second can still pay it."""
        return 2 * (invoice.expires_at - self._now()) >= terms.challenge_s and self._wallet.is_open(invoice)

    def _limit(self, client: str, terms: TillTerms) -> None:
        wait_s = self._rate.take(client, terms.challenges_per_minute, self._now()) if client else 0
        if wait_s:
            raise RateLimited("too many unpaid requests from your network; a token with credit is let in", wait_s)
        if len(self._kept) < terms.open_challenges:
            return
        self._kept = {hash_: until for hash_, until in self._kept.items() if until > self._now()}
        if len(self._kept) >= terms.open_challenges:
            wait_s = min(self._kept.values(), default=self._now() + 60) - self._now()
            raise TooManyChallenges("too many unpaid invoices are open; a token with credit is let in", wait_s)

    def _mint(self, wish: Wish, terms: TillTerms) -> Shown:
        now, subject = self._now(), wish.subject
        nonce = self._random_bytes(NONCE_BYTES)
        quote = Quote(wish.amount_msat, now + terms.challenge_s, wish.percent, subject.digest(), nonce)
        invoice = self._wallet.challenge(quote, subject, terms.challenge_s)
        return Shown(self._lines(wish, quote.encode(), invoice, now + terms.token_s), invoice)

    def _lines(self, wish: Wish, token_id: bytes, invoice: Invoice, valid_until: int) -> tuple[str, ...]:
        """One invoice, and a challenge of each scheme around it."""
        key, service, payment_hash = self._master_key, wish.service, bytes.fromhex(invoice.payment_hash)
        macaroon = l402.challenge_macaroon(key, payment_hash, token_id, service, valid_until)
        charge = l402.Charge(token_id, payment_hash, wish.amount_msat, wish.model or "")
        late = invoice.expires_at + LATE_S
        payment = l402.charge_challenge(key, service, charge, invoice.bolt11, invoice.network, late)
        return *l402.Challenge(macaroon, invoice.bolt11).header_lines(), payment.header_line()

    def _remember(self, wish: Wish, shown: Shown) -> None:
        """Nobody is recognised without an address. What the node keeps is counted: it costs the node."""
        if shown.invoice.kept:
            self._kept[shown.invoice.payment_hash] = shown.invoice.expires_at
        if wish.client:
            self._shown[wish] = shown
            self._shown.move_to_end(wish)
        if len(self._shown) > MOST_REMEMBERED:
            self._shown.popitem(last=False)
