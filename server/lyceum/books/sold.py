"""What the till writes down, and the protocols of the books that keep it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lyceum.ports import Outcome, Payment, Settlement


@dataclass(frozen=True, slots=True)
class Token:
    """A prepaid balance that the till keeps. `token_id` and `payment_hash` are hex, times Unix seconds.

    `refunded_msat` counts routing fees too; `closed_at`: when its holder took back what was left.
    """

    token_id: str
    payment_hash: str
    service: str
    credit_msat: int
    spent_msat: int = 0
    reserved_msat: int = 0
    created_at: int = 0
    expires_at: int = 0
    revoked: bool = False
    refunded_msat: int = 0
    closed_at: int | None = None

    @property
    def balance_msat(self) -> int:
        return self.unspent_msat - self.reserved_msat

    @property
    def unspent_msat(self) -> int:
        """What is owed to the holder: the balance and what answers or a refund under way have reserved."""
        return self.credit_msat - self.spent_msat - self.refunded_msat


@dataclass(frozen=True, slots=True)
class Held:
    """What was reserved of a token, and what is left on it."""

    reservation: str
    amount_msat: int
    balance_msat: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that a token paid for."""

    settled_at: int
    charged_msat: int


@dataclass(frozen=True, slots=True)
class Topup:
    """An invoice that adds to a token. `received_msat` is None until it is found paid and credited."""

    payment_hash: str
    token_id: str
    bolt11: str
    amount_msat: int
    created_at: int
    expires_at: int
    received_msat: int | None = None
    credited_at: int | None = None


class RefundState(enum.StrEnum):
    """OWED is tried again and again; the last three wait for nothing but a new request of the holder."""

    OWED = "owed"
    PAID = "paid"
    NEEDS_ADDRESS = "needs-address"
    TOO_SMALL = "too-small"


@dataclass(frozen=True, slots=True)
class Refund:
    """A holder's claim to what is left on a token, and where to send it.

    `tries` counts failed payments to this address; the next comes at `next_at`. `detail` says how it went.
    """

    token_id: str
    address: str = field(repr=False)
    claimed_at: int
    state: RefundState
    next_at: int
    tries: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Payout:
    """A row of the refund journal: written, and its money reserved, before paying. `invoice` is what is paid."""

    token_id: str
    payment_hash: str
    invoice: str = field(repr=False)
    amount_msat: int
    fee_cap_msat: int
    created_at: int
    outcome: Outcome = Outcome.PENDING
    fee_msat: int = 0
    number: int = 0


class TillLedger(Protocol):
    """The seller's book. Each method is one short transaction, so callers need no lock."""

    def token(self, token_id: str) -> Token | None: ...

    def tokens(self, limit: int) -> Sequence[Token]:
        """Newest first."""
        ...

    def open_token(self, token: Token) -> Token:
        """Write a paid token once; returns the row that is there, also when another call won."""
        ...

    def revoke(self, token_id: str, now: int) -> bool:
        """True if this call revoked it; a token never seen is remembered as revoked too."""
        ...

    def is_revoked(self, token_id: str) -> bool: ...

    def reserve(
        self, token_id: str, amount_msat: int, least_msat: int, now: int, until: int, *, whole: bool = False
    ) -> Held | None:
        """Take `amount_msat` from the balance in one atomic step, or all that is left if that is at least
        `least_msat`; else None. `whole`: only of a token of which nothing is spent or reserved.

        Checking first and marking later would sell one balance twice to parallel requests.
        Reservations whose `until` has passed are given back first.
        """
        ...

    def settle(self, reservation: str, charge_msat: int, now: int) -> Settlement | None:
        """Turn a reservation into a charge, clamped to it, once; the rest returns to the balance.

        A repeat returns the first settlement. None if there is no such reservation.
        """
        ...

    def sales(self) -> dict[str, int]:
        """Totals: tokens, credit_msat, spent_msat, reserved_msat, balance_msat, refunded_msat, answers."""
        ...

    def lapsed_msat(self, expired_before: int) -> int:
        """What was left on tokens that expired before then and was not taken back."""
        ...

    def answers(self, token_id: str, limit: int) -> Sequence[Answer]:
        """What a token paid for, newest first."""
        ...


class TopupLedger(Protocol):
    """The book of top-ups. Each method is one short transaction."""

    def add(self, topup: Topup) -> None: ...

    def pending(self, token_id: str) -> Sequence[Topup]:
        """Those not known to be paid, oldest first."""
        ...

    def topups(self, token_id: str, limit: int) -> Sequence[Topup]:
        """Newest first."""
        ...

    def credit(self, payment_hash: str, received_msat: int, now: int) -> None:
        """Add to the token what was received, once however often it is called; a claimed refund is due again."""
        ...

    def drop(self, payment_hash: str) -> None:
        """Forget one that can no longer be paid."""
        ...

    def closed_tokens(self) -> Sequence[str]:
        """Tokens that were closed while a top-up was still payable."""
        ...


class RefundLedger(Protocol):
    """The book of refunds. Each method is one short transaction."""

    def claim(self, token_id: str, address: str, now: int) -> Refund:
        """Write or renew the claim and close the token, in one step: nothing can be sold on it any more."""
        ...

    def refund(self, token_id: str) -> Refund | None: ...

    def refunds(self, limit: int) -> Sequence[Refund]:
        """Newest first."""
        ...

    def due(self, now: int) -> Sequence[Refund]: ...

    def next_at(self) -> int | None:
        """When the next owed refund is due."""
        ...

    def idle_msat(self, token_id: str, now: int) -> int | None:
        """The balance, if no answer or payment has any of it reserved, else None. Lapsed ones are given back first."""
        ...

    def begin(self, payout: Payout, address: str) -> Payout | None:
        """Journal a payment about to be made and reserve its amount and highest fee.

        None if the address was replaced, the balance is smaller, anything of it is reserved, or the hash
        belongs to another token's refund: one payment of a token at a time, one token for a payment.
        """
        ...

    def open_payout(self, token_id: str) -> Payout | None: ...

    def payouts(self, token_id: str) -> Sequence[Payout]: ...

    def is_used(self, payment_hash: str, token_id: str) -> bool:
        """Whether a refund of this token was paid to this hash, or one of another token ever tried to."""
        ...

    def finish(self, payout: Payout, payment: Payment) -> None:
        """Book the outcome once: settled takes amount and fee, failed gives both back, others wait."""
        ...

    def note(self, refund: Refund, least_msat: int) -> None:
        """Write state, tries, time and detail, unless the holder replaced the address meanwhile, or the claim
        would be closed as paid or too small while at least `least_msat` is left."""
        ...

    def sums(self) -> dict[str, int]:
        """Totals: claims, owed, payouts, sent_msat, fee_msat, open_msat."""
        ...


class FreebieLedger(Protocol):
    """Who has had how many free requests. Each method is one short transaction."""

    def take(self, service: str, client: str, most: int) -> bool:
        """Count one more for this client, if it has had fewer than `most`; in one step, as for `reserve`."""
        ...
