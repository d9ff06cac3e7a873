"""The payer's side of a loopback node: `xpay`, and what became of each payment.

A payment is written before it is tried and finished by the payee's process in one transaction, so
a crash of either leaves the books right. Knows nothing of the payee's plugins.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from itertools import zip_longest

from lyceum.devnet import bolt12
from lyceum.devnet.invoices import CURRENCY, Bolt11
from lyceum.devnet.jsonrpc import (
    INVALID_PARAMS,
    PLUGIN_ERROR,
    JsonObject,
    Params,
    RpcFailure,
    as_count,
    as_hash,
    as_label,
    as_msat,
    as_text,
)
from lyceum.devnet.loopback_home import Command, Home, command
from lyceum.devnet.loopback_invoices import read_invoice
from lyceum.devnet.loopback_ledger import AlreadyPaid, Hop, InProgress, PayRow, Short
from lyceum.devnet.loopback_peers import Wire
from lyceum.devnet.loopback_routes import find_route

DESTINATION_PERM_FAIL = 203
ROUTE_NOT_FOUND = 205
ROUTE_TOO_EXPENSIVE = 206
INVOICE_EXPIRED = 207
UNSPECIFIED_ERROR = 209
ALREADY_PAID = 219

LEAST_MAXFEE_MSAT = 5000
WINDING_UP_SECONDS = 0.05
"""lightningd v26.06 still calls a failed payment pending for about 25 ms after xpay has returned."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the caller wants paid."""

    invoice: Bolt11
    amount_msat: int
    maxfee_msat: int
    label: str | None


