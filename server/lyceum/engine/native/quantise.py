"""A model file in smaller numbers, by llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

from lyceum.engine.card import read_card
from lyceum.engine.native.log import complaints
from lyceum.engine.native.log import llama as c
from lyceum.errors import ModelError

TYPES: Mapping[str, int] = {
    name.removeprefix("LLAMA_FTYPE_MOSTLY_"): value
    for name, value in vars(c).items()
    if name.startswith("LLAMA_FTYPE_MOSTLY_")
} | {"F32": 0}
"""llama.cpp's names for the ways to write weights, such as Q8_0 and Q4_K_M."""

FULL = ("F32", "F16", "BF16")


def quantise(source: Path, target: Path, type_name: str, again: bool = False) -> None:
    """Writes `target`, whole or not at all. `again` allows a source that is quantised already, which loses twice.

    Raises ModelError naming what is wrong and how to mend it.
    """
    if type_name not in TYPES:
        raise ModelError(f"{type_name!r} is no type that llama.cpp writes; it knows: {', '.join(sorted(TYPES))}")
    card = read_card(source)
    if card.quantisation not in FULL and not again:
        raise ModelError(f"{source} is {card.quantisation} already; quantise the F16 file that it was made from")
    part = target.with_name(f"{target.name}.part")
    params = c.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = TYPES[type_name], again
    try:
        if c.llama_model_quantize(os.fsencode(source), os.fsencode(part), ctypes.byref(params)):
            raise ModelError(f"llama.cpp cannot write {target} as {type_name}: {complaints.take()}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
