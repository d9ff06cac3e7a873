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
ADD_TEMPLATE = "take an instruction-tuned GGUF, or add one with gguf_new_metadata.py --chat-template-file"
MOST_PAIRS = 1 << 16
MOST_TEXTS = 1 << 22
MOST_TEXT_BYTES = 1 << 28
MOST_LAYERS = 1 << 12
"""A longer list of numbers holds scores or kinds of tokens, and is passed over."""

CACHE_SHARE = 1_000_000_000
"""Bytes that the caches of any model may take."""

CACHE_BYTES = 2
"""A key or a value in the cache is an f16."""

NO_LIMIT = 1 << 40
"""Tokens: more than any context, for models that keep nothing of what they read."""

SCORES_ROWS = 64
COMPUTE_BYTES = 24_000_000
"""What llama.cpp takes to compute a batch of 512: this much, and some rows of scores and states."""


@dataclass(frozen=True)
class Card:
    """Numbers are 0 and texts "" where the file does not say.

    `n_ctx_train`: the longest text the model was trained on. `refusal`: what it says of a question that lies
    outside its field. `doubt`: it does not trust an answer one of whose first tokens is less probable.
    `adapter`: what kind of adapter the file is, if its `kind` is that. `causal`: it reads from left to right, as
    whoever writes must. `pooling` as llama.cpp numbers it.
    """

    path: Path
    kind: str
    name: str
    description: str
    tags: tuple[str, ...]
    licence: str
    architecture: str
    quantisation: str
    parameters: int
    n_ctx_train: int
    n_vocab: int
    size_bytes: int
    cache_bytes_per_token: int
    n_embd: int
    chat_template: str
    adapter: str
    refusal: str
    doubt: float
    causal: bool
    pooling: int

    def memory_bytes(self, n_ctx: int, parallel: int = 1, pooled: bool = False) -> int:
        """Weights, the caches of all `slots`, and what computing takes; `pooled` where texts become vectors, which
        keeps no more than one batch of `n_ctx` tokens.

        An estimate. Measured against what a process grew by: of files of 100 to 400 MB 0 to 11 % too much; of files
        below 5 MB some 12 to 16 MB too much.
        """
        cells = n_ctx * (1 if pooled else self.slots(n_ctx, parallel))
        scores = SCORES_ROWS * 4 * (self.n_vocab + 8 * self.n_embd)
        if pooled:  # a whole text at once, and llama.cpp keeps the scores of all its tokens, twice
            scores += cells * 4 * (2 * self.n_vocab * self.causal + 8 * self.n_embd)
        return self.size_bytes + cells * self.cache_bytes_per_token + scores + COMPUTE_BYTES

    def slots(self, n_ctx: int, parallel: int) -> int:
        """How many are served at once, each with a context of `n_ctx`: `parallel`, or fewer where their contexts would
        take more memory than the weights, and more than CACHE_SHARE."""
        affordable = max(CACHE_SHARE, self.size_bytes) // ((n_ctx * self.cache_bytes_per_token) or 1)
        return max(1, min(parallel, affordable))

    def fitting_tokens(self, free_bytes: int, pooled: bool = False) -> int:
        """The longest context of one request for which that much memory is enough; below 0 where not even the
        weights fit."""
        least = self.memory_bytes(0, pooled=pooled)
        each = self.memory_bytes(1, pooled=pooled) - least
        spare = free_bytes - least
        return spare // each if each else min(spare, 0) or NO_LIMIT

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(path: Path) -> Card:
    """Raises ModelError if there is no whole GGUF file of a model or an adapter at `path`."""
    data = _metadata(path)
    if _whole(data.get("split.count")) > 1:
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
        quantisation=FILE_TYPES.get(_whole(data.get("general.file_type", -1)), ""),
        parameters=_whole(data.get("general.parameter_count")),
        n_ctx_train=_whole(data.get(f"{architecture}.context_length")),
        n_vocab=_vocabulary(data),
        size_bytes=path.stat().st_size,
        cache_bytes_per_token=_cache_bytes(data, architecture),
        n_embd=_whole(data.get(f"{architecture}.embedding_length")),
        chat_template=str(data.get("tokenizer.chat_template", "")),
        adapter=str(data.get("adapter.type", "")),
        refusal=str(data.get("lyceum.refusal", "")),
        doubt=_doubt(path, data.get("lyceum.doubt", 0.0)),
        causal=data.get(f"{architecture}.attention.causal") is not False,
        pooling=_whole(data.get(f"{architecture}.pooling_type")),
    )


def check_adapter(path: Path, base: Card) -> None:
    """Raises ModelError unless `path` is a LoRA adapter for models of `base`'s architecture."""
    card = read_card(path)
    if card.kind != "adapter":
        raise ModelError(f"{path} is a whole model, not a LoRA adapter: set it as `path`, without `lora`")
    if card.adapter != "lora":
        raise ModelError(f"{path} is an adapter of kind {card.adapter!r}; only LoRA adapters go over {base.path}")
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


def _doubt(path: Path, value: object) -> float:
    if isinstance(value, float | int) and 0 <= value < 1:
        return float(value)
    raise ModelError(f"{path}: lyceum.doubt is {str(value)[:50]!r}, not a probability from 0 to below 1; write it anew")


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
    """Keys and values of one token in all layers; some models have other numbers of heads in each."""
    layers, width = (_whole(data.get(f"{architecture}.{key}")) for key in ("block_count", "embedding_length"))
    heads = _most(data.get(f"{architecture}.attention.head_count")) or 1
    key, value = (
        _whole(data.get(f"{architecture}.attention.{part}_length")) or width // heads for part in ("key", "value")
    )
    shared = data.get(f"{architecture}.attention.head_count_kv") or heads
    in_all = sum(map(_whole, shared)) if isinstance(shared, list) else layers * (_whole(shared) or heads)
    return in_all * (key + value) * CACHE_BYTES


def _most(value: object) -> int:
    return max(map(_whole, value), default=0) if isinstance(value, list) else _whole(value)


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
    except (KeyError, OverflowError):
        raise ModelError(f"{path} is damaged: its metadata makes no sense; {FETCH_AGAIN}") from None


class _Reader:
    """Takes one value after the other. EOFError where the file ends too early, OverflowError for a length that no
    sound file has: a damaged one costs no more than a sound one."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at, self._text_bytes = data, 4, 0

    def number(self, form: str) -> Any:
        return self._numbers(form)[0]

    def text(self) -> str:
        size = self.number("Q")
        self._text_bytes += size
        if self._text_bytes > MOST_TEXT_BYTES:
            raise OverflowError
        start = self._pass(size)
        return self._data[start : self._at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        return self._array() if kind == ARRAY else self.number(NUMBERS[kind])

    def _array(self) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind == TEXT:
            if count > MOST_TEXTS:
                raise OverflowError
            return [self.text() for _ in range(count)]
        if count <= MOST_LAYERS:
            return list(self._numbers(f"{count}{NUMBERS[kind]}"))
        self._pass(count * struct.calcsize(NUMBERS[kind]))
        return []

    def _numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack_from(f"<{form}", self._data, self._pass(struct.calcsize(f"<{form}")))

    def _pass(self, size: int) -> int:
        """Go on by `size` bytes; where they begin."""
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise EOFError
        return start
