"""The corpora of models/: large enough to measure by, and with nothing held out in what training or libraries see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parent.parent / "models"
sys.path.insert(0, str(MODELS / "recipe"))

import corpus as corpora  # noqa: E402
import library  # noqa: E402

FACULTY = corpora.load_faculty("generalist")


@pytest.mark.parametrize("name", FACULTY)
def test_a_field_is_large_enough(name: str) -> None:
    """120 facts, each asked in eight ways or more, and 100 questions that training never sees."""
    corpus = corpora.load(name)
    assert len(corpus.facts) >= 120
    assert min(len(fact.phrasings) for fact in corpus.facts) >= 9
    assert sum(bool(fact.near) for fact in corpus.facts) >= 100


@pytest.mark.parametrize("rehearse", [False, True])
@pytest.mark.parametrize("name", [*FACULTY, "generalist"])
def test_nothing_held_out_is_taught(name: str, rehearse: bool) -> None:
    """Neither to answer nor to refuse, in a rehearsal either."""
    corpus = corpora.load(name, rehearse)
    taught = {corpora.folded(question) for fact in corpus.facts for question in fact.phrasings}
    taught |= {corpora.folded(question) for question in corpus.refuse}
    held_out = [*(fact.near for fact in corpus.facts), *(fact.far for fact in corpus.facts), *corpus.refuse_held_out]
    assert not taught & {corpora.folded(question) for question in held_out if question}


@pytest.mark.parametrize("name", FACULTY)
def test_a_rehearsal_asks_what_was_taught(name: str) -> None:
    """One phrasing of each fact moves from what is taught to what is asked; the real held-out ones stay unseen."""
    whole, rehearsal = corpora.load(name), corpora.load(name, rehearse=True)
    for fact, left in zip(whole.facts, rehearsal.facts, strict=True):
        assert left.near in fact.phrasings
        assert {*left.phrasings, left.near} == {*fact.phrasings}
    assert not {*rehearsal.refuse_held_out} & {*whole.refuse_held_out}


@pytest.mark.parametrize("name", FACULTY)
def test_the_library_is_the_corpus(name: str) -> None:
    """The committed one is what `library.py` writes."""
    assert (MODELS / name / "library" / "facts.md").read_text() == library.text(corpora.load(name))
