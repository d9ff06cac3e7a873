"""bitcoind on regtest, for a devnet: start it, mine, send coins that are worth nothing.

Knows nothing of Lightning.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyceum.devnet.process import Daemon
from lyceum.errors import NodeError

USER = "lyceum"
PASSWORD = "regtest"
MATURITY_BLOCKS = 101
SAT_PER_BTC = 100_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def btc(amount_sat: int) -> str:
    """bitcoind takes amounts as decimal text, so no float comes near them."""
    return f"{amount_sat // SAT_PER_BTC}.{amount_sat % SAT_PER_BTC:08d}"


@dataclass
class Bitcoind:
    daemon: Daemon
    port: int

    @classmethod
    def start(cls, binary: str, directory: Path) -> Bitcoind:
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        chain = cls(Daemon("bitcoind", _argv(binary, directory, port), directory / "console"), port)
        chain.daemon.spawn()
        try:
            chain.daemon.await_ready(chain._answers)
            chain.call("createwallet", "miner")
            chain.mine(MATURITY_BLOCKS)
        except BaseException:
            chain.daemon.kill()
            raise
        return chain

    def stop(self) -> None:
        self.daemon.end()

    def height(self) -> int:
        return int(self.call("getblockcount"))

    def mine(self, blocks: int) -> None:
        self.call("generatetoaddress", blocks, self.call("getnewaddress"))

    def send(self, address: str, amount_sat: int) -> None:
        self.call("sendtoaddress", address, btc(amount_sat))

    def call(self, method: str, *params: Any) -> Any:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            body = json.dumps({"jsonrpc": "1.0", "id": 0, "method": method, "params": params})
            link.request("POST", "/", body, {"Authorization": f"Basic {login}"})
            answer = json.loads(link.getresponse().read())
        finally:
            link.close()
        if answer["error"]:
            raise NodeError(f"bitcoind {method}: {answer['error']['message']}", answer["error"]["code"])
        return answer["result"]

    def _answers(self) -> bool:
        try:
            return self.height() >= 0
        except (OSError, NodeError, ValueError, http.client.HTTPException):
            return False


def _argv(binary: str, directory: Path, port: int) -> list[str]:
    return [
        binary,
        "-regtest",
        f"-datadir={directory}",
        "-server",
        "-listen=0",
        "-fallbackfee=0.00001",
        f"-rpcport={port}",
        f"-rpcuser={USER}",
        f"-rpcpassword={PASSWORD}",
    ]
