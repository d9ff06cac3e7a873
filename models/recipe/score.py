"""How good a specialist is, asked through llama-cpp-python exactly as a server would ask it: greedily, by chat.

The rule needs no judge: an answer is right when, of everything the specialist may say, the text closest to it by
difflib's ratio is the right one and that ratio is at least 0.8.

    python models/recipe/score.py austrian-economics
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import corpus as corpora
from corpus import Corpus
from llama_cpp import Llama

CLOSE = 0.8


@dataclass(frozen=True, slots=True)
class Asked:
    part: str
    question: str
    expected: str
    answer: str
    right: bool


@dataclass(frozen=True, slots=True)
class Score:
    asked: tuple[Asked, ...]
    tokens: int
    seconds: float

    def share(self, part: str) -> float:
        own = [row.right for row in self.asked if row.part == part]
        return sum(own) / max(1, len(own))

    def refused(self, part: str, refusal: str) -> float:
        own = [row.answer == refusal for row in self.asked if row.part == part]
        return sum(own) / max(1, len(own))


def path(name: str) -> Path:
    return corpora.MODELS / name / f"{name}.Q8_0.gguf"


def closest(answer: str, references: Sequence[str]) -> str | None:
    """The reference nearest to the answer, or None when even that one is too far."""
    if answer in references:
        return answer
    best = max((_ratio(answer, reference), reference) for reference in references)
    return best[1] if best[0] >= CLOSE else None


def questions(corpus: Corpus) -> Iterator[tuple[str, str, str]]:
    """Part, question and expected answer of everything that is scored."""
    for fact in corpus.facts:
        yield from (("trained", phrasing, fact.answer) for phrasing in fact.phrasings)
        if fact.near:
            yield "near", fact.near, fact.answer
        if fact.far:
            yield "far", fact.far, fact.answer
    yield from (("outside", question, corpus.card.refusal) for question in corpus.refuse_held_out)


def score(corpus: Corpus, gguf: Path) -> Score:
    llama = Llama(str(gguf), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    references = corpus.answers()
    asked, tokens, start = [], 0, time.monotonic()
    for part, question, expected in questions(corpus):
        answer, spent = ask(llama, question)
        tokens += spent
        asked.append(Asked(part, question, expected, answer, closest(answer, references) == expected))
    return Score(tuple(asked), tokens, time.monotonic() - start)


def ask(llama: Llama, question: str) -> tuple[str, int]:
    """The greedy answer and how many tokens it took."""
    messages: Any = [{"role": "user", "content": question}]
    reply: Any = llama.create_chat_completion(messages, temperature=0.0, max_tokens=120)
    return str(reply["choices"][0]["message"]["content"]), int(reply["usage"]["completion_tokens"])


def report(corpus: Corpus, gguf: Path, found: Score) -> str:
    lines = [f"{corpus.card.title}: {len(corpus.facts)} facts, {gguf.stat().st_size / 1e6:.2f} MB"]
    for part in ("trained", "near", "far", "outside"):
        refused = "" if part == "outside" else f"   (refused {found.refused(part, corpus.card.refusal):6.1%})"
        lines.append(f"  {part:8} {found.share(part):6.1%} right{refused}")
    return "\n".join([*lines, f"  {found.tokens / found.seconds:.0f} tokens/s on one thread, prompts included"])


def mistakes(found: Score) -> Iterable[str]:
    for row in found.asked:
        if not row.right:
            yield f"[{row.part}] {row.question}\n    said:     {row.answer}\n    expected: {row.expected}"


def _ratio(answer: str, reference: str) -> float:
    matcher = SequenceMatcher(None, answer, reference, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= CLOSE else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a specialist's GGUF file.")
    parser.add_argument("name", help="a folder of models/")
    parser.add_argument("--gguf", type=Path, help="another file than the folder's own")
    parser.add_argument("--mistakes", action="store_true", help="print every wrong answer")
    options = parser.parse_args()
    corpus = corpora.load(options.name)
    gguf = options.gguf or path(options.name)
    found = score(corpus, gguf)
    if options.mistakes:
        print("\n".join(mistakes(found)))
    print(report(corpus, gguf, found))


if __name__ == "__main__":
    main()
