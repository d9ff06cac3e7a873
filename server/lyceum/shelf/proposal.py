"""A GGUF file as a model table: what it says itself, and what suits this machine.

`arguments.RULES` states the rules to the person who runs `lyceum models add --help`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from lyceum.config import BOUNDS, ModelTable
from lyceum.engine import Card, free_memory_bytes, read_card
from lyceum.errors import ConfigError, ModelError
from lyceum.host import slug
from lyceum.ports import Use
from lyceum.shelf import amounts
from lyceum.shelf.catalogue import Entry, entry_of

LONGEST_CONTEXT = 8192
USUAL_CONTEXT = 4096
STEP = 64
LONGEST_ANSWER = 1024
SMALL_CONTEXT = 1024
"""A model trained on no more than this cannot read passages; it can only choose one to quote."""

BASE_MSAT, IN_MSAT, OUT_MSAT = 100, 200, 1000
"""For each started GB of the file."""

DEFAULTS: Mapping[str, Any] = {
    each.name: [] if each.default is MISSING else each.default for each in fields(ModelTable)
}
MOST_TOPICS = 12
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person said; None and "" leave it to the rules. `price`: base, per 1,000 read, per 1,000 written."""

    file: Path
    name: str = ""
    library: Path | None = None
    use: Use | None = None
    system: str = ""
    lora: Path | None = None
    price: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """`values` is what to write; `card` what the file says; `needed` and `free` are bytes of memory."""

    name: str
    description: str
    topics: tuple[str, ...]
    values: Mapping[str, Any]
    card: Card
    needed: int
    free: int | None


def propose(wish: Wish, catalogue: Mapping[str, Entry]) -> Proposal:
    """Paths in `values` are full. Raises ModelError for a file that cannot be used, ConfigError for a bad wish."""
    card = read_card(wish.file)
    source = read_card(wish.lora) if wish.lora else card
    entry = entry_of(source.path, catalogue)
    name = wish.name or _name(wish, source, entry)
    _check_name(name)
    embedding = bool(card.pooling or (entry and entry.kind == "embedding"))
    if embedding and (wish.library or wish.system):
        raise ConfigError(
            f"{wish.file} makes embeddings: it answers nothing, so it takes no library and no system text"
        )
    free = free_memory_bytes()
    n_ctx = context_for(card, free, embedding)
    base, read, written = wish.price or price_for(card.size_bytes, embedding)
    description, topics = _field(wish, source, entry)
    table = ModelTable(
        path=str(wish.file.resolve()),
        name=name if name != slug(card.name) else "",
        description="" if description == card.description else description,
        topics=[] if topics == card.tags else list(topics),
        n_ctx=n_ctx,
        max_tokens=DEFAULTS["max_tokens"] if embedding else min(LONGEST_ANSWER, n_ctx * 3 // 8),
        parallel=DEFAULTS["parallel"] if embedding else parallel_for(card, n_ctx, free),
        kind="embedding" if embedding else "chat",
        lora=str(wish.lora.resolve()) if wish.lora else "",
        system=wish.system,
        library=str(wish.library.resolve()) if wish.library else "",
        library_use=_use(wish, card),
        base_msat=base,
        input_per_1k_msat=read,
        output_per_1k_msat=written,
    )
    needed = card.memory_bytes(n_ctx, table.parallel, embedding)
    return Proposal(name, description, topics, _said(table), card, needed, free)


def context_for(card: Card, free: int | None, embedding: bool = False) -> int:
    """As long as it was trained for, this machine's free memory holds, and is usual."""
    wanted = min(LONGEST_CONTEXT, card.n_ctx_train or USUAL_CONTEXT)
    if free is None:
        return wanted
    fitting = card.fitting_tokens(free, embedding)
    if min(wanted, fitting) < STEP:
        needed = amounts.size(card.memory_bytes(STEP, pooled=embedding))
        raise ModelError(
            f"{card.path} needs {needed} of memory and {amounts.size(free)} are free; take a smaller model or"
            " quantisation"
        )
    return wanted if wanted <= fitting else int(fitting // STEP * STEP)


def parallel_for(card: Card, n_ctx: int, free: int | None) -> int:
    """As many at once as is usual, or as the memory holds."""
    usual: int = DEFAULTS["parallel"]
    fitting = (n for n in range(usual, 1, -1) if free is None or card.memory_bytes(n_ctx, n) <= free)
    return next(fitting, 1)


def price_for(size: int, embedding: bool) -> tuple[int, int, int]:
    """msat: base, per 1,000 characters read, per 1,000 written."""
    started = -(-size // 10**9)
    return BASE_MSAT * started, IN_MSAT * started, 0 if embedding else OUT_MSAT * started


def _name(wish: Wish, source: Card, entry: Entry | None) -> str:
    if wish.library and not source.description:
        return slug(wish.library.resolve().name)
    return entry.name if entry else slug(source.name)


def _check_name(name: str) -> None:
    rule, fits = BOUNDS["name"]
    if not fits(name):
        raise ConfigError(f"{name!r} is no name for a model: {rule}")


def _field(wish: Wish, source: Card, entry: Entry | None) -> tuple[str, tuple[str, ...]]:
    """Description and topics: of a file that describes itself, of the library, of the catalogue, or of its title."""
    if wish.library and not source.description:
        folder = wish.library.resolve()
        return f"answers from the texts in {folder.name}", _words([folder.name, *_titles(folder)])
    description = source.description or (entry.description if entry else source.name)
    topics = source.tags or (entry.topics if entry else _words([source.name]))
    return description, topics


def _titles(folder: Path) -> list[str]:
    return [path.stem for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def _words(titles: list[str]) -> tuple[str, ...]:
    words = dict.fromkeys(word.lower() for title in titles for word in _WORD.findall(title))
    return tuple(words)[:MOST_TOPICS]


def _use(wish: Wish, card: Card) -> Use:
    if not wish.library:
        return "context"
    return wish.use or ("quote" if 0 < card.n_ctx_train <= SMALL_CONTEXT else "context")


def _said(table: ModelTable) -> dict[str, Any]:
    """Only what differs from the default."""
    values = {name: getattr(table, name) for name in DEFAULTS}
    return {name: value for name, value in values.items() if name == "path" or value != DEFAULTS[name]}
