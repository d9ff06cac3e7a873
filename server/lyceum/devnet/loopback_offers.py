"""BOLT12 on a loopback node: offers made, an invoice fetched from another node's offer, and given for one's own.

The question travels over the same connection as a payment; on a real network it is an onion message.
"""

from __future__ import annotations

import hashlib
import secrets

from lyceum.devnet import bolt12
from lyceum.devnet.invoices import BadBolt11, Bolt11
from lyceum.devnet.jsonrpc import INVALID_PARAMS, JsonObject, Params, RpcFailure, as_count, as_hash, as_msat, as_text
from lyceum.devnet.loopback_home import Command, Home, command
from lyceum.devnet.loopback_invoices import as_positive_msat_or_any
from lyceum.devnet.loopback_ledger import InvoiceRow, OfferRow
from lyceum.devnet.loopback_peers import Wire

OFFER_EXPIRED = 1002
NO_ROUTE = 1003
REMOTE_FAILED = 1004
TIMED_OUT = 1005
UNKNOWN_OFFER = 1000


class Offers:
    def __init__(self, home: Home) -> None:
        self._home = home

    def commands(self) -> dict[str, Command]:
        return {
            "offer": command(
                "amount [description] [issuer] [label] [quantity_max] [absolute_expiry] [recurrence]"
                " [recurrence_base] [recurrence_paywindow] [recurrence_limit] [single_use] [proportional_amount]"
                " [optional_recurrence] [fronting_nodes]",
                self.offer,
            ),
            "disableoffer": command("offer_id", self.disableoffer),
            "fetchinvoice": command(
                "offer [amount_msat] [quantity] [recurrence_counter] [recurrence_start] [recurrence_label]"
                " [timeout] [payer_note] [payer_metadata] [bip353]",
                self.fetchinvoice,
            ),
        }

    async def offer(self, params: Params) -> JsonObject:
        params.refuse(
            *("issuer", "label", "quantity_max", "recurrence", "recurrence_base", "recurrence_paywindow"),
            *("recurrence_limit", "single_use", "proportional_amount", "optional_recurrence", "fronting_nodes"),
        )
        made = bolt12.make_offer(
            self._home.node_id,
            params.need("amount", as_positive_msat_or_any),
            params.get("description", as_text, ""),
            params.maybe("absolute_expiry", as_count),
        )
        created = self._home.ledger.add_offer(OfferRow(self._home.node_id, made.offer_id, made.text))
        return {
            "offer_id": made.offer_id,
            "active": True,
            "single_use": False,
            "bolt12": made.text,
            "used": False,
            "created": created,
        }

    async def disableoffer(self, params: Params) -> JsonObject:
        offer_id = params.need("offer_id", as_hash)
        row = self._home.ledger.offer(self._home.node_id, offer_id)
        if row is None or not row.active:
            raise RpcFailure(UNKNOWN_OFFER, "Unknown offer" if row is None else "offer is not active")
        self._home.ledger.disable_offer(row)
        return {"offer_id": offer_id, "active": False, "single_use": False, "bolt12": row.bolt12, "used": False}

    async def fetchinvoice(self, params: Params) -> JsonObject:
        params.refuse(
            *("quantity", "recurrence_counter", "recurrence_start", "recurrence_label"),
            *("payer_note", "payer_metadata", "bip353"),
        )
        params.maybe("timeout", as_count)
        offer = _read_offer(params.need("offer", as_text))
        if offer.expires_at is not None and self._home.now() > offer.expires_at:
            raise RpcFailure(OFFER_EXPIRED, "Offer expired")
        given_msat = params.maybe("amount_msat", as_msat)
        if offer.amount_msat is None and given_msat is None:
            raise RpcFailure(INVALID_PARAMS, "amount_msat parameter required")
        amount_msat = given_msat if given_msat is not None else offer.amount_msat
        return {"invoice": (await self._ask(offer, amount_msat or 0)).bolt11, "changes": {}}

    async def _ask(self, offer: bolt12.Offer, amount_msat: int) -> Bolt11:
        request = {"payer_id": self._home.node_id, "metadata": secrets.token_hex(16), "amount_msat": amount_msat}
        answer = await self._reach(offer, {"invreq": {"offer_id": offer.offer_id, **request}})
        if "error" in answer:
            raise RpcFailure(REMOTE_FAILED, "Remote node sent failure message", answer)
        invoice = bolt12.read_invoice(answer["invoice"])
        if invoice.payee != offer.issuer_id or invoice.amount_msat != amount_msat:
            raise RpcFailure(REMOTE_FAILED, "The invoice is not for what was asked")
        return invoice

    async def _reach(self, offer: bolt12.Offer, question: JsonObject) -> JsonObject:
        node = self._home.ledger.node(offer.issuer_id)
        if node is None:
            raise _no_way(offer, "unknown node")
        try:
            wire = await Wire.to(self._home, node)
        except OSError as problem:
            raise _no_way(offer, str(problem)) from None
        answer = await wire.ask(question)
        wire.close()
        if answer is None:
            raise RpcFailure(TIMED_OUT, "Timeout waiting for response")
        return answer

    async def answer(self, asked: JsonObject) -> JsonObject:
        """Another node wants an invoice for one of our offers."""
        row = self._home.ledger.offer(self._home.node_id, str(asked["offer_id"]))
        if row is None or not row.active:
            return {"error": "Offer no longer available" if row else "Unknown offer"}
        offer = bolt12.read_offer(row.bolt12)
        request = bolt12.Request(int(asked["amount_msat"]), str(asked["payer_id"]), str(asked["metadata"]))
        if offer.amount_msat is not None and request.amount_msat < offer.amount_msat:
            return {"error": f"Amount must be at least {offer.amount_msat}msat"}
        return {"invoice": self._invoice(offer, request)}

    def _invoice(self, offer: bolt12.Offer, request: bolt12.Request) -> str:
        preimage, now = secrets.token_bytes(32), self._home.now()
        payment_hash = hashlib.sha256(preimage).hexdigest()
        text = bolt12.make_invoice(offer, request, payment_hash, now, self._home.key.secret)
        label = f"{offer.offer_id}-{request.payer_id}-{request.metadata}"
        self._home.ledger.add_invoice(
            InvoiceRow(
                *(0, self._home.node_id, label, payment_hash, preimage.hex(), payment_hash, text, offer.description),
                request.amount_msat,
                now + bolt12.EXPIRY_SECONDS,
            )
        )
        return text


def _no_way(offer: bolt12.Offer, reason: str) -> RpcFailure:
    return RpcFailure(NO_ROUTE, f"Failed: could not route or connect directly to {offer.issuer_id}: {reason}")


def _read_offer(text: str) -> bolt12.Offer:
    try:
        return bolt12.read_offer(text)
    except BadBolt11 as problem:
        raise RpcFailure(INVALID_PARAMS, f"offer: {problem}: invalid token '\"{text}\"'") from None
