"""Several models on one machine: loading on demand, adapters over one base, vectors, smaller files."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="the `server` extra (llama-cpp-python) is not installed")

import llama_cpp

from ggufs import TEMPLATE, TOKENS, Value, bert_gguf, lora_gguf, random_gguf
from lyceum.engine import EmbeddingEngine, Engine, EngineSettings, Fleet, memory, read_card
from lyceum.engine import fleet as fleet_module
from lyceum.engine.fleet import Berth, Needs
from lyceum.engine.native import Context, Room, Stretch, quantise
from lyceum.engine.workers import Core
from lyceum.errors import BadRequest, Busy, ConfigError, ModelError, TooLong
from lyceum.ports import Ask, Delta, Embeddings, Limits, Message, Offer, TextBatch

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


class Ship:
    """What a fleet loads."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.lost = name, log, False
        self.on_lost: Callable[[], None] = lambda: None

    def close(self) -> None:
        self.log.append(f"-{self.name}")


def join(fleet: Fleet, log: list[str], name: str, size: int, shared: str = "", base: int = 0) -> Berth[Ship]:
    async def load() -> Ship:
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


async def test_nobody_is_put_down_in_vain() -> None:
    """Where even all the idle ones make no room, they stay."""
    fleet, log = Fleet(100), list[str]()
    a, b, c = (join(fleet, log, name, size) for name, size in (("a", 60), ("b", 30), ("c", 50)))
    await use(fleet, b)
    async with fleet.awake(a):
        with pytest.raises(Busy) as caught:
            await use(fleet, c)
    assert caught.value.retry_after_s > 0
    assert log == ["+b", "+a"]


async def test_closed_while_it_loads() -> None:
    """Whoever waits is told, and what was loaded is put down."""
    fleet, log, gate = Fleet(), list[str](), asyncio.Event()

    async def load() -> Ship:
        await gate.wait()
        return Ship("a", log)

    berth = fleet.join("a", Needs("a", 0, 1), load)
    user = asyncio.create_task(use(fleet, berth))
    await asyncio.sleep(0.02)
    fleet.retire(berth)
    gate.set()
    with pytest.raises(Busy, match="shutting down"):
        await user
    assert log == ["-a"]


async def test_what_is_shared_counts_once() -> None:
    """Two adapters of 10 over a base of 60 fit into 80."""
    fleet, log = Fleet(80), list[str]()
    for name in "ab":
        await use(fleet, join(fleet, log, name, 10, shared="base", base=60))
    assert log == ["+a", "+b"]


async def test_first_users_load_once() -> None:
    """Fifty at the same time; one leaves while it loads, and the others do not notice."""
    fleet, gate, loads = Fleet(), asyncio.Event(), list[int]()

    async def load() -> Ship:
        loads.append(1)
        await gate.wait()
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

    async def fail() -> Ship:
        tries.append(1)
        raise ModelError("it is broken")

    bad, good = fleet.join("bad", Needs("bad", 0, 1), fail), join(fleet, log, "good", 1)
    for _ in range(3):
        with pytest.raises(ModelError, match="it is broken"):
            await use(fleet, bad)
    await use(fleet, good)
    assert (tries, log) == ([1], ["+good"])


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110, another task makes it so
        await asyncio.sleep(0.001)


async def test_one_that_is_lost_is_loaded_again_unasked() -> None:
    """And whoever asks meanwhile waits for it."""
    fleet, log = Fleet(), list[str]()
    berth = join(fleet, log, "a", 1)
    await use(fleet, berth)
    assert berth.core
    berth.core.lost = True
    berth.core.on_lost()
    await use(fleet, berth)
    assert log == ["+a", "+a"]


