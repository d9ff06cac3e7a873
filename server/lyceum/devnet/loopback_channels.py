"""A loopback node's commands about other nodes: connections, custom messages, channels.

A loopback channel is two numbers in the ledger; opening one makes them from nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from lyceum.devnet.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    LIGHTNINGD,
    JsonObject,
    Params,
    RpcFailure,
    as_count,
    as_flag,
    as_hex,
    as_msat,
    as_node_id,
    as_text,
)
from lyceum.devnet.loopback_home import PEER_FILE, Command, Home, command
from lyceum.devnet.loopback_ledger import Hop, NodeRow, Side
from lyceum.devnet.loopback_peers import Peers

MESSAGE_BYTES = 65535
TYPE_BYTES = 2
FIRST_CUSTOM_TYPE = 32768
PONG_BYTES = 128
MSAT_PER_SAT = 1000
FIRST_BLOCK = 100


def as_sat(value: Any) -> int:
    """A bare number is satoshis here, unlike everywhere else in lightningd."""
    amount_msat = as_msat(value if isinstance(value, str) and not value.isdigit() else f"{value}sat")
    if amount_msat % MSAT_PER_SAT or not amount_msat:
        raise ValueError("should be a satoshi amount")
    return amount_msat // MSAT_PER_SAT


def as_peer(value: Any) -> str:
    """A node id, or `id@host:port` of which only the id counts here."""
    return as_node_id(as_text(value).partition("@")[0])


def channel_id(channel: int) -> str:
    return hashlib.sha256(f"loopback channel {channel}".encode()).hexdigest()


def short_channel_id(channel: int) -> str:
    return f"{FIRST_BLOCK + channel}x1x0"


class Channels:
    def __init__(self, home: Home, peers: Peers) -> None:
        self._home = home
        self._peers = peers

    def commands(self) -> dict[str, Command]:
        return {
            "connect": command("id [host] [port]", self.connect),
            "disconnect": command("id [force]", self.disconnect),
            "ping": command("id [len] [pongbytes]", self.ping),
            "sendcustommsg": command("node_id msg", self.sendcustommsg),
            "fundchannel": command(
                "id amount [feerate] [announce] [minconf] [push_msat] [close_to] [request_amt]"
                " [compact_lease] [utxos] [mindepth] [reserve] [channel_type]",
                self.fundchannel,
            ),
            "listpeers": command("[id] [level]", self.listpeers),
            "listpeerchannels": command("[id] [short_channel_id] [channel_id]", self.listpeerchannels),
            "listfunds": command("[spent]", self.listfunds),
            "listnodes": command("[id]", self.listnodes),
        }

    def counts(self) -> tuple[int, int]:
        """Peers and channels, for `getinfo`."""
        return len(self._known()), sum(1 for _ in self._channels())

    async def connect(self, params: Params) -> JsonObject:
        node_id = params.need("id", as_peer)
        await self._peers.connect(node_id)
        node = self._home.ledger.node(node_id)
        return {
            "id": node_id,
            "features": node.features if node else "",
            "direction": "out",
            "address": _address(),
        }

    async def disconnect(self, params: Params) -> JsonObject:
        node_id = params.need("id", as_node_id)
        if node_id not in self._known():
            raise RpcFailure(INVALID_PARAMS, f"Unknown peer '{node_id}'")
        if node_id not in self._peers.connected():
            raise RpcFailure(LIGHTNINGD, "Peer not connected")
        has_channel = any(mine.peer_id == node_id for mine, _ in self._channels())
        if has_channel and not params.get("force", as_flag, default=False):
            raise RpcFailure(LIGHTNINGD, "Peer has (at least one) channel in state CHANNELD_NORMAL")
        self._peers.disconnect(node_id)
        return {}

    async def ping(self, params: Params) -> JsonObject:
        if params.need("id", as_node_id) not in self._peers.connected():
            raise RpcFailure(LIGHTNINGD, "Peer not connected")
        return {"totlen": params.get("pongbytes", as_count, PONG_BYTES) + 2 * TYPE_BYTES}

    async def sendcustommsg(self, params: Params) -> JsonObject:
        """Queues only, as the real one; a size that would crash lightningd is refused."""
        node_id, payload = params.need("node_id", as_node_id), params.need("msg", as_hex)
        if not TYPE_BYTES <= len(payload) <= MESSAGE_BYTES:
            message = f"{len(payload)} bytes would crash lightningd: send {TYPE_BYTES} to {MESSAGE_BYTES}"
            raise RpcFailure(INVALID_PARAMS, message)
        kind = int.from_bytes(payload[:TYPE_BYTES], "big")
        if kind < FIRST_CUSTOM_TYPE:
            raise RpcFailure(INVALID_REQUEST, f"Cannot send messages of type {kind}: managed internally")
        if node_id not in self._known():
            raise RpcFailure(INVALID_REQUEST, f"No such peer: {node_id}")
        if node_id not in self._peers.connected():
            raise RpcFailure(INVALID_REQUEST, "Peer is not connected")
        self._peers.send_custom(node_id, payload)
        return {"status": "Message sent to connectd for delivery"}

    async def fundchannel(self, params: Params) -> JsonObject:
        params.refuse("close_to", "request_amt", "compact_lease", "utxos", "reserve", "channel_type")
        node_id = params.need("id", as_node_id)
        amount_msat = params.need("amount", as_sat) * MSAT_PER_SAT
        pushed_msat = params.get("push_msat", as_msat, 0)
        if pushed_msat > amount_msat:
            raise RpcFailure(INVALID_PARAMS, f"Requested to push_msat of {pushed_msat} greater than {amount_msat}")
        await self._peers.connect(node_id)
        channel = self._home.ledger.open_channel(self._home.node_id, node_id, amount_msat, pushed_msat)
        return {"txid": channel_id(channel), "outnum": 0, "channel_id": channel_id(channel)}

    async def listpeers(self, params: Params) -> JsonObject:
        wanted = params.maybe("id", as_node_id)
        found = [node_id for node_id in self._known() if wanted in (None, node_id)]
        return {"peers": [self._peer_fields(node_id) for node_id in found]}

    def _peer_fields(self, node_id: str) -> JsonObject:
        node = self._home.ledger.node(node_id)
        channels = sum(mine.peer_id == node_id for mine, _ in self._channels())
        fields: JsonObject = {"id": node_id, "connected": False, "num_channels": channels}
        if node_id in self._peers.connected():
            features = node.features if node else ""
            fields |= {"connected": True, "netaddr": [PEER_FILE], "features": features}
        return fields

    async def listpeerchannels(self, params: Params) -> JsonObject:
        wanted = params.maybe("id", as_node_id)
        found = [ends for ends in self._channels() if wanted in (None, ends[0].peer_id)]
        return {"channels": [self._channel_fields(mine, theirs) for mine, theirs in found]}

    def _channel_fields(self, mine: Side, theirs: Side) -> JsonObject:
        connected = mine.peer_id in self._peers.connected()
        return {
            "peer_id": mine.peer_id,
            "peer_connected": connected,
            "reestablished": connected,
            "state": "CHANNELD_NORMAL",
            "short_channel_id": short_channel_id(mine.channel),
            "channel_id": channel_id(mine.channel),
            "private": False,
            "to_us_msat": mine.msat,
            "total_msat": mine.msat + theirs.msat,
            "spendable_msat": mine.spendable_msat,
            "receivable_msat": theirs.spendable_msat,
            "htlcs": [self._htlc_fields(*carried) for carried in self._home.ledger.under_way(mine.channel)],
        }

    def _htlc_fields(self, hop: Hop, payment_hash: str) -> JsonObject:
        direction = "out" if hop.sender == self._home.node_id else "in"
        return {"direction": direction, "amount_msat": hop.msat, "payment_hash": payment_hash}

    async def listfunds(self, params: Params) -> JsonObject:
        params.maybe("spent", as_flag)
        channels = [self._fund_fields(mine, theirs) for mine, theirs in self._channels()]
        return {"outputs": [], "channels": channels}

    def _fund_fields(self, mine: Side, theirs: Side) -> JsonObject:
        return {
            "peer_id": mine.peer_id,
            "connected": mine.peer_id in self._peers.connected(),
            "state": "CHANNELD_NORMAL",
            "channel_id": channel_id(mine.channel),
            "short_channel_id": short_channel_id(mine.channel),
            "our_amount_msat": mine.msat,
            "amount_msat": mine.msat + theirs.msat,
            "funding_txid": channel_id(mine.channel),
            "funding_output": 0,
        }

    async def listnodes(self, params: Params) -> JsonObject:
        wanted = params.maybe("id", as_node_id)
        found = [node for node in self._home.ledger.nodes() if wanted in (None, node.node_id)]
        return {"nodes": [_node_fields(node) for node in found]}

    def _known(self) -> list[str]:
        """Peers as lightningd counts them: connected now, or with a channel."""
        return list(dict.fromkeys([*(mine.peer_id for mine, _ in self._channels()), *self._peers.connected()]))

    def _channels(self) -> Iterator[tuple[Side, Side]]:
        """Both ends of each of our channels, ours first."""
        sides = self._home.ledger.sides()
        ends = {(side.channel, side.node_id): side for side in sides}
        return ((s, ends[s.channel, s.peer_id]) for s in sides if s.node_id == self._home.node_id)


def _address() -> JsonObject:
    return {"type": "local socket", "socket": PEER_FILE}


def _node_fields(node: NodeRow) -> JsonObject:
    return {
        "nodeid": node.node_id,
        "alias": node.alias,
        "color": node.node_id[:6],
        "features": node.features,
        "addresses": [],
    }
