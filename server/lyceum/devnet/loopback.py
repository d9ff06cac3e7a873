"""`python -m lyceum.devnet.loopback`: one node of a loopback network, as a process of its own.

Reads the command line, puts the rooms of the node together, and ends them in order; what a room does
is in its file. Not here at all: runes, sql, waitanyinvoice, the rpc_command hook, payments in
several parts, and the wire's 1 MB/s limit on custom messages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lyceum.devnet.keys import NodeKey
from lyceum.devnet.loopback_channels import Channels
from lyceum.devnet.loopback_control import Control
from lyceum.devnet.loopback_datastore import Datastore
from lyceum.devnet.loopback_home import BANNER, NETWORK, RPC_FILE, Command, Home
from lyceum.devnet.loopback_htlcs import Htlcs
from lyceum.devnet.loopback_invoices import Invoices
from lyceum.devnet.loopback_ledger import Ledger, NodeRow
from lyceum.devnet.loopback_log import Log
from lyceum.devnet.loopback_offers import Offers
from lyceum.devnet.loopback_pays import Pays
from lyceum.devnet.loopback_peers import Peers
from lyceum.devnet.loopback_server import RpcServer
from lyceum.devnet.plugin_host import Given, NotStarted, PluginHost, Surroundings, feature_hex

FEATURES = {"init": 0x800898880A8A59A1, "node": 0x808898880A8A59A1, "channel": 0, "invoice": 0x024100}
"""lightningd v26.06's own bits, so that a plugin finds the surroundings it will have there."""

HOOKS = frozenset({"invoice_payment", "custommsg", "htlc_accepted"})
TOPICS = frozenset({"invoice_payment", "invoice_creation", "custommsg", "connect", "disconnect", "shutdown"})


@dataclass(frozen=True, slots=True)
class Arguments:
    directory: Path
    ledger: Path
    alias: str
    plugins: tuple[Path, ...]
    options: Given
    fee_msat: int


def read_arguments(argv: Sequence[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m lyceum.devnet.loopback", description=BANNER)
    parser.add_argument("--lightning-dir", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="the SQLite file that all nodes share")
    parser.add_argument("--alias", required=True)
    parser.add_argument("--plugin", type=Path, action="append", default=[])
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of a plugin")
    parser.add_argument("--fee-msat", type=int, default=0, help="taken for each payment forwarded")
    found = parser.parse_args(argv)
    return Arguments(
        found.lightning_dir.resolve() / NETWORK,
        found.ledger.resolve(),
        found.alias,
        tuple(path.resolve() for path in found.plugin),
        _options(found.option),
        found.fee_msat,
    )


def _options(words: Sequence[str]) -> Given:
    given: dict[str, list[str | bool]] = {}
    for word in words:
        name, is_valued, value = word.partition("=")
        given.setdefault(name, []).append(value if is_valued else True)
    return given


def at_home(arguments: Arguments) -> Home:
    arguments.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.directory)  # sockets are bound by relative names: a full path may be too long
    key = NodeKey.load(arguments.directory / "hsm_secret")
    log = Log(arguments.directory / "log", time.time)
    ledger = Ledger(arguments.ledger)
    return Home(key, key.node_id, arguments.alias, arguments.directory, ledger, log, time.time)


class LoopbackNode:
    def __init__(self, home: Home, arguments: Arguments) -> None:
        self._home = home
        self._arguments = arguments
        self._stopping = asyncio.Event()
        self._table: dict[str, Command] = {}
        around = Surroundings(home.directory, RPC_FILE, NETWORK, FEATURES, self._own_methods, HOOKS, TOPICS)
        self._plugins = PluginHost(around, home.log)
        invoices, offers = Invoices(home, self._plugins), Offers(home)
        htlcs = Htlcs(home, self._plugins, invoices.take)
        self._peers = Peers(home, self._plugins, {"htlc": htlcs.take, "invreq": offers.answer})
        channels = Channels(home, self._peers)
        control = Control(home, self._plugins, lambda: self._table, self._stopping, channels.counts)
        for room in (control, invoices, offers, Pays(home), channels, Datastore(home)):
            self._table |= room.commands()

    def _own_methods(self) -> set[str]:
        return {"notifications", *self._table}

    async def run(self) -> None:
        """Until `stop`, SIGTERM or SIGINT."""
        home = self._home
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        home.ledger.fail_unfinished(home.node_id, home.now())
        await self._plugins.introduce_all(self._arguments.plugins, self._arguments.options)
        self._register()
        peers = await self._peers.serve()
        server = await RpcServer(lambda: self._table, self._plugins, home.log).serve()
        await self._plugins.initialise_all()
        await self._peers.connect_channels()
        home.log.write("info", "loopback", f"{home.alias} is ready")
        await self._stopping.wait()
        peers.close()
        await self._plugins.stop_all()
        server.close()

    def _register(self) -> None:
        home = self._home
        features = feature_hex(self._plugins.features["node"])
        row = NodeRow(home.node_id, home.alias, str(home.directory), features, self._arguments.fee_msat)
        home.ledger.register(row)


def main() -> None:
    arguments = read_arguments(sys.argv[1:])
    home = at_home(arguments)
    home.log.write("unusual", "loopback", BANNER)
    sys.stderr.write(BANNER + "\n")
    try:
        asyncio.run(run(home, arguments))
    except NotStarted as problem:
        sys.exit(str(problem))
    finally:
        home.ledger.close()
        home.log.close()


async def run(home: Home, arguments: Arguments) -> None:
    await LoopbackNode(home, arguments).run()


if __name__ == "__main__":
    main()