async def test_one_that_keeps_dying_is_given_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time a longer one; when it is long, whoever asks is told how long, and does not wait for it."""
    monkeypatch.setattr(fleet_module, "PAUSE_S", 0.001)
    fleet, log = Fleet(), list[str]()
    berth = join(fleet, log, "a", 1)
    for number in range(1, 7):
        await use(fleet, berth)
        assert len(log) == number
        assert berth.core
        berth.core.lost = True
        berth.core.on_lost()
    assert berth.losses == 6
    monkeypatch.setattr(fleet_module, "PAUSE_S", 1)
    await until(lambda: berth.ready)
    assert berth.core
    berth.core.lost = True
    berth.core.on_lost()
    with pytest.raises(Busy, match="keeps failing") as busy:
        await use(fleet, berth)
    assert busy.value.retry_after_s == fleet_module.RETRY_S
    fleet.retire(berth)


def test_what_can_never_fit_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="raise memory_mb, or lower n_ctx"):
        engine_of(random_gguf(tmp_path / "m.gguf"), Fleet(1_000_000))


async def test_engines_are_loaded_on_demand_and_answer_alike(tmp_path: Path) -> None:
    """Two files under a limit for one: each answer is the one it gives alone, however often they change places."""
    files = [random_gguf(tmp_path / f"{n}.gguf", general__name=f"m{n}") for n in range(2)]
    size = engine_of(files[0], Fleet()).card.memory_bytes(256, 8)
    fleet = Fleet(int(size * 1.5))
    engines = [engine_of(path, fleet, f"m{n}") for n, path in enumerate(files)]
    assert not any(engine.loaded for engine in engines)
    first = [await text_of(engine) for engine in engines]
    assert [engine.loaded for engine in engines] == [False, True]
    assert [await text_of(engine) for engine in engines] == first
    for engine in engines:
        engine.close()


def test_a_context_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed, what is free, and which n_ctx would do."""
    path = random_gguf(tmp_path / "m.gguf", llama__context_length=1 << 30)
    free = read_card(path).memory_bytes(0) + 1000 * read_card(path).cache_bytes_per_token
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: free)
    with pytest.raises(ModelError, match=r"needs 0\.6 GB of memory .* set n_ctx to at most 960"):
        memory.check_memory(read_card(path), 1 << 20, 8)
    with pytest.raises(ModelError, match=r"set parallel below 8"):
        memory.check_memory(read_card(path), 960, 8)
    memory.check_memory(read_card(path), 960, 1)


def test_memory_is_reckoned_about_right(tmp_path: Path) -> None:
    """Keys and values by llama.cpp's own count of their bytes, which adds some for each of 300 tokens."""
    card = read_card(random_gguf(tmp_path / "m.gguf"))
    context = Context(card, Room(512))
    for start in range(0, 300, 60):
        context.decode([Stretch([1] * 60, 0, start)])
    state = llama_cpp.llama_state_seq_get_size(context.handle, 0)
    context.close()
    assert 0 <= state - 300 * card.cache_bytes_per_token < 300 * 32
    assert card.memory_bytes(1000) - card.memory_bytes(0) == 1000 * card.cache_bytes_per_token


def test_layers_may_differ_in_their_heads(tmp_path: Path) -> None:
    """A list of heads: 4 in one layer, 1 in the other, of 16 numbers for keys and 16 for values, 2 bytes each."""
    path = random_gguf(tmp_path / "m.gguf", llama__attention__head_count_kv=[4, 1])
    assert read_card(path).cache_bytes_per_token == (4 + 1) * (16 + 16) * 2


# Adapters


def cores(engines: list[Engine]) -> list[Core]:
    return [engine._berth.ready for engine in engines if engine._berth.ready]


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
    assert len({core.worker.pid for core in cores(engines)}) == 1
    assert len({engine.digest for engine in engines}) == 3
    for engine in engines:
        engine.close()
    assert not any(engine.loaded for engine in engines)


