"""What a GGUF file says about itself, read without llama.cpp, which is C++ and has not earned our trust yet.

Every complaint about a file names it and says how to mend it.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lyceum.errors import ModelError

VERSIONS = (2, 3)
TEXT, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's value types (ggml's docs/gguf.md) as `struct` spells them."""

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip
"""`general.file_type` as llama.cpp names it (enum llama_ftype)."""

FETCH_AGAIN = "fetch it again and compare its SHA-256 with the publisher's"
MOST_PAIRS = 1 << 16
CACHE_BYTES = 2
"""A key or a value in the cache is an f16."""

SCORES_ROWS = 64
COMPUTE_BYTES = 24_000_000
"""What llama.cpp takes to compute a batch of 512: this much, and some rows of scores and states."""


@dataclass(frozen=True)
class Card:
    """Numbers are 0 and texts "" where the file does not say.

    `n_ctx_train`: the longest text the model was trained on. `refusal`: what it says of a question that lies
    outside its field. `doubt`: it does not trust an answer one of whose first tokens is less probable.
    """

    path: Path
    kind: str
    name: str
    description: str
    tags: tuple[str, ...]
    licence: str
    architecture: str
    quantisation: str
    n_ctx_train: int
    n_vocab: int
    size_bytes: int
    cache_bytes_per_token: int
    n_embd: int
    chat_template: str
    refusal: str
    doubt: float
    pooling: int | None

    def memory_bytes(self, n_ctx: int) -> int:
        """Weights, the cache of `n_ctx` tokens, and what computing takes. An estimate: for the models of
        this project within a fifth of what llama.cpp's process grows by."""
        scores = SCORES_ROWS * 4 * (self.n_vocab + 8 * self.n_embd)
        return self.size_bytes + n_ctx * self.cache_bytes_per_token + scores + COMPUTE_BYTES

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(path: Path) -> Card:
    """Raises ModelError if there is no whole GGUF file of a model at `path`."""
    data = _metadata(path)
    if data.get("split.count", 0) > 1:
        raise ModelError(f"{path} is one part of a split model; merge it: llama-gguf-split --merge")
    _check_specials(path, data)
    architecture = str(data.get("general.architecture", ""))
    return Card(
        path=path,
        kind=str(data.get("general.type", "model")),
        name=str(data.get("general.name", path.stem)),
        description=str(data.get("general.description", "")),
        tags=_texts(data.get("general.tags")),
        licence=str(data.get("general.license", "")),
        architecture=architecture,
        quantisation=FILE_TYPES.get(data.get("general.file_type", -1), ""),
        n_ctx_train=_whole(data.get(f"{architecture}.context_length")),
        n_vocab=_vocabulary(data),
        size_bytes=path.stat().st_size,
        cache_bytes_per_token=_cache_bytes(data, architecture),
        n_embd=_whole(data.get(f"{architecture}.embedding_length")),
        chat_template=str(data.get("tokenizer.chat_template", "")),
        refusal=str(data.get("lyceum.refusal", "")),
        doubt=float(data.get("lyceum.doubt", 0.0)),
        pooling=data.get(f"{architecture}.pooling_type"),
    )


def check_adapter(path: Path, base: Card) -> None:
    """Raises ModelError unless `path` is a LoRA adapter for models of `base`'s architecture."""
    card = read_card(path)
    if card.kind != "adapter":
        raise ModelError(f"{path} is a whole model, not a LoRA adapter: set it as `path`, without `lora`")
    if card.architecture != base.architecture:
        raise ModelError(
            f"{path} adapts {card.architecture or 'an unnamed architecture'}, and {base.path} is {base.architecture}:"
            " take the base that the adapter was trained on"
        )


def digest_of(base: Card, lora: Path | None) -> str:
    """SHA-256 of the file; with an adapter, of both files' digests as two lines of hex."""
    if lora is None:
        return base.digest
    return hashlib.sha256(f"{base.digest}\n{read_card(lora).digest}".encode()).hexdigest()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(text) for text in value) if isinstance(value, list) else ()


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _vocabulary(data: Mapping[str, Any]) -> int:
    tokens = data.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, list) else 0


def _check_specials(path: Path, data: Mapping[str, Any]) -> None:
    """llama.cpp only warns of these, and may read beyond its tables later."""
    tokens = _vocabulary(data)
    for key, value in data.items():
        if tokens and key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and not _whole(value) < tokens:
            raise ModelError(
                f"{path} is damaged: {key} is {value}, and there are {tokens} tokens; {FETCH_AGAIN}, or convert again"
            )


def _cache_bytes(data: Mapping[str, Any], architecture: str) -> int:
    """Keys and values of one token in all layers. Some models give the heads of each layer in a list, which
    is passed over here: then every head counts."""
    layers, width = (_whole(data.get(f"{architecture}.{key}")) for key in ("block_count", "embedding_length"))
    heads = _whole(data.get(f"{architecture}.attention.head_count")) or 1
    shared = _whole(data.get(f"{architecture}.attention.head_count_kv")) or heads
    key, value = (
        _whole(data.get(f"{architecture}.attention.{part}_length")) or width // heads for part in ("key", "value")
    )
    return layers * shared * (key + value) * CACHE_BYTES


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
    if (count := reader.number("Q")) > MOST_PAIRS:
        raise ModelError(f"{path} is damaged: it claims {count} entries of metadata; {FETCH_AGAIN}")
    try:
        return {reader.text(): reader.value(reader.number("I")) for _ in range(count)}
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
