"""The purse, as a buying client sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lyceum.money import check_msat
from lyceum.ports.prices import Usage

if TYPE_CHECKING:  # an engine's process, which has no use for it, starts in half the time
    from lyceum.l402 import Challenge


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the purse hands a client to send. The amounts are what this call paid: 0 for a kept one."""

    authorization: str = field(repr=False)
    payment_hash: str
    amount_msat: int = 0
    fee_msat: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """The most that one payment may be, the most its routing may cost, and who must be paid.

    `purpose` says whose money it is, for budgets; `model` what it is spent on.
    """

    cap_msat: int
    fee_cap_msat: int
    payee: str = ""
    purpose: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        check_msat("cap_msat", self.cap_msat)
        check_msat("fee_cap_msat", self.fee_cap_msat)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client is about to ask of an origin, to find the kept token that fits best.

    `service` as the seller's challenge names it, "" while it has sent none. `need_msat`: the most that the
    request may cost, 0 where that is not known. `tried`: payment hashes of tokens that it refused already.
    """

    origin: str
    service: str = ""
    need_msat: int = 0
    tried: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a token was spent on, for its buyer's books.

    `usage`: characters as the buyer counted them, tokens as the seller said. `recounted_msat` is what that
    costs by the price list that the seller showed before; `balance_msat` what it says is left on the
    token, None if it does not. `complaint`: what is wrong with the bill. `error`: why no answer came.
    """

    origin: str
    model: str
    purpose: str
    payment_hash: str
    usage: Usage
    charged_msat: int
    recounted_msat: int
    balance_msat: int | None = None
    complaint: str = ""
    error: str = ""

    def __post_init__(self) -> None:
        for name in ("charged_msat", "recounted_msat"):
            check_msat(name, getattr(self, name))
        if self.balance_msat is not None:
            check_msat("balance_msat", self.balance_msat)


class Payer(Protocol):
    """The purse as a buying client sees it. `kept` and `pay` raise Distrusted for a seller that overcharged;
    `pay` also OverBudget, BadInvoice, PaymentFailed or PaymentUnknown, after which money may still go."""

    async def kept(self, wanted: Wanted) -> Ticket | None:
        """A token that was paid for and is not known to hold too little."""
        ...

    async def pay(self, challenge: Challenge, origin: str, terms: Terms) -> Ticket: ...

    async def discard(self, payment_hash: str) -> None:
        """The seller refused this token for good."""
        ...

    async def exhausted(self, payment_hash: str, need_msat: int) -> None:
        """The seller says that this token does not hold `need_msat`; 0 where the need was not known."""
        ...

    async def report(self, delivery: Delivery) -> None:
        """Write it down. A delivery with a complaint ends all trust in its origin."""
        ...

    async def distrusted(self) -> Mapping[str, str]:
        """The origins that are neither asked nor paid, each with the complaint."""
        ...