async def test_an_adapter_comes_and_goes(tmp_path: Path) -> None:
    """Put down and loaded again over a base that stays: the same answers each time."""
    base, loras = random_gguf(tmp_path / "base.gguf"), [lora_gguf(tmp_path / f"{n}.gguf", n) for n in (1, 2)]
    size = read_card(base).memory_bytes(256, 8)
    fleet = Fleet(size + (size - base.stat().st_size) + loras[0].stat().st_size)
    plain = engine_of(base, fleet)
    engines = [engine_of(base, fleet, f"m{n}", lora=lora) for n, lora in enumerate(loras)]
    first = [await text_of(plain), *[await text_of(engine) for engine in engines]]
    async with fleet.awake(plain._berth):
        for _ in range(3):
            assert [await text_of(plain), *[await text_of(engine) for engine in engines]] == first
            assert [engine.loaded for engine in engines] == [False, True]
    for engine in (plain, *engines):
        engine.close()


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
    control = lora_gguf(tmp_path / "control.gguf", 1, adapter__type="control_vector")
    with pytest.raises(ModelError, match=r"control\.gguf is an adapter of kind 'control_vector'.*base\.gguf"):
        engine_of(base, Fleet(), lora=control)


# Cards


def test_special_tokens_out_of_range(tmp_path: Path) -> None:
    """Seen before llama.cpp opens the file."""
    path = random_gguf(tmp_path / "m.gguf", tokenizer__ggml__eos_token_id=len(TOKENS))
    with pytest.raises(ModelError, match=r"eos_token_id is \d+, and there are \d+ tokens"):
        read_card(path)


@pytest.mark.parametrize("doubt", [1.0, -0.5, "a little"])
def test_a_doubt_that_is_none(tmp_path: Path, doubt: float | str) -> None:
    path = random_gguf(tmp_path / "m.gguf", lyceum__doubt=doubt)
    with pytest.raises(ModelError, match=r"lyceum.doubt is .*, not a probability"):
        read_card(path)


def test_damage_is_survived(tmp_path: Path) -> None:
    """Bytes changed anywhere in the metadata: a card or a ModelError, at once, whatever lengths they claim."""
    path = random_gguf(tmp_path / "m.gguf", general__tags=["a"], lyceum__doubt=0.2, llama__pooling_type=1)
    whole, dice = path.read_bytes(), random.Random(1)  # noqa: S311
    end = whole.index(b"token_embd.weight")
    for _ in range(400):
        at, size = dice.choice([*range(8, 1000), *range(end - 2500, end)]), dice.choice([1, 4, 8])
        path.write_bytes(
            whole[:at] + dice.choice([b"\xff" * size, bytes(size), dice.randbytes(size)]) + whole[at + size :]
        )
        with contextlib.suppress(ModelError):
            assert read_card(path).memory_bytes(256) is not None


def test_a_card_knows_what_a_list_of_models_shows(tmp_path: Path) -> None:
    counted: dict[str, Value] = {"general__parameter_count": 4_000_000}
    path = random_gguf(tmp_path / "m.gguf", general__file_type=7, general__license="MIT", lyceum__doubt=0.25, **counted)
    card = read_card(path)
    assert (card.quantisation, card.licence, card.architecture, card.doubt) == ("Q8_0", "MIT", "llama", 0.25)
    assert (card.n_vocab, card.size_bytes, card.parameters) == (len(TOKENS), path.stat().st_size, 4_000_000)


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


async def test_the_nearest_text_is_the_likest(tmp_path: Path) -> None:
    """By an encoder of random weights: a text is nearer to itself with one word changed than to other words."""
    words = ["the", "cat", "dog", "sat", "on", "a", "mat", "gold", "silver", "price"]
    engine = EmbeddingEngine(
        EngineSettings(bert_gguf(tmp_path / "bert.gguf", words), 128),
        Offer("vectors", limits=Limits(128, 128), kind="embedding"),
        Fleet(),
    )
    texts = ("the cat sat on a mat", "gold silver price", "the dog sat on a mat", "gold price")
    found = await engine.embed(TextBatch("vectors", texts))
    near = [max(range(4), key=lambda other: dot(found, each, other) - (each == other)) for each in range(4)]
    assert near == [2, 3, 0, 1]
    assert found.usage.input_tokens == sum(len(text.split()) + 2 for text in texts)
    engine.close()


