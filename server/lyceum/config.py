"""The server's TOML file as frozen values. Every mistake names the key, the file and the line.

The only module that reads a configuration; nothing below it knows that there is a file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from lyceum.errors import ConfigError
from lyceum.money import MAX_MSAT
from lyceum.ports import Kind, Price, Unit, Use

T = TypeVar("T")
TABLES = ("server", "model", "upstream", "ensemble")

STARTER = """\
# Lyceum server. Every key is shown with its default unless it is commented out.

[server]
host = "127.0.0.1"
port = 9402
# A reverse proxy before this server, by its address; its X-Forwarded-For then says who a client is. Without this
# clients behind a proxy cannot be told apart, so that no limit is kept for each.
# proxy = "127.0.0.1"
# The Lightning node's RPC socket. Without it every model is free.
node = "~/.lightning/bitcoin/lightning-rpc"
# The name that the tokens are sold for; letters a-z, digits, - and _.
service = "lyceum"
# Models together may take this much memory, in MB; the longest unused makes room for another. 0: no limit.
memory_mb = 0

# One table for each GGUF file. Name, description and topics default to the file's own metadata.
[[model]]
path = "models/austrian-economics/austrian-economics.Q8_0.gguf"
# name = "austrian-economics"
# description = "..."
# topics = ["prices", "money"]
n_ctx = 512          # tokens of prompt and answer together, for each request
max_tokens = 200     # the longest answer sold
n_gpu_layers = 0     # -1: all of them on the GPU
parallel = 8         # requests answered at once, each with its own n_ctx; fewer where memory would run short
queue = 16           # requests that may wait; more are told to come back
# kind = "chat"       # or "embedding", for POST /v1/embeddings
# lora = "adapter.gguf"            # an adapter over the model at `path`, which is loaded once for all of them
# system = "You are ..."           # a standing instruction, at your cost
# library = "texts/"               # a folder of .md, .txt and .pdf files to look questions up in
# library_use = "context"          # passages go into the prompt; "quote": a tiny model may only quote one of them
# embedder = "my-embedder"         # the name of an embedding model here, to find passages by meaning as well
# refusal = "Not my field."        # what is said, free, of a question outside the field; default: the file's own
# doubt = 0.2                      # least probability of each of the first tokens of an answer that is trusted
# Prices in msat. unit: "char" (the buyer can recount) or "token".
unit = "char"
base_msat = 100
input_per_1k_msat = 200
output_per_1k_msat = 1000

# A model whose answers other servers write: vLLM, Ray Serve, llama-server, Ollama, or `lyceum serve` without a node.
# [[upstream]]
# name = "large"                           # what it is called here
# urls = ["http://10.0.0.2:8000/v1"]       # one or more; the least busy of those that are well is asked
# model = "org/large-instruct"             # its name there; default: ours, or the only one that is listed
# key_env = "LARGE_KEY"                    # the environment variable that holds the key to send
# supports = ["schema", "logprobs"]        # of schema, grammar, min_p, logprobs; what is not named here is refused
# parallel = 32                            # requests under way at once, over all urls
# connect_s = 5                            # seconds to wait for a connection,
# first_token_s = 60                       # for the first piece of an answer,
# between_tokens_s = 20                    # and for each further one
# n_ctx, max_tokens, queue, kind, description, topics and prices are as for a [[model]]

