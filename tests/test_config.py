"""The server's TOML file: what it may hold, and that every mistake names key, file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum.config import STARTER, Config, load
from lyceum.errors import ConfigError
from lyceum.ports import Price, Unit

MODEL = '[[model]]\npath = "a.gguf"\n'


def loaded(directory: Path, text: str) -> Config:
    path = directory / "lyceum.toml"
    path.write_text(text)
    return load(path)


def test_the_starter_file_is_valid(tmp_path: Path) -> None:
    """What `lyceum init` writes can be served as it stands."""
    config = loaded(tmp_path, STARTER)
    assert (config.server.port, config.server.service) == (9402, "lyceum")
    assert [model.price() for model in config.models] == [Price(100, 200, 1000, Unit.CHAR)]
    assert config.ensemble is None


def test_the_starter_files_comments_are_valid(tmp_path: Path) -> None:
    """Every key that it shows commented out can be used."""
    text = STARTER.replace('# [ensemble]\n# name = "ensemble"', "[ensemble]").replace("# [[upstream]]", "[[upstream]]")
    shown = [line.removeprefix("# ") if " = " in line else line for line in text.splitlines()]
    config = loaded(tmp_path, "\n".join(shown))
    assert config.upstreams[0].urls == ["http://10.0.0.2:8000/v1"]
    assert config.models[0].name == "austrian-economics"
    assert config.ensemble
    assert config.ensemble.base_msat > config.ensemble.budget_msat


def test_one_line_is_enough(tmp_path: Path) -> None:
    """A model's path; all else has a default, and without a node nothing is sold."""
    config = loaded(tmp_path, MODEL)
    assert (config.server.host, config.server.node) == ("127.0.0.1", "")
    assert config.models[0].price() == Price()


@pytest.mark.parametrize(("path", "expected"), [("models/a.gguf", "models/a.gguf"), ("/srv/a.gguf", "/srv/a.gguf")])
def test_a_relative_path_starts_at_the_file(tmp_path: Path, path: str, expected: str) -> None:
    """Not at the directory in which the server happens to be started."""
    config = loaded(tmp_path, f'[[model]]\npath = "{path}"\n')
    assert config.path(config.models[0].path) == tmp_path.resolve() / expected


MISTAKES = {
    # unknown
    "a key": ("[server]\nprot = 1\n" + MODEL, 2, "prot"),
    "a key in the second model": (MODEL + MODEL + "n_ctk = 9\n", 5, "n_ctk"),
    "a table": ("[server]\nport = 1\n[srever]\n" + MODEL, 3, "srever"),
    "a proxy by name": ('[server]\nproxy = "nginx"\n' + MODEL, 2, "IP address"),
    "a key outside": ("port = 1\n" + MODEL, 1, "port"),
    "a key in the ensemble": (MODEL + "[ensemble]\nbudget = 1\n", 4, "budget"),
    # wrong types
    "text for a number": ('[server]\nport = "1"\n' + MODEL, 2, "port must be a whole number"),
    "yes for a number": ("[server]\nport = true\n" + MODEL, 2, "port must be a whole number"),
    "a fraction of an msat": (MODEL + "base_msat = 0.5\n", 3, "base_msat must be a whole number"),
    "a number for text": ("[server]\n\nhost = 1\n" + MODEL, 3, "host must be text"),
    "text for a list": (MODEL + 'topics = "a"\n', 3, "topics must be a list"),
    "numbers in a list": (MODEL + "topics = [1]\n", 3, "topics must be a list"),
    "one model table": ('[model]\npath = "a"\n', 1, "[[model]]"),
    "a number for a table": ("server = 1\n" + MODEL, 1, "server must be a table"),
    # out of range
    "a port": ("[server]\nport = 65536\n" + MODEL, 2, "out of range: 1 to 65535"),
    "a service": ('[server]\nservice = "A:b"\n' + MODEL, 2, "service"),
    "a name": (MODEL + 'name = "a b"\n', 3, "name"),
    "a unit": (MODEL + 'unit = "word"\n', 3, "unit"),
    "a price": (MODEL + "output_per_1k_msat = -1\n", 3, "output_per_1k_msat"),
    "a context": (MODEL + "n_ctx = 1\n", 3, "n_ctx"),
    "an answer": (MODEL + "max_tokens = 0\n", 3, "max_tokens"),
    "a queue": (MODEL + "queue = 0\n", 3, "queue"),
    "layers": (MODEL + "n_gpu_layers = -2\n", 3, "n_gpu_layers"),
    "threads": (MODEL + "threads = 257\n", 3, "threads"),
    "patience": (MODEL + "[ensemble]\npatience_s = 0\n", 4, "patience_s"),
    "a budget": (MODEL + "[ensemble]\nbudget_msat = -5\n", 4, "budget_msat"),
    # missing
    "no path": (MODEL + '[[model]]\nname = "b"\n', 3, "lacks path"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_names_file_line_and_key(tmp_path: Path, case: str) -> None:
    """The reader can go there at once."""
    text, line, why = MISTAKES[case]
    with pytest.raises(ConfigError) as refusal:
        loaded(tmp_path, text)
    place, _, sentence = refusal.value.message.partition(": ")
    assert place == f"{tmp_path / 'lyceum.toml'}, line {line}"
    assert why in sentence


def test_an_unknown_key_lists_the_known_ones(tmp_path: Path) -> None:
    """The right one is in the message."""
    with pytest.raises(ConfigError, match=r"known in \[server\]: host, port, proxy, node, service"):
        loaded(tmp_path, "[server]\nprot = 1\n" + MODEL)


@pytest.mark.parametrize("text", ["", "[server]\nport = 1\n", "model = []\n"])
def test_nothing_to_serve_is_a_mistake(tmp_path: Path, text: str) -> None:
    """Neither a model nor an ensemble: said at once, not when the first request comes."""
    with pytest.raises(ConfigError, match="nothing to serve"):
        loaded(tmp_path, text)


def test_an_ensemble_alone_can_be_served(tmp_path: Path) -> None:
    """It may sell other nodes' models only."""
    config = loaded(tmp_path, '[ensemble]\npeers = ["https://a.example"]\n')
    assert config.ensemble
    assert config.models == ()


@pytest.mark.parametrize("text", [f"[server]\n{MODEL}[server]\n", "port = \n", "[server]\nport = 1\nport = 2\n"])
def test_broken_toml_names_its_line(tmp_path: Path, text: str) -> None:
    """Tables and keys that come twice are broken too."""
    with pytest.raises(ConfigError, match=r"lyceum\.toml: not valid TOML: .*line \d"):
        loaded(tmp_path, text)


def test_text_that_is_not_utf8_is_a_mistake(tmp_path: Path) -> None:
    """It is told apart from a file that is not there."""
    path = tmp_path / "lyceum.toml"
    path.write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """The message says how to get one."""
    with pytest.raises(ConfigError, match="lyceum init") as refusal:
        load(tmp_path / name)
    assert str(tmp_path) in refusal.value.message
