"""Files as passages: Markdown by its headings, plain text by paragraphs, PDF by pages.

Law: a text is somebody else's data. Sizes are bounded before it is read, links out of the folder are not
followed, control characters are dropped. A file that cannot be read is complained of and passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pypdf import PdfReader
from pypdf.errors import PyPdfError

PASSAGE_CHARS = 1000
"""About 250 tokens: several passages fit into a small context."""

MOST_BYTES = 64 << 20
MOST_FILES = 10_000
MARKDOWN = (".md", ".markdown")
KINDS = (*MARKDOWN, ".txt", ".pdf")

_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
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


def passages(path: Path, source: str) -> list[Passage]:
    """All passages of one file, in order. Raises Unreadable."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise Unreadable(f"{source} has {size >> 20} MiB; at most {MOST_BYTES >> 20} are read, so split it")
    sections = _pages(path, source) if path.suffix.lower() == ".pdf" else _sections(path, source)
    return [
        Passage(source, heading, piece)
        for heading, text in sections
        for piece in _pieces(_CONTROL.sub("", text.replace("\r\n", "\n")))
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
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable(f"{source} is locked with a password; save it without one")
        pages = [(f"page {number}", page.extract_text()) for number, page in enumerate(reader.pages, 1)]
    except (PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{source} is a damaged PDF ({type(error).__name__})") from None
    if not any(text.strip() for _, text in pages):
        raise Unreadable(f"{source} holds no text, only pictures of it; run OCR over it")
    return pages


def _markdown(text: str) -> Iterator[tuple[str, str]]:
    """Sections under their headings. Headings that stand on one another share the text below; those of the
    levels above lead the way to it."""
    path: dict[int, list[str]] = {}
    body: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line)
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
