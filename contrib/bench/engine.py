"""How fast are answers for many buyers at once, beside llama.cpp's own servers and the bare batched loop?

    python contrib/bench/engine.py [--llama-cpp-python PYTHON] [--libraries FOLDER] [--rounds 5] [--json]

Rules. All servers hold the same GGUF file with the same threads, and only one is under load at a time. All get the
same prompts, greedy, with the same limit, which every answer reaches: the large model of random weights never says
its end token, and the tiny one is asked only what it answers at length. Clients ask one question after another over
their own connections. Rounds are interleaved: every server has its turn before any has its next. Figures are
medians over rounds, and comparisons medians of what each round says. Rates count the tokens that arrived.
Comparisons are void unless all libraries have the same kernels: `same_kernels`, from llama.cpp's system-info lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from progress import Progress
from serving import weights
from serving.figures import figures, stall
from serving.load import Joining
from serving.rivals import (
    BARE,
    GATED,
    LLAMA_CPP,
    LLAMA_SERVER,
    NAMES,
    OURS,
    STARTERS,
    Bare,
    Rival,
    Server,
    Size,
    Tools,
    beside,
    found_llama_server,
    kernels,
    systems,
    wait_idle,
)

from lyceum import tables
from lyceum.errors import LyceumError

CLIENTS = (1, 4, 8, 16, 32)
ANSWERS = {1: 4, 4: 2, 8: 2}
"""Questions that each client asks; one where it is not said."""

TOKENS = 24
REPEATS = {"tiny": 4, "large": 1}
"""The tiny model answers so fast that each client asks this many times as much."""

LONG_PROMPT = 2000
QUIET_PIECES = 24
STREAMED = 96


class Bench:
    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        server = found_llama_server(options.llama_server)
        libraries = options.libraries or beside(server)
        self.tools = Tools(server, options.llama_cpp_python, libraries, directory)
        self.left_out = left_out(options, server)
        self.names = [name for name in options.servers if name not in self.left_out]
        self.rows: list[dict[str, Any]] = []
        self.progress = Progress(list(self._cells()))
        for name, why in self.left_out.items():
            print(f"LEFT OUT: {name}: {why}", file=sys.stderr)

    def run(self) -> dict[str, Any]:
        sizes = [self._size(name) for name in self.options.sizes]
        found = systems(self.tools, sizes[0])
        for name, line in found.items():
            print(f"{name}: {line or 'SAYS NOTHING ABOUT ITS KERNELS'}", file=sys.stderr)
        for size in sizes:
            self._measure(size)
        return summary(self.rows, found) | {"left_out": self.left_out, "systems": found, "rows": self.rows}

    def _measure(self, size: Size) -> None:
        with ExitStack() as stack:
            rivals: list[Rival] = [STARTERS[name](stack, size, self.tools) for name in self.names]
            book = Prompts(size.name, rivals, self.options.tokens)
            for rival in rivals:
                asyncio.run(rival.burst(book.rows(1, 1), book.tokens))
            for number in range(self.options.rounds):
                order = rivals[number % len(rivals) :] + rivals[: number % len(rivals)]
                for clients in self.options.clients:
                    for rival in order:
                        self._cell(size, rival, clients, number, book)
                if size.name == "large" and not self.options.no_long_prompt:
                    for rival in order:
                        if rival.name in (OURS, LLAMA_SERVER):
                            self._long_prompt(size, rival, number, book)

    def _cell(self, size: Size, rival: Rival, clients: int, number: int, book: Prompts) -> None:
        prompts = book.rows(clients, ANSWERS.get(clients, 1) * REPEATS[size.name])
        wait_idle()
        began = time.perf_counter()
        answers = asyncio.run(rival.burst(prompts, book.tokens))
        self.progress.add((size.name, rival.name, str(clients)), time.perf_counter() - began)
        memory_mb = rival.memory_mb()
        self.rows.append(
            {"size": size.name, "server": rival.name, "clients": clients, "round": number}
            | figures(answers, book.tokens)
            | {"memory_mb": round(memory_mb), "memory_mb_per_sequence": round(memory_mb / rival.sequences, 2)}
        )

    def _long_prompt(self, size: Size, rival: Rival, number: int, book: Prompts) -> None:
        assert isinstance(rival, Server)  # noqa: S101
        streams = [row[0] for row in book.rows(8, 1)]
        plan = Joining(streams, STREAMED, QUIET_PIECES, book.long())
        wait_idle()
        began = time.perf_counter()
        answers, late = asyncio.run(rival.joined(plan))
        self.progress.add((size.name, rival.name, "long prompt"), time.perf_counter() - began)
        row = {"size": size.name, "server": rival.name, "clients": "8 + long prompt", "round": number}
        self.rows.append(row | stall(answers, late, QUIET_PIECES))

    def _size(self, name: str) -> Size:
        options = self.options
        layers = options.gpu_layers
        if name == "tiny":
            return Size(name, weights.TINY, 256, 8192, options.threads_tiny, layers)
        return Size(name, weights.large(), 2304, 7168, options.threads_large, layers)

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for size in self.options.sizes:
            for _ in range(self.options.rounds):
                yield from ((size, name, str(clients)) for clients in self.options.clients for name in self.names)
                if size == "large" and not self.options.no_long_prompt:
                    yield from ((size, name, "long prompt") for name in self.names if name in (OURS, LLAMA_SERVER))


class Prompts:
    """What is asked. The large model's prompts are of 24 letters and differ from the first one on, so that nobody's
    cache of prompts helps; the tiny one's are questions of its corpus that it answers with enough tokens."""

    def __init__(self, size: str, rivals: Sequence[Rival], tokens: int) -> None:
        self.tokens = tokens
        self._dice = random.Random(1)  # noqa: S311
        self._questions: list[str] = []
        if size == "tiny":
            bare = next((rival for rival in rivals if isinstance(rival, Bare)), None)
            self._questions = long_answers(bare, tokens)

    def rows(self, clients: int, each: int) -> list[list[str]]:
        return [[self._next() for _ in range(each)] for _ in range(clients)]

    def long(self) -> str:
        return self._letters(LONG_PROMPT)

    def _next(self) -> str:
        return self._dice.choice(self._questions) if self._questions else self._letters(24)

    def _letters(self, count: int) -> str:
        return "".join(self._dice.choices("abcdefghijklmnop", k=count))


