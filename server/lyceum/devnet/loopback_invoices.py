"""The payee's side of a loopback node: invoices made and shown, and payments to them taken.

Knows nothing of routes or of the payer but the payment's row in the ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Any

from lyceum.devnet import bolt12, invoices
from lyceum.devnet.invoices import BadBolt11, Draft
from lyceum.devnet.jsonrpc import (
    INVALID_PARAMS,
    LIGHTNINGD,
    JsonObject,
    Params,
    RpcFailure,
    as_count,
    as_flag,
    as_hash,
    as_label,
    as_msat,
    as_text,
)
from lyceum.devnet.loopback_home import Command, Home, command
from lyceum.devnet.loopback_hooks import hook_answers
from lyceum.devnet.loopback_ledger import InvoiceRow, LabelTaken, PreimageTaken
from lyceum.devnet.plugin_host import PluginHost

LABEL_EXISTS = 900
PREIMAGE_EXISTS = 901
EXPIRED_DURING_WAIT = 903
NOT_FOUND = 905
STATUS_UNEXPECTED = 906

LABEL_BYTES = 128
DESCRIPTION_BYTES = 639
"""BOLT11: a field of 1023 five-bit words."""

BOLT12 = (f"{bolt12.OFFER}1", f"{bolt12.INVOICE}1")

REFUSED: JsonObject = {"failure": "incorrect_or_unknown_payment_details"}


def as_positive_msat_or_any(value: Any) -> int | None:
    if value == "any":
        return None
    try:
        amount_msat = as_msat(value)
    except ValueError:
        amount_msat = 0
    if amount_msat == 0:
        raise ValueError("should be positive msat or 'any'")
    return amount_msat


def payment_secret(preimage: str) -> str:
    """As lightningd makes it: the hash of the preimage with its first byte changed."""
    first, *rest = bytes.fromhex(preimage)
    return hashlib.sha256(bytes([first ^ 1, *rest])).hexdigest()


def invoice_fields(row: InvoiceRow, now: int) -> JsonObject:
    """As `listinvoices` shows it."""
    shown: JsonObject = {
        "label": row.label,
        bolt12.name_of(row.bolt11): row.bolt11,
        "payment_hash": row.payment_hash,
        "status": row.status(now),
        "description": row.description,
        "expires_at": row.expires_at,
        "created_index": row.id,
    }
    if row.amount_msat is not None:
        shown["amount_msat"] = row.amount_msat
    if row.paid_at is not None:
        shown |= {
            "pay_index": row.pay_index,
            "amount_received_msat": row.received_msat,
            "paid_at": row.paid_at,
            "payment_preimage": row.preimage,
        }
    return shown


class Invoices:
    def __init__(self, home: Home, plugins: PluginHost) -> None:
        self._home = home
        self._plugins = plugins
        self._changed = asyncio.Condition()

    def commands(self) -> dict[str, Command]:
        return {
            "invoice": command(
                "amount_msat label description [expiry] [fallbacks] [preimage]"
                " [exposeprivatechannels] [cltv] [deschashonly]",
                self.invoice,
            ),
            "listinvoices": command(
                "[label] [invstring] [payment_hash] [offer_id] [index] [start] [limit]", self.listinvoices
            ),
            "delinvoice": command("label status [desconly]", self.delinvoice),
            "waitinvoice": command("label", self.waitinvoice),
            "decode": command("string", self.decode),
            "signinvoice": command("invstring", self.signinvoice),
        }

    async def invoice(self, params: Params) -> JsonObject:
        row = self._row(params)
        try:
            row = self._home.ledger.add_invoice(row)
        except LabelTaken:
            raise RpcFailure(LABEL_EXISTS, f"Duplicate label '{row.label}'") from None
        except PreimageTaken:
            raise RpcFailure(PREIMAGE_EXISTS, "preimage already used") from None
        created = {"label": row.label, "preimage": row.preimage}
        amount = {} if row.amount_msat is None else {"msat": row.amount_msat}
        self._plugins.publish("invoice_creation", {**created, **amount})
        return {
            "payment_hash": row.payment_hash,
            "expires_at": row.expires_at,
            "bolt11": row.bolt11,
            "payment_secret": row.payment_secret,
            "created_index": row.id,
        }

    def _row(self, params: Params) -> InvoiceRow:
        label = params.need("label", as_label)
        if len(label.encode()) > LABEL_BYTES:
            raise RpcFailure(INVALID_PARAMS, f"Label '{label}' over {LABEL_BYTES} bytes")
        draft, preimage = self._draft(params)
        return InvoiceRow(
            0,
            self._home.node_id,
            label,
            draft.payment_hash,
            preimage,
            draft.payment_secret,
            invoices.make(draft, self._home.key.secret),
            draft.description,
            draft.amount_msat,
            draft.created_at + draft.expiry,
        )

    def _draft(self, params: Params) -> tuple[Draft, str]:
        params.refuse("fallbacks", "exposeprivatechannels")
        preimage = params.maybe("preimage", as_hash) or secrets.token_hex(32)
        description = params.need("description", as_text)
        by_hash = params.get("deschashonly", as_flag, default=False)
        if len(description.encode()) > DESCRIPTION_BYTES and not by_hash:
            size = len(description.encode())
            message = f"Description greater than {DESCRIPTION_BYTES} bytes invalid (description length {size})"
            raise RpcFailure(INVALID_PARAMS, message)
        draft = Draft(
            params.need("amount_msat", as_positive_msat_or_any),
            hashlib.sha256(bytes.fromhex(preimage)).hexdigest(),
            payment_secret(preimage),
            description,
            self._home.now(),
            params.get("expiry", as_count, invoices.DEFAULT_EXPIRY_SECONDS),
            params.get("cltv", as_count, invoices.MIN_FINAL_CLTV),
            by_hash,
        )
        return draft, preimage

    async def listinvoices(self, params: Params) -> JsonObject:
        params.refuse("offer_id", "index", "start", "limit")
        keys = [name for name in ("label", "invstring", "payment_hash") if name in params]
        if len(keys) > 1:
            raise RpcFailure(INVALID_PARAMS, "Can only specify one of {label}, {invstring}, {payment_hash}")
        payment_hash = params.maybe("payment_hash", as_hash)
        if "invstring" in params:
            payment_hash = read_invoice(params.need("invstring", as_text), "Invalid invstring").payment_hash
        label = params.maybe("label", as_label)
        rows = self._home.ledger.invoices(self._home.node_id, label=label, payment_hash=payment_hash)
        return {"invoices": [invoice_fields(row, self._home.now()) for row in rows]}

    async def delinvoice(self, params: Params) -> JsonObject:
        params.refuse("desconly")
        row = self._find(params.need("label", as_label))
        expected = params.need("status", as_text)
        if row is None:
            raise RpcFailure(NOT_FOUND, "Unknown invoice")
        status = row.status(self._home.now())
        if status != expected:
            statuses = {"current_status": status, "expected_status": expected}
            raise RpcFailure(STATUS_UNEXPECTED, f"Invoice status is {status} not {expected}", statuses)
        self._home.ledger.delete_invoice(row.id)
        await self._tell_waiters()
        return invoice_fields(row, self._home.now())

    async def waitinvoice(self, params: Params) -> JsonObject:
        label = params.need("label", as_label)
        row = self._find(label)
        if row is None:
            raise RpcFailure(LIGHTNINGD, "Label not found")
        async with self._changed:
            while row is not None and row.status(self._home.now()) == "unpaid":
                await self._until_changed(row.expires_at + 1 - self._home.clock())
                row = self._find(label)
        if row is None:
            raise RpcFailure(LIGHTNINGD, "Invoice deleted during wait")
        shown = invoice_fields(row, self._home.now())
        if shown["status"] == "expired":
            raise RpcFailure(EXPIRED_DURING_WAIT, "invoice expired during wait", shown)
        return shown

    async def _until_changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def decode(self, params: Params) -> JsonObject:
        text = params.need("string", as_text)
        plain = text.lower().removeprefix(invoices.URI)
        try:
            if plain.startswith(BOLT12):
                return bolt12.described(plain)
            return {"type": "bolt11 invoice", **invoices.read(text).fields, "valid": True}
        except BadBolt11 as problem:
            reason = problem if plain.startswith("ln") else "Unparsable string"
            message = f"string: {reason}: invalid token '\"{text}\"'"
            raise RpcFailure(INVALID_PARAMS, message) from None

    async def signinvoice(self, params: Params) -> JsonObject:
        """Signs whatever it is given, as lightningd does; the signature that stands there is not looked at."""
        text = params.need("invstring", as_text)
        try:
            signed = invoices.sign(text, self._home.key.secret)
        except BadBolt11 as problem:
            raise RpcFailure(INVALID_PARAMS, f"Unparsable invoice '{text}': {problem}") from None
        return {"bolt11": read_invoice(signed, "Unparsable invoice").bolt11}

    async def take(self, htlc: JsonObject) -> JsonObject:
        """A payment arrives, already written as pending by its payer: the preimage, or why not."""
        ledger, me = self._home.ledger, self._home.node_id
        pay = ledger.pay(int(htlc["pay"]))
        row = next(iter(ledger.invoices(me, payment_hash=str(htlc["payment_hash"]))), None)
        if pay is None or row is None or not self._payable(row, pay.amount_msat, str(htlc["payment_secret"])):
            return REFUSED
        if not await self._plugins_accept(row, pay.amount_msat):
            return REFUSED
        paid = ledger.settle(pay.id, row.id, self._home.now())
        if paid is None:
            return REFUSED
        self._home.log.write("info", "loopback", f"Resolved invoice '{paid.label}' with {pay.amount_msat}msat")
        fields = {"msat": pay.amount_msat, "preimage": paid.preimage, "label": paid.label}
        self._plugins.publish("invoice_payment", fields)
        await self._tell_waiters()
        return {"preimage": paid.preimage}

    def _payable(self, row: InvoiceRow, msat: int, payment_secret: str) -> bool:
        """BOLT4: at least the amount asked, at most twice that."""
        if row.status(self._home.now()) != "unpaid" or payment_secret != row.payment_secret:
            return False
        return row.amount_msat is None or row.amount_msat <= msat <= 2 * row.amount_msat

    async def _plugins_accept(self, row: InvoiceRow, msat: int) -> bool:
        payload = {"payment": {"label": row.label, "preimage": row.preimage, "msat": msat}}
        async for answer in hook_answers(self._home, self._plugins, "invoice_payment", payload):
            if answer.get("result") == "continue":
                continue
            if answer.get("result") == "reject" or "failure_message" in answer:
                return False
            self._home.die(f"Invalid invoice_payment hook result: {answer}")
        return True

    def _find(self, label: str) -> InvoiceRow | None:
        return next(iter(self._home.ledger.invoices(self._home.node_id, label=label)), None)

    async def _tell_waiters(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def read_invoice(text: str, otherwise: str) -> invoices.Bolt11:
    """A BOLT11 or BOLT12 invoice. Raises RpcFailure beginning with `otherwise`."""
    try:
        return bolt12.read_invoice(text) if text.startswith(bolt12.INVOICE) else invoices.read(text)
    except BadBolt11 as problem:
        raise RpcFailure(INVALID_PARAMS, f"{otherwise}: {problem}") from None
