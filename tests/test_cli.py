"""The `lyceum` command as a person or a script uses it: output, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum import config
from lyceum.engine import read_card
from networks import Market
from servers import free_port, serving, weights, write_config


def lyceum(*words: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lyceum", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_help_teaches() -> None:
    """--help names every command and every exit code."""
    done = lyceum("--help")
    assert done.returncode == 0
    for word in (
        "demo",
        "serve",
        "ask",
        "offers",
        "bill",
        "export",
        "trust",
        "prune",
        "models",
        "init",
        "exit codes",
        "budget",
    ):
        assert word in done.stdout


@pytest.mark.parametrize("words", [[], ["fly"], ["ask"], ["ask", "why?", "--budget-msat", "lots"]])
def test_wrong_usage_is_2(words: list[str]) -> None:
    """A command line that makes no sense exits with 2 and a usage line."""
    done = lyceum(*words)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_init_writes_a_file_that_serve_reads(tmp_path: Path) -> None:
    """The starter configuration parses, and is never overwritten."""
    path = tmp_path / "lyceum.toml"
    assert json.loads(lyceum("init", path).stdout) == {"written": str(path)}
    assert config.load(path).server.port == 9402
    again = lyceum("init", path)
    assert again.returncode == 2
    assert "left as it is" in again.stderr


def test_a_missing_node_is_6(tmp_path: Path) -> None:
    """Without a node at the socket the error names the socket."""
    done = lyceum("ask", "why?", "--node", tmp_path / "no-socket")
    assert done.returncode == 6
    assert "no-socket" in done.stderr


def test_a_missing_configuration_is_2(tmp_path: Path) -> None:
    """`serve` without a file says how to get one."""
    done = lyceum("serve", "--config", tmp_path / "none.toml")
    assert done.returncode == 2
    assert "lyceum init" in done.stderr


def test_an_unknown_key_names_key_file_and_line(tmp_path: Path) -> None:
    """A typing mistake in the configuration is shown where it is."""
    path = tmp_path / "typo.toml"
    path.write_text('[server]\nport = 9402\n\n[[model]]\npath = "x.gguf"\nn_ctxx = 512\n')
    done = lyceum("serve", "--config", path)
    assert done.returncode == 2
    assert f"{path}, line 6" in done.stderr
    assert "n_ctxx" in done.stderr


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "no model file"), (b"hello world, I am no model", "not a GGUF"), (b"", "incomplete")],
    ids=["missing", "no GGUF", "truncated"],
)
def test_a_bad_model_file_is_named(tmp_path: Path, content: bytes | None, word: str) -> None:
    """A model file that is missing, of another kind or cut short stops `serve` with its name."""
    path = tmp_path / "weights.gguf"
    if content is not None:
        path.write_bytes(content or weights("austrian-economics").read_bytes()[:100_000])
    settings = tmp_path / "lyceum.toml"
    settings.write_text(f'[server]\nport = 0\n[[model]]\npath = "{path}"\nn_ctx = 512\n')
    done = lyceum("serve", "--config", settings)
    assert done.returncode == 1
    assert word in done.stderr
    assert "weights.gguf" in done.stderr


@pytest.fixture(scope="module")
def shop(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The seller's server, listed at the buyer."""
    with serving(tmp_path_factory.mktemp("shop"), market.seller, "austrian-economics") as url:
        market.buyer.rpc.call("setconfig", ["lyceum-peers", url])
        yield url


def test_ask_pays_and_prints_json(market: Market, shop: str) -> None:
    """`lyceum ask`, piped, prints one object with answer, members and what was paid."""
    done = lyceum("ask", "What is time preference?", "--node", market.buyer.rpc_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["members"][0]["ok"]
    assert answer["total_msat"] <= answer["budget_msat"]


def test_ask_without_a_budget_is_3(market: Market, shop: str) -> None:
    """A budget that does not suffice has its own exit code, and JSON still accounts for the members."""
    done = lyceum("ask", "What is time preference?", "--budget-msat", "0", "--node", market.buyer.rpc_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["members"][0]["code"] == "over-budget"
    assert "budget" in done.stderr


def test_ask_that_nobody_can_answer_is_5(market: Market, shop: str) -> None:
    """A question in nobody's field has its own exit code."""
    done = lyceum("ask", "zxqv blorp?", "--node", market.buyer.rpc_path)
    assert done.returncode == 5
    assert "austrian-economics" in done.stderr


def test_offers_lists_prices(market: Market, shop: str) -> None:
    """`lyceum offers` shows what the peers sell."""
    done = lyceum("offers", "--node", market.buyer.rpc_path)
    (model,) = json.loads(done.stdout)["models"]
    assert model["model"] == "austrian-economics"
    assert model["price"]["base_msat"] == 100
    assert model["topics"] == list(read_card(weights("austrian-economics")).tags)


def test_bill_says_what_was_bought_from_whom(market: Market, shop: str) -> None:
    """By seller and model, from the day that is asked for; `trust` and `prune` change what it rests on."""
    node = ("--node", market.buyer.rpc_path)
    assert lyceum("ask", "What is time preference?", *node).returncode == 0
    (line,) = json.loads(lyceum("bill", *node).stdout)["bill"]
    assert (line["origin"], line["model"], line["disputes"]) == (shop, "austrian-economics", 0)
    assert line["charged_msat"] == line["recounted_msat"] > 0
    (later,) = json.loads(lyceum("bill", "--since", "2100-01-01", *node).stdout)["bill"]
    assert (later["answers"], later["paid_msat"], later["credit_msat"]) == (0, 0, line["credit_msat"])
    assert json.loads(lyceum("trust", shop, *node).stdout) == {"origin": shop, "trusted_now": False}
    assert json.loads(lyceum("prune", "--before", "2100-01-01", *node).stdout)["pruned"] >= 1
    (pruned,) = json.loads(lyceum("bill", *node).stdout)["bill"]
    assert (pruned["answers"], pruned["paid_msat"]) == (0, line["paid_msat"])


def test_a_day_that_is_none_is_2(market: Market) -> None:
    """The parameter is named, with an example."""
    done = lyceum("bill", "--since", "yesterday", "--node", market.buyer.rpc_path)
    assert done.returncode == 2
    assert "since must be a date such as 2026-11-01" in done.stderr


def test_a_port_in_use_is_said_at_once(market: Market, shop: str, tmp_path: Path) -> None:
    """A second server on the same port names the port and exits with 2."""
    port = int(shop.rsplit(":", 1)[1])
    settings = write_config(tmp_path / "second.toml", market.seller.rpc_path, port, "austrian-economics")
    done = lyceum("serve", "--config", settings)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "in use" in done.stderr


def test_a_node_without_the_plugin_is_explained(market: Market, tmp_path: Path) -> None:
    """`serve` beside a node that lacks the plugin says how to start it."""
    market.seller.rpc.plugin_stop(str(market.plugin))
    try:
        settings = write_config(tmp_path / "plain.toml", market.seller.rpc_path, free_port(), "austrian-economics")
        done = lyceum("serve", "--config", settings)
    finally:
        market.seller.rpc.plugin_start(str(market.plugin))
    assert done.returncode == 6
    assert "plugin start" in done.stderr
