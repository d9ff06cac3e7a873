"""What the rooms of one loopback node share: who it is, its books, its log, its clock.

Also the shape of a command. Knows no command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lyceum.devnet.jsonrpc import JsonObject, Params, Usage
from lyceum.devnet.keys import NodeKey
from lyceum.devnet.loopback_ledger import Ledger
from lyceum.devnet.loopback_log import Log

NETWORK = "regtest"
RPC_FILE = "lightning-rpc"
PEER_FILE = "loopback-peer"
BANNER = "LOOPBACK: no bitcoin moves on this network; it stands in for lightningd"


@dataclass(frozen=True, slots=True)
class Home:
    key: NodeKey
    node_id: str
    alias: str
    directory: Path
    ledger: Ledger
    log: Log
    clock: Callable[[], float]

    def now(self) -> int:
        return int(self.clock())

    def die(self, reason: str) -> NoReturn:
        """What kills lightningd kills the stand-in, or a plugin would pass here and crash there."""
        self.log.write("broken", "loopback", reason)
        raise SystemExit(reason)


Handler = Callable[[Params], Awaitable[JsonObject]]


@dataclass(frozen=True, slots=True)
class Command:
    usage: Usage
    run: Handler


def command(usage: str, run: Handler) -> Command:
    return Command(Usage(usage), run)
