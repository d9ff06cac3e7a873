"""The configured models one by one, the broken ones too, each with what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyceum.config import Config, ModelTable
from lyceum.engine import read_card
from lyceum.engine.card import Card, check_adapter, digest_of
from lyceum.errors import ConfigError, ModelError
from lyceum.host import name_of


@dataclass(frozen=True, slots=True)
class Row:
    """`error` is "" for a model that can be served, as far as its file tells."""

    name: str
    table: ModelTable
    card: Card | None
    digest: str
    error: str

    def as_json(self) -> dict[str, Any]:
        card, table = self.card, self.table
        return {
            "name": self.name,
            "kind": table.kind,
            "description": table.description or (card.description if card else ""),
            "topics": list(table.topics or (card.tags if card else ())),
            "file": table.path,
            "quantisation": card.quantisation if card else "",
            "licence": card.licence if card else "",
            "size_bytes": card.size_bytes if card else 0,
            "context_tokens": table.n_ctx,
            "trained_context_tokens": card.n_ctx_train if card else 0,
            "max_tokens": table.max_tokens,
            "memory_bytes": card.memory_bytes(table.n_ctx, table.parallel, table.kind == "embedding") if card else 0,
            "library": table.library,
            "lora": table.lora,
            "price": {
                "unit": table.unit,
                "base_msat": table.base_msat,
                "input_per_1k_msat": table.input_per_1k_msat,
                "output_per_1k_msat": table.output_per_1k_msat,
            },
            "digest": self.digest,
            "error": self.error,
        }


def rows(config: Config) -> Iterator[Row]:
    digests, seen = _Digests(config.directory / ".lyceum" / "digests.json"), set[str]()
    for table in config.models:
        name, card, digest, error = name_of(table, config), None, "", ""
        try:
            card = read_card(config.path(table.path))
            lora = config.path(table.lora) if table.lora else None
            digest = digests.of(card, lora)
            error = _fault(table, config, card, lora)
        except ModelError as fault:
            error = fault.message
        if name in seen:
            error = error or f"another model is called {name!r} too: give one of them another `name`"
        seen.add(name)
        yield Row(name, table, card, digest, error)
    digests.keep()


def _fault(table: ModelTable, config: Config, card: Card, lora: Path | None) -> str:
    if lora:
        check_adapter(lora, card)
    if table.library and not config.path(table.library).is_dir():
        return f"there is no folder {config.path(table.library)}; correct `library`"
    if 0 < card.n_ctx_train < table.n_ctx:
        return f"n_ctx is {table.n_ctx} and the model was trained on {card.n_ctx_train} tokens; lower n_ctx"
    if table.kind == "chat" and not card.chat_template:
        return 'it holds no chat template; set kind = "embedding", or take an instruction-tuned file'
    return ""


class _Digests:
    """SHA-256 of files that did not change since it was taken: gigabytes take seconds each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = {}
        self._used: dict[str, str] = {}
        with suppress(OSError, ValueError, TypeError):
            self._known = dict(json.loads(path.read_text(encoding="utf-8")))

    def of(self, card: Card, lora: Path | None) -> str:
        key = " ".join(_state(path) for path in (card.path, lora) if path)
        self._used[key] = self._known.get(key) or digest_of(card, lora)
        return self._used[key]

    def keep(self) -> None:
        """A folder that cannot be written only costs time."""
        if self._used == self._known:
            return
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            self._path.write_text(json.dumps(self._used), encoding="utf-8")


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    return f"{path.resolve()}:{found.st_size}:{found.st_mtime_ns}"


def table_of(name: str, config: Config) -> ModelTable:
    found = next((table for table in config.models if name_of(table, config) == name), None)
    if found is None:
        known = ", ".join(name_of(table, config) for table in config.models) or "none"
        raise ConfigError(f"there is no model {name!r} in the configuration; configured: {known}")
    return found
