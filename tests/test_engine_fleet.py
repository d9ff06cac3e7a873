"""Several models on one machine: loading on demand, adapters over one base, vectors, smaller files."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="the `server` extra (llama-cpp-python) is not installed")

import llama_cpp

from ggufs import TOKENS, lora_gguf, random_gguf
from lyceum.engine import EmbeddingEngine, Engine, EngineSettings, Fleet, core, quantise, read_card
from lyceum.engine.fleet import Berth, Needs
from lyceum.engine.native import weights
from lyceum.errors import BadRequest, Busy, ConfigError, ModelError, TooLong
from lyceum.ports import Ask, Delta, Limits, Message, Offer, TextBatch

pytestmark = pytest.mark.anyio
LIMITS = Limits(256, 64)
ASK = Ask("tiny", (Message("user", "hello"),), max_tokens=24)


async def text_of(engine: Engine, ask: Ask = ASK) -> str:
    return "".join([chunk.text async for chunk in engine.stream(ask) if isinstance(chunk, Delta)])


def engine_of(path: Path, fleet: Fleet, name: str = "tiny", **settings: object) -> Engine:
    return Engine(EngineSettings(path, 256, **settings), Offer(name, limits=LIMITS), fleet)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The fleet


@dataclass
class Ship:
    """What a fleet loads."""

    name: str
    log: list[str]

    def close(self) -> None:
        self.log.append(f"-{self.name}")


def join(fleet: Fleet, log: list[str], name: str, size: int, shared: str = "", base: int = 0) -> Berth[Ship]:
    def load() -> Ship:
        log.append(f"+{name}")
        return Ship(name, log)

    return fleet.join(name, Needs(shared or name, base, size), load)


async def use(fleet: Fleet, berth: Berth[Ship]) -> None:
    async with fleet.awake(berth):
        pass


async def test_the_longest_unused_goes_first() -> None:
    """Three of 40 under a limit of 100; whoever was used last stays."""
    fleet, log = Fleet(100), list[str]()
    a, b, c = (join(fleet, log, name, 40) for name in "abc")
    for berth in (a, b, a, c):
        await use(fleet, berth)
    assert log == ["+a", "+b", "-b", "+c"]


async def test_nobody_in_use_is_put_down() -> None:
    """Busy until there is room, and then it loads."""
    fleet, log = Fleet(50), list[str]()
    a, b = (join(fleet, log, name, 40) for name in "ab")
    async with fleet.awake(a):
        with pytest.raises(Busy, match="no memory for b"):
            await use(fleet, b)
    await use(fleet, b)
    assert log == ["+a", "-a", "+b"]


async def test_what_is_shared_counts_once() -> None:
    """Two adapters of 10 over a base of 60 fit into 80."""
    fleet, log = Fleet(80), list[str]()
    for name in "ab":
        await use(fleet, join(fleet, log, name, 10, shared="base", base=60))
    assert log == ["+a", "+b"]


async def test_first_users_load_once() -> None:
    """Fifty at the same time; one leaves while it loads, and the others do not notice."""
    fleet, gate, loads = Fleet(), threading.Event(), list[int]()

    def load() -> Ship:
        loads.append(1)
        gate.wait(10)
        return Ship("a", [])

    berth = fleet.join("a", Needs("a", 0, 1), load)
    tasks = [asyncio.create_task(use(fleet, berth)) for _ in range(50)]
    await asyncio.sleep(0.02)
    tasks[0].cancel()
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert loads == [1]
    assert [type(result) for result in results] == [asyncio.CancelledError, *[type(None)] * 49]


async def test_a_file_that_would_not_load_is_left_alone_for_a_while() -> None:
    """Its buyers get the reason at once; the others are served."""
    fleet, log, tries = Fleet(), list[str](), list[int]()

    def fail() -> Ship:
        tries.append(1)
        raise ModelError("it is broken")

    bad, good = fleet.join("bad", Needs("bad", 0, 1), fail), join(fleet, log, "good", 1)
    for _ in range(3):
        with pytest.raises(ModelError, match="it is broken"):
            await use(fleet, bad)
    await use(fleet, good)
    assert (tries, log) == ([1], ["+good"])


def test_what_can_never_fit_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="raise memory_mb, or lower n_ctx"):
        engine_of(random_gguf(tmp_path / "m.gguf"), Fleet(1_000_000))


async def test_engines_are_loaded_on_demand_and_answer_alike(tmp_path: Path) -> None:
    """Two files under a limit for one: each answer is the one it gives alone, however often they change places."""
    files = [random_gguf(tmp_path / f"{n}.gguf", general__name=f"m{n}") for n in range(2)]
    size = engine_of(files[0], Fleet()).card.memory_bytes(256)
    fleet = Fleet(int(size * 1.5))
    engines = [engine_of(path, fleet, f"m{n}") for n, path in enumerate(files)]
    assert not any(engine.loaded for engine in engines)
    first = [await text_of(engine) for engine in engines]
    assert [engine.loaded for engine in engines] == [False, True]
    assert [await text_of(engine) for engine in engines] == first
    assert not weights._loaded.keys() - {(files[1].resolve(), 0)}
    for engine in engines:
        engine.close()


def test_a_context_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed, what is free, and which n_ctx would do."""
    path = random_gguf(tmp_path / "m.gguf", llama__context_length=1 << 30)
    free = read_card(path).memory_bytes(0) + 1000 * read_card(path).cache_bytes_per_token
    monkeypatch.setattr(core, "free_memory_bytes", lambda: free)
    settings = EngineSettings(path, 1 << 20)
    with pytest.raises(ModelError, match=r"needs 0\.6 GB of memory .* set n_ctx to at most 960"):
        Engine.load(settings, Offer("tiny", limits=LIMITS))


