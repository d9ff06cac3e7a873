"""The servers that are compared, each as a process of its own behind the same two calls, and what they run on.

All of them get the same file, threads and layers on the GPU, and room for as many tokens in all.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.request import urlopen

from lyceum.devnet import Node, open_devnet
from lyceum.devnet.process import Daemon
from lyceum.engine import read_card
from lyceum.errors import ServiceError
from serving.credit import buy, buyer_and_seller
from serving.load import Answer, Joining, Target, burst, joined

T = TypeVar("T")

SEQUENCES = 32
QUEUE = 64
LONGEST_S = 300

OURS, GATED, LLAMA_SERVER, LLAMA_CPP, BARE = "ours", "ours, gate on", "llama-server", "llama_cpp.server", "bare loop"
NAMES = (OURS, GATED, LLAMA_SERVER, LLAMA_CPP, BARE)


@dataclass(frozen=True, slots=True)
class Size:
    """A model and how it is served: `n_ctx` tokens a request, `cells` in all, `threads` for each server."""

    name: str
    path: Path
    n_ctx: int
    cells: int
    threads: int
    gpu_layers: int


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the others are. `libraries`: a folder with libllama.so that all of Python's servers load, or None."""

    llama_server: str
    llama_cpp_python: str
    libraries: Path | None
    directory: Path

    def with_libraries(self, argv: Sequence[str]) -> list[str]:
        chosen = [f"LLAMA_CPP_LIB_PATH={self.libraries}", f"LD_LIBRARY_PATH={self.libraries}"] if self.libraries else []
        return ["env", "GGML_NO_BACKTRACE=1", *chosen, *argv]


class Rival(Protocol):
    name: str
    sequences: int

    async def burst(self, prompts: Sequence[Sequence[str]], tokens: int) -> list[Answer]: ...

    def memory_mb(self) -> float: ...


@dataclass
class Server:
    """A server behind HTTP."""

    name: str
    daemon: Daemon
    target: Target
    sequences: int = SEQUENCES

    async def burst(self, prompts: Sequence[Sequence[str]], tokens: int) -> list[Answer]:
        return await self._in_time(burst(self.target, prompts, tokens))

    async def joined(self, plan: Joining) -> tuple[list[Answer], Answer]:
        return await self._in_time(joined(self.target, plan))

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(LONGEST_S):
                return await work
        except TimeoutError:
            raise ServiceError(f"{self.name} did not get through within {LONGEST_S} s") from None

    def memory_mb(self) -> float:
        assert self.daemon.process  # noqa: S101
        return anonymous_mb(self.daemon.process.pid)


@dataclass
class Bare:
    """The loop without HTTP."""

    process: subprocess.Popen[str]
    name: str = BARE
    sequences: int = SEQUENCES
    system: str = field(init=False)

    def __post_init__(self) -> None:
        self.system = self._read()["system"]

    async def burst(self, prompts: Sequence[Sequence[str]], tokens: int) -> list[Answer]:
        found = await asyncio.to_thread(self.call, {"prompts": prompts, "tokens": tokens})
        return [Answer(**answer, tokens=len(answer["arrivals"])) for answer in found]

    def call(self, request: Mapping[str, Any]) -> Any:
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def memory_mb(self) -> float:
        return anonymous_mb(self.process.pid)

    def _read(self) -> Any:
        assert self.process.stdout  # noqa: S101
        line = self.process.stdout.readline()
        if not line:
            raise ServiceError("the bare loop ended; its words are above")
        return json.loads(line)


def start_ours(stack: ExitStack, size: Size, tools: Tools, node: Node | None = None) -> Server:
    """`lyceum serve`; with a node everything is sold, so every answer passes the gate twice. It serves as many at once
    as the memory that it allows for contexts holds whole."""
    name, port = (GATED if node else OURS), free_port()
    config = tools.directory / f"{size.name}-{'gated' if node else 'ours'}.toml"
    price = "base_msat = 100\noutput_per_1k_msat = 1000\n" if node else ""
    config.write_text(
        f'[server]\nport = {port}\nnode = "{node.rpc_path if node else ""}"\n'
        f'[[model]]\npath = "{size.path}"\nname = "{size.name}"\nn_ctx = {size.n_ctx}\nmax_tokens = 256\n'
        f"parallel = {SEQUENCES}\nqueue = {QUEUE}\nthreads = {size.threads}\nn_gpu_layers = {size.gpu_layers}\n"
        f"doubt = 0\n{price}"
    )
    argv = tools.with_libraries([sys.executable, "-m", "lyceum", "serve", "--config", str(config)])
    slots = read_card(size.path).slots(size.n_ctx, SEQUENCES)
    return Server(name, _start(stack, name, argv, tools, port), Target(port, size.name), slots)


def start_gated(stack: ExitStack, size: Size, tools: Tools) -> Server:
    """A buyer's and a seller's node on loopback, and a token that holds more than the bench can use."""
    devnet = stack.enter_context(open_devnet("loopback", tools.directory / f"{size.name}-nodes"))
    buyer, seller = buyer_and_seller(devnet)
    server = start_ours(stack, size, tools, seller)
    server.target = Target(server.target.port, size.name, {"Authorization": buy(buyer, seller)})
    return server


