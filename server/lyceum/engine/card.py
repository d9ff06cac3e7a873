"""What a GGUF file says about itself, read without llama.cpp, which is C++ and has not earned our trust yet.

Every complaint about a file names it and says how to mend it.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyceum.errors import ModelError

VERSIONS = (2, 3)
TEXT, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's value types (ggml's docs/gguf.md) as `struct` spells them."""

FETCH_AGAIN = "fetch it again and compare its SHA-256 with the publisher's"


@dataclass(frozen=True, slots=True)
class Card:
    """`n_ctx_train`: the longest text the model was trained on, 0 if unsaid. `chat_template`: "" if none."""

    name: str
    description: str
    tags: tuple[str, ...]
    n_ctx_train: int
    chat_template: str


def read_card(path: Path) -> Card:
    """Raises ModelError if there is no whole GGUF file at `path`."""
    data = _metadata(path)
    if data.get("split.count", 0) > 1:
        raise ModelError(f"{path} is one part of a split model; merge it: llama-gguf-split --merge")
    return Card(
        name=str(data.get("general.name", path.stem)),
        description=str(data.get("general.description", "")),
        tags=tuple(data.get("general.tags", ())),
        n_ctx_train=int(data.get(f"{data.get('general.architecture')}.context_length", 0)),
        chat_template=str(data.get("tokenizer.chat_template", "")),
    )


def digest(path: Path) -> str:
    """SHA-256 of the file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metadata(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path} is not a GGUF file; point `path` at a .gguf file, or convert the model")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _pairs(_Reader(data), path)
    except FileNotFoundError:
        raise ModelError(f"there is no model file {path}; correct `path` or fetch the file") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; it must be a file this user can read") from None
    except EOFError:
        raise ModelError(f"{path} is truncated: it ends within its metadata; {FETCH_AGAIN}") from None


def _pairs(reader: _Reader, path: Path) -> dict[str, Any]:
    if (version := reader.number("I")) not in VERSIONS:
        raise ModelError(f"{path} has GGUF version {version}; versions 2 and 3 (little-endian) can be read")
    reader.number("Q")  # how many tensors; llama.cpp checks that they are all there
    try:
        return {reader.text(): reader.value(reader.number("I")) for _ in range(reader.number("Q"))}
    except KeyError:
        raise ModelError(f"{path} is damaged: its metadata makes no sense; {FETCH_AGAIN}") from None


class _Reader:
    """Takes one value after the other; EOFError where the file ends too early. Arrays of numbers are passed over."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 4

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise EOFError
        return self._data[start : self._at]

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        return self._array() if kind == ARRAY else self.number(NUMBERS[kind])

    def _array(self) -> list[str]:
        kind, count = self.number("I"), self.number("Q")
        if kind == TEXT:
            return [self.text() for _ in range(count)]
        self.take(count * struct.calcsize(NUMBERS[kind]))
        return []
