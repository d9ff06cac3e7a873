"""The till's side: a wallet whose challenges leave nothing in the node until they are paid."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any
from uuid import uuid4

from pyln.client import LightningRpc

from lyceum.bolt11 import Draft, Hop, Style
from lyceum.errors import NodeError
from lyceum.lazy import KEY, METHOD, shelf
from lyceum.node import ClnWallet, call
from lyceum.ports import Invoice
from lyceum.quote import Quote, Subject, preimage

PRESENCE_S = 1
"""How long the hook's last sign of life counts, and how long one is waited for."""

STYLE_S = 300
"""How long what was learnt from the node's own invoices counts: private channels come and go."""

MOST_SUBJECTS = 1000
"""What is sold that the node's datastore describes; a service may put its callers' words into `model`."""

REFUSED_S = 60
"""How long a node that refused to sign is not asked again."""


class LazyWallet(ClnWallet):
    """Challenges are lazy while the hook's process answers and the node signs; else they are `invoice`s.

    `clock` counts seconds and never goes back.
    """

    def __init__(self, rpc: LightningRpc, clock: Callable[[], float]) -> None:
        super().__init__(rpc)
        self._clock = clock
        self._presence = _Presence(rpc, clock)
        self._key = bytes.fromhex(call(rpc, "makesecret", {"string": KEY})["secret"])
        self._style: Style | None = None
        self._style_until = self._refused_until = 0.0
        self._shelved: set[Subject] = set()

    def challenge(self, quote: Quote, subject: Subject, expiry_s: int) -> Invoice:
        known = subject in self._shelved or len(self._shelved) < MOST_SUBJECTS
        if known and self._clock() >= self._refused_until and self._presence():
            try:
                return self._sign(quote, subject, expiry_s)
            except NodeError:
                self._refused_until = self._clock() + REFUSED_S
        return super().challenge(quote, subject, expiry_s)

    def is_open(self, invoice: Invoice) -> bool:
        return (invoice.kept or self._presence()) and super().is_open(invoice)

    def _sign(self, quote: Quote, subject: Subject, expiry_s: int) -> Invoice:
        self._shelve(subject)
        secret = quote.encode()
        payment_hash = hashlib.sha256(preimage(self._key, secret)).digest()
        created_at = quote.expires_at - expiry_s
        draft = Draft(quote.amount_msat, created_at, payment_hash, secret, subject.description, expiry_s)
        unsigned = draft.unsigned(self._learnt_style())
        signed = call(self._rpc, "signinvoice", {"invstring": unsigned})["bolt11"]
        hash_text = payment_hash.hex()
        return Invoice(signed, hash_text, quote.amount_msat, quote.expires_at, self.network(), kept=False)

    def _shelve(self, subject: Subject) -> None:
        """Once for what is sold, not for each challenge: the hook describes the invoice by it."""
        if subject not in self._shelved:
            entry = {"key": shelf(subject.digest()), "string": subject.encode(), "mode": "create-or-replace"}
            call(self._rpc, "datastore", entry)
            self._shelved.add(subject)

    def _learnt_style(self) -> Style:
        if self._style is None or self._clock() >= self._style_until:
            self._style, self._style_until = _learn(self._rpc), self._clock() + STYLE_S
        return self._style


class _Presence:
    """Does the hook's process answer? Asked at most once a second; one that hangs costs one wait."""

    def __init__(self, rpc: LightningRpc, clock: Callable[[], float]) -> None:
        self._rpc = rpc
        self._clock = clock
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="presence")
        self._asked: Future[Any] | None = None
        self._asked_at = 0.0

    def __call__(self) -> bool:
        with self._lock:
            if self._asked is None or (self._asked.done() and self._clock() >= self._asked_at + PRESENCE_S):
                self._asked, self._asked_at = self._thread.submit(call, self._rpc, METHOD), self._clock()
            asked, left_s = self._asked, self._asked_at + PRESENCE_S - self._clock()
        try:
            asked.result(timeout=max(left_s, 0))
        except (NodeError, NoAnswer):
            return False
        return True


def _learn(rpc: LightningRpc) -> Style:
    """What the node's invoices have in common, from one that is made and taken away again."""
    label = f"lyceum/style/{uuid4().hex}"
    made = call(rpc, "invoice", {"amount_msat": "any", "label": label, "description": "not to be paid"})
    try:
        found = call(rpc, "decode", {"string": made["bolt11"]})
    finally:
        call(rpc, "delinvoice", {"label": label, "status": "unpaid"})
    routes = tuple(tuple(map(_hop, route)) for route in found.get("routes", ()))
    return Style(found["currency"], found["min_final_cltv_expiry"], bytes.fromhex(found.get("features", "")), routes)


def _hop(found: Mapping[str, Any]) -> Hop:
    return Hop(
        found["pubkey"],
        found["short_channel_id"],
        int(found["fee_base_msat"]),
        found["fee_proportional_millionths"],
        found["cltv_expiry_delta"],
    )
