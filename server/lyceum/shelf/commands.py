"""The subcommands of `lyceum models`: options in, a table or one JSON object out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lyceum import config as configuration
from lyceum import tables
from lyceum.config import Config, ModelTable, ServerTable
from lyceum.engine import Engine, Fleet, read_card
from lyceum.errors import ConfigError, ModelError
from lyceum.host import limits_of, name_of, settings_of
from lyceum.library import Index, Refreshed
from lyceum.ports import Offer
from lyceum.shelf import amounts, listing, source
from lyceum.shelf.catalogue import Entry, load_catalogue
from lyceum.shelf.configfile import ConfigFile, render
from lyceum.shelf.fetch import fetch
from lyceum.shelf.probe import probe
from lyceum.shelf.progress import Bar
from lyceum.shelf.proposal import Proposal, Wish, propose

DIGEST_SHOWN = 12
WIDE = 44
TOPICS_SHOWN = 12


# list


def list_models(options: Any) -> int:
    if options.catalogue:
        return _list_catalogue(options)
    rows = list(listing.rows(configuration.load(options.config)))
    if options.json:
        print(json.dumps({"models": [row.as_json() for row in rows]}))
        return 0
    heads = ("model", "field", "file", "type", "size", "context", "price (base/in/out)", "sha256")
    print(tables.render(heads, [_row(row) for row in rows]))
    for row in rows:
        if row.error:
            print(f"\n{row.name} cannot be served: {row.error}")
    return 0


def _row(row: listing.Row) -> tuple[str | int, ...]:
    found = row.as_json()
    price = found["price"]
    return (
        row.name,
        _short(found["description"]),
        Path(row.table.path).name,
        found["quantisation"] or "-",
        amounts.size(found["size_bytes"]) if row.card else "-",
        row.table.n_ctx,
        f"{price['base_msat']}/{price['input_per_1k_msat']}/{price['output_per_1k_msat']} per 1k {price['unit']}",
        "BROKEN" if row.error else row.digest[:DIGEST_SHOWN],
    )


def _list_catalogue(options: Any) -> int:
    entries = load_catalogue().values()
    if options.json:
        print(json.dumps({"catalogue": [_entry(entry) for entry in entries]}))
        return 0
    heads = ("name", "field", "size", "type", "context", "licence", "repository")
    print(tables.render(heads, [_entry_row(entry) for entry in entries]))
    print("\nNot one of these was run by this project, and sizes are approximate. Fetch one: lyceum models pull NAME")
    return 0


def _entry_row(entry: Entry) -> tuple[str | int, ...]:
    size = amounts.size(entry.size_mb * 10**6)
    return entry.name, entry.field, size, entry.quantisation, entry.context, entry.licence, entry.repo


def _entry(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__slots__}


# pull


def pull(options: Any) -> int:
    folder = options.to or options.config.parent / "models"
    found = source.find(options.what, load_catalogue(), options.sha256.lower())
    if not options.json:
        print(f"{found.url}\n  to {folder / found.file}")
    try:
        with Bar(found.file) as bar:
            fetched = fetch(found, folder, bar.show)
    except KeyboardInterrupt:
        print(
            f"lyceum: stopped; what came is kept in {folder / found.file}.part: the same command goes on",
            file=sys.stderr,
        )
        raise
    if options.json:
        print(json.dumps({
            "file": str(fetched.path), "url": found.url, "size_bytes": fetched.size, "sha256": fetched.sha256,
            "checked_against": found.stated_by, "resumed_at": fetched.resumed_at,
        }))  # fmt: skip
        return 0
    print(f"{amounts.size(fetched.size)}, SHA-256 {fetched.sha256}")
    if found.stated_by:
        print(f"as {found.stated_by} states")
    else:
        print("UNCHECKED: nobody states a SHA-256 for this file; compare it with the publisher's")
    print(f"next: lyceum models add {fetched.path}{_config_option(options)}")
    return 0


# add


def add(options: Any) -> int:
    if (options.file is None) == (options.base is None):
        raise ConfigError("name one GGUF file: lyceum models add FILE, or --base FILE")
    wish = Wish(
        options.file or options.base,
        options.name,
        options.library,
        options.use,
        options.system,
        options.lora,
        options.price,
    )
    _check_folder(wish.library)
    file = ConfigFile(options.config)
    proposal = propose(wish, load_catalogue())
    values = _as_written(proposal.values, file)
    known = file.find(proposal.name)
    if known and _same_library(known, values):
        return _finish(options, file, proposal, {"refreshed": str(options.config)})
    if known:
        raise ConfigError(
            f"{file.path} has a model {proposal.name!r} already: give this one another --name, or remove that"
        )
    _try_out(values, proposal.name, file.config)
    if not options.json:
        _show(proposal, values, file)
    if not (options.yes or _agreed(options)):
        print("nothing was written")
        return 0
    file.add(values)
    return _finish(options, file, proposal, {"written": str(options.config), "model": {"name": proposal.name} | values})


def _check_folder(library: Path | None) -> None:
    if library and not library.is_dir():
        raise ConfigError(f"there is no folder {library}; name a folder of .md, .txt and .pdf files")


def _as_written(values: Mapping[str, Any], file: ConfigFile) -> dict[str, Any]:
    paths = {key: file.written(Path(values[key])) for key in ("path", "lora", "library") if key in values}
    return {**values, **paths}


def _same_library(known: ModelTable, values: Mapping[str, Any]) -> bool:
    return bool(known.library) and (known.path, known.library) == (values["path"], values.get("library"))


def _try_out(values: Mapping[str, Any], name: str, config: Config) -> None:
    """What can be told without loading the model: raises ModelError or ConfigError."""
    table = ModelTable(**values)
    if table.kind == "chat":
        Engine(settings_of(table, config), Offer(name, limits=limits_of(table)), Fleet())


def _show(proposal: Proposal, values: Mapping[str, Any], file: ConfigFile) -> None:
    card, free = proposal.card, proposal.free
    facts = [
        ("model", proposal.name),
        ("field", proposal.description),
        ("topics", _some(proposal.topics)),
        ("file", f"{card.quantisation or 'unknown type'}, {amounts.size(card.size_bytes)}, {card.architecture}"),
        ("licence", card.licence or "the file does not say"),
        (
            "memory",
            f"{amounts.size(proposal.needed)} needed{f', {amounts.size(free)} free' if free is not None else ''}",
        ),
    ]
    print("\n".join(f"{name:<8} {_line(text)}" for name, text in facts))
    print(f"\nfor {file.path}:\n\n{render(values)}")


def _agreed(options: Any) -> bool:
    if options.json or not sys.stdin.isatty():
        raise ConfigError("nothing was written: say --yes where nobody can be asked")
    return input(f"write this to {options.config}? [Y/n] ").strip().lower() in ("", "y", "yes")


def _finish(options: Any, file: ConfigFile, proposal: Proposal, said: dict[str, Any]) -> int:
    """The library, and what to do next."""
    done = _index(options.library, file.config.index_path(proposal.name)) if options.library else None
    if options.json:
        library = {"library": _counts(done)} if done else {}
        print(json.dumps({"name": proposal.name, **said, **library}))
        return 0
    if done:
        _show_library(options.library, done)
    print(f"next: lyceum models check {proposal.name}{_config_option(options)}")
    return 0


def _index(folder: Path, path: Path) -> Refreshed:
    index = Index.open(path)
    try:
        with Bar(f"reading {folder.name}", lambda count: f"{count:,}") as bar:
            return index.refresh(folder, lambda step: bar.show(step.done, step.total))
    finally:
        index.close()


def _counts(done: Refreshed) -> dict[str, Any]:
    return {name: getattr(done, name) for name in Refreshed.__slots__}


def _show_library(folder: Path, done: Refreshed) -> None:
    print(
        f"library {folder}: {done.passages:,} passages; files: {done.added} new, {done.changed} changed,"
        f" {done.removed} gone, {done.unchanged} unchanged"
    )
    for complaint in done.complaints:
        print(f"  not read: {complaint}")


# quantize


def quantize(options: Any) -> int:
    kind = options.type.upper()
    before = read_card(options.source)
    target = options.to or _renamed(options.source, before.quantisation, kind)
    if target.exists():
        raise ConfigError(f"{target} exists and is left as it is; name another file with --to")
    from lyceum.engine.native import quantise  # noqa: PLC0415, of all commands only this one needs llama.cpp here

    started = time.monotonic()
    with Bar(f"writing {target.name}", lambda count: f"{count:,} tensors") as bar:
        quantise(options.source, target, kind, report=bar.show)
    seconds = time.monotonic() - started
    after = read_card(target)
    if options.json:
        print(json.dumps({
            "source": str(options.source), "source_type": before.quantisation, "source_bytes": before.size_bytes,
            "target": str(target), "target_type": kind, "target_bytes": after.size_bytes, "seconds": round(seconds, 3),
        }))  # fmt: skip
        return 0
    rows = [
        ("before", str(options.source), before.quantisation or "-", amounts.size(before.size_bytes), "100 %"),
        (
            "after",
            str(target),
            kind,
            amounts.size(after.size_bytes),
            f"{100 * after.size_bytes // before.size_bytes} %",
        ),
    ]
    print(tables.render(("", "file", "type", "size", ""), rows))
    return 0


def _renamed(path: Path, old: str, new: str) -> Path:
    """law.F16.gguf becomes law.Q4_K_M.gguf, and law.gguf too."""
    stem = path.stem
    for mark in (f".{old}", f"-{old}", f"_{old}"):
        if old and stem.lower().endswith(mark.lower()):
            return path.with_name(f"{stem[: -len(mark)]}{mark[0]}{new}.gguf")
    return path.with_name(f"{stem}.{new}.gguf")


# check


def check(options: Any) -> int:
    table, config = _table(options)
    found = probe(table, config)
    fits = found.free is None or found.needed <= found.free
    if options.json:
        measured = {name: getattr(found, name) for name in type(found).__slots__}
        renamed = {"memory_needed_bytes": measured.pop("needed"), "memory_free_bytes": measured.pop("free")}
        print(json.dumps(measured | renamed | {"fits": fits}))
        return 0
    print(f"> {_line(found.question)}\n{_line(found.answer) or f'[a vector of {found.vector} numbers]'}\n")
    free = amounts.size(found.free) if found.free is not None else "unknown"
    rows = [
        ("loaded in", f"{found.load_s:.2f} s"),
        ("read", f"{found.prompt_tokens} tokens, {found.read_per_s:,.0f} a second"),
        ("written", f"{found.answer_tokens} tokens, {found.written_per_s:,.0f} a second"),
        ("memory needed", f"{amounts.size(found.needed)} with a context of {table.n_ctx:,} tokens"),
        ("memory free", f"{free}: it {'fits' if fits else 'does NOT fit'}"),
    ]
    print(tables.render((found.name, ""), rows))
    return 0


def _table(options: Any) -> tuple[ModelTable, Config]:
    """A configured model by its name, else a file as `add` would propose it."""
    path = Path(options.what)
    if options.config.exists():
        file = ConfigFile(options.config)
        if found := file.find(options.what):
            return found, file.config
        if not path.exists():
            return listing.table_of(options.what, file.config), file.config
    if not path.exists():
        raise ConfigError(f"there is neither a configuration {options.config} nor a file {options.what}")
    config = Config(path.resolve().parent, ServerTable(), (), None)
    return ModelTable(**propose(Wish(path), load_catalogue()).values), config


# remove


def remove(options: Any) -> int:
    file = ConfigFile(options.config)
    table = listing.table_of(options.name, file.config)
    config = file.config
    others = [other for other in config.models if other is not table]
    leaning = [name_of(other, config) for other in others if other.embedder == options.name]
    if leaning:
        raise ConfigError(f"{options.name} is the embedder of {', '.join(leaning)}: take out their `embedder` first")
    file.remove(table)
    deleted, kept = _delete(table, others, config, options.name) if options.delete_file else ([], _files(table, config))
    if options.json:
        print(json.dumps({"removed": options.name, "deleted": _texts(deleted), "kept": _texts(kept)}))
        return 0
    print(f"{options.name} is out of {options.config}")
    for path in deleted:
        print(f"deleted {path}")
    for path in kept:
        print(f"kept {path}")
    return 0


def _files(table: ModelTable, config: Config) -> list[Path]:
    return [config.path(path) for path in (table.path, table.lora) if path]


def _delete(
    table: ModelTable, others: Sequence[ModelTable], config: Config, name: str
) -> tuple[list[Path], list[Path]]:
    used = {path.resolve() for other in others for path in _files(other, config)}
    used |= {config.index_path(name_of(other, config)).resolve() for other in others}
    index = config.index_path(name)
    beside = [index, *(index.with_name(index.name + end) for end in ("-wal", "-shm"))]
    there = [path for path in (*_files(table, config), *beside) if path.exists()]
    kept = [path for path in there if path.resolve() in used]
    deleted = [path for path in there if path not in kept]
    for path in deleted:
        try:
            path.unlink()
        except OSError as error:
            raise ModelError(f"the table is out, but {path} cannot be deleted: {error.strerror}") from None
    return deleted, kept


# words


def _config_option(options: Any) -> str:
    return "" if options.config == Path("lyceum.toml") else f" --config {options.config}"


def _texts(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]


def _some(topics: Sequence[str]) -> str:
    more = f", and {len(topics) - TOPICS_SHOWN} more" if len(topics) > TOPICS_SHOWN else ""
    return ", ".join(topics[:TOPICS_SHOWN]) + more


def _short(text: str) -> str:
    line = _line(text)
    return line if len(line) <= WIDE else f"{line[: WIDE - 3]}..."


def _line(text: str) -> str:
    """What a file or a model says, without the control characters that may be in it."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


COMMANDS: Mapping[str, Callable[[Any], int]] = {
    "list": list_models,
    "pull": pull,
    "add": add,
    "quantize": quantize,
    "check": check,
    "remove": remove,
}
