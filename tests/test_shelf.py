"""`lyceum models` as a person uses it: real tiny GGUF files, real configuration files with comments."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ggufs import lora_gguf, random_gguf
from lyceum import cli, config
from lyceum.engine import read_card
from lyceum.errors import ConfigError, ModelError
from lyceum.shelf import amounts
from lyceum.shelf.catalogue import load_catalogue
from lyceum.shelf.configfile import ConfigFile
from lyceum.shelf.progress import Bar
from lyceum.shelf.proposal import Wish, context_for, price_for, propose

ONE_OF_EACH = '''\
# My shop.
[server]
port = 9500   # not the usual one

# Law is what people ask for most.
[[model]]
path = "law.gguf"
name = "law"   # short
n_ctx = 512
max_tokens = 100
system = """
[[model]]
That was no header."""
# about law itself

# And a second one.
  [[ model ]]  # indented
path = "two.gguf"
name = "two"
n_ctx = 512
max_tokens = 100

# Asks them both.
[ensemble]
name = "both"

[[model]]
path = "three.gguf"
name = "three"
n_ctx = 512
max_tokens = 100
# the end
'''


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*words: str | Path, cwd: Path) -> Done:
    """The command in this process, since a hundred new ones would take minutes; its output is piped."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.run(["models", *map(str, words)])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def told(*words: str | Path, cwd: Path) -> Any:
    done = run(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*words: str | Path, cwd: Path, code: int = 2) -> str:
    done = run(*words, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("lyceum: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def on_a_terminal(*words: str | Path, cwd: Path, typed: bytes = b"") -> str:
    """What a person sees, both streams."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "lyceum", "models", *map(str, words)],
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        os.write(master, typed)
        seen = b""
        while chunk := _read(master):
            seen += chunk
        process.wait(60)
    finally:
        os.close(master)
    return seen.decode().replace("\r\n", "\n")


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # Linux says EIO when the other side is closed
        return b""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a configuration and its three models."""
    for name in ("law", "two", "three"):
        random_gguf(tmp_path / f"{name}.gguf", general__name=name)
    (tmp_path / "lyceum.toml").write_text(ONE_OF_EACH)
    return tmp_path


# The configuration as text


def test_a_table_is_added_and_nothing_else_changes(shop: Path) -> None:
    """Every byte before it stays."""
    random_gguf(shop / "four.gguf")
    told("add", "four.gguf", "--name", "four", "--yes", cwd=shop)
    text = (shop / "lyceum.toml").read_text()
    assert text.startswith(ONE_OF_EACH + "\n[[model]]\n")
    assert [table.name for table in config.load(shop / "lyceum.toml").models] == ["law", "two", "three", "four"]


@pytest.mark.parametrize("name", ["law", "two", "three"])
def test_a_table_is_taken_out_and_nothing_else_changes(shop: Path, name: str) -> None:
    """Comments outside it stay, those within it go."""
    told("remove", name, cwd=shop)
    text = (shop / "lyceum.toml").read_text()
    left = [other for other in ("law", "two", "three") if other != name]
    assert [table.name for table in config.load(shop / "lyceum.toml").models] == left
    for comment in ("# My shop.", "# not the usual one", "# Law is what", "# And a second one.", "# Asks them both."):
        assert comment in text
    assert ("# about law itself" in text) == (name != "law")
    assert ("That was no header." in text) == (name != "law")
    lines = text.splitlines(keepends=True)
    assert [line for line in lines if line not in ONE_OF_EACH.splitlines(keepends=True)] == []


def test_removed_and_added_again_until_none_is_left(shop: Path) -> None:
    """A file without models can be added to, and serve says what is missing."""
    for name in ("law", "three", "two"):
        told("remove", name, cwd=shop)
    assert ConfigFile(shop / "lyceum.toml").config.models == ()
    told("add", "two.gguf", "--yes", cwd=shop)
    assert [row["name"] for row in told("list", cwd=shop)["models"]] == ["two"]


def test_a_first_model_makes_the_configuration(tmp_path: Path) -> None:
    """With the server's keys and their comments, as `lyceum init` writes them."""
    random_gguf(tmp_path / "law.gguf", general__name="Law")
    told("add", "law.gguf", "--yes", cwd=tmp_path)
    text = (tmp_path / "lyceum.toml").read_text()
    assert text.startswith("# Lyceum server.")
    assert text.count("[[model]]") == 1
    (table,) = config.load(tmp_path / "lyceum.toml").models
    assert table.path == "law.gguf"


def test_text_of_several_lines_survives(tmp_path: Path) -> None:
    """A system text keeps its quotes, breaks and backslashes."""
    random_gguf(tmp_path / "law.gguf")
    system = 'Say "no".\n[[model]]\n\\n """ \té'
    told("add", "law.gguf", "--system", system, "--yes", cwd=tmp_path)
    (table,) = config.load(tmp_path / "lyceum.toml").models
    assert table.system == system


def test_a_configuration_that_is_broken_already_is_not_touched(shop: Path) -> None:
    """The error names its line."""
    broken = ONE_OF_EACH.replace("n_ctx", "n_ctxx", 1)
    (shop / "lyceum.toml").write_text(broken)
    assert "line 9" in refused("add", "two.gguf", "--name", "x", "--yes", cwd=shop)
    assert "line 9" in refused("remove", "two", cwd=shop)
    assert (shop / "lyceum.toml").read_text() == broken


def test_a_table_that_would_not_parse_is_not_written(tmp_path: Path) -> None:
    """What is written is read back first; the file keeps its mode."""
    path = tmp_path / "lyceum.toml"
    path.write_text("[server]\nport = 1\n")
    path.chmod(0o600)
    file = ConfigFile(path)
    with pytest.raises(ConfigError, match=r"nothing was written: .*lyceum\.toml, line"):
        file.add({"path": "x.gguf", "n_ctx": -1})
    assert path.read_text() == "[server]\nport = 1\n"
    file.add({"path": "x.gguf"})
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["lyceum.toml"]


# What is proposed


def test_a_file_that_describes_itself_needs_no_words(tmp_path: Path) -> None:
    """Only limits and price are written."""
    path = random_gguf(tmp_path / "x.gguf", general__name="Contract law", general__tags=["contracts"])
    found = propose(Wish(path), {})
    assert (found.name, found.topics) == ("contract-law", ("contracts",))
    assert set(found.values) == {"path", "max_tokens", "base_msat", "input_per_1k_msat", "output_per_1k_msat"}
    assert found.values["max_tokens"] == 768


def test_a_file_of_the_catalogue_is_known_by_its_name(tmp_path: Path) -> None:
    """Its field stands in the catalogue where the file has none."""
    path = random_gguf(tmp_path / "Saul-Instruct-v1.Q4_K_M.gguf", general__description="")
    found = propose(Wish(path), load_catalogue())
    assert found.name == "saul-7b"
    assert "law" in found.values["topics"]
    assert "legal" in found.values["description"]


def test_an_embedder_is_known_by_its_pooling(tmp_path: Path) -> None:
    """It reads and does not write."""
    path = random_gguf(tmp_path / "x.gguf", llama__pooling_type=1)
    values = propose(Wish(path), {}).values
    assert values["kind"] == "embedding"
    assert "output_per_1k_msat" not in values
    with pytest.raises(ConfigError, match="makes embeddings"):
        propose(Wish(path, system="Be brief."), {})


@pytest.mark.parametrize(
    ("spare", "trained", "expected"),
    [(10**12, 2048, 2048), (10**12, 131072, 8192), (1000, 131072, 960), (None, 0, 4096)],
)
def test_the_context_is_what_fits(tmp_path: Path, spare: int | None, trained: int, expected: int) -> None:
    """Trained for, usual, and in memory; `spare` is in tokens."""
    card = read_card(random_gguf(tmp_path / "x.gguf", llama__context_length=trained or ""))
    free = None if spare is None else card.memory_bytes(spare)
    assert context_for(card, free) == expected


def test_a_model_larger_than_memory_is_refused(tmp_path: Path) -> None:
    """With both numbers."""
    card = read_card(random_gguf(tmp_path / "x.gguf"))
    with pytest.raises(ModelError, match=r"needs \S+ MB of memory and 1\.00 MB are free"):
        context_for(card, 10**6)


def test_the_price_follows_the_size() -> None:
    """For each started GB."""
    assert price_for(4_000_000, embedding=False) == (100, 200, 1000)
    assert price_for(4_680_000_000, embedding=False) == (500, 1000, 5000)
    assert price_for(10**9, embedding=True) == (100, 200, 0)


# add


def test_two_models_of_one_name(shop: Path) -> None:
    """Said before anything is written."""
    assert "'law' already" in refused("add", "two.gguf", "--name", "law", "--yes", cwd=shop)
    assert (shop / "lyceum.toml").read_text() == ONE_OF_EACH


@pytest.mark.parametrize(
    ("words", "error", "code"),
    [
        (["add", "none.gguf", "--yes"], "no model file", 1),
        (["add", "lyceum.toml", "--yes"], "not a GGUF", 1),
        (["add", "--yes"], "name one GGUF file", 2),
        (["add", "law.gguf", "--base", "two.gguf", "--yes"], "name one GGUF file", 2),
        (["add", "law.gguf", "--name", "a b", "--yes"], "no name for a model", 2),
        (["add", "law.gguf", "--library", "none", "--yes"], "there is no folder", 2),
        (["add", "law.gguf", "--lora", "two.gguf", "--name", "x", "--yes"], "not a LoRA adapter", 1),
        (["add", "bare.gguf", "--yes"], "no chat template", 1),
        (["add", "two.gguf", "--name", "x"], "say --yes", 2),
        (["check", "none"], "configured: law, two, three", 2),
        (["remove", "none"], "configured: law, two, three", 2),
        (["list", "--config", "none.toml"], "lyceum init", 2),
    ],
)
def test_what_cannot_be_done_is_one_line(shop: Path, words: list[str], error: str, code: int) -> None:
    """On stderr, with the error's own exit code, and nothing is written."""
    random_gguf(shop / "bare.gguf", tokenizer__chat_template="")
    assert error in refused(*words, cwd=shop, code=code)
    assert (shop / "lyceum.toml").read_text() == ONE_OF_EACH


@pytest.mark.parametrize("price", ["1,2", "a,b,c", "-1,2,3", "1,2,3,4"])
def test_a_price_is_three_numbers(shop: Path, price: str) -> None:
    """Anything else is wrong usage."""
    done = run("add", "law.gguf", f"--price={price}", cwd=shop)
    assert done.returncode == 2
    assert "three numbers of msat" in done.stderr


def test_a_lora_over_a_base(tmp_path: Path) -> None:
    """Named after the adapter, at the price given."""
    base, lora = random_gguf(tmp_path / "base.gguf"), lora_gguf(tmp_path / "pirate.gguf", 7, general__name="Pirate")
    told("add", "--base", base, "--lora", lora, "--price", "1,2,3", "--yes", cwd=tmp_path)
    (table,) = config.load(tmp_path / "lyceum.toml").models
    assert (table.name, table.path, table.lora) == ("pirate", "base.gguf", "pirate.gguf")
    assert (table.base_msat, table.input_per_1k_msat, table.output_per_1k_msat) == (1, 2, 3)


def test_a_library_is_read_at_once_and_again_only_what_changed(tmp_path: Path) -> None:
    """The second run of the same command writes nothing and reads what is new."""
    random_gguf(tmp_path / "base.gguf", general__description="")
    library = tmp_path / "bread recipes"
    library.mkdir()
    (library / "rye.md").write_text("# Rye\n\nRye bread wants a sour.\n")
    (library / "broken.pdf").write_bytes(b"no pdf")
    words = ("add", "--base", "base.gguf", "--library", library, "--yes")
    first = told(*words, cwd=tmp_path)
    assert (first["name"], first["library"]["added"], first["library"]["passages"]) == ("bread-recipes", 1, 1)
    assert "broken.pdf" in first["library"]["complaints"][0]
    before = (tmp_path / "lyceum.toml").read_text()
    (library / "wheat.md").write_text("# Wheat\n\nWheat bread does not.\n")
    second = told(*words, cwd=tmp_path)
    assert (second["library"]["added"], second["library"]["unchanged"]) == (1, 1)
    assert (tmp_path / "lyceum.toml").read_text() == before
    settings = config.load(tmp_path / "lyceum.toml")
    assert settings.models[0].library == "bread recipes"
    assert settings.index_path("bread-recipes").exists()


def test_a_small_model_quotes(tmp_path: Path) -> None:
    """It was trained on too little to read passages."""
    random_gguf(tmp_path / "base.gguf", llama__context_length=512)
    (tmp_path / "texts").mkdir()
    told("add", "--base", "base.gguf", "--library", "texts", "--yes", cwd=tmp_path)
    assert config.load(tmp_path / "lyceum.toml").models[0].library_use == "quote"


def test_a_person_sees_the_table_and_is_asked(tmp_path: Path) -> None:
    """Enter writes it, `n` does not."""
    random_gguf(tmp_path / "law.gguf", general__name="Law", general__tags=["torts"])
    seen = on_a_terminal("add", "law.gguf", cwd=tmp_path, typed=b"n\n")
    assert "topics   torts" in seen
    assert '[[model]]\npath = "law.gguf"' in seen
    assert "nothing was written" in seen
    assert not (tmp_path / "lyceum.toml").exists()
    assert "next: lyceum models check law" in on_a_terminal("add", "law.gguf", cwd=tmp_path, typed=b"\n")
    assert (tmp_path / "lyceum.toml").exists()


# list


def test_the_list_tells_everything(shop: Path) -> None:
    """The digest is the whole file's, and taken again when the file changes."""
    (law, *_) = told("list", cwd=shop)["models"]
    assert law["digest"] == read_card(shop / "law.gguf").digest
    assert (law["name"], law["context_tokens"], law["error"]) == ("law", 512, "")
    random_gguf(shop / "law.gguf", general__name="other")
    assert told("list", cwd=shop)["models"][0]["digest"] == read_card(shop / "law.gguf").digest


def test_broken_ones_are_listed_with_what_is_wrong(shop: Path) -> None:
    """And the others as ever."""
    (shop / "two.gguf").write_bytes(b"hello")
    random_gguf(shop / "three.gguf", llama__context_length=256)
    found = {row["name"]: row["error"] for row in told("list", cwd=shop)["models"]}
    assert found["law"] == ""
    assert "not a GGUF" in found["two"]
    assert "trained on 256" in found["three"]
    seen = on_a_terminal("list", cwd=shop)
    assert "two cannot be served: " in seen
    assert seen.count("BROKEN") == 2


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A description is somebody else's text."""
    random_gguf(tmp_path / "x.gguf", general__name="X", general__description="red \x1b[31mred\x07")
    assert "\x1b[31m" not in on_a_terminal("add", "x.gguf", "--yes", cwd=tmp_path)
    assert "\x1b" not in on_a_terminal("list", cwd=tmp_path)


def test_the_catalogue_is_listed() -> None:
    """As a table with the warning, and as JSON."""
    entries = told("list", "--catalogue", cwd=Path.cwd())["catalogue"]
    assert {entry["name"]: entry["tried"] for entry in entries}["saul-7b"] is False
    assert "Not one of these was run by this project" in on_a_terminal("list", "--catalogue", cwd=Path.cwd())


# quantize


def test_quantize_makes_a_smaller_file(tmp_path: Path) -> None:
    """llama.cpp's own quantiser; the new file says what it is."""
    source = random_gguf(tmp_path / "law.F32.gguf", general__file_type=0)
    found = told("quantize", source, "q8_0", cwd=tmp_path)
    target = tmp_path / "law.Q8_0.gguf"
    assert (found["target"], found["target_bytes"]) == (str(target), target.stat().st_size)
    assert target.stat().st_size < source.stat().st_size
    assert read_card(target).quantisation == "Q8_0"
    assert "left as it is" in refused("quantize", source, "Q8_0", cwd=tmp_path)
    assert "already" in refused("quantize", target, "Q4_0", "--to", "x.gguf", cwd=tmp_path, code=1)
    assert "is no type" in refused("quantize", source, "Q9", cwd=tmp_path, code=1)


def test_quantize_shows_before_and_after(tmp_path: Path) -> None:
    """In a table."""
    random_gguf(tmp_path / "law.gguf", general__file_type=0)
    seen = on_a_terminal("quantize", "law.gguf", "Q8_0", cwd=tmp_path)
    assert "before  law.gguf" in seen
    assert "after   law.Q8_0.gguf" in seen


# check


def test_check_measures(shop: Path) -> None:
    """A configured model, asked about its first topic."""
    found = told("check", "two", cwd=shop)
    assert found["answer_tokens"] > 1
    assert found["written_per_s"] > 0
    assert found["read_per_s"] > 0
    assert found["fits"]
    assert found["memory_needed_bytes"] == read_card(shop / "two.gguf").memory_bytes(512, 8)


def test_check_takes_a_file_without_any_configuration(tmp_path: Path) -> None:
    """As `add` would propose it; an embedder makes a vector."""
    random_gguf(tmp_path / "x.gguf", llama__pooling_type=1)
    assert told("check", "x.gguf", cwd=tmp_path)["vector"] == 64
    assert "nor a file y.gguf" in refused("check", "y.gguf", cwd=tmp_path)


def test_check_of_a_broken_model_is_one_line(shop: Path) -> None:
    """An architecture that llama.cpp does not know, and a file that ends too early."""
    random_gguf(shop / "law.gguf", general__architecture="ilama")
    assert "ilama" in refused("check", "law", cwd=shop, code=1)
    (shop / "two.gguf").write_bytes((shop / "two.gguf").read_bytes()[:60_000])
    assert "two.gguf" in refused("check", "two", cwd=shop, code=1)


def test_check_for_a_person(shop: Path) -> None:
    """The answer and a table."""
    seen = on_a_terminal("check", "two", cwd=shop)
    assert seen.startswith("> What do you know about?")
    assert "it fits" in seen


# remove


def test_remove_keeps_files_unless_told(shop: Path) -> None:
    """And says where they are."""
    assert told("remove", "law", cwd=shop)["kept"] == [str(shop / "law.gguf")]
    assert (shop / "law.gguf").exists()


def test_remove_deletes_what_nobody_else_uses(shop: Path) -> None:
    """The index goes, the library's texts stay, and so does a file with two names."""
    (shop / "texts").mkdir()
    (shop / "texts" / "a.md").write_text("# A\n\nText.\n")
    told("add", "--base", "law.gguf", "--name", "read", "--library", "texts", "--yes", cwd=shop)
    index = config.load(shop / "lyceum.toml").index_path("read")
    assert index.exists()
    found = told("remove", "read", "--delete-file", cwd=shop)
    assert found["kept"] == [str(shop / "law.gguf")]
    assert not index.exists()
    assert (shop / "texts" / "a.md").exists()
    assert str(shop / "law.gguf") in told("remove", "law", "--delete-file", cwd=shop)["deleted"]
    assert not (shop / "law.gguf").exists()


def test_an_embedder_in_use_is_not_removed(shop: Path) -> None:
    """Those that lean on it are named."""
    text = ONE_OF_EACH.replace('name = "three"', 'name = "three"\nembedder = "law"')
    (shop / "lyceum.toml").write_text(text)
    assert "the embedder of three" in refused("remove", "law", cwd=shop)
    assert (shop / "lyceum.toml").read_text() == text


# Help, and what a person sees


@pytest.mark.parametrize("name", ["list", "pull", "add", "quantize", "check", "remove"])
def test_help_teaches_by_example(name: str, tmp_path: Path) -> None:
    """Each subcommand shows how it is typed."""
    done = run(name, "--help", cwd=tmp_path)
    assert f"  lyceum models {name}" in done.stdout
    assert "--config" in done.stdout
    assert "--json" in done.stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_says_how_far_it_is() -> None:
    """Amount, rate of this run, and time left."""
    stream, clock = Terminal(), iter([0.0, 10.0, 20.0])
    with Bar("law.gguf", stream=stream, clock=lambda: next(clock)) as bar:
        bar.show(50_000_000, 200_000_000)
        bar.show(100_000_000, 200_000_000)
        bar.show(200_000_000, 200_000_000)
    last = stream.getvalue().split("\r\x1b[K")[-2:]
    assert "50 %  100 MB of 200 MB" in last[0]
    assert last[0].endswith("5.00 MB/s  0:20 left")
    assert "100 %" in last[1]
    assert last[1].endswith("\n")


def test_the_bar_is_silent_elsewhere() -> None:
    """A log is no terminal."""
    stream = io.StringIO()
    with Bar("law.gguf", stream=stream) as bar:
        bar.show(1, 2)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (4_255_104, "4.26 MB"), (99_960, "100 kB"), (4_680_000_000, "4.68 GB")],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    """Three figures."""
    assert amounts.size(count) == text
