"""Files as passages: Markdown by its headings, plain text by paragraphs, PDF by pages.

Law: a text is somebody else's data. Sizes are bounded before it is read, links out of the folder are not
followed, control characters are dropped. A file that cannot be read is complained of and passed over.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pypdf import PdfReader

PASSAGE_CHARS = 1000
"""About 250 tokens: several passages fit into a small context."""

MOST_BYTES = 64 << 20
MOST_FILES = 10_000
MARKDOWN = (".md", ".markdown")
KINDS = (*MARKDOWN, ".txt", ".pdf")

_HEADING = re.compile(r"(#{1,6})\s+(.+?)(?:\s+#+)?\s*$")
_FENCE = re.compile(r"\s*(`{3,}(?=[^`]*$)|~{3,})")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""With the halves of characters that some PDFs hold, which are no Unicode text."""

_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Unreadable(Exception):
    """A sentence that names the file and says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """`source`: the file, as its path within the library. `heading`: one or several, a line each."""

    source: str
    heading: str
    text: str


def files(folder: Path) -> list[Path]:
    """The texts in `folder` and below, in order; hidden ones and links out of it are left out.

    Raises Unreadable if there is no such folder, or if it holds too many.
    """
    if not folder.is_dir():
        raise Unreadable(f"there is no folder {folder}")
    root = folder.resolve()
    found = [path for path in sorted(folder.rglob("*")) if _belongs(path, folder, root)]
    if len(found) > MOST_FILES:
        raise Unreadable(f"{folder} holds {len(found)} texts; at most {MOST_FILES} make one library")
    return found


def checked(path: Path, source: str) -> os.stat_result:
    """What can be told of a file before it is opened. Raises Unreadable for what will not be."""
    if _NO_NAME.search(source):
        raise Unreadable(f"{source!a} has a name that is not plain UTF-8 text; rename it")
    try:
        state = path.stat()
    except OSError as error:
        raise Unreadable(f"{source} cannot be read: {error.strerror}") from None
    if state.st_size > MOST_BYTES:
        raise Unreadable(f"{source} has {state.st_size >> 20} MiB; at most {MOST_BYTES >> 20} are read, so split it")
    return state


def digest(path: Path, source: str) -> str:
    """SHA-256, hex. Raises Unreadable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unreadable(f"{source} cannot be read: {error.strerror}") from None


def passages(path: Path, source: str) -> list[Passage]:
    """All passages of one file that is `checked`, in order. Raises Unreadable."""
    sections = _pages(path, source) if path.suffix.lower() == ".pdf" else _sections(path, source)
    return [
        Passage(source, _CONTROL.sub("", heading), piece)
        for heading, text in sections
        for piece in _pieces(_CONTROL.sub("", text))
    ]


def _belongs(path: Path, folder: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in KINDS and not hidden and path.is_file() and path.resolve().is_relative_to(root)


def _sections(path: Path, source: str) -> Iterator[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable(f"{source} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise Unreadable(f"{source} cannot be read: {error.strerror}") from None
    return _markdown(text) if path.suffix.lower() in MARKDOWN else iter([("", text)])


def _pages(path: Path, source: str) -> list[tuple[str, str]]:
    try:
        texts = _texts_of_pages(path)
    except Exception as error:  # pypdf raises whatever it meets first
        raise Unreadable(f"{source} is a damaged PDF ({type(error).__name__})") from None
    if texts is None:
        raise Unreadable(f"{source} is locked with a password; save it without one")
    if not any(map(str.strip, texts)):
        raise Unreadable(f"{source} holds no text, only pictures of it; run OCR over it")
    return [(f"page {number}", text) for number, text in enumerate(texts, 1)]


def _texts_of_pages(path: Path) -> list[str] | None:
    """None if a password is needed."""
    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        return None
    return [page.extract_text() for page in reader.pages]


def _markdown(text: str) -> Iterator[tuple[str, str]]:
    """Sections under their headings. Headings that stand on one another share the text below; those of the
    levels above lead the way to it."""
    path: dict[int, list[str]] = {}
    body: list[str] = []
    fence = ""
    for line in text.splitlines():
        fence = _fence_after(fence, line)
        heading = None if fence else _HEADING.match(line)
        if heading is None:
            body.append(line)
            continue
        if any(map(str.strip, body)):
            yield _headings(path), "\n".join(body)
            path = {level: names for level, names in path.items() if level < len(heading[1])}
        body = []
        path = {level: names for level, names in path.items() if level <= len(heading[1])}
        path.setdefault(len(heading[1]), []).append(heading[2])
    yield _headings(path), "\n".join(body)


def _fence_after(fence: str, line: str) -> str:
    """What began the code that `line` stands in, "" outside of code (CommonMark 0.31, section 4.5)."""
    mark = _FENCE.match(line)
    if not mark:
        return fence
    if not fence:
        return mark[1]
    return "" if mark[1].startswith(fence) and mark[1] == line.strip() else fence


def _headings(path: dict[int, list[str]]) -> str:
    """One line for each of the lowest headings, after those above it; a document's title leads nowhere."""
    if not path:
        return ""
    *above, lowest = [path[level] for level in sorted(path)]
    way = [names[-1] for names in above if names is not path.get(1)]
    return "\n".join(" > ".join([*way, name]) for name in lowest)


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces of at most PASSAGE_CHARS, cut between paragraphs, else sentences, else words, else anywhere."""
    piece = ""
    for part in _parts([paragraph.strip() for paragraph in re.split(r"\n\s*\n", text)]):
        if piece and len(piece) + len(part) + 2 > PASSAGE_CHARS:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{part}" if piece else part
    if piece:
        yield piece


def _parts(paragraphs: Iterable[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        if len(paragraph) <= PASSAGE_CHARS:
            yield from [paragraph] if paragraph else []
            continue
        line = ""
        for word in (word for sentence in _SENTENCE.split(paragraph) for word in _words(sentence)):
            if line and len(line) + len(word) + 1 > PASSAGE_CHARS:
                yield line
                line = ""
            line = f"{line} {word}" if line else word
        yield line


def _words(sentence: str) -> Iterator[str]:
    """A sentence in one, if it fits; else its words; else blocks."""
    if len(sentence) <= PASSAGE_CHARS:
        yield sentence
        return
    for word in sentence.split():
        yield from (word[start : start + PASSAGE_CHARS] for start in range(0, len(word), PASSAGE_CHARS))
