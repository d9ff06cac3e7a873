"""What one decode reads: rows of token, position and sequence, in memory of our own that llama.cpp only looks at."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lyceum.engine.native.log import llama as c
from lyceum.errors import ModelError


@dataclass(frozen=True, slots=True)
class Stretch:
    """`tokens` of a `sequence` from `position` on. `wanted`: after how many of the last of them scores are wanted."""

    tokens: Sequence[int]
    sequence: int
    position: int
    wanted: int = 1


class Batch:
    """Room for `size` rows of at most `sequences` sequences. Any more llama.cpp would not survive."""

    def __init__(self, size: int, sequences: int) -> None:
        self._size, self._sequences = size, sequences
        self._tokens, self._positions, self._ids = (np.zeros(size, np.int32) for _ in range(3))
        self._counts = np.ones(size, np.int32)
        self._wanted = np.zeros(size, np.int8)
        starts = self._ids.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        self._pointers = np.ascontiguousarray(starts.astype(np.uint64))
        self._batch = c.llama_batch(
            token=self._tokens.ctypes.data_as(ctypes.POINTER(c.llama_token)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(c.llama_pos)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(c.llama_seq_id))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(self, stretches: Sequence[Stretch]) -> Any:
        """llama.cpp's batch. Raises ModelError for what llama.cpp would abort at."""
        if not 0 < sum(len(each.tokens) for each in stretches) <= self._size:
            raise ModelError(f"a batch has 1 to {self._size} rows")
        if any(not 0 <= each.sequence < self._sequences for each in stretches):
            raise ModelError(f"a context has {self._sequences} sequences")
        self._wanted[:] = False
        at = 0
        for each in stretches:
            end = at + len(each.tokens)
            self._tokens[at:end] = each.tokens
            self._positions[at:end] = range(each.position, each.position + len(each.tokens))
            self._ids[at:end] = each.sequence
            self._wanted[max(at, end - each.wanted) : end] = True
            at = end
        self._batch.n_tokens = at
        return self._batch
