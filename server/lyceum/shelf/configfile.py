"""Model tables into and out of a configuration file, as text: what else stands in it stays to the byte.

tomlkit says where a table begins and ends and how a new one is written. It does not write the file, because it
moves tables that do not stand together. Law: the new text replaces the old one in one step, and only if it parses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Comment, Item, Null, Whitespace

from lyceum import config
from lyceum.config import Config, ModelTable, ServerTable
from lyceum.errors import ConfigError
from lyceum.host import name_of

HEADER = re.compile(r"[ \t]*\[\[[ \t]*model[ \t]*\]\][^\n]*\n", re.ASCII)
FRESH = config.STARTER[: config.STARTER.index("# One table for each GGUF file")]
"""What a new file begins with."""


class ConfigFile:
    """`config` is what the file says now; it may not exist yet, or hold no model."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._source: str | None = None
        with suppress(FileNotFoundError):
            self._source = _read(path)
        tables = self._source is not None and re.search(r"^\s*\[+\s*(model|ensemble)\s*\]", self._source, re.MULTILINE)
        self.config = config.load(path) if tables else Config(path.resolve().parent, ServerTable(), (), None)

    @property
    def exists(self) -> bool:
        return self._source is not None

    def names(self) -> list[str]:
        return [name_of(table, self.config) for table in self.config.models]

    def find(self, name: str) -> ModelTable | None:
        tables = zip(self.names(), self.config.models, strict=True)
        return next((table for known, table in tables if known == name), None)

    def written(self, path: Path) -> str:
        """A path as it should stand in the file: relative to it when below it."""
        full, directory = path.expanduser().resolve(), self.config.directory
        return str(full.relative_to(directory)) if full.is_relative_to(directory) else str(full)

    def add(self, values: Mapping[str, Any]) -> None:
        before = FRESH if self._source is None else self._source
        gap = "" if before.endswith("\n\n") or not before else "\n" if before.endswith("\n") else "\n\n"
        self._replace(before + gap + render(values), check=True)

    def remove(self, table: ModelTable) -> None:
        """Takes the table out, with the comments in it; a comment after an empty line belongs to what follows."""
        source = self._source or ""
        start, end = _spans(source)[self.config.models.index(table)]
        self._replace(source[:start] + source[end:].lstrip("\n"), check=False)

    def _replace(self, text: str, check: bool) -> None:
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(text, encoding="utf-8")
            if check:
                config.load(fresh)
            if self.exists:
                fresh.chmod(self.path.stat().st_mode & 0o777)
            os.replace(fresh, self.path.resolve())  # noqa: PTH105 (a link stays one)
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from None
        except ConfigError as error:
            raise ConfigError(f"nothing was written: {error.message.replace(str(fresh), str(self.path))}") from None
        finally:
            fresh.unlink(missing_ok=True)
        self._source = text


def render(values: Mapping[str, Any]) -> str:
    """The TOML of one [[model]] table."""
    table = tomlkit.table()
    for key, value in values.items():
        many_lines = isinstance(value, str) and "\n" in value
        table.add(key, tomlkit.string(value, multiline=True) if many_lines else value)
    tables = tomlkit.aot()
    tables.append(table)
    document = tomlkit.document()
    document.add("model", tables)
    return tomlkit.dumps(document)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def _spans(source: str) -> list[tuple[int, int]]:
    """Where each [[model]] table stands: from its header to the end of its last key's line."""
    try:
        tables = tomlkit.parse(source).get("model", [])
    except TOMLKitError as error:
        raise ConfigError(f"not valid TOML: {error}") from None
    spans, at = [], 0
    for table in tables:
        body = table.as_string()
        header = _header_before(source, body, at)
        start = header.end()
        spans.append((header.start(), start + len(body) - len(_trailing(table))))
        at = start + len(body)
    return spans


def _header_before(source: str, body: str, at: int) -> re.Match[str]:
    for header in HEADER.finditer(source, at):
        if source.startswith(body, header.end()):
            return header
    raise ConfigError("cannot find the model's table in the file; take it out by hand")


def _trailing(table: Any) -> str:
    """What follows the last key: from the first empty line on."""
    tail: list[Item] = []
    for _, item in reversed(table.value.body):
        if not isinstance(item, Comment | Whitespace | Null):
            break
        tail.insert(0, item)
    text = "".join(item.as_string() for item in tail)
    empty = re.search(r"^[ \t]*\n", text, re.MULTILINE)
    return text[empty.start() :] if empty else ""
