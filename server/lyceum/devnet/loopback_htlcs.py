"""An HTLC at a loopback node: the plugins with an htlc_accepted hook see it first, forwards too.

Knows the onion's payload as far as the hook shows it; not what an invoice is.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

from lyceum.devnet.invoices import MIN_FINAL_CLTV
from lyceum.devnet.jsonrpc import JsonObject
from lyceum.devnet.loopback_channels import channel_id, short_channel_id
from lyceum.devnet.loopback_home import Home
from lyceum.devnet.loopback_hooks import hook_answers
from lyceum.devnet.loopback_invoices import REFUSED
from lyceum.devnet.loopback_ledger import PayRow
from lyceum.devnet.plugin_host import PluginHost

AMOUNT, EXPIRY, CHANNEL, PAYMENT_DATA = 2, 4, 6, 8
"""Record types of BOLT 4, "payload format"."""

NO_SECRET = "00" * 32

TakeFinal = Callable[[JsonObject], Awaitable[JsonObject]]


class Htlcs:
    """`take_final` is asked for those that are for us, with the payment secret that the plugins left in them."""

    def __init__(self, home: Home, plugins: PluginHost, take_final: TakeFinal) -> None:
        self._home = home
        self._plugins = plugins
        self._take_final = take_final

    async def take(self, htlc: JsonObject) -> JsonObject:
        """A payment passes or arrives: the preimage, nothing for a forward, or why not."""
        pay = self._home.ledger.pay(int(htlc["pay"]))
        if pay is None:
            return REFUSED
        if pay.node_id == self._home.node_id:
            return await self._take_final(htlc)  # paying oneself makes no HTLC
        event = _event(pay, htlc)
        async for answer in hook_answers(self._home, self._plugins, "htlc_accepted", event):
            if answer.get("result") == "fail":
                return REFUSED
            if answer.get("result") != "continue":
                self._home.die(f"Invalid htlc_accepted hook result: {answer}")
            if "payload" in answer:
                event["onion"] |= {"payload": answer["payload"], **_payment_data(bytes.fromhex(answer["payload"]))}
        if "forward_to" in event:
            return {}
        return await self._take_final({**htlc, "payment_secret": event["onion"]["payment_secret"]})


def _event(pay: PayRow, htlc: JsonObject) -> JsonObject:
    """What the hook shows. The onion's payload has its length in front, as the sender wrote it."""
    incoming, outgoing = htlc["hop"], htlc.get("next_hop")
    records = _record(AMOUNT, _short(pay.amount_msat)) + _record(EXPIRY, _short(MIN_FINAL_CLTV))
    if outgoing:
        records += _record(CHANNEL, struct.pack(">Q", outgoing["channel"]))
        more: JsonObject = {"short_channel_id": short_channel_id(outgoing["channel"])}
    else:
        data = bytes.fromhex(htlc["payment_secret"]) + _short(pay.amount_msat)
        records += _record(PAYMENT_DATA, data)
        more = _payment_data(records)
    onion = {
        "payload": (bytes([len(records)]) + records).hex(),
        "type": "tlv",
        "forward_msat": pay.amount_msat,
        "outgoing_cltv_value": MIN_FINAL_CLTV,
        "next_onion": "",
        "shared_secret": NO_SECRET,
        **more,
    }
    shown = {
        "short_channel_id": short_channel_id(incoming["channel"]),
        "id": pay.id,
        "amount_msat": incoming["msat"],
        "cltv_expiry": MIN_FINAL_CLTV,
        "cltv_expiry_relative": MIN_FINAL_CLTV,
        "payment_hash": pay.payment_hash,
    }
    event: JsonObject = {"peer_id": incoming["sender"], "onion": onion, "htlc": shown}
    return {**event, "forward_to": channel_id(outgoing["channel"])} if outgoing else event


def _record(kind: int, value: bytes) -> bytes:
    return bytes([kind, len(value)]) + value


def _short(number: int) -> bytes:
    """A `tu64` of BOLT 1: no leading zeros."""
    return number.to_bytes((number.bit_length() + 7) // 8)


def _payment_data(records: bytes) -> JsonObject:
    """Secret and total of the record that a final payload has; types and lengths here are one byte each."""
    while records[0] != PAYMENT_DATA:
        records = records[2 + records[1] :]
    value = records[2 : 2 + records[1]]
    return {"payment_secret": value[:32].hex(), "total_msat": int.from_bytes(value[32:])}
