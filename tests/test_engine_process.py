"""Engines in processes of their own: what dies, hangs or is misused costs itself and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2 as httpx
import pytest

pytest.importorskip("llama_cpp", reason="the `server` extra (llama-cpp-python) is not installed")

from ggufs import CONTROL_NAMES, TOKENS, byte_letters, random_gguf, script_gguf
from lyceum.app import Stock, create_app
from lyceum.engine import Engine, EngineSettings, Fleet, read_card, worker
from lyceum.engine.native import Context, Room, Stretch
from lyceum.engine.slate import STEPS
from lyceum.engine.worker import Worker
from lyceum.errors import BadRequest, ModelError
from lyceum.ports import Admitted, Ask, Delta, End, Entry, Limits, Message, Offer, Price, SaleTerms, Settlement

pytestmark = pytest.mark.anyio

LETTERS = b"abcdefgh"
LIMITS = Limits(1024, 900)


def says(content: str = "hello", **fields: object) -> Ask:
    return Ask("tiny", (Message("user", content),), **fields)  # type: ignore[arg-type]


def engine_of(path: Path, name: str = "tiny", fleet: Fleet | None = None, **settings: object) -> Engine:
    offer = Offer(name, price=Price(base_msat=100, output_per_1k_msat=1000), limits=LIMITS)
    return Engine(EngineSettings(path, 1024, **settings), offer, fleet or Fleet())  # type: ignore[arg-type]


async def text_of(engine: Engine, ask: Ask) -> str:
    return "".join([chunk.text async for chunk in engine.stream(ask) if isinstance(chunk, Delta)])


def process_of(engine: Engine) -> Worker:
    core = engine._berth.ready
    assert core
    return core.worker


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110, another process makes it so
        await asyncio.sleep(0.001)


async def until_writing(engine: Engine) -> None:
    """Until its process has begun to step for whoever asked."""
    await until(lambda: engine._berth.ready)
    slate = process_of(engine)._slate
    first = slate.look(STEPS).turn
    await until(lambda: slate.look(STEPS).turn > first + 4)


async def until_hanging(engine: Engine) -> None:
    """Until its process has been in one request's call for a while."""
    await until(lambda: engine._berth.ready)
    slate, before = process_of(engine)._slate, None
    while before != (before := slate.look(STEPS)) or not (before.busy and before.request):  # noqa: ASYNC110
        await asyncio.sleep(0.2)


class Ledger:
    """A gate that admits everybody, and writes down what each model's answers were charged."""

    service = "llm"

    def __init__(self) -> None:
        self.charged: dict[str, list[int]] = {}

    async def admit(self, entry: Entry) -> Admitted:
        return Admitted(entry.model, "t1", "h1", entry.amount_msat, 1_000_000)

    async def settle(self, reservation: str, charge_msat: int) -> Settlement:
        self.charged.setdefault(reservation, []).append(charge_msat)
        return Settlement("t1", charge_msat, 1_000_000)

    async def quote(self, entry: Entry) -> int:
        return entry.amount_msat

    async def terms(self) -> SaleTerms:
        return SaleTerms(1000)


@asynccontextmanager
async def shop_of(*engines: Engine, gate: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(Stock(engines), gate))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=60) as shop:
        yield shop
    for engine in engines:
        engine.close()


async def buy(shop: httpx.AsyncClient, model: str, stream: bool) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 900, "stream": stream}
    return await shop.post("/v1/chat/completions", json=body)


