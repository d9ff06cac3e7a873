"""Small stand-ins for the ports: a clock, a wallet that follows a script or the truth, a payer, models that speak."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from lyceum.errors import BadAddress, BadInvoice
from lyceum.l402 import Challenge, Credential, challenge_macaroon
from lyceum.ports import (
    Address,
    Ask,
    Chunk,
    Delivery,
    Delta,
    End,
    Finish,
    Invoice,
    Member,
    Offer,
    Outcome,
    Payment,
    Terms,
    Ticket,
    Usage,
    Wanted,
)
from lyceum.quote import Quote, Subject

MASTER = b"m" * 32
NODE = "02" + "ab" * 32


def sha256(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def preimage_of(number: int) -> bytes:
    return sha256(b"preimage %d" % number)


def invoice_of(number: int, amount_msat: int | None = 3000, expires_at: int = 2000) -> Invoice:
    """The invoice whose preimage is `preimage_of(number)`; its text passes for BOLT 11."""
    payment_hash = sha256(preimage_of(number)).hex()
    bolt11 = "lnbcrt30n1" + payment_hash.translate(str.maketrans("1b", "xy"))
    return Invoice(bolt11, payment_hash, amount_msat, expires_at, "regtest", NODE)


def challenge_of(invoice: Invoice) -> Challenge:
    macaroon = challenge_macaroon(MASTER, bytes.fromhex(invoice.payment_hash), b"\x07" * 32, "llm", 9000)
    return Challenge(macaroon, invoice.bolt11)


@dataclass
class Clock:
    """Stands still unless it is told or paused on."""

    now: int = 1000

    def __call__(self) -> int:
        return self.now

    def pause(self, _: float) -> None:
        self.now += 1


@dataclass
class FakeWallet:
    """A Wallet of both sides. `pays` and `finds` are what `pay` and `lookup` say first, in turn.

    When the script is at its end, payments settle, and a lookup tells whether they did.
    """

    clock: Clock = field(default_factory=Clock)
    pays: list[Payment] = field(default_factory=list)
    finds: list[Payment] = field(default_factory=list)
    on_pay: Callable[[Invoice], None] = lambda _: None
    made: dict[str, Invoice] = field(default_factory=dict)
    paid: list[tuple[Invoice, int]] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    settled: dict[str, Payment] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    described: list[str] = field(default_factory=list)
    lazy: bool = False
    addresses: dict[str, Address] = field(default_factory=dict)
    fetches: list[Exception] = field(default_factory=list)
    fee_msat: int = 2

    def knows(self, invoice: Invoice) -> Invoice:
        self.made[invoice.bolt11] = invoice
        return invoice

    def network(self) -> str:
        return "regtest"

    def invoice(self, amount_msat: int, label: str, description: str, expiry_s: int) -> Invoice:
        self.described.append(description)
        return self.knows(invoice_of(len(self.made), amount_msat, self.clock() + expiry_s))

    def challenge(self, quote: Quote, subject: Subject, expiry_s: int) -> Invoice:
        made = self.invoice(quote.amount_msat, quote.label(subject.service), subject.description, expiry_s)
        return replace(made, kept=not self.lazy)

    def is_open(self, invoice: Invoice) -> bool:
        return invoice.payment_hash not in self.received

    def received_msat(self, payment_hash: str) -> int | None:
        return self.received.get(payment_hash)

    def received_in_all_msat(self, prefix: str) -> int:
        return sum(self.received.values())

    def decode(self, bolt11: str) -> Invoice:
        if bolt11 not in self.made:
            raise BadInvoice("not a valid BOLT11 invoice")
        return self.made[bolt11]

    def address(self, text: str) -> Address:
        if text in self.addresses:
            return self.addresses[text]
        if text not in self.made:
            raise BadAddress("not an address")
        invoice = self.made[text]
        return Address(text, (invoice.network,), invoice.amount_msat, invoice.expires_at, invoice.payment_hash)

    def fetch(self, address: Address, amount_msat: int) -> Invoice:
        if address.payment_hash:
            return self.made[address.text]
        if self.fetches:
            raise self.fetches.pop(0)
        return self.knows(invoice_of(len(self.made), amount_msat, self.clock() + 7200))

    def pay(
        self, invoice: Invoice, max_fee_msat: int, label: str, timeout_s: int, amount_msat: int | None = None
    ) -> Payment:
        """As a node does, it pays one hash once; a second call is told of the first payment."""
        self.paid.append((replace(invoice, amount_msat=invoice.amount_msat or amount_msat), max_fee_msat))
        self.on_pay(invoice)
        if self.pays:
            return self.pays.pop(0)
        return self.settled.get(invoice.payment_hash) or self.settle(invoice, amount_msat)

    def settle(self, invoice: Invoice, amount_msat: int | None = None) -> Payment:
        """The payment of `invoice` arrives: its preimage is known from now on."""
        amount_msat = invoice.amount_msat or amount_msat or 0
        payment = Payment(Outcome.SETTLED, self.preimage(invoice).hex(), amount_msat, self.fee_msat)
        self.settled[invoice.payment_hash] = payment
        self.received[invoice.payment_hash] = amount_msat
        return payment

    def lookup(self, payment_hash: str) -> Payment:
        self.looked_up.append(payment_hash)
        if self.finds:
            return self.finds.pop(0)
        return self.settled.get(payment_hash, Payment(Outcome.FAILED, detail="never heard of it"))

    def preimage(self, invoice: Invoice) -> bytes:
        return next(raw for number in range(1000) if sha256(raw := preimage_of(number)).hex() == invoice.payment_hash)


@dataclass
class MemoryPayer:
    """A Payer that buys whatever it is shown, or raises `refusal`; notes what it was asked."""

    tickets: dict[str, Ticket] = field(default_factory=dict)
    refusal: Exception | None = None
    bought: list[tuple[Challenge, str, Terms]] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    empty: list[tuple[str, int]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    async def kept(self, wanted: Wanted) -> Ticket | None:
        self.wanted.append(wanted)
        kept = self.tickets.get(wanted.origin)
        return kept if kept and kept.payment_hash not in wanted.tried else None

    async def pay(self, challenge: Challenge, origin: str, terms: Terms) -> Ticket:
        self.bought.append((challenge, origin, terms))
        if self.refusal:
            raise self.refusal
        preimage = preimage_of(len(self.bought))
        header = Credential(challenge.macaroon, preimage).header()
        return Ticket(header, sha256(preimage).hex(), amount_msat=3000, fee_msat=2)

    async def discard(self, payment_hash: str) -> None:
        self.discarded.append(payment_hash)
        self.tickets = {at: kept for at, kept in self.tickets.items() if kept.payment_hash != payment_hash}

    async def exhausted(self, payment_hash: str, need_msat: int) -> None:
        self.empty.append((payment_hash, need_msat))

    async def report(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    async def distrusted(self) -> Mapping[str, str]:
        return {delivery.origin: delivery.complaint for delivery in self.deliveries if delivery.complaint}


@dataclass
class Speaker:
    """A Model that says its words, then `error` or an `End`; `before` is awaited first."""

    offer: Offer
    words: tuple[str, ...] = ("yes",)
    error: Exception | None = None
    before: Callable[[], Awaitable[object]] | None = None
    after: Callable[[], Awaitable[object]] | None = None
    member: Member | None = None
    finish: Finish = "stop"
    asked: list[Ask] = field(default_factory=list)
    closed: bool = False

    async def weigh(self, ask: Ask) -> Usage:
        return self.offer.worst_case(ask)

    async def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        self.asked.append(ask)
        try:
            if self.before:
                await self.before()
            for word in self.words:
                yield Delta(word, tokens=1)
            if self.after:
                await self.after()
            if self.error:
                raise self.error
            yield End(self.finish, members=(self.member,) if self.member else ())
        finally:
            self.closed = True