def long_answers(bare: Bare | None, tokens: int) -> list[str]:
    """Questions of the tiny model's corpus that it answers with at least `tokens` tokens."""
    facts = tomllib.loads((weights.TINY.parent / "corpus" / "facts.toml").read_text(encoding="utf-8"))["fact"]
    questions = [phrasing for fact in facts for phrasing in fact["phrasings"][:2]]
    if bare is None:
        return questions
    lengths = bare.call({"lengths": questions, "tokens": tokens})
    return [question for question, length in zip(questions, lengths, strict=True) if length >= tokens]


# What it comes to


def summary(rows: Sequence[dict[str, Any]], found: dict[str, str]) -> dict[str, Any]:
    """What the goals are about; None for what was not measured."""
    lines = [kernels(line) for line in found.values()]
    gate = ratio(rows, "large", GATED, OURS)
    stalls = picked(rows, "large", OURS, "8 + long prompt", "itl_p99_ratio")
    return {
        "vs_llama_server_8": ratio(rows, "large", OURS, LLAMA_SERVER),
        "vs_llama_server_8_tiny": ratio(rows, "tiny", OURS, LLAMA_SERVER),
        "same_kernels": int(len(lines) > 1 and all(lines) and len(set(lines)) == 1),
        "vs_llama_cpp_server_8": ratio(rows, "large", OURS, LLAMA_CPP),
        "vs_bare_loop_large": ratio(rows, "large", OURS, BARE),
        "gate_cost_percent": None if gate is None else round((1 - gate) * 100, 1),
        "itl_p99_ratio_long_prompt": median(stalls),
        "fairness_8": median(picked(rows, "large", OURS, 8, "fairness")),
    }


def ratio(rows: Sequence[dict[str, Any]], size: str, one: str, other: str) -> float | None:
    """Tokens a second at 8 clients, the one's over the other's; the median over rounds."""
    pairs = zip(picked(rows, size, one, 8, "tokens_per_s"), picked(rows, size, other, 8, "tokens_per_s"), strict=False)
    return median([mine / theirs for mine, theirs in pairs if theirs])


def picked(rows: Sequence[dict[str, Any]], size: str, server: str, clients: int | str, figure: str) -> list[float]:
    """One figure of each round, in order."""
    wanted = (size, server, clients)
    return [row[figure] for row in rows if (row["size"], row["server"], row["clients"]) == wanted and figure in row]


def median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 3) if known else None


def report(found: dict[str, Any]) -> str:
    parts = [bursts(found["rows"]), stalls_table(found["rows"])]
    figure = [(name, "-" if found[name] is None else f"{found[name]:g}") for name in GOALS]
    goals = [(name, value, GOALS[name]) for name, value in figure]
    parts.append(tables.render(("figure", "measured", "goal"), goals))
    if not found["same_kernels"]:
        parts.append("VOID AS A COMPARISON: the libraries have not the same kernels (see the lines above).")
    parts.extend(f"LEFT OUT: {name}: {why}" for name, why in found["left_out"].items())
    return "\n\n".join(part for part in parts if part)