class Pays:
    def __init__(self, home: Home) -> None:
        self._home = home
        self._winding_up: set[int] = set()

    def commands(self) -> dict[str, Command]:
        return {
            "xpay": command(
                "invstring [amount_msat] [maxfee] [layers] [retry_for] [partial_msat] [maxdelay]"
                " [payer_note] [label] [localinvreqid]",
                self.xpay,
            ),
            "listpays": command("[bolt11] [payment_hash] [status] [index] [start] [limit]", self.listpays),
            "listsendpays": command("[bolt11] [payment_hash] [status] [index] [start] [limit]", self.listsendpays),
        }

    async def xpay(self, params: Params) -> JsonObject:
        order = self._order(params)
        route = self._route(order)
        wires = await self._reach(order, route)
        try:
            pay_id = self._begin(order, route)
            preimage = await self._send(order.invoice, pay_id, route, wires)
        finally:
            for wire in wires:
                wire.close()
        return {
            "payment_preimage": preimage,
            "amount_msat": order.amount_msat,
            "amount_sent_msat": _sent_msat(order, route),
            "failed_parts": 0,
            "successful_parts": 1,
        }

    def _order(self, params: Params) -> Order:
        params.refuse("layers", "partial_msat", "maxdelay", "payer_note", "localinvreqid")
        params.maybe("retry_for", as_count)
        invoice = read_invoice(params.need("invstring", as_text), "Invalid bolt11 invoice")
        if invoice.currency != CURRENCY:
            message = f"Invalid bolt11 invoice: Prefix {invoice.currency} is not for regtest"
            raise RpcFailure(INVALID_PARAMS, message)
        amount_msat = _amount_msat(invoice, params.maybe("amount_msat", as_msat))
        late = self._home.now() - invoice.expires_at
        if late > 0:
            raise RpcFailure(INVOICE_EXPIRED, f"Invoice expired {late} seconds ago")
        default_maxfee_msat = max(LEAST_MAXFEE_MSAT, amount_msat // 100)
        maxfee_msat = params.get("maxfee", as_msat, default_maxfee_msat)
        return Order(invoice, amount_msat, maxfee_msat, params.maybe("label", as_label))

    def _route(self, order: Order) -> tuple[Hop, ...]:
        ledger, me = self._home.ledger, self._home.node_id
        fees_msat = {node.node_id: node.fee_msat for node in ledger.nodes()}
        if order.invoice.payee not in fees_msat:
            message = f"Failed: Unknown destination node {order.invoice.payee}"
            raise RpcFailure(ROUTE_NOT_FOUND, message)
        sides = ledger.sides()
        route = find_route(sides, fees_msat, me, order.invoice.payee, order.amount_msat)
        if route is None:
            mine = [side.spendable_msat for side in sides if side.node_id == me]
            capacity = f"Total source capacity is only {sum(mine)}msat (in {len(mine)} channels)."
            raise _no_paths(capacity)
        if _sent_msat(order, route) - order.amount_msat > order.maxfee_msat:
            message = "Failed: Could not find route without excessive cost"
            raise RpcFailure(ROUTE_TOO_EXPENSIVE, message)
        return route

    async def _reach(self, order: Order, route: tuple[Hop, ...]) -> list[Wire]:
        """A connection to every node of the way, the payee last: it fails here if one is down."""
        wires: list[Wire] = []
        for node_id in [hop.receiver for hop in route] or [order.invoice.payee]:
            node = self._home.ledger.node(node_id)
            assert node is not None  # noqa: S101  (routes are made of registered nodes)
            try:
                wires.append(await Wire.to(self._home, node))
            except OSError:
                for wire in wires:
                    wire.close()
                raise _no_paths(f"{node.alias} has disconnected.") from None
        return wires

    def _begin(self, order: Order, route: tuple[Hop, ...]) -> int:
        invoice = order.invoice
        pay = PayRow(
            0,
            self._home.node_id,
            invoice.payment_hash,
            invoice.bolt11,
            invoice.payee,
            order.amount_msat,
            _sent_msat(order, route),
            order.label,
            self._home.now(),
        )
        try:
            return self._home.ledger.begin_pay(pay, route)
        except AlreadyPaid:
            raise RpcFailure(ALREADY_PAID, "Already paid this invoice successfully") from None
        except InProgress as earlier:
            reason = f"Payment with groupid={earlier.args[0]} still in progress"
            message = f"Unexpected injectpaymentonion error 200: {reason}, cannot retry before that completes."
            raise RpcFailure(PLUGIN_ERROR, message) from None
        except Short:
            raise _no_paths("It was spent meanwhile.") from None

    async def _send(self, invoice: Bolt11, pay_id: int, route: tuple[Hop, ...], wires: list[Wire]) -> str:
        answer = await self._pass_on(invoice, pay_id, route, wires)
        if answer is not None and "preimage" in answer:
            return str(answer["preimage"])
        final = self._home.ledger.fail_pay(pay_id, self._home.now())
        if final.preimage is not None:
            return final.preimage
        self._wind_up(pay_id)
        if answer is None:
            raise RpcFailure(UNSPECIFIED_ERROR, "Failed after 1 attempts. Destination has disconnected.")
        message = f"Destination said it doesn't know invoice: {answer['failure']}"
        raise RpcFailure(DESTINATION_PERM_FAIL, message)

    async def _pass_on(
        self, invoice: Bolt11, pay_id: int, route: tuple[Hop, ...], wires: list[Wire]
    ) -> JsonObject | None:
        """Every node of the way in turn; the payee's answer, or the first one that is no."""
        htlc = {"pay": pay_id, "payment_hash": invoice.payment_hash, "payment_secret": invoice.payment_secret}
        answer: JsonObject | None = None
        for wire, hop, following in zip_longest(wires, route, route[1:]):
            steps = {"hop": hop and asdict(hop), "next_hop": following and asdict(following)}
            answer = await wire.ask({"htlc": htlc | steps})
            if answer is None or "failure" in answer:
                break
        return answer

    def _wind_up(self, pay_id: int) -> None:
        self._winding_up.add(pay_id)
        asyncio.get_running_loop().call_later(WINDING_UP_SECONDS, self._winding_up.discard, pay_id)

    # What became of them

    async def listpays(self, params: Params) -> JsonObject:
        shown = [self._pay_fields(row) for row in self._rows(params)]
        return {"pays": [fields for fields in shown if self._wanted(params, fields)]}

    async def listsendpays(self, params: Params) -> JsonObject:
        shown = [_part_fields(row) for row in self._rows(params)]
        return {"payments": [fields for fields in shown if self._wanted(params, fields)]}

    def _rows(self, params: Params) -> list[PayRow]:
        params.refuse("index", "start", "limit")
        payment_hash = params.maybe("payment_hash", as_hash)
        if "bolt11" in params:
            if payment_hash is not None:
                raise RpcFailure(INVALID_PARAMS, "Can only specify one of {bolt11} or {payment_hash}")
            payment_hash = read_invoice(params.need("bolt11", as_text), "Invalid invstring").payment_hash
        return self._home.ledger.pays(self._home.node_id, payment_hash=payment_hash)

    def _wanted(self, params: Params, fields: JsonObject) -> bool:
        wanted = params.maybe("status", as_text)
        return wanted is None or wanted == fields["status"]

    def _pay_fields(self, row: PayRow) -> JsonObject:
        fields = _common_fields(row)
        if row.status == "complete":
            return {**fields, "preimage": row.preimage, "completed_at": row.completed_at, **_amounts(row)}
        if row.status == "pending":
            return {**fields, **_amounts(row)}
        status = "pending" if row.id in self._winding_up else "failed"
        return {**fields, "status": status, "amount_sent_msat": 0}


def _common_fields(row: PayRow) -> JsonObject:
    fields: JsonObject = {
        bolt12.name_of(row.bolt11): row.bolt11,
        "destination": row.destination,
        "payment_hash": row.payment_hash,
        "status": row.status,
        "created_at": row.created_at,
        "created_index": row.id,
    }
    return fields if row.label is None else {**fields, "label": row.label}


def _part_fields(row: PayRow) -> JsonObject:
    fields = {**_common_fields(row), **_amounts(row), "id": row.id, "groupid": row.id, "partid": 1}
    if row.completed_at is not None:
        fields["completed_at"] = row.completed_at
    return fields if row.preimage is None else {**fields, "payment_preimage": row.preimage}


def _amounts(row: PayRow) -> JsonObject:
    return {"amount_msat": row.amount_msat, "amount_sent_msat": row.sent_msat}


def _sent_msat(order: Order, route: tuple[Hop, ...]) -> int:
    return route[0].msat if route else order.amount_msat


def _amount_msat(invoice: Bolt11, given_msat: int | None) -> int:
    if invoice.amount_msat is not None:
        if given_msat is not None:
            raise RpcFailure(INVALID_PARAMS, "amount_msat unnecessary")
        return invoice.amount_msat
    if given_msat is None:
        raise RpcFailure(INVALID_PARAMS, "amount_msat required")
    if given_msat == 0:
        raise RpcFailure(INVALID_PARAMS, "Cannot pay bolt11 invoice with zero amount")
    return given_msat


def _no_paths(reason: str) -> RpcFailure:
    return RpcFailure(ROUTE_NOT_FOUND, f"Failed: We could not find a usable set of paths. {reason}")
