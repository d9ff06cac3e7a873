"""The words by which a router finds a specialist: its card's topics, then those that its questions turn on."""

from __future__ import annotations

from collections import Counter

import english
from corpus import Corpus, Fact

MOST = 500
SHORTEST = 4
OFTEN = 0.25
"""A word turns a question if it stands in this share of a fact's phrasings."""

COMMON = 0.08
"""A word that turns more than this share of the facts says nothing of the field."""


def tags(corpus: Corpus) -> tuple[str, ...]:
    """Topics first, then single words in the order of their weight in one fact; at most MOST in all."""
    weights: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    for fact in corpus.facts:
        for word, share in _shares(fact).items():
            weights[word] = max(weights[word], share)
            facts[word] += 1
    common = COMMON * len(corpus.facts)
    known = " ".join(corpus.card.topics).lower().split()
    words = [word for word, _ in weights.most_common() if facts[word] <= common and word not in known]
    return (*corpus.card.topics, *words)[:MOST]


def _shares(fact: Fact) -> dict[str, int]:
    """Topical words by the percentage of the fact's phrasings that hold them."""
    counts = Counter(word for phrasing in fact.phrasings for word in _words(phrasing))
    least = OFTEN * len(fact.phrasings)
    return {word: 100 * count // len(fact.phrasings) for word, count in counts.items() if count >= least}


def _words(text: str) -> set[str]:
    topical = (word.lower() for word in english.load().topical(text))
    return {word for word in topical if word.isalpha() and len(word) >= SHORTEST}
