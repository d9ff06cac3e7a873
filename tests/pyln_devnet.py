"""pyln-testing's real nodes behind the devnet interface, one network for a whole test module.

Its own fixtures live as long as one test; starting bitcoind and opening a channel takes ten seconds,
so the same classes are used here for a module. Its checks stay: a node that logged BROKEN, crashed
or leaked fails the module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from lyceum.devnet import Node
from lyceum.devnet.process import environment

os.environ.setdefault("RUST", "0")  # read on import: Core Lightning's Rust plugins may be absent
os.environ.update(PATH=environment()["PATH"])

from pyln.client import LightningRpc
from pyln.testing.db import SqliteDbProvider
from pyln.testing.fixtures import checkBroken, checkMemleak, printCrashLog
from pyln.testing.utils import BitcoinD, LightningNode, NodeFactory, wait_for

CHECKS = {"logged BROKEN": checkBroken, "leaked memory": checkMemleak, "crashed": printCrashLog}


class PylnNode:
    """A LightningNode as a devnet `Node`."""

    def __init__(self, name: str, node: Any) -> None:
        self.name = name
        self.lightning_node = node
        self.rpc_path = Path(node.rpc.socket_path)
        self.log_path = Path(node.daemon.lightning_dir) / "log"

    @property
    def node_id(self) -> str:
        return str(self.lightning_node.info["id"])

    @property
    def rpc(self) -> LightningRpc:
        return LightningRpc(str(self.rpc_path))

    def balance_msat(self) -> int:
        return sum(int(channel["our_amount_msat"]) for channel in self.rpc.listfunds()["channels"])

    def start(self) -> None:
        self.lightning_node.start()

    def stop(self) -> None:
        self.lightning_node.stop()

    def restart(self) -> None:
        self.lightning_node.restart()

    def kill(self) -> None:
        self.lightning_node.may_fail = True
        self.lightning_node.daemon.kill()


class PylnDevnet:
    network = "regtest"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(8)
        self._bitcoind = BitcoinD(bitcoin_dir=str(directory / "bitcoind"))

    def __enter__(self) -> Self:
        self._bitcoind.start()
        self._bitcoind.generate_block(101)
        request = SimpleNamespace(node=SimpleNamespace(has_errors=False))
        self._factory = NodeFactory(
            request,
            "lyceum",
            self._bitcoind,
            self._pool,
            directory=str(self._directory),
            db_provider=SqliteDbProvider(str(self._directory)),
            node_cls=LightningNode,
            jsonschemas={},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ok, complaints = self._factory.killall([not node.may_fail for node in self._factory.nodes])
        self._bitcoind.stop()
        self._pool.shutdown(wait=False)
        found = [f"{node.daemon.prefix} {what}" for node in self._factory.nodes for what in _wrong_with(node)]
        for daemon in (self._bitcoind, *(node.daemon for node in self._factory.nodes)):
            daemon.cleanup_files()
        if kind is None and (found or complaints or not ok):
            raise AssertionError("; ".join([*found, *complaints]) or "a node did not stop properly")

    def node(
        self, name: str, *, plugin: Path | None = None, options: Mapping[str, str | int] | None = None
    ) -> PylnNode:
        arguments: dict[str, Any] = {"alias": name, **(options or {})}
        if plugin:
            arguments["plugin"] = str(plugin)
        return PylnNode(name, self._factory.get_node(options=arguments, may_reconnect=True))

    def connect(self, payer: Node, payee: Node, capacity_msat: int) -> None:
        assert isinstance(payer, PylnNode)
        assert isinstance(payee, PylnNode)
        source, target = payer.lightning_node, payee.lightning_node
        if not source.is_connected(target):
            source.connect(target)
        source.fundchannel(target, capacity_msat // 1000, wait_for_active=True)
        wait_for(lambda: _usable(source, target))


def _usable(source: Any, target: Any) -> bool:
    channels = source.rpc.listpeerchannels(target.info["id"])["channels"]
    return bool(channels) and channels[0]["state"] == "CHANNELD_NORMAL"


def _wrong_with(node: Any) -> list[str]:
    return [what for what, check in CHECKS.items() if not node.may_fail and check(node)]
