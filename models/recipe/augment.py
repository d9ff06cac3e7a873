"""One written question becomes the many ways in which people would ask it.

An `Asker` draws questions for a fact and questions to refuse. Both go through the same frames and the same noise,
so that only the topic tells them apart. All chance comes from one seeded generator.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from corpus import Corpus, Fact
from english import English, stem, words

RARE = 4
KEYWORDS = (1, 2, 2, 3, 3, 3, 4, 4, 5)
STRETCHES = (1, 2, 3, 4, 5, 6, 8, 10, 12)
CONSONANTS = ("b", "br", "d", "f", "g", "gl", "h", "k", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
ENDINGS = ("", "", "n", "r", "st", "m", "x", "tion", "ing", "ist", "ology")


class Asker:
    def __init__(self, corpus: Corpus, english: English, seed: int) -> None:
        self.english = english
        self.chance = random.Random(seed)  # noqa: S311 (noise, not secrets)
        self.corpus = corpus
        self.vocabulary = {fact.id: _vocabulary(fact, english) for fact in corpus.facts}
        self.facts_with = _index(self.vocabulary)
        self.outside = [topic for topic in english.outside if not self._in_field(topic)]

    def question(self, fact: Fact) -> str:
        """A question that this fact answers: a written one, some key words, or one made up from its words."""
        roll = self.chance.random()
        if roll < 0.55:
            return self._manner(self._blur(self.chance.choice(fact.phrasings), self._evidence))
        if roll < 0.72:
            return self._manner(" ".join(self._keywords(fact)))
        return self._manner(self._framed(lambda: self._topic(fact)))

    def stranger(self) -> str:
        """A question to refuse: a written one, a made-up one, or one of the field emptied of what made it so."""
        roll = self.chance.random()
        if roll < 0.5:
            return self._manner(self._blur(self._written_stranger(), _two_words))
        if roll < 0.62:
            return self._manner(self._framed(self._strange_topic))
        if roll < 0.76:
            errand = self.chance.choice(self.english.errands)
            return self._manner(errand.format(self._strange_topic(), self._strange_topic()))
        if roll < 0.8:
            return self._manner(" ".join(self._strange_topic() for _ in range(self.chance.randint(1, 3))))
        emptied = self._emptied(self.chance.choice(self.chance.choice(self.corpus.facts).phrasings))
        told = self._evidence(self.english.topical(emptied))
        return self._manner(self._framed(self._strange_topic) if told else emptied)

    def _written_stranger(self) -> str:
        """From beside the field as often as from elsewhere."""
        return self.chance.choice(self.chance.choice((self.corpus.neighbours, self.corpus.elsewhere)))

    # topics

    def _keywords(self, fact: Fact) -> list[str]:
        """Some words of the fact, rare ones first in line, and never too few to tell which fact it is."""
        own = self.vocabulary[fact.id]
        drawn = sorted(own, key=lambda word: self.chance.random() ** self._spread(word))
        chosen = drawn[-self.chance.choice(KEYWORDS) :]
        if not self._evidence(chosen):
            chosen.append(min(own, key=lambda word: (self._spread(word), self.chance.random())))
        self.chance.shuffle(chosen)
        return [self._swapped(word) for word in chosen]

    def _topic(self, fact: Fact) -> str:
        """A stretch of the answer, or some key words."""
        if self.chance.random() < 0.6:
            text = fact.answer.rstrip(".").split()
            start = self.chance.randrange(len(text))
            stretch = text[start : start + self.chance.choice(STRETCHES)]
            kept = " ".join(self._swapped(word) for word in stretch if not self._dropped(word, 0.5)).strip(",.;:")
            if kept and self._evidence(self.english.topical(" ".join(stretch))):
                return kept
        return " ".join(self._keywords(fact)[:3])

    def _strange_topic(self) -> str:
        topic = self._nonsense() if self.chance.random() < 0.25 else self.chance.choice(self.outside)
        if self.chance.random() < 0.15:
            topic += f" {self.chance.choice(self.outside)}"
        return topic.title() if self.chance.random() < 0.4 else self._inflected(topic)

    def _nonsense(self) -> str:
        syllables = range(self.chance.randint(1, 3))
        made = "".join(self.chance.choice(CONSONANTS) + self.chance.choice(VOWELS) for _ in syllables)
        return made + self.chance.choice(CONSONANTS)[0] + self.chance.choice(ENDINGS)

    def _framed(self, topic: Callable[[], str]) -> str:
        if self.chance.random() < 0.6:
            return self.chance.choice(self.english.frames).format(topic())
        return self.chance.choice(self.english.pairs).format(topic(), topic())

    def _emptied(self, question: str) -> str:
        """The question with every word that points at a fact replaced by a strange one."""
        return " ".join(self._strange_topic() if self._points(word) else word for word in question.split())

    # evidence

    def _spread(self, word: str) -> int:
        """In how many facts the word occurs."""
        return len(self.facts_with.get(stem(word), ()))

    def _in_field(self, topic: str) -> bool:
        return any(self._spread(word) for word in words(topic))

    def _points(self, word: str) -> bool:
        return any(0 < self._spread(part) <= RARE for part in self.english.topical(word))

    def _evidence(self, chosen: Sequence[str]) -> bool:
        """Is there just one fact in which all these words occur? Words of no fact are no evidence either way."""
        places = [self.facts_with[stem(word)] for word in chosen if self._spread(word)]
        return bool(places) and len(frozenset.intersection(*places)) == 1

    # noise

    def _blur(self, question: str, enough: Callable[[Sequence[str]], bool]) -> str:
        """Half of the questions stay; the others lose words and swap some, as long as enough is left."""
        if self.chance.random() < 0.45:
            return question
        kept = [self._swapped(word) for word in question.split() if not self._dropped(word)]
        if self.chance.random() < 0.12:
            kept.insert(self.chance.randrange(len(kept) + 1), self._strange_topic())
        return " ".join(kept) if enough(self.english.topical(" ".join(kept))) else question

    def _dropped(self, word: str, share: float = 1.0) -> bool:
        topical = bool(self.english.topical(word))
        return self.chance.random() < (0.12 if topical else 0.35) * share

    def _swapped(self, word: str) -> str:
        others = self.english.synonyms.get(word.lower().strip("?.,!"))
        if others and self.chance.random() < 0.35:
            return self.chance.choice(others)
        return self._inflected(word)

    def _inflected(self, word: str) -> str:
        if self.chance.random() > 0.08 or len(word) < 5 or not word[-1].isalpha():
            return word
        for ending in ("ing", "ed", "s"):
            if word.endswith(ending):
                return word.removesuffix(ending)
        return word + "s"

    def _manner(self, question: str) -> str:
        """How it is typed: with an opener or a closer, with slips, without capitals or question mark."""
        text = question
        if self.chance.random() < 0.15:
            text = f"{self.chance.choice(self.english.openers)} {_uncapitalised(text)}"
        if self.chance.random() < 0.08:
            end = text[-1] if text[-1] in "?.!" else ""
            text = f"{text.rstrip('?.!')}, {self.chance.choice(self.english.closers)}{end}"
        while self.chance.random() < 0.14:
            text = self._slip(text)
        if self.chance.random() < 0.3:
            text = text.rstrip("?.!")
        if self.chance.random() < 0.3:
            text = text.lower()
        return text[:1].upper() + text[1:] if self.chance.random() < 0.5 else text

    def _slip(self, text: str) -> str:
        """One slip of the finger inside a word."""
        if len(text) < 5:
            return text
        at = self.chance.randrange(1, len(text) - 2)
        before, first, second, after = text[:at], text[at], text[at + 1], text[at + 2 :]
        if not (first + second).isalpha():
            return text
        return before + self.chance.choice((second + first, first, second, first + first + second)) + after


def _vocabulary(fact: Fact, english: English) -> list[str]:
    texts = (fact.answer, *fact.phrasings)
    return sorted({word.lower(): word for text in texts for word in english.topical(text)}.values())


def _index(vocabulary: dict[str, list[str]]) -> dict[str, frozenset[str]]:
    """For each word stem the facts in which it occurs."""
    found: dict[str, set[str]] = defaultdict(set)
    for fact_id, own in vocabulary.items():
        for word in own:
            found[stem(word)].add(fact_id)
    return {key: frozenset(where) for key, where in found.items()}


def _two_words(chosen: Sequence[str]) -> bool:
    return len(chosen) > 1


def _uncapitalised(text: str) -> str:
    """Lower-cases the first letter unless the word looks like a name or an abbreviation."""
    first = text.split(" ", 1)[0]
    return text if first.isupper() or first[1:] != first[1:].lower() else text[:1].lower() + text[1:]
