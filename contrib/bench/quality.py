"""Does an ensemble of small specialists beat one general model of the same size, and what does it cost?

    python contrib/bench/quality.py [--json] [--mistakes] [--rehearse --weights DIR]

Every question was held out of training. An answer is right when, of everything that the faculty may say, the
text closest to it (difflib's ratio) is the reference answer and that ratio is at least 0.8; a question of two
fields is right when both answers are. Nobody tells the ensemble the field. msat are what a till would charge at
the prices of `lyceum init`; answers that only say that a question lies outside the field are free.

Thresholds are set on a rehearsal, without a look at these questions: weights made by `train.py --rehearse` are
asked the phrasings that it left out.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "models" / "recipe")]

import corpus as corpora  # noqa: E402
import library as libraries  # noqa: E402
from corpus import Corpus  # noqa: E402
from progress import Progress  # noqa: E402
from score import closest  # noqa: E402

from lyceum import tables  # noqa: E402
from lyceum.engine import Engine, EngineSettings, Fleet, read_card  # noqa: E402
from lyceum.engine.native import quantise  # noqa: E402
from lyceum.ensemble import GAP, NOBODY, Ensemble, Roster  # noqa: E402
from lyceum.errors import NoAnswer  # noqa: E402
from lyceum.library import Index, Reader  # noqa: E402
from lyceum.ports import Ask, Chunk, Delta, End, Limits, Member, Message, Model, Offer, Price, Usage  # noqa: E402

GENERALIST = "generalist"
TRAINED_LONGER = "generalist-long"
"""The same, after six times the steps: as much as the six specialists got together."""

PRICE = Price(base_msat=100, input_per_1k_msat=200, output_per_1k_msat=1000)
LIMITS = Limits(context_tokens=512, max_tokens=120)
BUDGET_MSAT = 1_000_000
TWO_FIELDS = 120
ANSWERED = ("near", "far", "two")
QUANTISATIONS = ("Q8_0", "Q4_K_M")
JOINTS = (
    "{} And {}",
    "{} Also, {}",
    "Two things: {} {}",
    "{} By the way: {}",
    "I have two questions. {} {}",
    "{} And then: {}",
)


def main() -> None:
    options = arguments()
    faculty = [corpora.load(name, options.rehearse) for name in corpora.load_faculty(GENERALIST)]
    with tempfile.TemporaryDirectory(prefix="lyceum-quality-") as folder:
        generalist = corpora.load(GENERALIST, options.rehearse)
        bench = Bench(faculty, generalist, options.weights, Path(folder), options.mistakes)
        rows = asyncio.run(bench.rows())
    if options.json or not sys.stdout.isatty():
        print(json.dumps(summary(rows, faculty) | {"rows": [row.as_dict() for row in rows]}))
    else:
        print(tables.render(HEADS, [row.cells(faculty) for row in rows]))
        print(tables.render(("what", "figure"), list(summary(rows, faculty).items())))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--mistakes", action="store_true", help="print every wrong answer to stderr")
    parser.add_argument("--rehearse", action="store_true", help="ask what `train.py --rehearse` left out")
    parser.add_argument("--weights", type=Path, default=ROOT / "models", help="where NAME/NAME.Q8_0.gguf lie")
    return parser.parse_args()


# What is asked


@dataclass(frozen=True, slots=True)
class Question:
    """`part`: near, far, outside, other or two. `expected`: the reference answers; none where it is to be refused."""

    part: str
    field: str
    text: str
    expected: tuple[str, ...] = ()


def own_questions(corpus: Corpus) -> Iterator[Question]:
    name = corpus.card.name
    for fact in corpus.facts:
        if fact.near:
            yield Question("near", name, fact.near, (fact.answer,))
        if fact.far:
            yield Question("far", name, fact.far, (fact.answer,))


def strange_questions(corpus: Corpus, faculty: Sequence[Corpus]) -> Iterator[Question]:
    """Held-out questions outside the field: written as such, and every fourth of each other field."""
    yield from (Question("outside", corpus.card.name, text) for text in corpus.refuse_held_out)
    for other in faculty:
        if other is not corpus:
            yield from (Question("other", corpus.card.name, fact.near) for fact in other.facts[::4] if fact.near)


def nobodys_questions(faculty: Sequence[Corpus]) -> Iterator[Question]:
    """Held-out questions of everyday life that no field of the faculty answers."""
    known = {corpora.folded(fact.near) for corpus in faculty for fact in corpus.facts}
    texts = dict.fromkeys(text for corpus in faculty for text in corpus.neighbours_held_out)
    yield from (Question("outside", "", text) for text in texts if corpora.folded(text) not in known)


def two_field_questions(faculty: Sequence[Corpus]) -> Iterator[Question]:
    """Two held-out questions of different fields in one: all pairs of fields in turn, joined in one of six ways."""
    chance = random.Random(1)  # noqa: S311 (a choice of questions, not a secret)
    pairs = list(itertools.permutations(faculty, 2))
    for number in range(TWO_FIELDS):
        one, other = pairs[number % len(pairs)]
        first, second = (chance.choice([fact for fact in corpus.facts if fact.near]) for corpus in (one, other))
        joint = JOINTS[number % len(JOINTS)]
        text = joint.format(first.near.rstrip("?.") + "?", second.near[:1].lower() + second.near[1:])
        yield Question("two", "", text, (first.answer, second.answer))


# Who answers


class Priced:
    """A model whose `End` says what a till would charge for the answer."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def offer(self) -> Offer:
        return self._model.offer

    async def weigh(self, ask: Ask) -> Usage:
        return await self._model.weigh(ask)

    async def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        outside = False
        async for chunk in self._model.stream(ask):
            if isinstance(chunk, End):
                charged_msat = 0 if outside else self.offer.price.cost_msat(chunk.usage)
                yield replace(chunk, members=(Member("", self.offer.model, charged_msat),))
                return
            outside = outside or chunk.outside
            yield chunk


