"""The till, as a web server sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lyceum.money import check_msat
from lyceum.tariff import AS_LISTED, LIST_PRICE, Tariff

Headers = tuple[tuple[str, str], ...]
"""HTTP header lines, each a name and a value."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The till took a credential: `amount_msat` is reserved under `reservation`, maybe less than was asked for.

    `headers` go with the answer. Without a reservation the request is free, and nothing is to be settled.
    It costs `percent` of the list price.
    """

    reservation: str
    token_id: str
    payment_hash: str
    amount_msat: int
    balance_msat: int
    headers: Headers = ()
    percent: int = LIST_PRICE


@dataclass(frozen=True, slots=True)
class Settlement:
    token_id: str
    charged_msat: int
    balance_msat: int


@dataclass(frozen=True, slots=True)
class Declined:
    """The till wants to be paid first: a stable `reason`, a sentence, and the challenge's header lines.

    `kind` is a URI, the problem's type (RFC 9457). Who pays in time pays `percent` of the list price.
    """

    reason: str
    detail: str
    headers: Headers
    amount_msat: int
    kind: str = "about:blank"
    percent: int = LIST_PRICE


@dataclass(frozen=True, slots=True)
class Entry:
    """A request at the gate: the `Authorization` lines it came with, and what it wants to reserve.

    `client` is the network that it comes from, an IPv4 /24 or an IPv6 /48 as text; "" where unknown.
    `least_msat`: if the balance is below `amount_msat` but not below this, what is left is reserved;
    None where only all of it will do. Amounts are at the list price; `waiting` requests come before this one.
    """

    authorization: tuple[str, ...]
    model: str
    max_tokens: int
    amount_msat: int
    client: str = ""
    least_msat: int | None = None
    waiting: int = 0

    def __post_init__(self) -> None:
        check_msat("amount_msat", self.amount_msat, least=1)


@dataclass(frozen=True, slots=True)
class SaleTerms:
    """`bundle_msat` is the least that a first payment buys; `tariff` what becomes of list prices."""

    bundle_msat: int
    tariff: Tariff = AS_LISTED


class Gate(Protocol):
    """The till as a web server sees it: it hands over header text and learns no secrets."""

    @property
    def service(self) -> str:
        """The name that the tokens are sold for."""
        ...

    async def admit(self, entry: Entry) -> Admitted | Declined:
        """Reserve what it asks for. Raises BadRequest for two different credentials in one request."""
        ...

    async def settle(self, reservation: str, charge_msat: int) -> Settlement: ...

    async def quote(self, entry: Entry) -> int:
        """What a first payment for it would be now, in msat; makes no invoice."""
        ...

    async def terms(self) -> SaleTerms:
        """On what terms strangers buy now."""
        ...


class Holders(Protocol):
    """The till as a web server offers it to those who hold a token. Answers are JSON objects to pass on.

    Each raises TokenRefused for a credential that is not good for it.
    """

    async def token(self, authorization: Sequence[str]) -> dict[str, Any]:
        """What was paid for the token, what it paid for, what is left, and its refund."""
        ...

    async def top_up(self, authorization: Sequence[str], amount_msat: int) -> dict[str, Any]:
        """An invoice that adds to the token. Raises TooManyChallenges when it has too many unpaid ones."""
        ...

    async def reclaim(self, authorization: Sequence[str], address: str) -> dict[str, Any]:
        """Take back what is left. Raises BadAddress, or TooSmall."""
        ...