def test_memory_is_reckoned_about_right(tmp_path: Path) -> None:
    """Keys and values of llama's own context, by its own count of their bytes."""
    card = read_card(random_gguf(tmp_path / "m.gguf"))
    assert card.cache_bytes_per_token == 2 * 2 * 2 * 64
    assert card.memory_bytes(1000) - card.memory_bytes(0) == 1000 * card.cache_bytes_per_token


# Adapters


async def test_two_adapters_share_one_base(tmp_path: Path) -> None:
    """Three specialists, three answers, one load; each says what it says alone."""
    base = random_gguf(tmp_path / "base.gguf")
    loras = [lora_gguf(tmp_path / f"{n}.gguf", n) for n in (1, 2)]
    alone = []
    for lora in (None, *loras):
        engine = engine_of(base, Fleet(), lora=lora)
        alone.append(await text_of(engine))
        engine.close()
    fleet = Fleet()
    engines = [engine_of(base, fleet, f"m{n}", lora=lora) for n, lora in enumerate((None, *loras))]
    together = await asyncio.gather(*map(text_of, engines))
    assert together == alone
    assert len(set(alone)) == 3
    assert [loaded.users for loaded in weights._loaded.values()] == [3]
    assert len({engine.digest for engine in engines}) == 3
    for engine in engines:
        engine.close()
    assert not weights._loaded


def test_an_adapter_of_another_base(tmp_path: Path) -> None:
    """Another architecture is seen before llama.cpp is asked, other shapes by llama.cpp; both name both files."""
    base = random_gguf(tmp_path / "base.gguf")
    alien = lora_gguf(tmp_path / "alien.gguf", 1, general__architecture="gemma")
    with pytest.raises(ModelError, match=r"alien\.gguf adapts gemma, and .*base\.gguf is llama"):
        engine_of(base, Fleet(), lora=alien)
    wide = lora_gguf(tmp_path / "wide.gguf", 1, width=32)
    with pytest.raises(ModelError, match=r"wide\.gguf does not fit .*base\.gguf"):
        Engine.load(EngineSettings(base, 256, lora=wide), Offer("tiny", limits=LIMITS))
    with pytest.raises(ModelError, match=r"is a whole model, not a LoRA adapter"):
        engine_of(base, Fleet(), lora=random_gguf(tmp_path / "other.gguf"))
    with pytest.raises(ModelError, match=r"is a LoRA adapter: set it as `lora`"):
        engine_of(alien, Fleet())


# Cards


def test_special_tokens_out_of_range(tmp_path: Path) -> None:
    """Seen before llama.cpp opens the file."""
    path = random_gguf(tmp_path / "m.gguf", tokenizer__ggml__eos_token_id=len(TOKENS))
    with pytest.raises(ModelError, match=r"eos_token_id is \d+, and there are \d+ tokens"):
        read_card(path)


def test_a_card_knows_what_a_list_of_models_shows(tmp_path: Path) -> None:
    path = random_gguf(tmp_path / "m.gguf", general__file_type=7, general__license="MIT", lyceum__doubt=0.25)
    card = read_card(path)
    assert (card.quantisation, card.licence, card.architecture, card.doubt) == ("Q8_0", "MIT", "llama", 0.25)
    assert (card.n_vocab, card.size_bytes) == (len(TOKENS), path.stat().st_size)