@dataclass(slots=True)
class Row:
    """One answerer's score. Shares by part; `near` also by field."""

    who: str
    library: bool
    quantisation: str
    megabytes: float
    right: dict[str, float] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)
    near: dict[str, float] = field(default_factory=dict)
    tokens_per_s: float = 0.0
    msat_per_right: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        shares = {f"{part}_right": round(share, 4) for part, share in self.right.items()}
        shares |= {f"{part}_refused": round(share, 4) for part, share in self.refused.items()}
        return {
            "who": self.who,
            "library": self.library,
            "quantisation": self.quantisation,
            "megabytes": round(self.megabytes, 2),
            "near_by_field": {name: round(share, 4) for name, share in self.near.items()},
            "tokens_per_s": round(self.tokens_per_s),
            "msat_per_right": round(self.msat_per_right, 1),
            **shares,
        }

    def cells(self, faculty: Sequence[Corpus]) -> tuple[str, ...]:
        near = "  ".join(percent(self.near.get(corpus.card.name)) for corpus in faculty)
        shares = [percent(self.right.get(part)) for part in ("near", "far", "two")]
        refusals = [percent(self.refused.get(part)) for part in ("near", "outside", "other")]
        label = self.who + (" + library" if self.library else "")
        figures = (
            f"{self.megabytes:.2f}",
            f"{self.tokens_per_s:.0f}" if self.tokens_per_s else "-",
            f"{self.msat_per_right:.0f}",
        )
        return (label, self.quantisation, *shares, *refusals, near, *figures)


HEADS = (
    "who", "quant", "near", "far", "two fields", "in field refused", "outside refused", "others refused",
    "near by field", "MB", "tokens/s", "msat/right",
)  # fmt: skip


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


