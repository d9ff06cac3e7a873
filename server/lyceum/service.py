"""`lyceum serve`: a configuration becomes engines, a gate, perhaps an ensemble, and a running server.

The one place that knows which implementation stands behind which port.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import uvicorn
from starlette.applications import Starlette

from lyceum.app import Stock, create_app
from lyceum.config import Config, EnsembleTable
from lyceum.ensemble import Ensemble, Own
from lyceum.errors import ConfigError, NodeError
from lyceum.host import Host, say
from lyceum.node import UNKNOWN_COMMAND, NodeGate, NodeHolders, NodePayer, PluginCalls, call, connect
from lyceum.peers import muster
from lyceum.ports import Gate, Holders, Limits, Model, Offer, Payer, Price
from lyceum.purse import LONGEST_PAYMENT_S


@dataclass(frozen=True, slots=True)
class Cashier:
    """The node that sells for this server, and pays for what it buys."""

    gate: Gate
    holders: Holders
    payer: Payer
    node_id: str


def run(config: Config) -> int:
    """Serve until interrupted; returns the exit code."""
    with listen(config.server.host, config.server.port) as listener:
        host, port = listener.getsockname()[:2]
        app = assemble(config)
        say(f"serving on http://{host}:{port}/v1")
        uvicorn.Server(web_config(app, config.server.proxy)).run(sockets=[listener])
    return 0


def web_config(app: Starlette, proxy: str) -> uvicorn.Config:
    """Only a request that comes from `proxy` may say in X-Forwarded-For whose it is; from nobody if empty.

    Left alone, uvicorn believes whoever connects from this machine, and what the environment says.
    """
    return uvicorn.Config(app, log_level="warning", proxy_headers=bool(proxy), forwarded_allow_ips=proxy)


def assemble(config: Config) -> Starlette:
    """Raises ConfigError for what its writer must mend; a model that does not load is left out and named."""
    cashier = _cashier(config)
    host = Host(config, cashier.node_id if cashier else "")
    client = httpx.AsyncClient(timeout=(config.ensemble or EnsembleTable()).patience_s)
    models = list(host.models)
    if config.ensemble:
        models.append(_ensemble(config.ensemble, models, cashier, client))
    _check_names([*(model.offer.model for model in models), *(each.offer.model for each in host.embedders)])

    async def stop() -> None:
        await client.aclose()
        for pool in host.pools:
            await pool.aclose()
        host.close()

    stock = Stock(tuple(models), tuple(host.embedders), frozenset(host.broken), tuple(host.pools))
    return create_app(stock, cashier.gate if cashier else None, stop, cashier.holders if cashier else None)


def _cashier(config: Config) -> Cashier | None:
    if not config.server.node:
        say("no [server] node is configured: every model is FREE")
        return None
    rpc = connect(Path(config.server.node).expanduser())
    node_id = call(rpc, "getinfo")["id"]
    try:
        call(rpc, "l402-terms")
    except NodeError as error:
        if error.node_code == UNKNOWN_COMMAND:
            raise NodeError(
                "the node runs without Lyceum's plugin: lightning-cli plugin start <cln_lyceum.py>"
            ) from None
        raise
    plugin = PluginCalls(rpc)
    service = config.server.service
    return Cashier(NodeGate(plugin, service), NodeHolders(plugin, service), NodePayer(plugin), node_id)


def _ensemble(
    table: EnsembleTable, own: Sequence[Model], cashier: Cashier | None, client: httpx.AsyncClient
) -> Ensemble:
    if cashier is None:
        raise ConfigError("an [ensemble] pays its members through a node: set node in [server]")
    members = [Own(model) for model in own]
    limits = Limits(context_tokens=1 << 20, max_tokens=4096)
    offer = Offer(
        table.name,
        f"asks {len(members)} specialists of this node and those of {len(table.peers)} others",
        price=Price(base_msat=table.base_msat),
        limits=limits,
        node_id=cashier.node_id,
    )
    patience_s = table.patience_s + LONGEST_PAYMENT_S
    return Ensemble(
        offer,
        lambda: muster(client, table.peers, cashier.payer, members, table.name),
        table.budget_msat,
        patience_s,
    )


def _check_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two models are called {twice!r}: give one of them another `name`")


def listen(host: str, port: int) -> socket.socket:
    """Bound before a model is loaded, so that a port in use is known at once. Pieces of an answer leave at once: with
    Nagle's algorithm (RFC 896) they would wait 40 ms for a client that delays its acknowledgements."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is in use: stop who uses it, or set another port") from None
        raise ConfigError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio leaves out a socket made like this one
    return listener
