"""Tables for a terminal: any rows, and the account of an ensemble's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Cell = str | int | float


def render(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(heads), *texts]) for column in range(len(heads))]
    right = [bool(rows) and all(isinstance(row[column], (int, float)) for row in rows) for column in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *texts]
    return "\n".join(_line(line, widths, right) for line in lines)


def members(answer: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Who contributed and what each was paid, in msat; `names` calls nodes by something shorter."""
    heads = ("member", "node", "price", "paid", "fee", "credit", "payment hash", "s", "result")
    rows = [
        (
            member["model"],
            names.get(member["node_id"], member["node_id"][:12] or "-"),
            member["charged_msat"],
            member["paid_msat"],
            member["fee_msat"],
            member["credit_msat"],
            member["payment_hash"][:16] or "-",
            float(member["seconds"]),
            member["complaint"] or ("ok" if member["ok"] else member["error"]),
        )
        for member in answer["members"]
    ]
    spent = f"{answer['paid_msat']:,} msat left the wallet, of a budget of {answer['budget_msat']:,} msat"
    return f"{render(heads, rows)}\n{spent} ({answer['network']})"


def bill(lines: Sequence[Mapping[str, Any]]) -> str:
    """What was bought from whom, in msat, and the sums."""
    heads = ("seller", "model", "answers", "failed", "charged", "paid", "fees", "credit left", "disputes")
    keys = ("answers", "failed", "charged_msat", "paid_msat", "fee_msat", "credit_msat", "disputes")
    rows = [(line["origin"], line["model"] or "-", *(line[key] for key in keys)) for line in lines]
    sums = ("together", "", *(sum(line[key] for line in lines) for key in keys))
    return render(heads, [*rows, sums])


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _line(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = zip(line, widths, right, strict=True)
    return "  ".join(text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in cells).rstrip()