@dataclass(slots=True)
class Tally:
    """Answers to many questions, counted."""

    right: dict[tuple[str, str], list[bool]] = field(default_factory=dict)
    refused: dict[str, list[bool]] = field(default_factory=dict)
    msat: int = 0
    tokens: int = 0

    def note(self, question: Question, right: bool, refused: bool, end: End) -> None:
        self.right.setdefault((question.part, question.field), []).append(right)
        self.refused.setdefault(question.part, []).append(refused)
        self.msat += sum(member.charged_msat for member in end.members)
        self.tokens += end.usage.output_tokens

    def close(self, row: Row, seconds: float) -> Row:
        for part, refused in self.refused.items():
            verdicts = [one for (own, _), many in self.right.items() if own == part for one in many]
            row.right[part], row.refused[part] = share(verdicts), share(refused)
        row.near = {name: share(many) for (part, name), many in self.right.items() if part == "near"}
        answered = sum(sum(many) for (part, _), many in self.right.items() if part in ANSWERED)
        row.msat_per_right = self.msat / max(1, answered)
        row.tokens_per_s = self.tokens / seconds
        return row


def share(verdicts: Sequence[float]) -> float:
    return sum(verdicts) / len(verdicts)


class Bench:
    def __init__(
        self, faculty: Sequence[Corpus], generalist: Corpus, weights: Path, folder: Path, mistakes: bool
    ) -> None:
        self._faculty = faculty
        self._generalist = generalist
        self._weights = weights
        self._folder = folder
        self._mistakes = mistakes
        self._references = [answer for corpus in (*faculty, generalist) for answer in corpus.answers()]
        self._refusals = {corpus.card.refusal for corpus in (*faculty, generalist)}
        self._progress = Progress(list(self._cells()))

    async def rows(self) -> list[Row]:
        rows = []
        for quantisation in QUANTISATIONS:
            for library in (False, True):
                rows += await self._of_specialists(quantisation, library)
                rows += [await self._of(name, quantisation, library) for name in (GENERALIST, TRAINED_LONGER)]
        return rows

    async def _of_specialists(self, quantisation: str, library: bool) -> list[Row]:
        with ExitStack() as stack:
            models = [self._model(stack, corpus, corpus.card.name, quantisation, library) for corpus in self._faculty]
            rows = [
                await self._alone(model, corpus, library, quantisation)
                for model, corpus in zip(models, self._faculty, strict=True)
            ]
            return [*rows, await self._together(models, library, quantisation)]

    async def _of(self, name: str, quantisation: str, library: bool) -> Row:
        """A generalist's row."""
        with ExitStack() as stack:
            model = self._model(stack, self._generalist, name, quantisation, library)
            return await self._scored(Priced(model), name, library, quantisation, self._everything())

    def _model(self, stack: ExitStack, corpus: Corpus, name: str, quantisation: str, library: bool) -> Model:
        """Closed with `stack`."""
        path = self._path(name, quantisation)
        card = read_card(path)
        offer = Offer(name, card.description, card.tags, PRICE, LIMITS)
        engine = Engine(EngineSettings(path, LIMITS.context_tokens, refusal=corpus.card.refusal), offer, Fleet())
        stack.callback(engine.close)
        if not library:
            return engine
        texts = self._folder / name
        texts.mkdir(exist_ok=True)
        (texts / "facts.md").write_text(libraries.text(corpus), encoding="utf-8")
        index = Index.open(self._folder / f"{name}.sqlite3")
        stack.callback(index.close)
        index.refresh(texts)
        return Reader(engine, index, "quote", corpus.card.refusal)

    async def _alone(self, model: Model, corpus: Corpus, library: bool, quantisation: str) -> Row:
        questions = [*own_questions(corpus), *strange_questions(corpus, self._faculty)]
        return await self._scored(Priced(model), corpus.card.name, library, quantisation, questions)

    async def _together(self, models: Sequence[Model], library: bool, quantisation: str) -> Row:
        roster = Roster(tuple(map(Priced, models)))

        async def muster() -> Roster:
            return roster

        ensemble = Ensemble(Offer("ensemble"), muster, BUDGET_MSAT)
        return await self._scored(ensemble, "ensemble", library, quantisation, self._everything())

    def _everything(self) -> list[Question]:
        own = [question for corpus in self._faculty for question in own_questions(corpus)]
        return [*own, *nobodys_questions(self._faculty), *two_field_questions(self._faculty)]

    async def _scored(
        self, model: Model, who: str, library: bool, quantisation: str, questions: Sequence[Question]
    ) -> Row:
        names = [corpus.card.name for corpus in self._faculty] if who == "ensemble" else [who]
        row = Row(who, library, quantisation, sum(map(self._megabytes, names, [quantisation] * len(names))))
        tally, start = Tally(), time.monotonic()
        for question in questions:
            said, end = await answer(model, question.text)
            right = self._right(said, question)
            tally.note(question, right, self._refused(said), end)
            if self._mistakes and not right:
                where = f"[{who} {question.part}] {question.text}"
                print(f"{where}\n    said: {said}\n    expected: {question.expected}", file=sys.stderr)
        seconds = time.monotonic() - start
        self._progress.add(_cell(who, library), seconds)
        return tally.close(row, seconds)

    def _cells(self) -> Iterator[tuple[str, ...]]:
        answerers = [*(corpus.card.name for corpus in self._faculty), "ensemble", GENERALIST, TRAINED_LONGER]
        for _ in QUANTISATIONS:
            for library in (False, True):
                yield from (_cell(who, library) for who in answerers)

    def _megabytes(self, name: str, quantisation: str) -> float:
        return self._path(name, quantisation).stat().st_size / 1e6

    def _path(self, name: str, quantisation: str) -> Path:
        whole = next(self._weights.rglob(f"{name}.Q8_0.gguf"))
        if quantisation == "Q8_0":
            return whole
        smaller = self._folder / f"{name}.{quantisation}.gguf"
        if not smaller.exists():
            quantise(whole, smaller, quantisation, again=True)
        return smaller

    def _refused(self, said: str) -> bool:
        return not said or said in self._refusals or said == NOBODY

    def _right(self, said: str, question: Question) -> bool:
        if not question.expected:
            return self._refused(said)
        found = [closest(part, self._references) for part in said.split(GAP)]
        return all(expected in found for expected in question.expected)


