"""A payer and a payee on a devnet of either kind, with the echo plugin, and how to watch them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyln.client import RpcError

from lyceum.devnet import Devnet, Node, open_devnet

PLUGINS = Path(__file__).parent / "plugins"
ECHO = PLUGINS / "echo.py"
SECOND = PLUGINS / "second.py"
CAPACITY_MSAT = 1_000_000_000
PATIENCE_SECONDS = 30


@dataclass
class Couple:
    """A payer and a payee with a channel, the echo plugin on both."""

    kind: str
    net: Devnet
    payer: Node
    payee: Node
    _labels: Iterator[int] = field(default_factory=itertools.count)

    def invoice(self, amount_msat: int | str = 1000, word: str = "label", **more: Any) -> dict[str, Any]:
        """A new invoice of the payee; its label begins with `word` and is under `label`."""
        label = f"{word}-{next(self._labels)}"
        made: dict[str, Any] = self.payee.rpc.invoice(amount_msat, label, "a test", **more)
        return {**made, "label": label}


def until(true: Callable[[], bool]) -> None:
    """Real channels take a moment to agree on what both sides know already."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The error that a call is answered with."""
    with pytest.raises(RpcError) as caught:
        call(*args, **kwargs)
    error: dict[str, Any] = caught.value.error
    return error


def pays(node: Node, payment_hash: str) -> list[dict[str, Any]]:
    """`listpays`, once nothing in it is still being wound up."""

    def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = node.rpc.listpays(payment_hash=payment_hash)["pays"]
        return found

    until(lambda: all(row["status"] != "pending" for row in rows()))
    return rows()


@contextmanager
def open_couple(kind: str, directory: Path) -> Iterator[Couple]:
    with open_devnet("loopback" if kind == "loopback" else "regtest", directory) as net:
        payer = net.node("vienna", plugin=ECHO, options={"echo-number": 42, "echo-loud": "true"})
        payee = net.node("graz", plugin=ECHO)
        net.connect(payer, payee, CAPACITY_MSAT)
        yield Couple(kind, net, payer, payee)
