"""llama.cpp behind values: the only module that calls it, since a wrong call aborts the process.

Laws: one thread loads, decodes, samples and closes (`Vocab.tokenize` alone is open to all); no batch of
more than BATCH tokens; no sampling but after a decode; freed in order, once. Knows tokens, not requests.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ["GGML_NO_BACKTRACE"] = "1"  # before the import: an assertion would fork gdb, if installed

import llama_cpp.llama_cpp as c
import numpy as np

from lyceum.engine.card import FETCH_AGAIN
from lyceum.errors import ModelError

BATCH = 512
"""Tokens read in one decode; a long prompt can be cancelled between two of them."""

BLOCK = 4096
"""Characters tokenised at once. llama.cpp runs several models' pre-tokenizers through std::regex, which
recurses per character: 40,000 letters without a break overflow an 8 MiB stack and kill the process."""

CONTROL = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_UNKNOWN
LOG_ERROR = 4
SEEDS = 0xFFFFFFFF
"""llama.cpp takes a seed below this; this value itself asks it for a random one."""


class _Complaints(threading.local):
    """llama.cpp says why it failed only to its log, on the thread that called it."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=8)

    def take(self) -> str:
        """The first: those that follow say only who passed it on."""
        first = self.lines[0] if self.lines else "llama.cpp does not say why"
        self.lines.clear()
        return first


_complaints = _Complaints()


@c.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
def _hear(level: int, text: bytes, _data: object) -> None:
    if level == LOG_ERROR:
        _complaints.lines.append(text.decode("utf-8", "replace").strip())


c.llama_log_set(_hear, ctypes.c_void_p(0))
c.llama_backend_init()


class Special(NamedTuple):
    """A token that stands for its whole text. One that is not `control` is also found in plain text by
    llama.cpp. It swallows the white space `before` or `after` it."""

    text: str
    token: int
    control: bool
    before: bool
    after: bool


class Vocab:
    """A model's tokens: `pieces` are their bytes (none for control tokens), `specials` go by their text."""

    def __init__(self, model: Any) -> None:
        self._vocab = c.llama_model_get_vocab(model)
        self._lock = threading.Lock()
        tokens = range(c.llama_vocab_n_tokens(self._vocab))
        self.pieces = [self._piece(token) for token in tokens]
        self.longest = max(map(len, self.pieces))
        self.ends = frozenset(token for token in tokens if c.llama_vocab_is_eog(self._vocab, token))
        self.specials = {special.text: special for special in self._specials(tokens)}
        self.bos, self.eos = c.llama_vocab_bos(self._vocab), c.llama_vocab_eos(self._vocab)
        self.add_bos = bool(c.llama_vocab_get_add_bos(self._vocab)) and self.bos >= 0
        self._in_blocks = c.llama_vocab_type(self._vocab) == c.LLAMA_VOCAB_TYPE_BPE

    def name(self, token: int) -> str:
        """A special token as templates write it."""
        return next((special.text for special in self.specials.values() if special.token == token), "")

    def tokenize(self, text: str) -> list[int]:
        """`text` as text: no control token comes of it, whatever it says. Any thread may call."""
        with self._lock:
            if self._vocab is None:
                raise ModelError("the engine is closed")
            parts = _blocks(text) if self._in_blocks else [text]
            return [token for part in parts for token in self._tokenize(part.encode())]

    def close(self) -> None:
        with self._lock:
            self._vocab = None

    def _tokenize(self, raw: bytes) -> list[int]:
        room = len(raw) + 2  # a token takes a byte or more; some models put a space before
        found = (c.llama_token * room)()
        count = c.llama_tokenize(self._vocab, raw, len(raw), found, room, False, False)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenise a text of {len(raw)} bytes")
        return list(found[:count])

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:size]

    def _specials(self, tokens: range) -> Iterator[Special]:
        for token in tokens:
            attributes = c.llama_vocab_get_attr(self._vocab, token)
            text = c.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
            if text and attributes & (CONTROL | c.LLAMA_TOKEN_ATTR_USER_DEFINED):
                before, after = c.LLAMA_TOKEN_ATTR_LSTRIP, c.LLAMA_TOKEN_ATTR_RSTRIP
                control = bool(attributes & CONTROL)
                yield Special(text, token, control, bool(attributes & before), bool(attributes & after))


