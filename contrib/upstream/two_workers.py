"""Two workers behind one till: a shop sells what two other `lyceum serve` processes write, and one of them is killed.

    python contrib/upstream/two_workers.py [--json]

Runs on loopback, where no bitcoin moves: a buyer's node and a seller's node with the real plugin, a shop at the
seller's node with one [[upstream]] table, and two workers without a node. Eight questions are asked at once; then
the second worker gets SIGKILL and eight more are asked; then it comes back.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2 as httpx

from lyceum import tables
from lyceum.demo import models_directory, plugin_path
from lyceum.devnet import Node, open_devnet
from lyceum.devnet.process import Daemon
from lyceum.node import call

MODEL = "austrian-economics"
QUESTIONS = (
    "What is time preference?",
    "Who was Carl Menger?",
    "What is marginal utility?",
    "What is malinvestment?",
    "What is praxeology?",
    "Who was Israel Kirzner?",
    "What is catallactics?",
    "What is the calculation problem?",
)
CREDIT_MSAT = 20_000
CHANNEL_MSAT = 1_000_000_000
PATIENCE_S = 60

WORKER = """\
[server]
port = {port}
[[model]]
path = "{weights}"
n_ctx = 512
max_tokens = 120
"""

SHOP = """\
[server]
port = {port}
node = "{node}"
[[upstream]]
name = "economist"
urls = {urls}
model = "austrian-economics"
n_ctx = 512
max_tokens = 120
base_msat = 100
input_per_1k_msat = 200
output_per_1k_msat = 1000
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs: two nodes, the shop's URL, the workers."""

    buyer: Node
    seller: Node
    shop: str
    workers: Sequence[Daemon]

    def health(self) -> Any:
        return httpx.get(f"{self.shop}/health", timeout=PATIENCE_S).json()

    def buy(self) -> str:
        """The `Authorization` line of a token that holds CREDIT_MSAT."""
        wanted = {"service": "lyceum", "amount_msat": CREDIT_MSAT}
        challenge = call(self.seller.rpc, "l402-admit", wanted)["declined"]["headers"][1][1]
        paying = {"challenge": challenge, "origin": self.shop, "cap_msat": CREDIT_MSAT}
        return str(call(self.buyer.rpc, "l402-pay", paying)["ticket"]["authorization"])

    def ask(self, question: str, authorization: str) -> Any:
        chat = {"model": "economist", "messages": [{"role": "user", "content": question}]}
        headers = {"Authorization": authorization}
        return httpx.post(f"{self.shop}/v1/chat/completions", json=chat, headers=headers, timeout=PATIENCE_S).json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    as_json = parser.parse_args().json or not sys.stdout.isatty()
    with TemporaryDirectory(prefix="lyceum-upstream-") as directory, open_stage(Path(directory)) as stage:
        found = play(stage)
    print(json.dumps(found) if as_json else report(found))
    sys.exit(0 if found["books_add_up"] else "THE BOOKS DO NOT ADD UP")


def play(stage: Stage) -> dict[str, Any]:
    authorization = stage.buy()

    def all_at_once() -> list[Any]:
        with ThreadPoolExecutor(len(QUESTIONS)) as clients:
            return list(clients.map(lambda question: stage.ask(question, authorization), QUESTIONS))

    say("asking eight questions at once ...")
    rounds = [("both workers", all_at_once(), stage.health())]
    say("killing the second worker, asking eight more ...")
    stage.workers[1].kill()
    rounds.append(("one killed", all_at_once(), stage.health()))
    say("starting it again ...")
    stage.workers[1].spawn()
    until(lambda: stage.health()["status"] == "ok")
    rounds.append(("both again", all_at_once(), stage.health()))
    return account(stage, authorization, rounds)


def account(stage: Stage, authorization: str, rounds: Sequence[tuple[str, list[Any], Any]]) -> dict[str, Any]:
    charged_msat = sum(answer["lyceum"]["charge"]["charged_msat"] for _, answers, _ in rounds for answer in answers)
    verified = {"service": "lyceum", "authorization": authorization}
    left_msat = call(stage.seller.rpc, "l402-verify", verified)["balance_msat"]
    return {
        "rounds": [_round(name, answers, health) for name, answers, health in rounds],
        "paid_msat": CREDIT_MSAT,
        "charged_msat": charged_msat,
        "left_msat": left_msat,
        "books_add_up": charged_msat + left_msat == CREDIT_MSAT,
        "network": "loopback",
    }


def _round(name: str, answers: list[Any], health: Any) -> dict[str, Any]:
    return {
        "round": name,
        "answers": sum(bool(answer["choices"][0]["message"]["content"]) for answer in answers),
        "charged_msat": sum(answer["lyceum"]["charge"]["charged_msat"] for answer in answers),
        "sent": [server["served"] for server in health["servers"]],
        "trouble": [server["trouble"] for server in health["servers"]],
    }


def report(found: dict[str, Any]) -> str:
    rows = [
        (
            one["round"],
            one["answers"],
            one["charged_msat"],
            *one["sent"],
            "; ".join(f"{number} {why}" for number, why in enumerate(one["trouble"], 1) if why) or "none",
        )
        for one in found["rounds"]
    ]
    heads = ("round", "answers", "msat", "to worker 1 so far", "to worker 2 so far", "trouble in /health")
    bill = f"{found['charged_msat']:,} of {found['paid_msat']:,} msat charged, {found['left_msat']:,} left on the token"
    return f"{tables.render(heads, rows)}\n{bill} (loopback: no bitcoin moved)"


@contextmanager
def open_stage(directory: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        say("starting two loopback nodes, two workers and a shop ...")
        devnet = stack.enter_context(open_devnet("loopback", directory / "nodes"))
        buyer, seller = (devnet.node(name, plugin=plugin_path()) for name in ("buyer", "seller"))
        devnet.connect(buyer, seller, CHANNEL_MSAT)
        first, second, third = free_ports(3)
        weights = models_directory() / MODEL / f"{MODEL}.Q8_0.gguf"
        workers = [
            serve(stack, directory, f"worker-{port}", WORKER.format(port=port, weights=weights))
            for port in (first, second)
        ]
        for port in (first, second):
            until(lambda port=port: answers(port))  # type: ignore[misc]
        urls = json.dumps([f"http://127.0.0.1:{port}/v1" for port in (first, second)])
        serve(stack, directory, "shop", SHOP.format(port=third, node=seller.rpc_path, urls=urls))
        until(lambda: answers(third))
        yield Stage(buyer, seller, f"http://127.0.0.1:{third}", workers)


def serve(stack: ExitStack, directory: Path, name: str, text: str) -> Daemon:
    config = directory / f"{name}.toml"
    config.write_text(text)
    argv = [sys.executable, "-m", "lyceum", "serve", "--config", str(config)]
    daemon = Daemon(name, argv, directory / f"{name}.log")
    daemon.spawn()
    stack.callback(daemon.end)
    return daemon


def free_ports(count: int) -> list[int]:
    """All held at once, so that they differ."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in held]


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"something did not happen within {PATIENCE_S} s")
        time.sleep(0.2)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
