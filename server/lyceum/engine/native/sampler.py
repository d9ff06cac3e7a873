"""One request's way to choose tokens: a chain of llama.cpp samplers, and perhaps a grammar before it."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from lyceum.engine.native.log import llama as c
from lyceum.engine.native.vocab import Vocab
from lyceum.errors import BadRequest

SEEDS = 0xFFFFFFFF
"""llama.cpp takes a seed below this; this value itself asks it for a random one."""

GREEDY = 0.01
"""Below this temperature the likeliest token is taken: logits divided by less leave the range of a float."""

PATIENCE_S = 0.25
"""Of this thread. An ambiguous grammar takes llama.cpp several times longer for each token than for the one before."""

REPEATED = 64
"""llama.cpp's own default (`repeat_last_n`)."""

LONGEST = 1 << 14
"""Tokens of an answer that penalties look back on."""

ROW = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
"""llama_token_data as numpy sees it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose. `grammar` is GBNF; "" leaves all tokens allowed. `top_k`: 0 for all.

    `frequency` and `presence` take from the score of a token that was written already, `repeat` divides it where
    that was not long ago.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    grammar: str = ""
    top_k: int = 0
    frequency: float = 0.0
    presence: float = 0.0
    repeat: float = 1.0

    @property
    def plain(self) -> bool:
        """Always the likeliest token: no sampler is needed to find it."""
        return self.temperature < GREEDY and not self.grammar and not self.penal

    @property
    def penal(self) -> bool:
        return bool(self.frequency or self.presence or self.repeat != 1)


class Sampler:
    """At temperature 0 always the likeliest token, of those that the grammar allows."""

    def __init__(self, vocab: Vocab, sampling: Sampling) -> None:
        self._grammar = vocab.grammar(sampling.grammar) if sampling.grammar else None
        self._ends = vocab.ends
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for link in [*_penalties(vocab, sampling), *_links(sampling)]:
            c.llama_sampler_chain_add(self._chain, link)

    @property
    def shaped(self) -> bool:
        """A grammar decides, which may take llama.cpp any time."""
        return self._grammar is not None

    def choose(self, context: Any, row: int, logits: np.ndarray[Any, Any]) -> int | None:
        """The token after `row` of what `context` decoded last, whose scores are `logits`; None when the grammar
        allows none, which llama.cpp would not survive.

        Raises BadRequest when the grammar takes too long.
        """
        if not self._grammar:
            return int(c.llama_sampler_sample(self._chain, context, row))
        begun = time.thread_time()
        token = self._chosen(logits)
        if time.thread_time() - begun > PATIENCE_S:
            raise BadRequest("this grammar can be read in too many ways at once: make it unambiguous", "grammar")
        return token

    def _chosen(self, logits: np.ndarray[Any, Any]) -> int | None:
        token = self._pick(_Candidates(logits))
        if self._grammar and not self._allows(token):
            allowed = _Candidates(logits)
            c.llama_sampler_apply(self._grammar, allowed.pointer)
            if not allowed.any():
                return None
            token = self._pick(allowed)
        if token not in self._ends:
            self._accept(token)
        return token

    def close(self) -> None:
        c.llama_sampler_free(self._chain)
        if self._grammar:
            c.llama_sampler_free(self._grammar)

    def _pick(self, candidates: _Candidates) -> int:
        c.llama_sampler_apply(self._chain, candidates.pointer)
        return candidates.selected()

    def _allows(self, token: int) -> bool:
        """Asking about one token is much cheaper than about all."""
        one = _Candidates(np.zeros(1, np.float32), np.array([token], np.int32))
        c.llama_sampler_apply(self._grammar, one.pointer)
        return one.any()

    def _accept(self, token: int) -> None:
        c.llama_sampler_accept(self._chain, token)
        if self._grammar:
            c.llama_sampler_accept(self._grammar, token)


class _Candidates:
    """llama.cpp's array of tokens to choose from, over memory that numpy owns."""

    def __init__(self, logits: np.ndarray[Any, Any], ids: np.ndarray[Any, Any] | None = None) -> None:
        self._rows = np.empty(len(logits), ROW)
        self._rows["id"] = np.arange(len(logits)) if ids is None else ids
        self._rows["logit"], self._rows["p"] = logits, 0
        data = self._rows.ctypes.data_as(c.llama_token_data_p)
        self._array = c.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
        self.pointer = ctypes.byref(self._array)

    def any(self) -> bool:
        return bool(np.isfinite(self._rows["logit"][: self._array.size]).any())

    def selected(self) -> int:
        return int(self._array.data[self._array.selected].id)


def _penalties(vocab: Vocab, sampling: Sampling) -> list[Any]:
    """OpenAI's count all that was written, llama.cpp's the last REPEATED tokens."""
    if not sampling.penal:
        return []
    size = len(vocab.pieces)
    return [
        c.llama_sampler_init_penalties(size, LONGEST, 1.0, sampling.frequency, sampling.presence),
        c.llama_sampler_init_penalties(size, REPEATED, sampling.repeat, 0.0, 0.0),
    ]


def _links(sampling: Sampling) -> list[Any]:
    if sampling.temperature < GREEDY:
        return [c.llama_sampler_init_greedy()]
    seed = SEEDS if sampling.seed is None else sampling.seed % SEEDS
    most = [c.llama_sampler_init_top_k(sampling.top_k)] if sampling.top_k else []
    nucleus = [c.llama_sampler_init_top_p(sampling.top_p, 1)] if sampling.top_p < 1 else []
    likely = [c.llama_sampler_init_min_p(sampling.min_p, 1)] if sampling.min_p > 0 else []
    return [*most, *nucleus, *likely, c.llama_sampler_init_temp(sampling.temperature), c.llama_sampler_init_dist(seed)]
