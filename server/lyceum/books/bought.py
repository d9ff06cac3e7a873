"""What the purse writes down, and the protocols of the books that keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lyceum.ports import Delivery, Outcome, Payment


@dataclass(frozen=True, slots=True)
class Purchase:
    """A row of the payment journal: written before paying, so that a crash cannot lose it.

    `origin` is where the token is good (scheme, host and port, or a node id), `service` what it opens
    there, "" if its macaroon does not say; `payee` the node that the invoice pays, `model` what was asked
    first. `balance_msat` is what the seller last said of it, None while it said nothing. `macaroon` and
    `preimage` together are the bearer credential and stay out of `repr`.
    """

    payment_hash: str
    origin: str
    purpose: str
    bolt11: str
    amount_msat: int
    fee_cap_msat: int
    created_at: int
    macaroon: str = field(repr=False)
    outcome: Outcome = Outcome.PENDING
    preimage: str = field(default="", repr=False)
    fee_msat: int = 0
    usable: bool = True
    payee: str = ""
    model: str = ""
    service: str = ""
    balance_msat: int | None = None

    @property
    def left_msat(self) -> int:
        """What the token holds, as far as we know."""
        return self.amount_msat if self.balance_msat is None else self.balance_msat

    @property
    def reserved_msat(self) -> int:
        """What may leave the wallet, as long as it is not known what did."""
        return self.amount_msat + self.fee_cap_msat

    @property
    def label(self) -> str:
        """What the node's own lists call this payment."""
        return " ".join(filter(None, ["lyceum:", self.purpose, self.model]))


Scope = Literal["all", "peer", "purpose"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may leave the wallet within `window_s` seconds, fees counted.

    For all purchases together, or for those of one peer (the same origin or the same payee) or of one
    purpose. What is still open counts with its highest fee, however old it is.
    """

    name: str
    most_msat: int
    window_s: int
    scope: Scope = "all"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A budget that a purchase does not fit into. `frees_at`: Unix seconds when it will, None if that is not known."""

    budget: Budget
    left_msat: int
    frees_at: int | None


class PurseLedger(Protocol):
    """The buyer's journal. Each method is one short transaction."""

    def purchase(self, payment_hash: str) -> Purchase | None: ...

    def begin(self, purchase: Purchase, budgets: Sequence[Budget]) -> Purchase | Shortfall:
        """Journal a payment about to be made, as pending; in place of an earlier row only if that failed.

        The row is the reservation: in the same step it must fit into every budget, else nothing is written.
        """
        ...

    def finish(self, payment_hash: str, payment: Payment) -> Purchase: ...

    def kept(self, origin: str) -> Sequence[Purchase]:
        """Paid and usable tokens of this origin that are not known to be empty, newest first."""
        ...

    def discard(self, payment_hash: str) -> None:
        """The seller refused this token for good."""
        ...

    def exhausted(self, payment_hash: str, need_msat: int) -> None:
        """The token holds less than `need_msat`, and no more than was known before."""
        ...

    def unfinished(self) -> Sequence[Purchase]: ...

    def purchases(self, limit: int) -> Sequence[Purchase]: ...

    def spending(self) -> dict[str, int]:
        """Totals: payments, paid_msat, fee_msat, open_msat."""
        ...


@dataclass(frozen=True, slots=True)
class BillLine:
    """What was bought of one model of one seller. `failed`: tokens were shown and no answer came.

    `paid_msat` and `fee_msat` left the wallet, `charged_msat` was used of it; `credit_msat` is left on
    usable tokens now, under the model that each was bought for.
    """

    origin: str
    model: str
    answers: int
    failed: int
    charged_msat: int
    recounted_msat: int
    paid_msat: int
    fee_msat: int
    credit_msat: int
    disputes: int


class BillLedger(Protocol):
    """What the tokens were spent on. Each method is one short transaction."""

    def enter(self, delivery: Delivery, now: int) -> None:
        """Write it down, with the token's balance; a complaint is held against the origin from then on."""
        ...

    def distrusted(self) -> Mapping[str, str]:
        """Origins and the first complaint against each."""
        ...

    def trust(self, origin: str) -> bool:
        """True if a complaint was held against this origin until now."""
        ...

    def bill(self, since: int) -> Sequence[BillLine]:
        """From Unix second `since` on, by seller and model."""
        ...

    def prune(self, before: int) -> int:
        """Forget deliveries older than Unix second `before`; payments stay. Returns how many."""
        ...
