"""Core Lightning over its RPC socket: as the Wallet inside the plugin, and, for a server beside the
node, the plugin's till (`Gate`) and purse (`Payer`).

The one module that knows lightningd's method names, shapes and error codes. RpcError texts repeat
the whole call, credentials included, so none leaves this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyln.client import LightningRpc, RpcError

from lyceum.errors import BadAddress, BadInvoice, NodeError, RateLimited, TokenRefused, TooManyChallenges, from_rpc
from lyceum.l402 import Challenge
from lyceum.ports import (
    Address,
    Admitted,
    Declined,
    Delivery,
    Entry,
    Invoice,
    Outcome,
    Payment,
    SaleTerms,
    Settlement,
    Terms,
    Ticket,
    Wanted,
)
from lyceum.quote import Quote, Subject
from lyceum.tariff import Tariff

NETWORKS = {"bc": "bitcoin", "tb": "testnet", "tbs": "signet", "bcrt": "regtest"}
"""BOLT11 currency prefix -> the name that lightningd gives the network."""

LIMITS = {kind.code: kind for kind in (RateLimited, TooManyChallenges)}
CHAINS = {
    "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000": "bitcoin",
    "43497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000": "testnet",
    "f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000": "signet",
    "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f": "regtest",
}
"""BOLT12 names a network by its genesis block's hash."""

BITCOIN = next(iter(CHAINS))
"""The chain of an offer that names none (BOLT12, `offer_chains`)."""

BOLT12_EXPIRY_S = 7200
"""Of an invoice that does not say (BOLT12, `invoice_relative_expiry`)."""

FETCH_S = 20
"""How long a payee may take to make an invoice from its offer."""

INVALID_PARAMETER = -32602
UNKNOWN_COMMAND = -32601
LOST = 0


def call(rpc: LightningRpc, method: str, params: Mapping[str, Any] | None = None) -> Any:
    """One RPC call. Raises the LyceumError that a plugin method raised, or NodeError."""
    refusal: dict[str, Any]
    try:
        return rpc.call(method, dict(params or {}))
    except RpcError as error:
        refusal = error.error if isinstance(error.error, dict) else {"code": LOST, "message": str(error.error)}
    except (OSError, ValueError, TypeError) as error:
        refusal = {"code": LOST, "message": f"no answer from the node at {rpc.socket_path}: {error}"}
    code, message = int(refusal.get("code", LOST)), str(refusal.get("message", ""))
    raise from_rpc(code, message) or NodeError(f"{method}: {message}", code)


