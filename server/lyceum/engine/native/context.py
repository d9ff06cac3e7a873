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

PAD = 256
GPU_BATCH = 512
CPU_BATCH = 60
"""Tokens read in one decode. From 64 on the CPU computes attention in another way, whose result differs in the last
digits (ggml_compute_forward_flash_attn_ext_tiled): what is read at once would show in what is answered."""


@dataclass(frozen=True, slots=True)
class Room:
    """Each of `sequences` holds `n_ctx` tokens. `lora`: an adapter over the base, with its scale."""

    n_ctx: int
    sequences: int = 1
    n_gpu_layers: int = 0
    n_threads: int = 1
    lora: tuple[Path, float] | None = None

    @property
    def batch(self) -> int:
        return GPU_BATCH if self.n_gpu_layers else CPU_BATCH


class Context:
    """`decode`, then read `scores`, again and again. Sequences have their cells apart from one another: an answer does
    not depend, to the bit, on where in memory it lies."""

    def __init__(self, card: Card, room: Room) -> None:
        self._weights = lend(card, room.n_gpu_layers)
        self.vocab = self._weights.vocab
        self.handle = self._adapter = None
        self._sequences = room.sequences
        self._batch = Batch(room.batch, room.sequences)
        try:
            self.handle = _make(self._weights.model, card, room)
            if room.lora:
                self._adapter = adapt(self._weights.model, self.handle, card, *room.lora)
            self._warm()
        except ModelError:
            self.close()
            raise

    def decode(self, stretches: Sequence[Stretch]) -> None:
        """Read at most a batch of tokens; those of one sequence follow what it holds already. Raises ModelError."""
        if code := c.llama_decode(self.handle, self._batch.fill(stretches)):
            raise ModelError(f"llama.cpp failed to decode (code {code}): {complaints.take()}")

    def scores(self, rows: int) -> np.ndarray[Any, Any]:
        """(rows, tokens): those wanted of the last decode, in order; valid until the next. `rows` is how many."""
        pointer = c.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(rows, len(self.vocab.pieces)))

    def copy_to_all(self) -> None:
        """What the first sequence holds."""
        for target in range(1, self._sequences):
            c.llama_memory_seq_cp(c.llama_get_memory(self.handle), 0, target, -1, -1)

    def trim(self, sequence: int, start: int) -> None:
        """Forget what `sequence` holds from position `start` on."""
        if not 0 <= sequence < self._sequences:
            raise ModelError(f"a context has {self._sequences} sequences")
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
        self.decode([Stretch([0], 0, 0)])
        self.trim(0, 0)


def _make(model: Any, card: Card, room: Room) -> Any:
    params = c.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = _rounded(room.n_ctx) * room.sequences, room.sequences, False
    params.n_batch = params.n_ubatch = room.batch
    if not room.n_gpu_layers:
        params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_ENABLED  # sums a sequence's tokens in their order
    params.n_threads = params.n_threads_batch = room.n_threads
    params.no_perf = True
    context = c.llama_init_from_model(model, params)
    if not context:
        raise ModelError(
            f"cannot make room for {room.sequences} times {room.n_ctx} tokens of {card.path}: {complaints.take()};"
            " lower n_ctx or parallel"
        )
    return context


def _rounded(n_ctx: int) -> int:
    """llama.cpp gives a sequence cells in blocks of PAD."""
    return -(-n_ctx // PAD) * PAD
