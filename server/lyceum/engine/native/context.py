"""A context of several sequences over weights that may be shared: tokens in, scores of the next tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lyceum.engine.card import Card
from lyceum.engine.native.adapter import adapt
from lyceum.engine.native.batch import Batch, Stretch
from lyceum.engine.native.log import complaints
from lyceum.engine.native.log import llama as c
from lyceum.engine.native.weights import lend
from lyceum.errors import ModelError

BATCH = 512
"""Tokens read in one decode; a long prompt can be cancelled between two of them."""


@dataclass(frozen=True, slots=True)
class Room:
    """`cells` hold the tokens of all `sequences` together. `lora`: an adapter over the base, with its scale."""

    cells: int
    sequences: int = 1
    n_gpu_layers: int = 0
    n_threads: int = 1
    lora: tuple[Path, float] | None = None
    check_tensors: bool = True


class Context:
    """`decode`, then read `scores`, again and again. Sequences share what is copied from one to another."""

    def __init__(self, card: Card, room: Room) -> None:
        self._weights = lend(card, room.n_gpu_layers, room.check_tensors)
        self.vocab = self._weights.vocab
        self.shares = self._weights.shares
        self.handle = self._adapter = None
        self._sequences = room.sequences
        self._batch = Batch(BATCH, room.sequences)
        try:
            self.handle = _make(self._weights.model, card, room)
            if room.lora:
                self._adapter = adapt(self._weights.model, self.handle, card, *room.lora)
            self._warm()
        except ModelError:
            self.close()
            raise

    def decode(self, stretches: Sequence[Stretch]) -> None:
        """Read at most BATCH tokens; those of one sequence follow what it holds already. Raises ModelError."""
        if code := c.llama_decode(self.handle, self._batch.fill(stretches)):
            raise ModelError(f"llama.cpp failed to decode (code {code}): {complaints.take()}")

    def scores(self, rows: int) -> np.ndarray[Any, Any]:
        """(rows, tokens): of the token after each stretch that was the last of its kind, in order; valid until the
        next decode. `rows` is how many there were."""
        pointer = c.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(rows, len(self.vocab.pieces)))

    def copy(self, source: int, target: int, count: int) -> None:
        """Let `target`, which is empty, begin with the first `count` tokens of `source`, at no cost."""
        self._check(source, target)
        c.llama_memory_seq_cp(c.llama_get_memory(self.handle), source, target, 0, count)

    def trim(self, sequence: int, start: int) -> None:
        """Forget what `sequence` holds from position `start` on."""
        self._check(sequence)
        c.llama_memory_seq_rm(c.llama_get_memory(self.handle), sequence, start, -1)

    def close(self) -> None:
        """After the last sampler is closed."""
        if self.handle:
            c.llama_free(self.handle)
        if self._adapter:
            c.llama_adapter_lora_free(self._adapter)
        self._weights.give_back()

    def _warm(self) -> None:
        """Decode something: only then does llama.cpp lay out its graph, by looking at all adapters of the model."""
        self.decode([Stretch([0], 0, 0, True)])
        self.trim(0, 0)

    def _check(self, *sequences: int) -> None:
        if not all(0 <= sequence < self._sequences for sequence in sequences):
            raise ModelError(f"a context has {self._sequences} sequences")


def _make(model: Any, card: Card, room: Room) -> Any:
    params = c.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = room.cells, room.sequences, True
    params.n_batch = params.n_ubatch = BATCH
    params.n_threads = params.n_threads_batch = room.n_threads
    params.no_perf = True
    context = c.llama_init_from_model(model, params)
    if not context:
        raise ModelError(f"cannot make room for {room.cells} tokens of {card.path}: {complaints.take()}; lower n_ctx")
    return context
