"""The values that rooms exchange and the protocols they meet through; no implementation, no I/O.

Frozen values check themselves on construction, so a wrong one cannot exist.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lyceum.money import ceil_div, check_msat
from lyceum.quote import Quote, Subject
from lyceum.tariff import AS_LISTED, LIST_PRICE, Tariff, share_msat

if TYPE_CHECKING:  # an engine's process, which has no use for it, starts in half the time
    from lyceum.l402 import Challenge

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "cancelled", "error"]
Kind = Literal["chat", "embedding"]
Use = Literal["context", "quote"]
"""How a library is used; `lyceum.library.Reader` says what each means."""

CHARS_PER_TOKEN = 6
"""Characters that one token is reckoned at when a worst case is reserved; English needs about 4.5."""


RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "repeat_penalty": (0.1, 10.0),
}
"""The least and the most of an ask's numbers, by OpenAI's API and llama.cpp's."""

MOST_TOP_K = 1 << 20


# What is asked and what comes back


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to one model, as OpenAI's chat completions define the fields.

    `max_tokens`: None means as much as the model allows. `budget_msat`: what a model that buys
    from others may spend in all, fees included; at 0 it spends nothing but what its owner allows it.
    The answer must follow `schema` (JSON Schema, as JSON) or `grammar` (GBNF), where one is given.
    `logprobs`: how many likely alternatives to report beside each token; None reports nothing.
    `deadline_s`: seconds after which nobody waits for the answer any more; 0 for no such time. `payer`: the token that
    pays, set by whoever has checked it; "" for nobody.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: str = ""
    grammar: str = ""
    logprobs: int | None = None
    budget_msat: int = 0
    top_k: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    deadline_s: float = 0.0
    payer: str = ""

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("messages must hold at least one message")
        if self.schema and self.grammar:
            raise ValueError("response_format and grammar both shape the answer: give one of them")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        check_msat("budget_msat", self.budget_msat)

    @property
    def input_chars(self) -> int:
        return sum(len(message.content) for message in self.messages)

    @property
    def may_be_short(self) -> bool:
        """Whether an answer that is cut off is still of use: no length was asked for, nor a shape."""
        return self.max_tokens is None and not self.schema and not self.grammar

    @property
    def question(self) -> str:
        """The last user message: what the ask is about."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Usage:
    """What was read and written, in tokens and in Unicode characters."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_chars: int = 0
    output_chars: int = 0

    def shortened(self, tokens: int) -> Usage:
        """The same with an answer of at most so many tokens."""
        chars = min(self.output_chars, tokens * CHARS_PER_TOKEN)
        return replace(self, output_tokens=min(self.output_tokens, tokens), output_chars=chars)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that could stand here, and the natural logarithm of its probability."""

    text: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The token that was written, and the likeliest ones that could have been, best first."""

    chosen: Candidate
    likeliest: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer, and how many tokens made it; `member` names who wrote it.

    `outside`: this is no answer but the model saying that the question lies outside its field. Such
    words are free, and an ensemble asks somebody else instead of passing them on.
    """

    text: str
    tokens: int = 0
    member: str = ""
    outside: bool = False
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One member's account in an ensemble's answer.

    `charged_msat` is the price of this answer; `paid_msat` and `fee_msat` are what left the wallet
    for it now (0 when earlier credit sufficed); `credit_msat` is what stays on the token. `error`
    is a sentence and `code` its stable name; `part` is the piece of the question that it got;
    `confidence` is what the member's own `End` said, `complaint` what is wrong with its bill.
    """

    node_id: str
    model: str
    charged_msat: int = 0
    fee_msat: int = 0
    payment_hash: str = ""
    ok: bool = True
    error: str = ""
    code: str = ""
    paid_msat: int = 0
    credit_msat: int = 0
    seconds: float = 0.0
    part: str = ""
    confidence: float | None = None
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage of a library that an answer rests on: [`number`] in the text, `source` a file's name."""

    number: int
    source: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The last chunk of every answer. `confidence` is the mean token log-probability (<= 0).

    `exhausted`: the answer was cut short because the buyer's balance ended.
    """

    finish: Finish
    usage: Usage = Usage()
    confidence: float | None = None
    members: tuple[Member, ...] = ()
    citations: tuple[Citation, ...] = ()
    bill: Bill | None = None
    exhausted: bool = False


Chunk = Delta | End


# What is for sale


class Unit(enum.StrEnum):
    """What a price counts. A buyer can recount characters from the text it holds."""

    CHAR = "char"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Price:
    """msat per answer, and per 1,000 units read and written; the total is rounded up once."""

    base_msat: int = 0
    input_per_1k_msat: int = 0
    output_per_1k_msat: int = 0
    unit: Unit = Unit.CHAR

    def __post_init__(self) -> None:
        check_msat("base_msat", self.base_msat)
        check_msat("input_per_1k_msat", self.input_per_1k_msat)
        check_msat("output_per_1k_msat", self.output_per_1k_msat)

    def at(self, percent: int) -> Price:
        """So many percent of this price, each part rounded up."""
        return Price(
            share_msat(self.base_msat, percent),
            share_msat(self.input_per_1k_msat, percent),
            share_msat(self.output_per_1k_msat, percent),
            self.unit,
        )

    def cost_msat(self, usage: Usage) -> int:
        """Nothing for an empty answer; else base plus what was read and written."""
        read, written = self.units(usage)
        return self.total_msat(read, written) if written else 0

    def reading_msat(self, usage: Usage) -> int:
        """What reading alone costs: embeddings write nothing that is metered."""
        return self.total_msat(self.units(usage)[0], 0)

    def units(self, usage: Usage) -> tuple[int, int]:
        """What was read and written, in the unit of this price."""
        if self.unit is Unit.CHAR:
            return usage.input_chars, usage.output_chars
        return usage.input_tokens, usage.output_tokens

    def most_written(self, read: int, amount_msat: int) -> int | None:
        """How many units may be written, after these were read, for `amount_msat`; None if any number."""
        if not self.output_per_1k_msat:
            return None if self.total_msat(read, 0) <= amount_msat else 0
        left = (amount_msat - self.base_msat) * 1000 - read * self.input_per_1k_msat
        return max(left // self.output_per_1k_msat, 0)

    def total_msat(self, read: int, written: int) -> int:
        return self.base_msat + ceil_div(read * self.input_per_1k_msat + written * self.output_per_1k_msat, 1000)


@dataclass(frozen=True, slots=True)
class Bill:
    """What a seller charged and how it counted; `balance_msat` is left on the buyer's token.

    The units are those of `price`; both are 0 where nothing is owed, as for a failed or an empty answer.
    """

    charged_msat: int
    balance_msat: int
    price: Price
    input_units: int = 0
    output_units: int = 0

    def __post_init__(self) -> None:
        check_msat("charged_msat", self.charged_msat)
        check_msat("balance_msat", self.balance_msat)
        if not all(type(units) is int and units >= 0 for units in (self.input_units, self.output_units)):
            raise ValueError("input_units and output_units must be whole numbers, not negative")

    @classmethod
    def for_answer(cls, price: Price, usage: Usage) -> Bill:
        """What an answer costs, before a till has settled it."""
        read, written = price.units(usage)
        return cls(price.cost_msat(usage), 0, price, *((read, written) if written else ()))

    @classmethod
    def for_reading(cls, price: Price, usage: Usage) -> Bill:
        """What embeddings cost, before a till has settled it."""
        return cls(price.reading_msat(usage), 0, price, price.units(usage)[0])

    @property
    def due_msat(self) -> int:
        """The units at the price: no charge is above it, and one is below it only where less was reserved."""
        if not self.input_units and not self.output_units:
            return 0
        return self.price.total_msat(self.input_units, self.output_units)

    def complaint(self, listed: Price, counted: Usage) -> str:
        """What is wrong with this bill, in a sentence; empty when nothing is.

        `listed` is the dearest price that the buyer agreed to, `counted` what it holds. Characters are
        recounted; of tokens, which only the seller counts, the sum alone.
        """
        read, written = listed.units(counted)
        if self.price.unit is not listed.unit:
            return f"it counts {self.price.unit}s, the price list {listed.unit}s"
        if listed.unit is Unit.CHAR and (self.input_units > read or self.output_units > written):
            return f"it counts {self.input_units}+{self.output_units} characters where there are {read}+{written}"
        allowed_msat = replace(self, price=listed).due_msat
        if self.charged_msat > min(self.due_msat, allowed_msat):
            return f"it charges {self.charged_msat} msat where {min(self.due_msat, allowed_msat)} are due"
        return ""


@dataclass(frozen=True, slots=True)
class Limits:
    """`context_tokens` holds prompt and answer; `max_tokens` is the longest answer sold."""

    context_tokens: int
    max_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= self.context_tokens:
            raise ValueError("max_tokens must be from 1 to context_tokens")

    def answer_tokens(self, wanted: int | None) -> int:
        return self.max_tokens if wanted is None else min(wanted, self.max_tokens)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as its seller lists it. `bundle_msat` is the least first payment; `digest` the
    file's SHA-256; `node_id` the seller's node."""

    model: str
    description: str = ""
    topics: tuple[str, ...] = ()
    price: Price = Price()
    limits: Limits = Limits(context_tokens=2048, max_tokens=512)
    kind: Kind = "chat"
    bundle_msat: int = 0
    digest: str = ""
    node_id: str = ""

    def worst_case(self, ask: Ask) -> Usage:
        """The most that `ask` can use, without a tokenizer: every token is at least one character."""
        tokens = self.limits.answer_tokens(ask.max_tokens)
        chars = ask.input_chars
        return Usage(chars, tokens, chars, tokens * CHARS_PER_TOKEN)