class ClnWallet:
    """A `Wallet`. Blocking: call it from a thread that may wait."""

    def __init__(self, rpc: LightningRpc) -> None:
        self._rpc = rpc
        self._network = ""

    def network(self) -> str:
        if not self._network:
            self._network = str(call(self._rpc, "getinfo")["network"])
        return self._network

    def invoice(self, amount_msat: int, label: str, description: str, expiry_s: int) -> Invoice:
        made = call(
            self._rpc,
            "invoice",
            {"amount_msat": amount_msat, "label": label, "description": description, "expiry": expiry_s},
        )
        return Invoice(made["bolt11"], made["payment_hash"], amount_msat, made["expires_at"], self.network())

    def challenge(self, quote: Quote, subject: Subject, expiry_s: int) -> Invoice:
        return self.invoice(quote.amount_msat, quote.label(subject.service), subject.description, expiry_s)

    def is_open(self, invoice: Invoice) -> bool:
        return self.received_msat(invoice.payment_hash) is None

    def received_msat(self, payment_hash: str) -> int | None:
        found = call(self._rpc, "listinvoices", {"payment_hash": payment_hash})["invoices"]
        paid = next((row for row in found if row["status"] == "paid"), None)
        return int(paid["amount_received_msat"]) if paid else None

    def received_in_all_msat(self, prefix: str) -> int:
        try:
            query = f"SELECT SUM(amount_received_msat) FROM invoices WHERE status='paid' AND label LIKE '{prefix}%'"  # noqa: S608
            return call(self._rpc, "sql", {"query": query})["rows"][0][0] or 0
        except NodeError as error:
            if error.node_code != UNKNOWN_COMMAND:
                raise
        rows = call(self._rpc, "listinvoices")["invoices"]
        return sum(row["amount_received_msat"] for row in rows if _is_paid(row, prefix))

    def decode(self, text: str) -> Invoice:
        kind, found = self._decode(text)
        if kind not in READERS:
            raise BadInvoice("not a valid BOLT11 or BOLT12 invoice")
        return READERS[kind](text, found)

    def address(self, text: str) -> Address:
        plain = text.strip().lower().removeprefix("lightning:")
        try:
            kind, found = self._decode(plain)
        except BadInvoice:
            raise BadAddress("the address must be a BOLT12 offer (lno1...) or a BOLT11 invoice") from None
        if kind == "bolt12 offer":
            return _offer_address(plain, found)
        if kind == "bolt11 invoice":
            invoice = _bolt11(plain, found)
            networks = (invoice.network,)
            return Address(plain, networks, invoice.amount_msat, invoice.expires_at, invoice.payment_hash)
        raise BadAddress("the address must be a valid BOLT12 offer or BOLT11 invoice")

    def fetch(self, address: Address, amount_msat: int) -> Invoice:
        if address.payment_hash:
            return self.decode(address.text)
        asked = {"offer": address.text, "amount_msat": amount_msat, "timeout": FETCH_S}
        invoice = self.decode(call(self._rpc, "fetchinvoice", asked)["invoice"])
        if invoice.amount_msat != amount_msat:
            raise NodeError(f"the offer's invoice asks {invoice.amount_msat} msat where {amount_msat} were offered")
        return invoice

    def _decode(self, text: str) -> tuple[str, Mapping[str, Any]]:
        """What it is ("" if it is not valid), and the node's reading of it."""
        try:
            found = call(self._rpc, "decode", {"string": text})
        except NodeError as error:
            if error.node_code == INVALID_PARAMETER:
                raise BadInvoice(f"not an invoice: {error.message}") from None
            raise
        return found.get("type", "") if found.get("valid") else "", found

    def pay(
        self, invoice: Invoice, max_fee_msat: int, label: str, timeout_s: int, amount_msat: int | None = None
    ) -> Payment:
        request = {"invstring": invoice.bolt11, "maxfee": max_fee_msat, "retry_for": timeout_s, "label": label}
        if amount_msat is not None:
            request["amount_msat"] = amount_msat
        try:
            paid = call(self._rpc, "xpay", request)
        except NodeError as error:
            return self._after_error(invoice.payment_hash, error)
        fee_msat = paid["amount_sent_msat"] - paid["amount_msat"]
        return Payment(Outcome.SETTLED, paid["payment_preimage"], paid["amount_msat"], fee_msat)

    def lookup(self, payment_hash: str) -> Payment:
        rows = call(self._rpc, "listpays", {"payment_hash": payment_hash})["pays"]
        by_status = {row["status"]: row for row in rows}
        if "complete" in by_status:
            return _settled(by_status["complete"])
        if "pending" in by_status:
            return Payment(Outcome.PENDING, detail="under way")
        return Payment(Outcome.FAILED, detail="the node has no successful payment of this hash")

    def _after_error(self, payment_hash: str, error: NodeError) -> Payment:
        """xpay gave up or broke off; parts may still be on their way, so only listpays knows."""
        try:
            found = self.lookup(payment_hash)
        except NodeError:
            return Payment(Outcome.UNKNOWN, detail="the node does not answer")
        if found.outcome is not Outcome.FAILED:
            return found
        if error.node_code == LOST:
            return Payment(Outcome.UNKNOWN, detail="the node broke off the call")
        return Payment(Outcome.FAILED, detail=error.message)


def _bolt11(text: str, found: Mapping[str, Any]) -> Invoice:
    return Invoice(
        text,
        found["payment_hash"],
        found.get("amount_msat"),
        found["created_at"] + found["expiry"],
        NETWORKS.get(found["currency"], found["currency"]),
        found["payee"],
        found.get("description", ""),
    )


def _bolt12(text: str, found: Mapping[str, Any]) -> Invoice:
    return Invoice(
        text,
        found["invoice_payment_hash"],
        found["invoice_amount_msat"],
        found["invoice_created_at"] + found.get("invoice_relative_expiry", BOLT12_EXPIRY_S),
        CHAINS.get(found.get("invreq_chain", BITCOIN), "another network"),
        found["invoice_node_id"],
        found.get("offer_description", ""),
    )


READERS = {"bolt11 invoice": _bolt11, "bolt12 invoice": _bolt12}


def _offer_address(text: str, found: Mapping[str, Any]) -> Address:
    unusable = {
        "offer_currency": "names its amount in another currency",
        "offer_quantity_max": "sells pieces",
        "offer_recurrence": "recurs",
        "offer_recurrence_compulsory": "recurs",
    }
    wrong = next((said for name, said in unusable.items() if name in found), None)
    if wrong:
        raise BadAddress(f"the offer {wrong}: make one of any amount, to be paid once")
    chains = [CHAINS.get(chain, "another network") for chain in found.get("offer_chains", [BITCOIN])]
    return Address(text, tuple(chains), found.get("offer_amount_msat"), found.get("offer_absolute_expiry"))


def _settled(row: Mapping[str, Any]) -> Payment:
    sent_msat = int(row["amount_sent_msat"])
    amount_msat = int(row.get("amount_msat", sent_msat))
    return Payment(Outcome.SETTLED, row["preimage"], amount_msat, sent_msat - amount_msat)