# A model that asks the models above and those of other sellers, and pays them.
# [ensemble]
# name = "ensemble"
# peers = ["https://specialists.example"]
# budget_msat = 10000      # the most it spends on one answer, routing fees included
# base_msat = 12000        # what it costs to ask it; more than the budget, or you pay for your buyers
"""


@dataclass(frozen=True, slots=True)
class ServerTable:
    host: str = "127.0.0.1"
    port: int = 9402
    proxy: str = ""
    node: str = ""
    service: str = "lyceum"
    memory_mb: int = 0


class Sold:
    """What the table of anything that is sold has in common."""

    __slots__ = ()
    unit: str
    base_msat: int
    input_per_1k_msat: int
    output_per_1k_msat: int

    def price(self) -> Price:
        return Price(self.base_msat, self.input_per_1k_msat, self.output_per_1k_msat, Unit(self.unit))


@dataclass(frozen=True, slots=True)
class ModelTable(Sold):
    path: str
    name: str = ""
    description: str = ""
    topics: list[str] = field(default_factory=list)
    n_ctx: int = 2048
    max_tokens: int = 512
    n_gpu_layers: int = 0
    threads: int = 0
    parallel: int = 8
    queue: int = 16
    kind: Kind = "chat"
    lora: str = ""
    lora_scale: float = 1.0
    system: str = ""
    library: str = ""
    library_use: Use = "context"
    embedder: str = ""
    refusal: str = ""
    doubt: float = -1.0
    unit: str = "char"
    base_msat: int = 0
    input_per_1k_msat: int = 0
    output_per_1k_msat: int = 0


@dataclass(frozen=True, slots=True)
class UpstreamTable(Sold):
    name: str
    urls: list[str]
    model: str = ""
    key_env: str = ""
    supports: list[str] = field(default_factory=list)
    description: str = ""
    topics: list[str] = field(default_factory=list)
    kind: Kind = "chat"
    n_ctx: int = 2048
    max_tokens: int = 512
    parallel: int = 32
    queue: int = 16
    connect_s: int = 5
    first_token_s: int = 60
    between_tokens_s: int = 20
    unit: str = "char"
    base_msat: int = 0
    input_per_1k_msat: int = 0
    output_per_1k_msat: int = 0


@dataclass(frozen=True, slots=True)
class EnsembleTable:
    name: str = "ensemble"
    peers: list[str] = field(default_factory=list)
    budget_msat: int = 10_000
    patience_s: int = 30
    base_msat: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """`directory` is the file's own: relative model paths start there."""

    directory: Path
    server: ServerTable
    models: tuple[ModelTable, ...]
    ensemble: EnsembleTable | None
    upstreams: tuple[UpstreamTable, ...] = ()

    def path(self, written: str) -> Path:
        """A path as the file means it."""
        return self.directory / Path(written).expanduser()

    def index_path(self, name: str) -> Path:
        """Where the index of the library of the model called `name` is kept."""
        return self.directory / ".lyceum" / f"{name.replace('/', '-')}.sqlite3"


def load(path: Path) -> Config:
    """Raises ConfigError naming the key, the file and the line."""
    try:
        source = path.read_text(encoding="utf-8")
        found = tomllib.loads(source)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; `lyceum init` writes a starter file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return _Reader(path, source).config(found)


class _Reader:
    """Checks tables against the dataclasses above."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._lines = source.splitlines()

    def config(self, found: Mapping[str, Any]) -> Config:
        unknown = next((key for key in found if key not in TABLES), None)
        if unknown:
            raise self._error(unknown, f"unknown table or key {unknown!r}; known: {', '.join(TABLES)}")
        config = Config(
            self._path.resolve().parent,
            self._table(ServerTable, found.get("server", {}), "server"),
            self._tables(ModelTable, found, "model"),
            self._table(EnsembleTable, found["ensemble"], "ensemble") if "ensemble" in found else None,
            self._tables(UpstreamTable, found, "upstream"),
        )
        if not (config.models or config.upstreams or config.ensemble):
            raise ConfigError(f"{self._path}: nothing to serve: add a [[model]], an [[upstream]] or an [ensemble]")
        return config

    def _tables(self, kind: type[T], found: Mapping[str, Any], name: str) -> tuple[T, ...]:
        tables = found.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._error(name, f"write each {name} as its own [[{name}]] table")
        return tuple(self._table(kind, table, name, number) for number, table in enumerate(tables))

    def _table(self, kind: type[T], found: Any, table: str, number: int = 0) -> T:
        known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
        hints = get_type_hints(kind)
        if not isinstance(found, dict):
            raise self._error(table, f"{table} must be a table")
        for key, value in found.items():
            if key not in known:
                raise self._error(key, f"unknown key {key!r}; known in [{table}]: {', '.join(known)}", table, number)
            wrong = _wrong(value, hints[key], key)
            if wrong:
                raise self._error(key, wrong, table, number)
        missing = [name for name, entry in known.items() if _required(entry) and name not in found]
        if missing:
            raise self._error("", f"[{table}] lacks {', '.join(missing)}", table, number)
        return kind(**found)

    def _error(self, key: str, message: str, table: str = "", number: int = 0) -> ConfigError:
        return ConfigError(f"{self._path}, line {self._line(key, table, number)}: {message}")

    def _line(self, key: str, table: str, number: int) -> int:
        """Where `key` stands in the given table; the table's header when there is no key."""
        header = re.compile(rf"\s*\[\[?\s*{re.escape(table)}\s*\]")
        starts = [at for at, line in enumerate(self._lines) if table and header.match(line)]
        start = starts[number] if number < len(starts) else 0
        entry = re.compile(rf'\s*\[*\s*"?{re.escape(key)}"?\s*[=\].]')
        lines = range(start, len(self._lines)) if key else ()
        return next((at for at in lines if entry.match(self._lines[at])), start) + 1


