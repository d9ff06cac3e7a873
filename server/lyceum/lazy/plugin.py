"""`cln-lyceum-invoices`: the plugin process with the htlc_accepted hook. The room's laws are its whole job."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pyln.client import Plugin
from pyln.client.plugin import Request

from lyceum.errors import NodeError
from lyceum.lazy import KEY, METHOD, shelf
from lyceum.lazy.hook import Arrival, arrival
from lyceum.node import call
from lyceum.quote import Subject

DEADLINE_S = 5
"""An HTLC of ours is let go after this long, row or no row; the payer may try again."""

STUCK_S = 15
"""With HTLCs waiting and the interpreter silent for this long, the process ends, and the node goes on."""

STDERR = 2
"""lightningd's own, whatever pyln makes of sys.stderr."""

LABEL_EXISTS, PREIMAGE_EXISTS = 900, 901
UNKNOWN = Subject("lazy", "L402")


class Waiting:
    """The HTLCs that are not answered yet. While there are any, a watchdog outside the interpreter is armed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[str, threading.Timer] = {}

    def begin(self, request: Request) -> None:
        """From now on `request` is answered when its deadline passes, whoever else forgets it."""
        deadline = threading.Timer(DEADLINE_S, self.answer, (request,))
        with self._lock:
            self._deadlines[request.id] = deadline
            faulthandler.dump_traceback_later(STUCK_S, exit=True, file=STDERR)
        deadline.start()

    def answer(self, request: Request, payload: bytes = b"") -> None:
        """Continue, once; a second answer is none."""
        with self._lock:
            deadline = self._deadlines.pop(request.id, None)
            if not self._deadlines:
                faulthandler.cancel_dump_traceback_later()
        if deadline:
            deadline.cancel()
            request.set_result({"result": "continue", **({"payload": payload.hex()} if payload else {})})


class Hook(Plugin):  # type: ignore[misc]
    """The plugin, with the key that `init` asks for."""

    key: bytes


plugin = Hook()
waiting = Waiting()
workers = ThreadPoolExecutor(4, thread_name_prefix="invoice")


@plugin.init()
def init(**_: Any) -> dict[str, str] | None:
    try:
        plugin.key = bytes.fromhex(call(plugin.rpc, "makesecret", {"string": KEY})["secret"])
    except NodeError as error:
        return {"disable": error.message}
    return None


@plugin.method(METHOD)
def lazy(**_: Any) -> dict[str, Any]:
    """Say that lazy invoices are made here when they are paid."""
    return {"ready": True}


@plugin.async_hook("htlc_accepted")
def htlc_accepted(
    onion: Mapping[str, Any], htlc: Mapping[str, Any], request: Request, forward_to: str = "", **_: Any
) -> None:
    """Every HTLC of the node. What is not ours goes on before this returns."""
    found = None
    if not forward_to and "payment_secret" in onion:
        with suppress(Exception):  # pyln would answer it with fail
            found = arrival(plugin.key, onion, htlc, int(time.time()))
    if found is None:
        request.set_result({"result": "continue"})
        return
    waiting.begin(request)
    workers.submit(_receive, found, request)


def _receive(found: Arrival, request: Request) -> None:
    payload = b""
    try:
        _make_invoice(found)
        payload = found.payload
    except NodeError as error:
        plugin.log(f"no invoice for a payment that was promised one: node error {error.node_code}", level="warn")
    finally:
        waiting.answer(request, payload)


def _make_invoice(found: Arrival) -> None:
    """A later part of the payment finds it there. Raises NodeError."""
    quote = found.quote
    subject = _subject(quote.subject)
    wanted = {
        "amount_msat": quote.amount_msat,
        "label": quote.label(subject.service),
        "description": subject.description,
        "expiry": max(quote.expires_at - int(time.time()), 1),
        "preimage": found.preimage.hex(),
    }
    try:
        call(plugin.rpc, "invoice", wanted)
    except NodeError as error:
        if error.node_code not in (LABEL_EXISTS, PREIMAGE_EXISTS):
            raise


def _subject(digest: bytes) -> Subject:
    rows = call(plugin.rpc, "listdatastore", {"key": shelf(digest)})["datastore"]
    return Subject.decode(rows[0]["string"]) if rows and "string" in rows[0] else UNKNOWN


def main() -> None:
    plugin.run()


if __name__ == "__main__":
    main()
