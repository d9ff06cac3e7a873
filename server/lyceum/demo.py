"""The main job on one machine: three nodes, two sellers, one buyer, real invoices, real answers.

alice asks through her node; vienna and harlem sell from theirs, each with its own server. Nothing
is faked but, on loopback, the Lightning network itself; the balances are read from the nodes before
and after, and must add up.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from lyceum import tables
from lyceum.devnet import Devnet, Kind, Node, open_devnet
from lyceum.devnet.process import Daemon
from lyceum.errors import ConfigError, LyceumError
from lyceum.node import call

QUESTIONS = (
    "Why did Ludwig von Mises say that economic calculation is impossible under socialism?",
    "What was the Harlem Renaissance?",
    "How did Hayek explain the business cycle, and how did American radio shape the 1930s?",
)
SELLERS = {"vienna": "austrian-economics", "harlem": "american-culture"}
BUDGET_MSAT = 20_000
BUNDLE_MSAT = 3_000
CHANNEL_MSAT = 1_000_000_000

Say = Callable[[str], None]
"""Shows a piece of text at once, without a line break of its own."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The running demo: the buyer's node, every node by name, and what the network is called."""

    network: str
    alice: Node
    nodes: Mapping[str, Node]

    def balances_msat(self) -> dict[str, int]:
        return {name: node.balance_msat() for name, node in self.nodes.items()}

    def ask(self, question: str, budget_msat: int, say: Say) -> dict[str, Any]:
        """One question through alice's node, streamed to `say`; the account with balances around it."""
        before = self.balances_msat()
        rpc = self.alice.rpc
        with rpc.notify(lambda message, **_: say(message)):
            answer: dict[str, Any] = call(rpc, "lyceum-ask", {"question": question, "budget_msat": budget_msat})
        after = settled_balances(self, before, answer["paid_msat"])
        books = {"balances_before_msat": before, "balances_after_msat": after}
        return answer | {"network": self.network, "question": question} | books


def settled_balances(stage: Stage, before: Mapping[str, int], paid_msat: int) -> dict[str, int]:
    """The balances once alice's shows the payment: a channel's commitment may lag the preimage."""
    deadline = time.monotonic() + 10
    after = stage.balances_msat()
    while time.monotonic() < deadline and not _adds_up(before, after, paid_msat):
        time.sleep(0.1)
        after = stage.balances_msat()
    return after


def adds_up(answer: Mapping[str, Any]) -> bool:
    """What left alice's wallet is what the members were paid, and nothing was lost on the way."""
    return _adds_up(answer["balances_before_msat"], answer["balances_after_msat"], answer["paid_msat"])


def _adds_up(before: Mapping[str, int], after: Mapping[str, int], paid_msat: int) -> bool:
    return before["alice"] - after["alice"] == paid_msat and sum(before.values()) == sum(after.values())


@contextmanager
def open_stage(kind: Kind, say: Say) -> Iterator[Stage]:
    """Three nodes, two servers, two channels; everything ends and is deleted on leaving."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="lyceum-demo-")))
        ports = dict(zip(SELLERS, _free_ports(len(SELLERS)), strict=True))
        say(f"Starting three {kind} nodes: alice asks, vienna and harlem sell ...\n")
        devnet = stack.enter_context(open_devnet(kind, directory / "nodes"))
        nodes = _start_nodes(devnet, ports)
        for name in SELLERS:
            stack.callback(_serve(directory, name, nodes[name], ports[name]).end)
        for name in SELLERS:
            devnet.connect(nodes["alice"], nodes[name], CHANNEL_MSAT)
        for name, port in ports.items():
            _await_server(name, port, directory)
        yield Stage(devnet.network, nodes["alice"], nodes)


def _start_nodes(devnet: Devnet, ports: Mapping[str, int]) -> dict[str, Node]:
    urls = ",".join(f"http://127.0.0.1:{port}" for port in ports.values())
    nodes = {"alice": devnet.node("alice", plugin=plugin_path(), options={"lyceum-peers": urls})}
    for name in SELLERS:
        nodes[name] = devnet.node(name, plugin=plugin_path(), options={"lyceum-bundle-msat": BUNDLE_MSAT})
    return nodes


def plugin_path() -> Path:
    """The plugin beside this interpreter's packages: a checkout's file, else the installed one."""
    import cln_lyceum  # noqa: PLC0415  (finding it, not using it)

    return Path(cln_lyceum.__file__)


def models_directory() -> Path:
    found = Path(__file__).resolve().parents[2] / "models"
    if not found.is_dir():
        raise ConfigError("the demo needs the models/ folder of a source checkout, and this is an installed package")
    return found


def _serve(directory: Path, name: str, node: Node, port: int) -> Daemon:
    model = SELLERS[name]
    config = directory / f"{name}.toml"
    folder = models_directory() / model
    config.write_text(
        f'[server]\nport = {port}\nnode = "{node.rpc_path}"\n'
        f'[[model]]\npath = "{folder / model}.Q8_0.gguf"\nlibrary = "{folder}/library"\nlibrary_use = "quote"\n'
        "n_ctx = 512\nmax_tokens = 120\nbase_msat = 100\ninput_per_1k_msat = 200\noutput_per_1k_msat = 1000\n"
    )
    argv = [sys.executable, "-m", "lyceum", "serve", "--config", str(config)]
    server = Daemon(f"{name}'s server", argv, directory / f"{name}.log")
    server.spawn()
    return server


def _await_server(name: str, port: int, directory: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    log = (directory / f"{name}.log").read_text(errors="replace")[-2000:]
    raise LyceumError(f"{name}'s server did not start:\n{log}")


def _free_ports(count: int) -> Sequence[int]:
    """Ports that nobody listens on now, all held at once so that they differ."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in held]


# For people


def notice(network: str) -> str:
    if network == "loopback":
        return (
            "LOOPBACK: no bitcoin moves. The plugin, invoices, macaroons and models are real; a ledger on\n"
            "this machine stands in for the Lightning network. `--network regtest` uses real nodes.\n"
        )
    return "REGTEST: real lightningd and bitcoind; the coins are worth nothing outside this machine.\n"


def report(stage: Stage, answer: Mapping[str, Any]) -> str:
    names = {node.node_id: name for name, node in stage.nodes.items()}
    return f"{tables.members(answer, names)}\n\n{_balances(answer)}\n"


def _balances(answer: Mapping[str, Any]) -> str:
    before, after = answer["balances_before_msat"], answer["balances_after_msat"]
    rows = [(name, before[name], after[name], after[name] - before[name]) for name in before]
    rows.append(("sum", sum(before.values()), sum(after.values()), sum(after.values()) - sum(before.values())))
    verdict = "The books add up." if adds_up(answer) else "THE BOOKS DO NOT ADD UP."
    return f"{tables.render(('node', 'before', 'after', 'change'), rows)}\n{verdict}"
