"""Which specialists to ask, for which part of the question, with how much money. Pure.

A question is cut into clauses, each clause goes to the offer whose field it touches most, and
neighbouring clauses with the same answerer stay together. Words count by how few fields share them
(inverse document frequency, Sparck Jones 1972), those of a description half as much as topics; between
near equals the cheaper offer wins. The caps of all assignments together never exceed the budget.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from lyceum.money import ceil_div, whole_sats_msat
from lyceum.ports import Ask, Message, Offer, Usage

NEAR = 0.85
"""An offer that scores at least this share of the best one competes on price."""

FLOOR = 0.15
"""Below this share of a clause's weight no field is about it at all."""

HALF_RANK = 500
"""Sellers list their main topics first; one that stands here says half as much as the first."""

WORTH = 0.5
"""An offer that scores less than this share of the best one is not asked, whoever declines."""

LEAST_SAID = 4
"""Content words of a clause that can be understood by itself even where a pronoun stands in it."""

MOST_CANDIDATES = 4
"""So many are asked in turn, at most, while each says that it is not its field."""

_WORD = re.compile(r"[^\W\d_]{2,}")
_ASKS = r"how|what|who|whom|whose|why|when|where|which|explain|tell|describe|name|compare|define|give"
_CUT = re.compile(rf"(?<=[.?!;])\s+|,?\s+(?:and|but|while|then)\s+(?=(?:{_ASKS})\b)|,\s+(?=(?:{_ASKS})\b)", re.I)
_ASKING = re.compile(rf"(?:{_ASKS})\b", re.I)
_TIE = re.compile(
    r"\A(?:(?:and|but|also|then|next|finally|or|so|by the way|one more thing|(?:i have )?(?:two|three|some|several)"
    r" (?:questions|things))\b[\s,:.]*)+",
    re.I,
)
_EMPTY = frozenset(
    _WORD.findall(
        "an and are as at about be been but by can could did do does for from give had has have he her his how in is"
        " it its me my not of on or our say she so tell than that the their them then there these they this those to"
        " was we were what when where which who whom whose why will with would you your explain describe please"
    )
)

_BACK = frozenset({"he", "she", "it", "they", "him", "her", "them", "his", "its", "their", "this", "these", "those"})

Field = Mapping[str, float]
"""The words of an offer's field, and how much each says of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the question and the offers that could answer it, best first, by index."""

    text: str
    candidates: tuple[int, ...]


def plan(question: str, offers: Sequence[Offer]) -> list[Part]:
    """The parts of `question` in order; empty when no offer's field touches any of it."""
    fields, weights = _vocabulary(tuple(offers))
    ranked = [(clause, _rank(clause, offers, fields, weights)) for clause in _clauses(question)]
    whole = _rank(question, offers, fields, weights)
    parts = _join(ranked)
    if len(parts) < 2:
        return [Part(question, whole)] if whole else []
    return parts


def _clauses(question: str) -> list[str]:
    """The pieces of a question, without the words that only tie them together. What leads to a piece that asks
    stays with it; what comes after the last of them stands for itself."""
    pieces = [piece for piece in (_TIE.sub("", piece.strip()) for piece in _CUT.split(question) if piece) if piece]
    if not any(map(_asks, pieces)):
        return pieces
    clauses, lead = [], ""
    for piece in pieces:
        lead = f"{lead} {piece}".strip()
        if _asks(piece):
            clauses.append(lead)
            lead = ""
    return [*clauses, lead] if lead else clauses


def _asks(clause: str) -> bool:
    return clause.endswith("?") or _ASKING.match(clause) is not None


def _join(ranked: Iterable[tuple[str, tuple[int, ...]]]) -> list[Part]:
    """Neighbours with the same first choice stay together, and so do clauses that mean nothing by themselves."""
    parts: list[Part] = []
    loose = ""
    for clause, candidates in ranked:
        text = f"{loose} {clause}".strip()
        if parts and (not candidates or candidates[0] == parts[-1].candidates[0] or _points_back(clause)):
            parts[-1] = replace(parts[-1], text=f"{parts[-1].text} {clause}")
        elif not candidates:
            loose = text
        else:
            parts.append(Part(text, candidates))
            loose = ""
    return parts


def _points_back(clause: str) -> bool:
    """`How much did she write?` cannot be understood without what stands before; a clause that says more names what
    its pronouns are about, as `why does a tomato collapse after it was frozen?` does."""
    return len(_stems(clause)) < LEAST_SAID and not _BACK.isdisjoint(_WORD.findall(clause.lower()))