async def test_a_killed_engine_costs_its_own_answers_and_nobody_is_charged(tmp_path: Path) -> None:
    """kill -9 while eight are served by it and eight by another: these notice nothing, those pay nothing, and the
    next buyer is served by a new process."""
    paths = [script_gguf(tmp_path / f"{name}.gguf", LETTERS) for name in ("victim", "other")]
    victim, other = (engine_of(path, path.stem) for path in paths)
    gate = Ledger()
    async with shop_of(victim, other, gate=gate) as shop:
        bought = {
            name: [asyncio.create_task(buy(shop, name, stream)) for stream in [True, False] * 4]
            for name in ("victim", "other")
        }
        await until_writing(victim)
        killed = process_of(victim).pid
        os.kill(killed, signal.SIGKILL)
        answers = {name: await asyncio.gather(*tasks) for name, tasks in bought.items()}
        assert all("the engine of victim.gguf ended" in answer.text for answer in answers["victim"])
        assert gate.charged["victim"] == [0] * 8
        assert [answer.status_code for answer in answers["other"]] == [200] * 8
        assert gate.charged["other"] == [100 + 900] * 8
        again = await buy(shop, "victim", False)
        assert again.json()["choices"][0]["message"]["content"] == (LETTERS.decode() * 113)[:900]
        assert process_of(victim).pid != killed


async def test_one_that_dies_unheard_is_replaced(tmp_path: Path) -> None:
    """Killed while nobody asks: the next ask does not notice."""
    engine = engine_of(script_gguf(tmp_path / "m.gguf", LETTERS))
    assert await text_of(engine, says(max_tokens=3)) == "abc"
    os.kill(process_of(engine).pid, signal.SIGKILL)
    process_of(engine)._process.wait()
    assert await text_of(engine, says(max_tokens=3)) == "abc"
    engine.close()


async def test_models_over_one_base_die_and_come_back_together(tmp_path: Path) -> None:
    """They share a process; each is loaded again when its turn comes."""
    path, fleet = script_gguf(tmp_path / "m.gguf", LETTERS), Fleet()
    engines = [engine_of(path, f"m{number}", fleet) for number in range(2)]
    for engine in engines:
        await text_of(engine, says(max_tokens=1))
    assert process_of(engines[0]) is process_of(engines[1])
    process_of(engines[0]).end()
    assert [await text_of(engine, says(max_tokens=3)) for engine in engines] == ["abc", "abc"]
    assert process_of(engines[0]) is process_of(engines[1])
    for engine in engines:
        engine.close()


def hostile_gguf(path: Path) -> Path:
    """Its vocabulary holds long runs of one letter, as those of real models do."""
    runs = ["a" * 2**power for power in range(1, 5)]
    tokens = [*byte_letters(), *runs, "in", *CONTROL_NAMES]
    assert len(tokens) == len(TOKENS)
    merges = [f"{'a' * 2**power} {'a' * 2**power}" for power in range(4)]
    return random_gguf(path, tokenizer__ggml__tokens=tokens, tokenizer__ggml__merges=[*merges, "i n"])


HOSTILE = 'root ::= "a" root "b" | "a" root "c" | "a" root "d"'
"""Three ways to read each letter: a run of 16 has 43 million."""


async def test_a_grammar_that_does_not_return_is_stopped_and_refused_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is ended, the next ask is served, and nobody can do it again with the same grammar."""
    monkeypatch.setattr(worker, "LONGEST_CALL_S", {True: 1.0, False: 300.0})
    monkeypatch.setattr(worker, "WATCH_S", 0.1)
    engine = engine_of(hostile_gguf(tmp_path / "m.gguf"))
    with pytest.raises(ModelError, match=r"m\.gguf ended"):
        await text_of(engine, says(grammar=HOSTILE, max_tokens=9))
    assert await text_of(engine, says(max_tokens=3))
    for ask in (engine.weigh, lambda ask: text_of(engine, ask)):
        with pytest.raises(BadRequest, match="the engine had to be stopped") as caught:
            await ask(says("other words", grammar=HOSTILE, max_tokens=9))
        assert caught.value.param == "grammar"
    engine.close()


async def test_who_leaves_a_hanging_engine_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends such a grammar and hangs up at once does not get away with it."""
    monkeypatch.setattr(worker, "LONGEST_CALL_S", {True: 1.0, False: 300.0})
    monkeypatch.setattr(worker, "WATCH_S", 0.1)
    engine = engine_of(hostile_gguf(tmp_path / "m.gguf"))
    asking = asyncio.create_task(text_of(engine, says(grammar=HOSTILE, max_tokens=9)))
    await until_hanging(engine)
    hanging = process_of(engine)
    asking.cancel()
    await until(lambda: hanging.lost)
    with pytest.raises(BadRequest, match="had to be stopped"):
        await engine.weigh(says(grammar=HOSTILE))
    engine.close()


