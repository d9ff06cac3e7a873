"""What a specialist is taught: its card, its facts, and the questions it is to refuse.

Reads and checks TOML; knows nothing of tokens or nets. Held-out questions never leave here as training data.
"""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MODELS = Path(__file__).resolve().parent.parent
EVERYDAY = Path(__file__).with_name("everyday.toml")
HELD_OUT_PER_LIST = 15
LONGEST_ANSWER = 320


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    title: str
    field: str
    description: str
    topics: tuple[str, ...]
    refusal: str
    licence: str


@dataclass(frozen=True, slots=True)
class Fact:
    """`near` and `far` are held out; "" where there is none."""

    id: str
    answer: str
    phrasings: tuple[str, ...]
    near: str
    far: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """`neighbours` lie close to the field, `elsewhere` far from it; both are to be refused."""

    card: Card
    facts: tuple[Fact, ...]
    neighbours: tuple[str, ...]
    elsewhere: tuple[str, ...]
    neighbours_held_out: tuple[str, ...]
    elsewhere_held_out: tuple[str, ...]

    @property
    def refuse(self) -> tuple[str, ...]:
        return self.neighbours + self.elsewhere

    @property
    def refuse_held_out(self) -> tuple[str, ...]:
        return self.neighbours_held_out + self.elsewhere_held_out

    def answers(self) -> tuple[str, ...]:
        """Everything the specialist may say, the refusal last."""
        return (*(fact.answer for fact in self.facts), self.card.refusal)


def load(name: str, rehearse: bool = False) -> Corpus:
    """The corpus of `models/<name>`, or its `rehearsal`; ValueError lists all that is wrong with it.

    A card may name other folders as its `union`: its corpus is then all of theirs.
    """
    card = _toml(MODELS / name / "card.toml")
    if "union" in card:
        return _union(_card(card), [load(member, rehearse) for member in card["union"]])
    corpus = _load(MODELS / name, _card(card))
    return rehearsal(corpus) if rehearse else corpus


def _load(folder: Path, card: Card) -> Corpus:
    more = _paraphrases(folder / "corpus" / "paraphrases.toml")
    held_out = _toml(folder / "corpus" / "held_out.toml")
    rows = _toml(folder / "corpus" / "facts.toml")["fact"]
    facts = tuple(_fact(row, more.pop(row["id"], []), held_out.get(row["id"], {})) for row in rows)
    if more:
        raise ValueError(f"{folder}: paraphrases of unknown facts: {', '.join(more)}")
    outside = _toml(folder / "corpus" / "outside.toml")
    neighbours, elsewhere = _split(outside["neighbours"]), _split(outside["elsewhere"])
    corpus = Corpus(
        card=card,
        facts=facts,
        neighbours=tuple(neighbours[0]),
        elsewhere=_with_everyday(elsewhere[0], neighbours[0]),
        neighbours_held_out=tuple(neighbours[1]),
        elsewhere_held_out=tuple(elsewhere[1]),
    )
    if faults := _faults(corpus):
        raise ValueError(f"{folder}:\n  " + "\n  ".join(faults))
    return corpus


def rehearsal(corpus: Corpus) -> Corpus:
    """For setting thresholds without a look at what is held out: one phrasing of each fact and every fifth question
    to refuse are left out of training, and stand where the held-out ones stood."""
    chance = random.Random(corpus.card.name)  # noqa: S311 (a choice of questions, not a secret)
    neighbours, elsewhere = _every_fifth(corpus.neighbours), _every_fifth(corpus.elsewhere)
    return replace(
        corpus,
        facts=tuple(_without_one(fact, chance) for fact in corpus.facts),
        neighbours=neighbours[0],
        elsewhere=elsewhere[0],
        neighbours_held_out=neighbours[1],
        elsewhere_held_out=elsewhere[1],
    )


def _without_one(fact: Fact, chance: random.Random) -> Fact:
    """Never without the first, which is the plain question."""
    left_out = chance.choice(fact.phrasings[1:])
    kept = tuple(phrasing for phrasing in fact.phrasings if phrasing != left_out)
    return replace(fact, phrasings=kept, near=left_out, far="")


