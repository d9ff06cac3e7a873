"""A crowd before one engine: whatever comes, goes and breaks off around it, an answer is the one it gives alone.

Most of it runs the engine's own room in this process, step by step, so that nothing depends on time.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="the `server` extra (llama-cpp-python) is not installed")

from ggufs import random_gguf
from lyceum.engine import Engine, EngineSettings, Fleet, read_card
from lyceum.engine.child.chat import Chat
from lyceum.engine.messages import DELTA, END, News
from lyceum.engine.native import Sampler, quantise
from lyceum.engine.slate import Slate
from lyceum.ports import Ask, Delta, Limits, Message, Offer

pytestmark = pytest.mark.anyio

SPECIALIST = Path(__file__).parent.parent / "models" / "austrian-economics" / "austrian-economics.Q8_0.gguf"
SENTENCE = "the inner er money price what is why did Mises think of capital in interest and who was a grüezi"
LIMITS = Limits(512, 128)
ALONE = 1_000_000
SYSTEM = "You answer questions about the inner er of the money, and nothing else at all."


def asks(dice: random.Random, count: int) -> list[Ask]:
    """Short and long questions and answers, first and later turns, from two payers and from nobody."""
    words, made = SENTENCE.split(), []
    for number in range(count):
        turns = [Message("user", " ".join(dice.choices(words, k=dice.choice([1, 2, 5, 20, 60]))))]
        if dice.random() < 0.3:
            turns += [Message("assistant", "Because."), Message("user", dice.choice(words))]
        if dice.random() < 0.3:
            turns.insert(0, Message("system", SYSTEM))
        shaped = {"grammar": "root ::= [a-m ]*"} if number % 10 == 0 else {}
        payer = dice.choice(["", "", "a", "b"])
        made.append(Ask("tiny", tuple(turns), dice.choice([1, 3, 10, 40]), payer=payer, **shaped))  # type: ignore[arg-type]
    return made


@dataclass
class Table:
    """The engine's room, stepped by hand. `said`: what each request was told so far; `over`: those that are."""

    chat: Chat
    said: dict[int, str] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)

    def join(self, number: int, ask: Ask) -> None:
        self.said[number] = ""
        self.chat.join(self.chat.plan(number, ask), ask)

    def step(self) -> None:
        for news in self.chat.step():
            for each in news:
                self._hear(each)

    def run(self) -> None:
        while self.chat.busy:
            self.step()

    def alone(self, ask: Ask) -> str:
        self.join(ALONE, replace(ask, payer=""))
        self.run()
        return self.said.pop(ALONE)

    def _hear(self, news: News) -> None:
        assert news[1] in (DELTA, END)
        if news[1] == DELTA:
            self.said[news[0]] += news[2]
        else:
            self.over.add(news[0])


@contextmanager
def table_of(path: Path, **settings: object) -> Iterator[Table]:
    slate, file = Slate.new()
    made = EngineSettings(path, 512, queue=10_000, system=SYSTEM)
    chat = Chat(replace(made, **settings), LIMITS, read_card(path), True, slate)  # type: ignore[arg-type]
    with file:
        yield Table(chat)
    chat.close()


def crowd(table: Table, all_asks: Sequence[Ask], dice: random.Random, count: int) -> dict[int, int]:
    """Some come before each step, some leave; which ask each number was, of those that stayed to the end."""
    asked: dict[int, int] = {}
    there: set[int] = set()
    number = 0
    while number < count or table.chat.busy:
        for _ in range(dice.choice([0, 0, 1, 2, 6]) if len(there) < 30 else 0):
            if number < count:
                asked[number] = dice.randrange(len(all_asks))
                table.join(number, all_asks[asked[number]])
                there.add(number)
                number += 1
        if there and dice.random() < 0.04:
            gone = dice.choice(sorted(there))
            table.chat.leave(gone)
            there.discard(gone)
        table.step()
        there -= table.over
    return {each: asked[each] for each in table.over if each in asked}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ggufs")
    found = {"F32": random_gguf(folder / "random.gguf"), "Q8_0": SPECIALIST}
    for kind in ("Q4_0", "Q4_K_M"):
        found[kind] = folder / f"{kind}.gguf"
        quantise(SPECIALIST, found[kind], kind, again=True)
    return found


@pytest.mark.parametrize(("kind", "count"), [("F32", 2000), ("Q8_0", 600), ("Q4_0", 200), ("Q4_K_M", 200)])
def test_in_a_crowd_an_answer_is_the_one_given_alone(files: dict[str, Path], kind: str, count: int) -> None:
    """To the byte, for every kind of weights; also up to where somebody broke it off. Nothing stays behind."""
    dice = random.Random(7)  # noqa: S311
    all_asks = asks(dice, 60)
    with table_of(files[kind]) as table:
        alone = [table.alone(ask) for ask in all_asks]
        stayed = crowd(table, all_asks, dice, count)
        wrong = [(table.said[each], alone[which]) for each, which in stayed.items() if table.said[each] != alone[which]]
        assert not table.chat._runs
        assert not any(slot.job for slot in table.chat._schedule._slots)
    assert len(stayed) > count * 0.6
    assert wrong == []
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Sampler)]


def test_one_slot_serves_them_all(files: dict[str, Path]) -> None:
    """Where one is served at a time the answers are the same."""
    dice = random.Random(3)  # noqa: S311
    all_asks = asks(dice, 20)
    with table_of(files["F32"], parallel=1) as table:
        alone = [table.alone(ask) for ask in all_asks]
        stayed = crowd(table, all_asks, dice, 60)
        assert [table.said[each] for each in stayed] == [alone[which] for which in stayed.values()]


async def test_over_the_wire_too(files: dict[str, Path]) -> None:
    """The same through the process that serves: 300 requests, twenty at a time, of which some close their stream."""
    dice = random.Random(5)  # noqa: S311
    all_asks = asks(dice, 30)
    settings = EngineSettings(files["F32"], 512, queue=100, system=SYSTEM)
    engine = Engine(settings, Offer("tiny", limits=LIMITS), Fleet())
    alone = [await text_of(engine, replace(ask, payer="")) for ask in all_asks]
    room, wrong = asyncio.Semaphore(20), list[str]()

    async def one(which: int, pieces: int) -> None:
        async with room:
            said = await text_of(engine, all_asks[which], pieces)
        if not (alone[which].startswith(said) if pieces else said == alone[which]):
            wrong.append(f"{said!r} instead of {alone[which]!r}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(300):
            tasks.create_task(one(dice.randrange(len(all_asks)), dice.choice([0, 0, 0, 2])))
    engine.close()
    assert wrong == []


async def text_of(engine: Engine, ask: Ask, pieces: int = 0) -> str:
    """All that is said, or the first `pieces` of it."""
    said, heard = "", 0
    async with aclosing(engine.stream(ask)) as stream:
        async for chunk in stream:
            said += chunk.text if isinstance(chunk, Delta) else ""
            heard += 1
            if heard == pieces:
                break
    return said