def _is_paid(row: Mapping[str, Any], prefix: str) -> bool:
    return row["status"] == "paid" and str(row.get("label", "")).startswith(prefix)


def connect(socket: Path) -> LightningRpc:
    """A client of the node's RPC socket. Raises NodeError if there is none."""
    if not socket.exists():
        raise NodeError(f"no lightningd RPC socket at {socket}: is the node running?")
    return LightningRpc(str(socket))


class PluginCalls:
    """The plugin's methods, awaited. Payments wait for long, so they have threads of their own."""

    def __init__(self, rpc: LightningRpc, threads: int = 64) -> None:
        self._rpc = rpc
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="node")

    async def __call__(self, method: str, **params: object) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, call, self._rpc, method, params)


class NodeGate:
    """A `Gate` through `l402-admit`, `l402-settle` and `l402-quote` of the node's plugin."""

    def __init__(self, plugin: PluginCalls, service: str) -> None:
        self._plugin = plugin
        self.service = service

    async def admit(self, entry: Entry) -> Admitted | Declined:
        answer = _unlimited(await self._plugin("l402-admit", service=self.service, **asdict(entry)))
        kind, said = (Admitted, answer["admitted"]) if "admitted" in answer else (Declined, answer["declined"])
        return kind(**said | {"headers": tuple((name, value) for name, value in said["headers"])})

    async def settle(self, reservation: str, charge_msat: int) -> Settlement:
        return Settlement(**await self._plugin("l402-settle", reservation=reservation, charge_msat=charge_msat))

    async def quote(self, entry: Entry) -> int:
        answer = await self._plugin("l402-quote", amount_msat=entry.amount_msat, client=entry.client)
        return int(_unlimited(answer)["first_payment_msat"])

    async def terms(self) -> SaleTerms:
        said = await self._plugin("l402-terms")
        tariff = {name: _tuples(value) for name, value in said["tariff"].items()}
        return SaleTerms(said["bundle_msat"], Tariff(**tariff))


def _tuples(value: Any) -> Any:
    """JSON has lists where our values have tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _unlimited(answer: dict[str, Any]) -> dict[str, Any]:
    """`answer`, or RateLimited or TooManyChallenges as the till says."""
    limit = answer.get("limited")
    if limit:
        raise LIMITS[limit["code"]](limit["detail"], limit["retry_after_s"])
    return answer


class NodeHolders:
    """A `Holders` through `l402-token`, `l402-challenge` and `l402-reclaim` of the node's plugin."""

    def __init__(self, plugin: PluginCalls, service: str) -> None:
        self._plugin = plugin
        self._service = service

    async def token(self, authorization: Sequence[str]) -> dict[str, Any]:
        return await self._ask("l402-token", authorization)

    async def top_up(self, authorization: Sequence[str], amount_msat: int) -> dict[str, Any]:
        return await self._ask("l402-challenge", authorization, amount_msat=amount_msat)

    async def reclaim(self, authorization: Sequence[str], address: str) -> dict[str, Any]:
        return await self._ask("l402-reclaim", authorization, address=address)

    async def _ask(self, method: str, authorization: Sequence[str], **params: object) -> dict[str, Any]:
        answer = await self._plugin(method, service=self._service, authorization=list(authorization), **params)
        if "refused" in answer:
            raise TokenRefused(answer["refused"]["detail"], answer["refused"]["reason"])
        return answer


class NodePayer:
    """A `Payer` through `l402-pay` of the node's plugin: the wallet and its journal stay there."""

    def __init__(self, plugin: PluginCalls) -> None:
        self._plugin = plugin

    async def kept(self, wanted: Wanted) -> Ticket | None:
        found = await self._plugin("l402-kept", **asdict(wanted))
        return Ticket(**found["ticket"]) if "ticket" in found else None

    async def pay(self, challenge: Challenge, origin: str, terms: Terms) -> Ticket:
        paid = await self._plugin(
            "l402-pay",
            challenge=challenge.header_lines()[-1],
            origin=origin,
            cap_msat=terms.cap_msat,
            fee_cap_msat=terms.fee_cap_msat,
            payee=terms.payee,
            purpose=terms.purpose,
            model=terms.model,
        )
        return Ticket(**paid["ticket"])

    async def discard(self, payment_hash: str) -> None:
        await self._plugin("l402-discard", payment_hash=payment_hash)

    async def exhausted(self, payment_hash: str, need_msat: int) -> None:
        await self._plugin("l402-exhausted", payment_hash=payment_hash, need_msat=need_msat)

    async def report(self, delivery: Delivery) -> None:
        await self._plugin("l402-report", delivery=asdict(delivery))

    async def distrusted(self) -> Mapping[str, str]:
        return dict((await self._plugin("l402-distrusted"))["origins"])