GOALS = {
    "vs_llama_server_8": "at least 0.95",
    "vs_llama_server_8_tiny": "at least 0.8",
    "same_kernels": "1",
    "vs_llama_cpp_server_8": "at least 2.5",
    "vs_bare_loop_large": "at least 0.9",
    "gate_cost_percent": "under 3",
    "itl_p99_ratio_long_prompt": "under 3",
    "fairness_8": "at least 0.9",
}
COLUMNS = {
    "tokens/s": "tokens_per_s",
    "first p50 ms": "ttft_ms_p50",
    "first p99 ms": "ttft_ms_p99",
    "between p99 ms": "itl_ms_p99",
    "fairness": "fairness",
    "MB a sequence": "memory_mb_per_sequence",
}


def bursts(rows: Sequence[dict[str, Any]]) -> str:
    cells = dict.fromkeys((row["size"], row["clients"], row["server"]) for row in rows if row["clients"] in CLIENTS)
    lines = []
    for size, clients, server in cells:
        medians = [median(picked(rows, size, server, clients, figure)) for figure in COLUMNS.values()]
        wrong = sum(map(int, picked(rows, size, server, clients, "wrong")))
        lines.append((size, clients, server, *(0.0 if value is None else value for value in medians), wrong))
    return tables.render(("model", "clients", "server", *COLUMNS, "wrong"), lines) if lines else ""


def stalls_table(rows: Sequence[dict[str, Any]]) -> str:
    columns = {
        "between p99 ms": "itl_ms_p99",
        "while it joins": "itl_ms_p99_joining",
        "ratio": "itl_p99_ratio",
        "its first token ms": "ttft_ms_long",
    }
    servers = dict.fromkeys(row["server"] for row in rows if row["clients"] == "8 + long prompt")
    lines = [
        (server, *(median(picked(rows, "large", server, "8 + long prompt", name)) or 0.0 for name in columns.values()))
        for server in servers
    ]
    heads = (f"8 stream, {LONG_PROMPT:,} tokens join", *columns)
    return tables.render(heads, lines) if lines else ""


# What is asked for


def left_out(options: argparse.Namespace, llama_server: str) -> dict[str, str]:
    """Who cannot take part, and why."""
    reasons = {}
    if not llama_server:
        reasons[LLAMA_SERVER] = f"there is no {options.llama_server}; name one with --llama-server"
    if not options.llama_cpp_python:
        reasons[LLAMA_CPP] = "name a Python that has llama-cpp-python[server] with --llama-cpp-python"
    return {name: why for name, why in reasons.items() if name in options.servers}


def several(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = [word.strip() for word in text.split(";" if ";" in text else ",") if word.strip()]
        unknown = next((word for word in words if word not in known), None)
        if unknown or not words:
            raise argparse.ArgumentTypeError(f"{unknown!r} is not one of: {'; '.join(known)}")
        return words

    return read


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--llama-server", default="llama-server", metavar="PATH", help="default: the one on PATH")
    add("--llama-cpp-python", default="", metavar="PYTHON", help="an interpreter with llama-cpp-python[server]")
    add("--libraries", type=Path, metavar="FOLDER", help="libllama.so for all; default: the one beside llama-server")
    add("--rounds", type=int, default=5, help="default 5")
    add("--sizes", type=several(("tiny", "large")), default=["tiny", "large"], help="default tiny,large")
    clients = ",".join(map(str, CLIENTS))
    add("--clients", type=lambda text: [int(word) for word in text.split(",")], default=list(CLIENTS), help=clients)
    add("--servers", type=several(NAMES), default=list(NAMES), help=f"separated by ;  default {'; '.join(NAMES)}")
    add("--tokens", type=int, default=TOKENS, help=f"tokens an answer; default {TOKENS}")
    add("--threads-tiny", type=int, default=1, help="default 1")
    add("--threads-large", type=int, default=os.cpu_count() or 1, help="default: all cores")
    add("--gpu-layers", type=int, default=0, help="-1: all layers on the GPU, for every server; default 0")
    add("--no-long-prompt", action="store_true", help="leave out the 2,000-token prompt that joins")
    add("--json", action="store_true", help="one JSON object")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="lyceum-engine-") as directory:
        try:
            found = Bench(options, Path(directory)).run()
        except LyceumError as error:
            sys.exit(error.message)
    print(json.dumps(found) if options.json or not sys.stdout.isatty() else report(found))


if __name__ == "__main__":
    main()
