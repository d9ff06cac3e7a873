#!/usr/bin/env python3
"""The real plugin, which can be told to die by SIGKILL at a point of its work, or to take its node along.

The file `points` in its directory lists what it passed; `die` names where it dies, once. Points are the
node's RPC methods and the ledger's transactions: `before xpay`, `after xpay`, `before reserve`, ...
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pyln.client import LightningRpc

import cln_lyceum
from lyceum.ledger import Database
from lyceum.purse import purse
from lyceum.till import refunds, till

WITH_NODE = "node "

call, write = LightningRpc.call, Database.write


def point(name: str) -> None:
    with Path("points").open("a", encoding="ascii") as points:
        points.write(f"{name}\n")
    order = Path("die")
    wanted = order.read_text(encoding="ascii") if order.exists() else ""
    if wanted.removeprefix(WITH_NODE) != name:
        return
    order.unlink()
    if wanted.startswith(WITH_NODE):
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def mortal_call(rpc: LightningRpc, method: str, *params: Any) -> Any:
    point(f"before {method}")
    answer = call(rpc, method, *params)
    point(f"after {method}")
    return answer


def mortal_write(database: Database) -> AbstractContextManager[Any]:
    return _committed(database, sys._getframe(1).f_code.co_name)


@contextmanager
def _committed(database: Database, name: str) -> Iterator[Any]:
    point(f"before {name}")
    with write(database) as connection:
        yield connection
    point(f"after {name}")


purse.LONGEST_PAYMENT_S = refunds.CERTAIN_S = 10  # a direct payment takes less, and tests need not wait for more
till.RESERVATION_S = 25
LightningRpc.call = mortal_call
Database.write = mortal_write  # type: ignore[method-assign, assignment]
cln_lyceum.main()
