"""A model file in smaller numbers, by llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Callable, Mapping
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

FULL = ("F32", "F16", "BF16", "")
PROGRESS = re.compile(r"\[ *(\d+)/ *(\d+)\]")

Report = Callable[[int, int], None]
"""Told how many of a file's tensors are reached, of how many."""


def quantise(
    source: Path, target: Path, type_name: str, again: bool = False, report: Report = lambda _done, _all: None
) -> None:
    """Writes `target`, whole or not at all. `again` allows a source that is quantised already, which loses twice.

    Raises ModelError naming what is wrong and how to mend it.
    """
    if type_name not in TYPES:
        raise ModelError(f"{type_name!r} is no type that llama.cpp writes; it knows: {', '.join(sorted(TYPES))}")
    card = read_card(source)
    if card.kind == "adapter":
        raise ModelError(f"{source} is an adapter, which stays as it is: quantise its base")
    if card.quantisation not in FULL and not again:
        raise ModelError(f"{source} is {card.quantisation} already; quantise the F16 file that it was made from")
    if not target.parent.is_dir():
        raise ModelError(f"cannot write {target}: there is no folder {target.parent}; make it first")
    part = target.with_name(f"{target.name}.part")
    try:
        _write(source, part, type_name, again, report)
        part.replace(target)
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror}; choose another name or folder") from None
    finally:
        part.unlink(missing_ok=True)


def _write(source: Path, part: Path, type_name: str, again: bool, report: Report) -> None:
    def hear(words: str) -> None:
        if found := PROGRESS.match(words):
            report(int(found[1]), int(found[2]))

    params = c.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = TYPES[type_name], again
    with complaints.heard_by(hear):
        failed = c.llama_model_quantize(os.fsencode(source), os.fsencode(part), ctypes.byref(params))
    if failed:
        why, free = complaints.take(), shutil.disk_usage(part.parent).free
        raise ModelError(
            f"llama.cpp cannot write {source} as {type_name}: {why}; {part.parent} has {free / 1e6:.0f} MB free and the"
            f" result takes up to {source.stat().st_size / 1e6:.0f}: free some, or take another folder or type"
        )