class Model(Protocol):
    """Anything that answers: a GGUF file, a specialist on another node, a council of all of them."""

    @property
    def offer(self) -> Offer: ...

    async def weigh(self, ask: Ask) -> Usage:
        """The most that `ask` can use; cheap. Raises TooLong or Busy, before anything is paid."""
        ...

    def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        """The answer: any number of `Delta`, then one `End`. Closing the iterator stops the work."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How the `server`th of those behind a model is: why it is passed over, "" if it is well; how many requests
    it was sent, and how many of them it is working on."""

    model: str
    server: int
    trouble: str
    served: int
    outstanding: int


class Watched(Protocol):
    """Servers behind a model, which may come and go."""

    def standing(self) -> Sequence[Standing]:
        """What is known now; asking starts a new look where that is old."""
        ...


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts to turn into vectors, as OpenAI's embeddings request has them."""

    model: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.texts or not all(self.texts):
            raise ValueError("input must hold at least one text, and no empty one")

    @property
    def input_chars(self) -> int:
        return sum(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector of length 1 for each text, in order, and what was read."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage


class Embedder(Protocol):
    """A model that turns texts into vectors. Its price counts what is read; a base price is one a request."""

    @property
    def offer(self) -> Offer: ...

    async def weigh(self, batch: TextBatch) -> Usage:
        """Exact, and cheap. Raises TooLong or Busy, before anything is paid."""
        ...

    async def embed(self, batch: TextBatch) -> Embeddings: ...


# Money


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
