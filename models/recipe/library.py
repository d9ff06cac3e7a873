"""A corpus as a library: Markdown in which every way to ask stands as a heading over the answer.

A specialist that is not sure of its memory can look there, and an answer can cite it.

    python models/recipe/library.py austrian-economics american-culture
"""

from __future__ import annotations

import argparse
from pathlib import Path

import corpus as corpora
from corpus import Corpus, Fact


def write(corpus: Corpus) -> Path:
    """Writes `models/<name>/library/facts.md`."""
    target = corpora.MODELS / corpus.card.name / "library" / "facts.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text(corpus), encoding="utf-8")
    return target


def text(corpus: Corpus) -> str:
    """Held-out questions stay out."""
    return "\n\n".join([f"# {corpus.card.title}", *map(_section, corpus.facts)]) + "\n"


def _section(fact: Fact) -> str:
    return "\n".join([*(f"## {phrasing}" for phrasing in fact.phrasings), "", fact.answer])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a specialist's corpus as a library.")
    parser.add_argument("names", nargs="+", help="folders of models/")
    for name in parser.parse_args().names:
        print(write(corpora.load(name)))


if __name__ == "__main__":
    main()