class Native:
    """A model with a context for one sequence. `decode` and then `Sampler.sample`, again and again."""

    def __init__(self, path: Path, n_ctx: int, n_gpu_layers: int, n_threads: int) -> None:
        self._model = _load_model(path, n_gpu_layers)
        self._context = _make_context(self._model, n_ctx, n_threads)
        if not self._context:
            c.llama_model_free(self._model)
            raise ModelError(f"cannot make room for {n_ctx} tokens of {path}: {_complaints.take()}; lower n_ctx")
        self.vocab = Vocab(self._model)
        self._batch = c.llama_batch_init(BATCH, 0, 1)
        for row in range(BATCH):
            self._batch.n_seq_id[row], self._batch.seq_id[row][0] = 1, 0

    def decode(self, tokens: list[int], at: int) -> None:
        """Read 1 to BATCH tokens from position `at` on; only after the last of them can be sampled."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, at + row
            batch.logits[row] = row == len(tokens) - 1
        if code := c.llama_decode(self._context, batch):
            raise ModelError(f"llama.cpp failed to decode (code {code}): {_complaints.take()}")

    def log_probability(self, token: int) -> float:
        """Of `token` after what was decoded last, as the model has it, before any temperature."""
        logits = c.llama_get_logits_ith(self._context, -1)
        row = np.ctypeslib.as_array(logits, shape=(len(self.vocab.pieces),))
        top = row.max()
        return float(row[token] - top - np.log(np.exp(row - top).sum(dtype=np.float64)))

    def sampler(self, temperature: float, top_p: float, seed: int | None) -> Sampler:
        return Sampler(self._context, temperature, top_p, seed)

    def forget(self) -> None:
        """Empty the context."""
        c.llama_memory_seq_rm(c.llama_get_memory(self._context), 0, -1, -1)

    def close(self) -> None:
        """After the last sampler is closed."""
        self.vocab.close()
        c.llama_batch_free(self._batch)
        c.llama_free(self._context)
        c.llama_model_free(self._model)


class Sampler:
    """One request's way to choose tokens. At temperature 0 always the likeliest."""

    def __init__(self, context: Any, temperature: float, top_p: float, seed: int | None) -> None:
        self._context = context
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for link in _links(temperature, top_p, SEEDS if seed is None else seed % SEEDS):
            c.llama_sampler_chain_add(self._chain, link)

    def sample(self) -> int:
        return int(c.llama_sampler_sample(self._chain, self._context, -1))

    def close(self) -> None:
        c.llama_sampler_free(self._chain)


def _links(temperature: float, top_p: float, seed: int) -> list[Any]:
    if temperature < 0.01:  # below, logits divided by it leave the range of a float
        return [c.llama_sampler_init_greedy()]
    nucleus = [c.llama_sampler_init_top_p(top_p, 1)] if top_p < 1 else []
    return [*nucleus, c.llama_sampler_init_temp(temperature), c.llama_sampler_init_dist(seed)]


def _load_model(path: Path, n_gpu_layers: int) -> Any:
    params = c.llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    params.check_tensors = True
    model = c.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        why = _complaints.take()
        raise ModelError(f"llama.cpp cannot load {path}: {why}; {FETCH_AGAIN}, or update llama-cpp-python")
    return model


def _make_context(model: Any, n_ctx: int, n_threads: int) -> Any:
    params = c.llama_context_default_params()
    params.n_ctx, params.n_seq_max = n_ctx, 1
    params.n_batch = params.n_ubatch = BATCH
    params.n_threads = params.n_threads_batch = n_threads
    params.no_perf = True
    return c.llama_init_from_model(model, params)


def _blocks(text: str) -> Iterator[str]:
    """`text` in pieces of at most BLOCK characters, cut between words where there are any."""
    start = 0
    while len(text) - start > BLOCK:
        space = text.rfind(" ", start + 1, start + BLOCK)
        cut = space if space > 0 else start + BLOCK
        yield text[start:cut]
        start = cut
    yield text[start:]
