"""A LoRA adapter laid over a context. It holds for the whole context, so each specialist has a context of its own."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from lyceum.engine.card import Card, check_adapter
from lyceum.engine.native.log import complaints
from lyceum.engine.native.log import llama as c
from lyceum.errors import ModelError


def adapt(model: Any, context: Any, base: Card, path: Path, scale: float) -> Any:
    """The adapter, to be freed after the context. Raises ModelError naming both files."""
    check_adapter(path, base)
    adapter = c.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        why = complaints.take()
        raise ModelError(f"{path} does not fit {base.path}: {why}; take the base that the adapter was trained on")
    adapters, scales = (c.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(scale)
    if c.llama_set_adapters_lora(context, adapters, 1, scales):
        c.llama_adapter_lora_free(adapter)
        raise ModelError(f"llama.cpp refuses the adapter {path} over {base.path}: {complaints.take()}")
    return adapter
