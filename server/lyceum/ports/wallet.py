"""The Lightning node, as money sees it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from lyceum.quote import Quote, Subject


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice as the node decoded or made it; `bolt11` is its text, which a refund's offer gives as BOLT12.

    Times are Unix seconds, hashes hex. `kept`: the node has it in its books; a lazy one appears there
    when it is paid.
    """

    bolt11: str
    payment_hash: str
    amount_msat: int | None
    expires_at: int
    network: str
    payee: str = ""
    description: str = ""
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """Where a refund can go: a BOLT11 invoice, paid once, or a BOLT12 offer, which gives a new invoice each time.

    `payment_hash` is that of the invoice, "" for an offer. No amount: the payer chooses. `expires_at`:
    Unix seconds, None for never.
    """

    text: str
    networks: tuple[str, ...]
    amount_msat: int | None = None
    expires_at: int | None = None
    payment_hash: str = ""


class Outcome(enum.StrEnum):
    """A payment has four outcomes; PENDING and UNKNOWN are looked up again, never paid again."""

    SETTLED = "settled"
    FAILED = "failed"
    PENDING = "pending"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Payment:
    """`preimage` (hex) and amounts are meaningful when settled; `detail` says why when not."""

    outcome: Outcome
    preimage: str = field(default="", repr=False)
    amount_msat: int = 0
    fee_msat: int = 0
    detail: str = ""


class Wallet(Protocol):
    """The Lightning node, as money sees it. Every method raises NodeError when the node refuses."""

    def network(self) -> str:
        """`bitcoin`, `testnet`, `signet` or `regtest`."""
        ...

    def invoice(self, amount_msat: int, label: str, description: str, expiry_s: int) -> Invoice: ...

    def challenge(self, quote: Quote, subject: Subject, expiry_s: int) -> Invoice:
        """An invoice of the quoted amount that nobody may ever pay, so it should cost little."""
        ...

    def is_open(self, invoice: Invoice) -> bool:
        """Could the invoice of a challenge be paid now, as far as we know? Its time is not looked at."""
        ...

    def received_msat(self, payment_hash: str) -> int | None:
        """What our invoice with this hash received, None while it is unpaid or if it is not ours."""
        ...

    def received_in_all_msat(self, prefix: str) -> int:
        """What all our invoices received whose label begins with `prefix`."""
        ...

    def decode(self, text: str) -> Invoice:
        """A BOLT11 or BOLT12 invoice. Raises BadInvoice unless the node finds it well formed and properly signed."""
        ...

    def address(self, text: str) -> Address:
        """Raises BadAddress unless it is an invoice or an offer that can be paid in msat."""
        ...

    def fetch(self, address: Address, amount_msat: int) -> Invoice:
        """An invoice for this amount: the address itself, or what its offer gives. NodeError if it gives none."""
        ...

    def pay(
        self, invoice: Invoice, max_fee_msat: int, label: str, timeout_s: int, amount_msat: int | None = None
    ) -> Payment:
        """Pays once; `amount_msat` for an invoice that names none.

        Never raises for an outcome: says UNKNOWN when it cannot tell.
        """
        ...

    def lookup(self, payment_hash: str) -> Payment:
        """What became of our payment of this hash; FAILED also when the node never heard of it."""
        ...