# Vectors


@pytest.fixture
def vectors(tmp_path: Path) -> Callable[..., EmbeddingEngine]:
    path = random_gguf(tmp_path / "m.gguf", llama__pooling_type=1, tokenizer__chat_template="")
    return lambda **settings: EmbeddingEngine(
        EngineSettings(path, 256, **settings), Offer("vectors", limits=LIMITS, kind="embedding"), Fleet()
    )


async def test_texts_become_vectors(vectors: Callable[..., EmbeddingEngine]) -> None:
    """Of length 1, in order, the same alone and in any company; the usage is exact."""
    engine = vectors()
    texts = tuple(f"the {word} in the inner" for word in ["one", "two", "three", "four", "five"]) * 8
    found = await engine.embed(TextBatch("vectors", texts))
    assert len(found.vectors) == 40
    assert all(math.isclose(sum(x * x for x in vector), 1, rel_tol=1e-6) for vector in found.vectors)
    alone = await engine.embed(TextBatch("vectors", texts[:1]))
    assert found.vectors[0] == pytest.approx(alone.vectors[0], abs=1e-3)
    assert found.vectors[0] == pytest.approx(found.vectors[5], abs=1e-3)
    assert found.vectors[0] != pytest.approx(found.vectors[1], abs=1e-2)
    assert found.usage == await engine.weigh(TextBatch("vectors", texts))
    assert found.usage.input_chars == sum(map(len, texts))
    engine.close()


async def test_too_much_text_is_named(vectors: Callable[..., EmbeddingEngine]) -> None:
    engine = vectors()
    with pytest.raises(TooLong, match=r"input\[1\] has \d+ tokens; at most 256"):
        await engine.weigh(TextBatch("vectors", ("short", "x" * 400)))
    with pytest.raises(TooLong, match=r"input\[0\] cannot fit"):
        await engine.weigh(TextBatch("vectors", ("x" * 400_000,)))
    with pytest.raises(BadRequest, match="300 texts; at most 256"):
        await engine.weigh(TextBatch("vectors", ("a",) * 300))
    engine.close()


# Smaller files


async def test_a_file_is_quantised(tmp_path: Path) -> None:
    """By llama.cpp itself; the result answers, and nothing is left beside it."""
    source, target = random_gguf(tmp_path / "f32.gguf", general__file_type=0), tmp_path / "small.gguf"
    quantise(source, target, "Q8_0")
    assert target.stat().st_size < source.stat().st_size
    assert read_card(target).quantisation == "Q8_0"
    engine = engine_of(target, Fleet())
    assert await text_of(engine)
    engine.close()
    assert names(tmp_path) == ["f32.gguf", "small.gguf"]


@pytest.mark.parametrize(
    ("kind", "type_name", "said"),
    [
        (0, "Q9_9", "no type that llama.cpp writes; it knows: .*Q4_K_M"),
        (7, "Q4_0", "is Q8_0 already; quantise the F16"),
    ],
)
def test_what_cannot_be_quantised(tmp_path: Path, kind: int, type_name: str, said: str) -> None:
    source = random_gguf(tmp_path / "m.gguf", general__file_type=kind)
    with pytest.raises(ModelError, match=said):
        quantise(source, tmp_path / "small.gguf", type_name)
    assert names(tmp_path) == ["m.gguf"]


def test_nowhere_to_write(tmp_path: Path) -> None:
    """A folder that is not there, and likewise a disk that is full: said, and nothing is left."""
    source = random_gguf(tmp_path / "m.gguf", general__file_type=0)
    with pytest.raises(ModelError, match="cannot write"):
        quantise(source, tmp_path / "none" / "small.gguf", "Q8_0")


# The GPU


@pytest.mark.skipif(not llama_cpp.llama_supports_gpu_offload(), reason="llama.cpp was built without a GPU backend")
async def test_all_layers_on_the_gpu(tmp_path: Path) -> None:
    """The same greedy answer as on the CPU."""
    path = random_gguf(tmp_path / "m.gguf")
    answers = []
    for layers in (0, -1):
        engine = engine_of(path, Fleet(), n_gpu_layers=layers)
        answers.append(await text_of(engine))
        engine.close()
    assert answers[0][:8] == answers[1][:8]