def _cell(who: str, library: bool) -> tuple[str, ...]:
    return (who, "with its library") if library else (who,)


async def answer(model: Model, question: str) -> tuple[str, End]:
    """What was said, without the names that an ensemble signs with."""
    said, end = "", End("error")
    ask = Ask("m", (Message("user", question),), budget_msat=BUDGET_MSAT)
    try:
        async for chunk in model.stream(ask):
            if isinstance(chunk, End):
                end = chunk
            elif not _signature(chunk):
                said += chunk.text
    except NoAnswer:
        pass
    return said, end


def _signature(delta: Delta) -> bool:
    return bool(delta.member) and delta.text == f" [{delta.member}]"


def summary(rows: Sequence[Row], faculty: Sequence[Corpus]) -> dict[str, float]:
    """The figures that a goal is set for: the committed files, with their libraries."""
    whole = {row.who: row for row in rows if row.quantisation == "Q8_0" and row.library}
    alone = {row.who: row for row in rows if row.quantisation == "Q8_0" and not row.library}
    names = [corpus.card.name for corpus in faculty]
    ensemble, specialists = whole["ensemble"], [whole[name] for name in names]
    outside = [row.refused[part] for row in specialists for part in ("outside", "other")]
    return {
        "fields": len(names),
        "ensemble_vs_best_min": round(min(ensemble.near[name] / whole[name].near[name] for name in names), 4),
        "ensemble_minus_generalist_points": points(ensemble, whole[GENERALIST]),
        "ensemble_minus_longer_generalist_points": points(ensemble, whole[TRAINED_LONGER]),
        "ensemble_minus_longer_generalist_points_no_library": points(alone["ensemble"], alone[TRAINED_LONGER]),
        "out_of_field_refused": round(share(outside), 4),
        "in_field_refused": round(share([row.refused["near"] for row in specialists]), 4),
        "near_accuracy_min": round(min(row.right["near"] for row in specialists), 4),
        "two_field_accuracy": round(ensemble.right["two"], 4),
    }


def points(one: Row, other: Row) -> float:
    """Percentage points between the shares of right answers over near, far and two-field questions."""
    return round(100 * sum(one.right[part] - other.right[part] for part in ANSWERED) / len(ANSWERED), 1)


if __name__ == "__main__":
    main()