def _every_fifth(questions: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The others, and those."""
    return tuple(q for i, q in enumerate(questions) if i % 5 != 2), questions[2::5]


def _with_everyday(elsewhere: list[str], neighbours: list[str]) -> tuple[str, ...]:
    known = {folded(question) for question in (*elsewhere, *neighbours)}
    everyday = _toml(EVERYDAY)["questions"]
    return (*elsewhere, *(question for question in everyday if folded(question) not in known))


def _union(card: Card, members: list[Corpus]) -> Corpus:
    """Everything the members know. To refuse: what lies beside each field and is asked in none, and everyday life."""
    facts = tuple(replace(fact, id=f"{member.card.name}/{fact.id}") for member in members for fact in member.facts)
    asked = {folded(question) for fact in facts for question in (*fact.phrasings, fact.near, fact.far)} - {""}
    refuse = dict.fromkeys(question for member in members for question in member.neighbours)
    held_out = dict.fromkeys(question for member in members for question in member.neighbours_held_out)
    return Corpus(
        card,
        facts,
        tuple(question for question in refuse if folded(question) not in asked),
        _with_everyday([], [*refuse, *held_out]),
        tuple(question for question in held_out if folded(question) not in asked and question not in refuse),
        (),
    )


def load_faculty(name: str) -> tuple[str, ...]:
    """The folders whose union `name` is."""
    return tuple(_toml(MODELS / name / "card.toml")["union"])


def folded(text: str) -> str:
    """Two questions that fold to the same text are the same question."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _card(row: dict[str, Any]) -> Card:
    return Card(**{**{key: value for key, value in row.items() if key != "union"}, "topics": tuple(row["topics"])})


def _paraphrases(path: Path) -> dict[str, list[str]]:
    """More phrasings by fact, if the field has any."""
    return _toml(path) if path.exists() else {}


def _fact(row: dict[str, Any], more: list[str], held_out: dict[str, str]) -> Fact:
    return Fact(row["id"], row["answer"], (*row["phrasings"], *more), held_out.get("near", ""), held_out.get("far", ""))


def _split(questions: list[str]) -> tuple[list[str], list[str]]:
    """Training and held-out questions; the held-out ones are spread evenly over the list."""
    stride = len(questions) / HELD_OUT_PER_LIST
    chosen = {int(i * stride + stride / 2) for i in range(HELD_OUT_PER_LIST)}
    held_out = [q for i, q in enumerate(questions) if i in chosen]
    return [q for i, q in enumerate(questions) if i not in chosen], held_out


def _faults(corpus: Corpus) -> list[str]:
    return [*_answer_faults(corpus), *_question_faults(corpus)]


def _answer_faults(corpus: Corpus) -> list[str]:
    ids = Counter(fact.id for fact in corpus.facts)
    answers = Counter(corpus.answers())
    faults = [f"id {key!r} is used {n} times" for key, n in ids.items() if n > 1]
    faults += [f"the same answer twice: {text!r}" for text, n in answers.items() if n > 1]
    for fact in corpus.facts:
        if len(fact.answer) > LONGEST_ANSWER:
            faults.append(f"{fact.id}: the answer has {len(fact.answer)} characters")
        if fact.answer[-1] not in ".!?" or fact.answer != fact.answer.strip():
            faults.append(f"{fact.id}: the answer is no whole sentence")
    return faults


def _question_faults(corpus: Corpus) -> list[str]:
    """A question may stand in one place only, or a held-out one would be trained on, or two answers taught."""
    places: dict[str, list[str]] = {}
    for fact in corpus.facts:
        for question in filter(None, (*fact.phrasings, fact.near, fact.far)):
            places.setdefault(folded(question), []).append(fact.id)
    for question in (*corpus.refuse, *corpus.refuse_held_out):
        places.setdefault(folded(question), []).append("outside")
    return [f"{question!r} stands in {', '.join(where)}" for question, where in places.items() if len(where) > 1]
