"""The one table of codes, in plugin/README.md: whole, and true."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lyceum import errors
from lyceum.app.failures import NO_ROUTE
from lyceum.errors import LyceumError
from lyceum.l402 import Ambiguous, Malformed, Reason

README = Path(__file__).parent.parent / "plugin" / "README.md"
ROW = re.compile(r"\| `([a-z0-9-]+)` \| ([0-9, ]+) \| ([0-9, ]*|declined|refused) ?\| (.+) \|")
ERRORS: list[type[LyceumError]] = [
    kind
    for kind in (*vars(errors).values(), Ambiguous)
    if isinstance(kind, type) and issubclass(kind, LyceumError) and kind is not Malformed
]


def rows() -> list[tuple[str, str, str]]:
    section = README.read_text().split("## Codes")[1].split("\n## ")[0]
    return [(code, http.strip(), rpc.strip()) for code, http, rpc, _ in ROW.findall(section)]


def listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))


def test_every_code_stands_in_the_table_once() -> None:
    """What the till may answer, what the errors are called, and the router's own: all of it, nothing else."""
    codes = [code for code, _, _ in rows()]
    assert sorted(codes) == sorted({*Reason, *(kind.code for kind in ERRORS), NO_ROUTE})


def test_every_code_has_its_status_and_its_rpc_code() -> None:
    """An error's as its class says; a reason that is no error is a 402 that the till declines with, or, where no
    payment would help, a 401."""
    for code, http, rpc in rows():
        kinds = [kind for kind in ERRORS if kind.code == code]
        if kinds:
            assert (code, http, rpc) == (
                code,
                listed(kind.status for kind in kinds),
                listed(kind.rpc_code for kind in kinds),
            )
        elif code != NO_ROUTE:
            assert (code, http, rpc) == (
                code,
                *(("401", "refused") if code == Reason.NARROWED else ("402", "declined")),
            )