def _required(entry: Any) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _wrong(value: Any, hint: Any, key: str) -> str:
    """Why `value` cannot be the value of `key`; empty if it can."""
    if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        return f"{key} must be a whole number, not {value!r}"
    if hint is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        return f"{key} must be a number, not {value!r}"
    if hint in (str, Kind, Use) and not isinstance(value, str):
        return f"{key} must be text in quotes, not {value!r}"
    if hint == list[str] and not (isinstance(value, list) and all(isinstance(entry, str) for entry in value)):
        return f"{key} must be a list of texts, not {value!r}"
    range_text, within = BOUNDS.get(key, ("", lambda _: True))
    return "" if within(value) else f"{key} = {value!r} is out of range: {range_text}"


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


BOUNDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "port": ("1 to 65535, or 0 for any free one", lambda value: 0 <= value <= 65535),
    "proxy": ("the IP address of your reverse proxy", _is_address),
    "service": (
        "1 to 32 of a-z, 0-9, - and _",
        lambda value: re.fullmatch(r"[a-z0-9_-]{1,32}", value) is not None,
    ),
    "name": (
        "1 to 64 of A-Z, a-z, 0-9 and . _ / -",
        lambda value: re.fullmatch(r"[A-Za-z0-9._/-]{1,64}", value) is not None,
    ),
    "unit": ('"char" or "token"', lambda value: value in set(Unit)),
    "kind": ('"chat" or "embedding"', lambda value: value in get_args(Kind)),
    "library_use": ('"context" or "quote"', lambda value: value in get_args(Use)),
    "lora_scale": ("-100 to 100", lambda value: -100 <= value <= 100),
    "doubt": ("0 to below 1, a probability", lambda value: 0 <= value < 1),
    "memory_mb": ("0 (no limit) or more", lambda value: value >= 0),
    "n_ctx": ("64 to 1048576 tokens", lambda value: 64 <= value <= 1 << 20),
    "max_tokens": ("1 to 1048576 tokens", lambda value: 1 <= value <= 1 << 20),
    "n_gpu_layers": ("-1 (all) or more", lambda value: value >= -1),
    "threads": ("0 (chosen for the machine) to 256", lambda value: 0 <= value <= 256),
    "queue": ("1 to 10000 requests", lambda value: 1 <= value <= 10_000),
    "parallel": ("1 to 10000 requests", lambda value: 1 <= value <= 10_000),
    **dict.fromkeys(
        ("patience_s", "connect_s", "first_token_s", "between_tokens_s"),
        ("1 to 600 seconds", lambda value: 1 <= value <= 600),
    ),
    **dict.fromkeys(
        ("base_msat", "input_per_1k_msat", "output_per_1k_msat", "budget_msat"),
        (f"0 to {MAX_MSAT} msat", lambda value: 0 <= value <= MAX_MSAT),
    ),
}
