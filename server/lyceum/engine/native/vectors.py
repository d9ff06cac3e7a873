"""A context that turns texts into vectors: several sequences in a batch, one pooled vector each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lyceum.engine.card import Card
from lyceum.engine.native.batch import Batch, Stretch
from lyceum.engine.native.log import complaints
from lyceum.engine.native.log import llama as c
from lyceum.engine.native.weights import lend
from lyceum.errors import ModelError

MOST_SEQUENCES = 16
POOLED = (c.LLAMA_POOLING_TYPE_MEAN, c.LLAMA_POOLING_TYPE_CLS, c.LLAMA_POOLING_TYPE_LAST)
"""Ways that make one vector of a text. (A reranker's makes one number.)"""


class Vectors:
    """`embed` takes at most MOST_SEQUENCES texts whose tokens together are at most `n_ctx`."""

    def __init__(self, card: Card, n_ctx: int, n_gpu_layers: int, n_threads: int, check_tensors: bool = True) -> None:
        self._weights = lend(card, n_gpu_layers, check_tensors)
        self.vocab = self._weights.vocab
        self._context = _make(self._weights.model, n_ctx, n_threads)
        if not self._context or c.llama_pooling_type(self._context) not in POOLED:
            self.close()
            raise ModelError(f"{card.path} cannot be used for embeddings: {complaints.take()}")
        self._width = c.llama_model_n_embd_out(self._weights.model)
        self._encoder = c.llama_model_has_encoder(self._weights.model)
        self._batch = Batch(n_ctx, MOST_SEQUENCES)

    def embed(self, texts: Sequence[Sequence[int]]) -> list[np.ndarray[Any, Any]]:
        """One vector of length 1 for each text, in order."""
        batch = self._batch.fill([Stretch(tokens, row, 0, len(tokens)) for row, tokens in enumerate(texts)])
        c.llama_memory_clear(c.llama_get_memory(self._context), True)
        run = c.llama_encode if self._encoder else c.llama_decode
        if code := run(self._context, batch):
            raise ModelError(f"llama.cpp failed to embed (code {code}): {complaints.take()}")
        return [self._vector(number) for number in range(len(texts))]

    def close(self) -> None:
        if self._context:
            c.llama_free(self._context)
        self._weights.give_back()

    def _vector(self, number: int) -> np.ndarray[Any, Any]:
        pointer = c.llama_get_embeddings_seq(self._context, number)
        vector = np.ctypeslib.as_array(pointer, shape=(self._width,)).astype(np.float64)
        length = float(np.linalg.norm(vector))
        found: np.ndarray[Any, Any] = vector / length if length else vector
        return found


def _make(model: Any, n_ctx: int, n_threads: int) -> Any:
    """The file's own way to pool the states of a text, else their mean. One batch holds all that is held."""
    params = c.llama_context_default_params()
    params.embeddings = True
    params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
    params.n_seq_max = MOST_SEQUENCES
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = n_threads
    params.no_perf = True
    context = c.llama_init_from_model(model, params)
    if context and c.llama_pooling_type(context) == c.LLAMA_POOLING_TYPE_NONE:
        c.llama_free(context)
        params.pooling_type = c.LLAMA_POOLING_TYPE_MEAN
        context = c.llama_init_from_model(model, params)
    return context