def dot(found: Embeddings, one: int, other: int) -> float:
    return sum(a * b for a, b in zip(found.vectors[one], found.vectors[other], strict=True))


async def test_long_words_do_no_harm(tmp_path: Path) -> None:
    """Neither a run of letters that would overflow llama.cpp's stack, nor half a character."""
    path = random_gguf(tmp_path / "m.gguf", tokenizer__ggml__pre="tekken", llama__context_length=1 << 17)
    offer, fleet = Offer("vectors", limits=Limits(1 << 17, 64), kind="embedding"), Fleet()
    engine = EmbeddingEngine(EngineSettings(path, 1 << 17), offer, fleet)
    engine._berth.load = lambda: fleet.workers.open(EngineSettings(path, 256), offer.limits, "embedding")
    assert (await engine.weigh(TextBatch("vectors", ("a" * 100_000,)))).input_tokens == 100_000
    with pytest.raises(BadRequest, match=r"input\[1\] is not valid Unicode"):
        await engine.weigh(TextBatch("vectors", ("a", "\ud83c")))
    engine.close()


def test_what_makes_no_vectors(tmp_path: Path) -> None:
    """A reranker, an adapter; and an encoder that is asked to write."""
    offer = Offer("vectors", limits=LIMITS, kind="embedding")
    ranks = random_gguf(tmp_path / "ranks.gguf", llama__pooling_type=4)
    with pytest.raises(ConfigError, match="ranks pairs of texts"):
        EmbeddingEngine(EngineSettings(ranks, 256), offer, Fleet())
    with pytest.raises(ModelError, match="is a LoRA adapter, not a model"):
        EmbeddingEngine(EngineSettings(lora_gguf(tmp_path / "lora.gguf", 1), 256), offer, Fleet())
    with pytest.raises(ModelError, match="reads texts and cannot write any"):
        engine_of(bert_gguf(tmp_path / "bert.gguf", ["a"], tokenizer__chat_template=TEMPLATE), Fleet())


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
    steps = list[tuple[int, int]]()
    quantise(source, target, "Q8_0", report=lambda done, all_of_them: steps.append((done, all_of_them)))
    assert steps == [(number + 1, 21) for number in range(21)]
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


@pytest.mark.parametrize("type_name", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "F16"])
def test_types_by_name(tmp_path: Path, type_name: str) -> None:
    source, target = random_gguf(tmp_path / "f32.gguf"), tmp_path / "small.gguf"
    quantise(source, target, type_name)
    assert read_card(target).quantisation == type_name


def test_nowhere_to_write(tmp_path: Path) -> None:
    """A folder that is not there, or stands in the way; an adapter, which is no model."""
    source = random_gguf(tmp_path / "m.gguf", general__file_type=0)
    with pytest.raises(ModelError, match=r"there is no folder .*none; make it first"):
        quantise(source, tmp_path / "none" / "small.gguf", "Q8_0")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="Is a directory; choose another name"):
        quantise(source, tmp_path / "folder", "Q8_0")
    with pytest.raises(ModelError, match="is an adapter, which stays as it is"):
        quantise(lora_gguf(tmp_path / "lora.gguf", 1), tmp_path / "small.gguf", "Q8_0")
    assert names(tmp_path) == ["folder", "lora.gguf", "m.gguf"]


def test_a_full_disk(tmp_path: Path) -> None:
    """In a process that may write no file beyond 50 kB: said with what is free, and nothing is left."""
    code = (
        "import resource, sys, pathlib\nfrom lyceum.engine.native import quantise\n"
        "from lyceum.errors import ModelError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "source = pathlib.Path(sys.argv[1])\n"
        "try:\n    quantise(source, source.with_name('small.gguf'), 'Q8_0')\n"
        "except ModelError as error:\n    sys.exit(error.message)"
    )
    source = random_gguf(tmp_path / "m.gguf", general__file_type=0)
    run = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=False)
    assert "cannot write" in run.stderr
    assert "MB free" in run.stderr
    assert names(tmp_path) == ["m.gguf"]


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
