"""What is asked of a model, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lyceum.money import check_msat
from lyceum.ports.prices import Bill, Usage

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "cancelled", "error"]
Kind = Literal["chat", "embedding"]
Use = Literal["context", "quote"]
"""How a library is used; `lyceum.library.Reader` says what each means."""

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