def start_llama_server(stack: ExitStack, size: Size, tools: Tools) -> Server:
    """Its prompt caches are off: they would help it with what is asked again in the next round."""
    port = free_port()
    argv = [tools.llama_server, *llama_server_words(size, port), "--cache-ram", "0", "-lv", "2"]
    daemon = _start(stack, LLAMA_SERVER, argv, tools, port)
    return Server(LLAMA_SERVER, daemon, Target(port, size.name, extras={"cache_prompt": False}))


def llama_server_words(size: Size, port: int) -> list[str]:
    words = (
        f"-np {SEQUENCES} -c {size.cells} --kv-unified -t {size.threads} -tb {size.threads} --port {port} --no-webui"
    )
    layers = "all" if size.gpu_layers < 0 else str(size.gpu_layers)
    return ["-m", str(size.path), "--host", "127.0.0.1", "-ngl", layers, *words.split()]


def start_llama_cpp(stack: ExitStack, size: Size, tools: Tools) -> Server:
    """One request at a time; without this option it would cut off whoever is served when another comes."""
    port = free_port()
    words = (
        f"--host 127.0.0.1 --port {port} --n_ctx {size.n_ctx} --n_threads {size.threads} "
        f"--n_threads_batch {size.threads} --n_gpu_layers {size.gpu_layers} --interrupt_requests false --verbose false"
    )
    argv = [tools.llama_cpp_python, "-m", "llama_cpp.server", "--model", str(size.path), *words.split()]
    daemon = _start(stack, LLAMA_CPP, tools.with_libraries(argv), tools, port)
    return Server(LLAMA_CPP, daemon, Target(port, size.name), sequences=1)


def start_bare(stack: ExitStack, size: Size, tools: Tools) -> Bare:
    layers = 999 if size.gpu_layers < 0 else size.gpu_layers
    numbers = (SEQUENCES, size.cells, size.threads, layers)
    script = Path(__file__).with_name("bare.py")
    argv = tools.with_libraries([sys.executable, str(script), str(size.path), *map(str, numbers)])
    process = stack.enter_context(
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    )
    stack.callback(process.kill)
    return Bare(process)


STARTERS: dict[str, Callable[[ExitStack, Size, Tools], Rival]] = {
    OURS: start_ours,
    GATED: start_gated,
    LLAMA_SERVER: start_llama_server,
    LLAMA_CPP: start_llama_cpp,
    BARE: start_bare,
}


# What they run on


def systems(tools: Tools, size: Size) -> dict[str, str]:
    """llama.cpp's own line about its kernels, of each library that takes part."""
    code = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    found = {OURS: _said(tools.with_libraries([sys.executable, "-c", code]))}
    if tools.llama_cpp_python:
        found[LLAMA_CPP] = _said(tools.with_libraries([tools.llama_cpp_python, "-c", code]))
    if tools.llama_server:
        found[LLAMA_SERVER] = _llama_server_system(tools, size)
    return found


def kernels(line: str) -> frozenset[str]:
    """The features in a system-info line, whatever their order."""
    return frozenset(part.strip() for part in line.split("|") if "=" in part and "n_threads" not in part)


def _said(argv: Sequence[str]) -> str:
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ended.stdout.strip().splitlines()[-1] if ended.returncode == 0 and ended.stdout.strip() else ""


def _llama_server_system(tools: Tools, size: Size) -> str:
    """It says so only when it is talkative, which it must not be while it is measured."""
    port = free_port()
    with ExitStack() as stack:
        daemon = Daemon(
            "probe", [tools.llama_server, *llama_server_words(size, port), "-lv", "4"], tools.directory / "probe.log"
        )
        daemon.spawn()
        stack.callback(daemon.kill)
        daemon.await_ready(lambda: _answers(port))
    found = re.search(r"system_info: [^|]*\|(.*)", daemon.console.read_text(errors="replace"))
    return found[1].strip() if found else ""


# Processes


def _start(stack: ExitStack, name: str, argv: Sequence[str], tools: Tools, port: int) -> Daemon:
    daemon = Daemon(name, argv, tools.directory / f"{name.replace(' ', '-')}-{port}.log")
    daemon.spawn()
    stack.callback(daemon.end)
    daemon.await_ready(lambda: _answers(port))
    return daemon


def _answers(port: int) -> bool:
    """`/health` of ours and llama-server; the list of models, which llama_cpp.server has too."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2) as found:
            return bool(found.status == 200) and _loaded(port)
    except OSError:
        return False


def _loaded(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as found:
            return bool(found.status == 200)
    except OSError as error:
        return getattr(error, "code", 503) == 404


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def anonymous_mb(pid: int) -> float:
    """Memory of a process and its children that is nobody else's: not the file's weights, which are mapped."""
    total_kb = 0
    for each in family(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return total_kb / 1000


def family(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    children = [
        int(child)
        for task in (tasks.iterdir() if tasks.exists() else ())
        for child in (task / "children").read_text(encoding="ascii").split()
    ]
    return [pid, *(each for child in children for each in family(child))]


def found_llama_server(wanted: str) -> str:
    return shutil.which(wanted) or ""


def beside(llama_server: str) -> Path | None:
    """The folder of its own libraries, so that everybody's kernels are the same."""
    folder = Path(llama_server).resolve().parent
    return folder if llama_server and (folder / "libllama.so").exists() else None


def wait_idle() -> None:
    """A moment in which threads that spun for the server before come to rest."""
    time.sleep(0.2)
