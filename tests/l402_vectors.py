"""The published L402 values in tests/vectors/l402.json, by group; see the README beside that file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_ALL: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "l402.json").read_text())


def rows(group: str) -> list[Row]:
    found: list[Row] = _ALL[group]
    return found


def row(group: str) -> Row:
    found: Row = _ALL[group]
    return found


def accepted(vector: Row) -> bool:
    """What this project does with a row: as upstream, unless its `lyceum` says otherwise."""
    ours: Row = vector.get("lyceum", {})
    return bool(ours.get("accept", not vector.get("error")))
