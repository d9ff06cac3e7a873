"""Libraries that hold what nobody expects: odd names, odd files, odd texts, and too much of everything."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lyceum.errors import ConfigError, TooLong
from lyceum.library import Index, Progress, Reader
from lyceum.library import index as rooms
from lyceum.library.texts import MOST_BYTES, checked, passages
from lyceum.ports import Ask, Embeddings, Message, Offer, TextBatch
from test_library import BREAD, STARS, Meaning, Scribe, cut, pdf, read, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.open(tmp_path / "index" / "lib.sqlite3")


# Texts


def test_headings_hold_no_control_characters(tmp_path: Path) -> None:
    """They reach terminals and prompts as citations."""
    assert cut(tmp_path, "## A\x1b[31mred\x00\nText\x07.") == [("A[31mred", "Text.")]


def test_code_is_fenced_as_commonmark_says(tmp_path: Path) -> None:
    """Code on one line opens nothing; a fence is closed by its own kind; `C#` keeps its hash."""
    text = "## C#\n```x = 1```\n## B ##\nText.\n~~~\n```\n# no heading\n~~~\n## D\nEnd."
    assert cut(tmp_path, text) == [
        ("C#", "```x = 1```"),
        ("B", "Text.\n~~~\n```\n# no heading\n~~~"),
        ("D", "End."),
    ]


def test_half_characters_of_a_pdf_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Index) -> None:
    """SQLite takes Unicode text only, and a PDF may hold what is none."""
    folder = tmp_path / "lib"
    folder.mkdir()
    path = pdf(folder / "t.pdf", "x")
    monkeypatch.setattr("pypdf.PageObject.extract_text", lambda _: "a\ud800b")
    assert [passage.text for passage in passages(path, "t.pdf")] == ["ab"]
    assert index.refresh(folder).passages == 1


# Folders


def test_one_bad_file_never_costs_the_others(tmp_path: Path, index: Index) -> None:
    """Names that are no UTF-8 or hold line ends, locked and pictured PDFs: each is named, the rest is read."""
    folder = write(tmp_path / "lib", bread=BREAD)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")).write_text("x", encoding="utf-8")
    (folder / "a\n[2] b.md").write_text("x", encoding="utf-8")
    pdf(folder / "locked.pdf", "x", password="hush")
    pdf(folder / "scan.pdf", "")
    done = index.refresh(folder)
    assert (done.added, done.passages) == (1, 2)
    for said in (
        r"'caf\udce9.md' has a name",
        r"'a\n[2] b.md' has a name",
        "locked.pdf is locked",
        "scan.pdf holds no",
    ):
        assert any(said in complaint for complaint in done.complaints)


def test_a_file_that_goes_while_others_are_read(tmp_path: Path, index: Index) -> None:
    folder = write(tmp_path / "lib", bread=BREAD, stars=STARS)

    def drop(_: Progress) -> None:
        (folder / "stars.md").unlink(missing_ok=True)

    done = index.refresh(folder, drop)
    assert (done.added, done.complaints) == (1, ("stars.md cannot be read: No such file or directory",))


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path, index: Index) -> None:
    """A sparse one of a terabyte is refused at once; what was known of its name goes."""
    folder = write(tmp_path / "lib", bread=BREAD, stars=STARS)
    index.refresh(folder)
    os.truncate(folder / "stars.md", 1 << 40)
    done = index.refresh(folder)
    assert (done.unchanged, done.removed, done.passages) == (1, 0, 2)
    assert done.complaints == (f"stars.md has 1048576 MiB; at most {MOST_BYTES >> 20} are read, so split it",)
    assert checked(folder / "bread.md", "bread.md").st_size == len(BREAD)


def test_a_library_has_an_end(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MOST_PASSAGES", 3)
    done = index.refresh(write(tmp_path / "lib", bread=BREAD, stars=STARS))
    assert done.passages == 2
    assert done.complaints == ("stars.md is left out: a library holds at most 3 passages",)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    """Also one that carries no version number."""
    path = tmp_path / "theirs.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="or is no index"):
        Index.open(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    connection.close()


async def test_twenty_thousand_passages(tmp_path: Path, index: Index) -> None:
    """One of them is asked for by two words that only it joins."""
    text = "\n\n".join(
        f"## Topic {n % 141} of shelf {n // 141}\nEntry number{n} says colour{n % 997}." for n in range(20_000)
    )
    assert index.refresh(write(tmp_path / "lib", big=text)).passages == 20_000
    (best,) = await index.search("What does number12345 say of its colour?", 1)
    assert best.passage.text == "Entry number12345 says colour381."


# Vectors


async def test_an_empty_question_is_not_embedded(tmp_path: Path, index: Index) -> None:
    """An embedder takes no empty text; nothing is found, and nothing breaks."""
    index.refresh(write(tmp_path / "lib", bread=BREAD))
    meaning = Meaning()
    await index.embed(meaning)
    assert await index.search("", 3, meaning) == []
    system_only = Ask("scribe", (Message("system", "yeast"),))
    _, (delta,), _ = await read(Reader(Scribe(lambda _: "x"), index, embedder=meaning), system_only)
    assert delta.outside


@dataclass
class Narrow(Meaning):
    """Reads no more than `room` characters of a text."""

    room: int = 40
    read: list[int] = field(default_factory=list)

    async def embed(self, batch: TextBatch) -> Embeddings:
        if max(map(len, batch.texts)) > self.room:
            raise TooLong("too long")
        self.read += map(len, batch.texts)
        return await super().embed(batch)


async def test_what_an_embedder_cannot_hold_is_cut(tmp_path: Path, index: Index) -> None:
    """No more than it must; an embedder that takes nothing at all is an error."""
    index.refresh(write(tmp_path / "lib", bread="## Dough\n" + "Yeast. " * 100, salt="Salt."))
    narrow = Narrow()
    assert await index.embed(narrow) == 2
    assert narrow.room / 2 < max(narrow.read) <= narrow.room
    nothing = Narrow(replace(narrow.offer, digest="cc"), room=0)
    with pytest.raises(TooLong):
        await index.embed(nothing)


async def test_vectors_are_those_of_the_index_as_it_is(tmp_path: Path, index: Index) -> None:
    """They are kept in memory, and read anew when a refresh or another process has written."""
    folder, meaning = write(tmp_path / "lib", bread=BREAD), Meaning()
    index.refresh(folder)
    await index.embed(meaning)
    assert (await index.search("fermenting", 1, meaning))[0].passage.source == "bread.md"
    write(folder, bread="## Flour\nGround.", wine="## Wine\nLeavened by nobody.")
    other = Index.open(tmp_path / "index" / "lib.sqlite3")
    other.refresh(folder)
    await other.embed(meaning)
    assert (await index.search("fermenting", 1, meaning))[0].passage.source == "wine.md"
    assert await index.search("fermenting", 1, Meaning(Offer("other", kind="embedding", digest="dd"))) == []
