"""A configuration becomes models: real files, a library before one, a broken one among them."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="the `server` extra (llama-cpp-python) is not installed")

from ggufs import END, lora_gguf, random_gguf, script_gguf
from lyceum.config import load
from lyceum.errors import ConfigError, ModelError
from lyceum.host import Host
from lyceum.ports import Ask, Delta, End, Message, Model

MODELS = Path(__file__).parent.parent / "models"
CULTURE = MODELS / "american-culture" / "american-culture.Q8_0.gguf"


def host_of(tmp_path: Path, text: str) -> Host:
    path = tmp_path / "lyceum.toml"
    path.write_text(text, encoding="utf-8")
    return Host(load(path), "02aa")


def answer(model: Model, question: str) -> tuple[str, bool, End]:
    async def collect() -> tuple[str, bool, End]:
        *deltas, end = [chunk async for chunk in model.stream(Ask("m", (Message("user", question),), 100))]
        assert isinstance(end, End)
        said = [delta for delta in deltas if isinstance(delta, Delta)]
        return "".join(delta.text for delta in said), any(delta.outside for delta in said), end

    return asyncio.run(collect())


def test_a_broken_model_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others serve; the owner reads why on stderr."""
    random_gguf(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not for long")
    host = host_of(
        tmp_path, '[[model]]\npath = "bad.gguf"\n[[model]]\npath = "good.gguf"\nn_ctx = 512\nmax_tokens = 100\n'
    )
    assert ([model.offer.model for model in host.models], host.broken) == (["tiny"], {"bad"})
    assert "WITHOUT bad: " in capsys.readouterr().err
    host.close()


def test_when_all_are_broken_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none of the models"):
        host_of(tmp_path, '[[model]]\npath = "none.gguf"\n')


def test_a_specialist_without_training(tmp_path: Path) -> None:
    """A base, a folder of texts, an instruction: the passages reach the model, and a stranger's question does not."""
    script_gguf(tmp_path / "base.gguf", [*b"Yes.", END])
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "bread.md").write_text("## Dough\nYeast makes gas.\n", encoding="utf-8")
    table = '[[model]]\npath = "base.gguf"\nn_ctx = 2048\nmax_tokens = 100\nlibrary = "texts"\nsystem = "Be brief."\n'
    host = host_of(tmp_path, table + 'refusal = "Not bread."\n')
    text, outside, end = answer(host.models[0], "What does yeast do in dough?")
    assert (text, outside, end.citations[0].source) == ("Yes.", False, "bread.md")
    assert answer(host.models[0], "Who won the cup?")[:2] == ("Not bread.", True)
    assert (tmp_path / ".lyceum" / "tiny.sqlite3").exists()
    host.close()


def test_the_faculty_quotes_its_library(tmp_path: Path) -> None:
    """The committed specialist with its corpus: a question that its memory has never seen, and one of another field."""
    shutil.copytree(MODELS / "american-culture" / "library", tmp_path / "library")
    table = f'[[model]]\npath = "{CULTURE}"\nn_ctx = 512\nmax_tokens = 120\nlibrary = "library"\n'
    refusal = "That lies outside my field, which is American culture."
    host = host_of(tmp_path, f'{table}library_use = "quote"\nrefusal = "{refusal}"\n')
    text, outside, end = answer(host.models[0], "pls explain what the harlem renaissance was about")
    assert text.startswith("The Harlem Renaissance was")
    assert not outside
    assert end.citations[0].source == "facts.md"
    assert answer(host.models[0], "How do I bleed the brakes of my motorbike?")[1]
    host.close()


def test_vectors_find_passages_too(tmp_path: Path) -> None:
    """An embedding model beside the one that answers; named, or the configuration is wrong."""
    random_gguf(tmp_path / "vectors.gguf", general__name="Vectors", llama__pooling_type=1)
    script_gguf(tmp_path / "base.gguf", [*b"Yes.", END])
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "bread.md").write_text("## Dough\nYeast makes gas.\n", encoding="utf-8")
    vectors = '[[model]]\npath = "vectors.gguf"\nkind = "embedding"\nn_ctx = 512\n'
    reader = '[[model]]\npath = "base.gguf"\nlibrary = "texts"\nembedder = "{}"\n'
    host = host_of(tmp_path, reader.format("vectors") + vectors)
    assert [embedder.offer.model for embedder in host.embedders] == ["vectors"]
    assert answer(host.models[0], "yeast in dough")[0] == "Yes."
    host.close()
    with pytest.raises(ConfigError, match="there is no embedding model 'vector'; add one"):
        host_of(tmp_path, reader.format("vector") + vectors)


def test_adapters_are_models_of_their_own(tmp_path: Path) -> None:
    random_gguf(tmp_path / "base.gguf")
    lora_gguf(tmp_path / "a.gguf", 1)
    base = '[[model]]\npath = "base.gguf"\nn_ctx = 512\nmax_tokens = 100\n'
    host = host_of(tmp_path, f'{base}{base}name = "adapted"\nlora = "a.gguf"\n')
    assert len({answer(model, "hello")[0] for model in host.models}) == 2
    host.close()