def _rank(text: str, offers: Sequence[Offer], fields: Sequence[Field], weights: Mapping[str, float]) -> tuple[int, ...]:
    words = _stems(text)
    total = sum(weights.get(word, weights[""]) for word in words) or 1.0
    scores = [sum(weights[word] * field[word] for word in words & field.keys()) / total for field in fields]
    best = max(scores, default=0.0)

    def order(number: int) -> tuple[bool, int, float]:
        near = scores[number] >= best * NEAR
        return not near, _usual_msat(offers[number]) if near else 0, -scores[number]

    if best < FLOOR:
        return ()
    worth = (number for number, score in enumerate(scores) if score >= best * WORTH)
    return tuple(sorted(worth, key=order))[:MOST_CANDIDATES]


def _usual_msat(offer: Offer) -> int:
    """A price to compare by: a question of 100 units answered in 200."""
    return offer.price.cost_msat(Usage(100, 200, 100, 200))


@lru_cache(maxsize=16)
def _vocabulary(offers: tuple[Offer, ...]) -> tuple[Sequence[Field], Mapping[str, float]]:
    """Kept: libraries list thousands of words, and offers seldom change."""
    fields = [_field(offer) for offer in offers]
    return fields, _weights(fields)


def _field(offer: Offer) -> Field:
    field = dict.fromkeys(_stems(offer.description), 0.5)
    for rank, topic in enumerate((offer.model.replace("-", " "), *offer.topics)):
        for word in _stems(topic):
            field[word] = max(field.get(word, 0.0), 1 / (1 + rank / HALF_RANK))
    return field


def _weights(fields: Sequence[Field]) -> dict[str, float]:
    """Each word's weight; "" stands for a word that no field knows, which counts half a rare one."""
    seen = Counter(word for field in fields for word in field)
    known = {word: math.log(1 + len(fields) / count) for word, count in seen.items()}
    return known | {"": math.log(1 + len(fields)) / 2}


def _stems(text: str) -> frozenset[str]:
    """Content words by their first six letters: `calculate` and `calculation` meet."""
    return frozenset(word[:6] for word in _WORD.findall(text.lower()) if word not in _EMPTY)


# Money


@dataclass(frozen=True, slots=True)
class Caps:
    """What one member may cost: `price_msat` for its invoice, `fee_msat` for the way there."""

    price_msat: int
    fee_msat: int

    @property
    def total_msat(self) -> int:
        return self.price_msat + self.fee_msat


def first_payment_msat(offer: Offer, ask: Ask) -> int:
    """The most that a seller who keeps to its own list can ask for at first: whole sats."""
    worst_msat = offer.price.cost_msat(offer.worst_case(ask))
    return whole_sats_msat(max(worst_msat, offer.bundle_msat)) if worst_msat else 0


def fee_allowance_msat(price_msat: int) -> int:
    """Core Lightning's own default for xpay: one percent, at least five sats."""
    return max(5000, ceil_div(price_msat, 100)) if price_msat else 0


def caps(prices_msat: Sequence[int], budget_msat: int) -> list[Caps | None]:
    """Caps for parts of these prices, earlier ones first; None for what the budget cannot pay.

    What is left after the prices is shared out evenly for fees, up to each one's allowance, so all
    caps together never exceed the budget.
    """
    left_msat = budget_msat
    affordable = []
    for price_msat in prices_msat:
        affordable.append(price_msat <= left_msat)
        left_msat -= price_msat if affordable[-1] else 0
    share_msat = left_msat // max(1, sum(affordable))
    return [
        Caps(price_msat, min(share_msat, fee_allowance_msat(price_msat))) if fits else None
        for price_msat, fits in zip(prices_msat, affordable, strict=True)
    ]


def part_of(ask: Ask, offer: Offer, text: str, caps: Caps) -> Ask:
    """The ask that a member gets: its part of the question, its model name, its share of the money."""
    last = max(number for number, message in enumerate(ask.messages) if message.role == "user")
    messages = (*ask.messages[:last], Message("user", text), *ask.messages[last + 1 :])
    tokens = ask.max_tokens and offer.limits.answer_tokens(ask.max_tokens)
    return replace(ask, model=offer.model, messages=messages, max_tokens=tokens, budget_msat=caps.total_msat)
