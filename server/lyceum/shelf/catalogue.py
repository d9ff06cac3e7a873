"""Specialists that can be fetched by name: `models/catalogue.toml`, which a wheel carries beside this module."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lyceum.errors import ConfigError
from lyceum.ports import Kind

PACKED = Path(__file__).with_name("catalogue.toml")
CHECKOUT = Path(__file__).resolve().parents[3] / "models" / "catalogue.toml"


@dataclass(frozen=True, slots=True)
class Entry:
    """`revision` and `sha256` are "" where the catalogue does not pin them; `tried`: this project ran it."""

    name: str
    field: str
    description: str
    repo: str
    file: str
    size_mb: int
    licence: str
    context: int
    quantisation: str
    tried: bool
    kind: Kind = "chat"
    topics: tuple[str, ...] = ()
    revision: str = ""
    sha256: str = ""
    prompt: str = ""


def load_catalogue(path: Path | None = None) -> Mapping[str, Entry]:
    path = path or (PACKED if PACKED.exists() else CHECKOUT)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return {
            name: Entry(name, **(table | {"topics": tuple(table.get("topics", ()))})) for name, table in found.items()
        }
    except (OSError, tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
        raise ConfigError(f"the catalogue {path} cannot be used: {error}") from None


def entry_of(file: Path, catalogue: Mapping[str, Entry]) -> Entry | None:
    """The entry that a file was fetched by, as far as its name tells."""
    return next((entry for entry in catalogue.values() if Path(entry.file).name == file.name), None)
