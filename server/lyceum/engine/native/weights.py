"""Model files in memory. A file is loaded once, however many contexts stand on it, and freed with the last.

Specialists that are LoRA adapters over one base share the base's weights this way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyceum.engine.card import FETCH_AGAIN, Card
from lyceum.engine.native.log import complaints
from lyceum.engine.native.log import llama as c
from lyceum.engine.native.vocab import Vocab
from lyceum.errors import ModelError


@dataclass(slots=True)
class Weights:
    """A loaded model file; `give_back` exactly once for each `lend`.

    `cuts`: what a sequence holds can be cut off anywhere. A recurrent model keeps a state instead.
    """

    key: tuple[Path, int]
    model: Any
    vocab: Vocab
    cuts: bool
    users: int = 0
    give_back: Callable[[], None] = field(init=False)

    def __post_init__(self) -> None:
        self.give_back = lambda: _give_back(self)


_lock = threading.Lock()
_loaded: dict[tuple[Path, int], Weights] = {}


def lend(card: Card, n_gpu_layers: int, check_tensors: bool = True) -> Weights:
    """The weights of `card`'s file, loaded if nobody has them. Raises ModelError naming the file.

    `check_tensors` reads all of them for numbers that are none, which is wanted once for each file.
    """
    key = (card.path.resolve(), n_gpu_layers)
    with _lock:
        weights = _loaded.get(key)
        if weights is None:
            model = _load(card, n_gpu_layers, check_tensors)
            weights = _loaded[key] = Weights(key, model, Vocab(model), _cuts(model))
        weights.users += 1
        return weights


def has_gpu() -> bool:
    """Can layers be put on a GPU here?"""
    return bool(c.llama_supports_gpu_offload())


def _give_back(weights: Weights) -> None:
    with _lock:
        weights.users -= 1
        if weights.users:
            return
        del _loaded[weights.key]
        weights.vocab.close()
        c.llama_model_free(weights.model)


def _cuts(model: Any) -> bool:
    return not (c.llama_model_is_recurrent(model) or c.llama_model_is_hybrid(model))


def _load(card: Card, n_gpu_layers: int, check_tensors: bool) -> Any:
    params = c.llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    params.check_tensors = check_tensors
    model = c.llama_model_load_from_file(os.fsencode(card.path), params)
    if model:
        return model
    why = complaints.take()
    if "unknown model architecture" in why:
        mend = f"llama.cpp does not know the architecture {card.architecture!r}: update llama-cpp-python"
        raise ModelError(f"cannot load {card.path}: {mend}, or take another model")
    raise ModelError(f"llama.cpp cannot load {card.path}: {why}; {FETCH_AGAIN}, or update llama-cpp-python")
