"""A context for one sequence over weights that may be shared: tokens in, scores of the next token out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lyceum.engine.card import Card
from lyceum.engine.native.adapter import adapt
from lyceum.engine.native.log import complaints
from lyceum.engine.native.log import llama as c
from lyceum.engine.native.weights import lend
from lyceum.errors import ModelError

BATCH = 512
"""Tokens read in one decode; a long prompt can be cancelled between two of them."""


class Context:
    """`decode`, then read `logits`, again and again. `lora`: an adapter over the base, with its scale."""

    def __init__(
        self, card: Card, n_ctx: int, n_gpu_layers: int, n_threads: int, lora: tuple[Path, float] | None = None
    ) -> None:
        self._weights = lend(card, n_gpu_layers)
        self.vocab = self._weights.vocab
        self._context = self._adapter = None
        self._batch = c.llama_batch_init(BATCH, 0, 1)
        for row in range(BATCH):
            self._batch.n_seq_id[row], self._batch.seq_id[row][0] = 1, 0
        try:
            with self._weights.making:
                self._context = _make(self._weights.model, card, n_ctx, n_threads)
                if lora:
                    self._adapter = adapt(self._weights.model, self._context, card, *lora)
                self._warm()
        except ModelError:
            self.close()
            raise

    def decode(self, tokens: list[int], at: int) -> None:
        """Read 1 to BATCH tokens from position `at` on; only after the last of them can be sampled."""
        self._decode(tokens, at)

    def _decode(self, tokens: list[int], at: int) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, at + row
            batch.logits[row] = row == len(tokens) - 1
        if code := c.llama_decode(self._context, batch):
            raise ModelError(f"llama.cpp failed to decode (code {code}): {complaints.take()}")

    def logits(self) -> np.ndarray[Any, Any]:
        """Scores of the token after what was decoded last: (tokens,), valid until the next decode."""
        pointer = c.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(len(self.vocab.pieces),))

    def forget(self) -> None:
        """Empty the context."""
        c.llama_memory_seq_rm(c.llama_get_memory(self._context), 0, -1, -1)

    def close(self) -> None:
        """After the last sampler is closed."""
        c.llama_batch_free(self._batch)
        with self._weights.making:
            if self._context:
                c.llama_free(self._context)
            if self._adapter:
                c.llama_adapter_lora_free(self._adapter)
        self._weights.give_back()

    def _warm(self) -> None:
        """Decode something: only then does llama.cpp lay out its graph, by looking at all adapters of the model."""
        self._decode([0], 0)
        self.forget()


def log_probabilities(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Natural logarithms of the model's own probabilities, before any temperature: (tokens,)."""
    top = logits.max()
    found: np.ndarray[Any, Any] = logits - top - np.log(np.exp(logits - top).sum(dtype=np.float64))
    return found


def _make(model: Any, card: Card, n_ctx: int, n_threads: int) -> Any:
    params = c.llama_context_default_params()
    params.n_ctx, params.n_seq_max = n_ctx, 1
    params.n_batch = params.n_ubatch = BATCH
    params.n_threads = params.n_threads_batch = n_threads
    params.no_perf = True
    context = c.llama_init_from_model(model, params)
    if not context:
        raise ModelError(f"cannot make room for {n_ctx} tokens of {card.path}: {complaints.take()}; lower n_ctx")
    return context