async def test_a_deadline_ends_an_answer(tmp_path: Path) -> None:
    """What was written until then is said, and the neighbour is not touched."""
    engine = engine_of(random_gguf(tmp_path / "m.gguf"))
    alone = await text_of(engine, says("two", max_tokens=60))
    late, neighbour = await asyncio.gather(
        collect(engine, says("one", max_tokens=900, deadline_s=0.02)), text_of(engine, says("two", max_tokens=60))
    )
    assert late[-1].finish == "cancelled"
    assert late[-1].usage.output_tokens < 900
    assert neighbour == alone
    engine.close()


async def collect(engine: Engine, ask: Ask) -> list[End]:
    return [chunk async for chunk in engine.stream(ask) if isinstance(chunk, End)]


def test_an_engine_does_not_outlive_its_server(tmp_path: Path) -> None:
    """A server that is killed leaves no process behind."""
    code = (
        "import sys, os, signal, pathlib\nfrom lyceum.engine import Engine, EngineSettings\n"
        "from lyceum.ports import Limits, Offer\n"
        "engine = Engine.load(EngineSettings(pathlib.Path(sys.argv[1]), 256), Offer('m', limits=Limits(256, 64)))\n"
        "print(engine._berth.ready.worker.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    path = script_gguf(tmp_path / "m.gguf", LETTERS)
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    left = Path(f"/proc/{int(run.stdout)}/cmdline")
    while is_engine(left):
        time.sleep(0.02)


def is_engine(process: Path) -> bool:
    with suppress(OSError):
        return b"lyceum.engine.child" in process.read_bytes()
    return False


def test_the_server_imports_no_llama_cpp() -> None:
    """Neither what serves nor what `lyceum models` reads files with."""
    code = "import sys, lyceum.service, lyceum.shelf.commands; sys.exit('llama_cpp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# What llama.cpp would not survive


@pytest.mark.parametrize(
    ("stretches", "said"),
    [
        ([], "a batch has 1 to 60 rows"),
        ([Stretch([], 0, 0)], "a batch has 1 to 60 rows"),
        ([Stretch([1] * 61, 0, 0)], "a batch has 1 to 60 rows"),
        ([Stretch([1], 2, 0)], "a context has 2 sequences"),
        ([Stretch([1], -1, 0)], "a context has 2 sequences"),
        ([Stretch([1 << 20], 0, 0)], "invalid token"),
        ([Stretch([-1], 0, 0)], "code -1"),
        ([Stretch([1], 0, 0), Stretch([1], 0, 5)], "code -1"),
        ([Stretch([1] * 2, 0, 0), Stretch([1], 0, 0)], "code -1"),
    ],
)
def test_a_wrong_batch_is_an_error(tmp_path: Path, stretches: list[Stretch], said: str) -> None:
    """The context is sound afterwards."""
    context = Context(read_card(random_gguf(tmp_path / "m.gguf")), Room(256, 2))
    with pytest.raises(ModelError, match=said):
        context.decode(stretches)
    context.decode([Stretch([1, 2], 0, 0)])
    assert context.scores(1).shape == (1, len(TOKENS))
    context.close()


def test_a_full_context_is_an_error(tmp_path: Path) -> None:
    """Beyond its cells a sequence reads nothing, and goes on when some are given back."""
    context = Context(read_card(random_gguf(tmp_path / "m.gguf")), Room(256, 2))
    for start in range(0, 240, 60):
        context.decode([Stretch([1] * 60, 0, start)])
    with pytest.raises(ModelError, match="code 1"):
        context.decode([Stretch([1] * 60, 0, 240)])
    context.trim(0, 100)
    context.decode([Stretch([1] * 60, 0, 100)])
    with pytest.raises(ModelError, match="2 sequences"):
        context.trim(2, 0)
    context.close()
