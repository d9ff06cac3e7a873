"""`lyceum serve`: a configuration becomes engines, a gate, perhaps an ensemble, and a running server.

The one place that knows which implementation stands behind which port.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import uvicorn
from starlette.applications import Starlette

from lyceum.app import Stock, create_app
from lyceum.config import Config, EnsembleTable, ModelTable
from lyceum.engine import Engine, EngineSettings, read_card
from lyceum.ensemble import Ensemble, Own
from lyceum.errors import ConfigError, NodeError
from lyceum.node import NodeGate, NodePayer, PluginCalls, call, connect
from lyceum.peers import muster
from lyceum.ports import Gate, Limits, Model, Offer, Payer, Price
from lyceum.purse import LONGEST_PAYMENT_S

UNKNOWN_COMMAND = -32601


@dataclass(frozen=True, slots=True)
class Cashier:
    """The node that sells for this server, and pays for what it buys."""

    gate: Gate
    payer: Payer
    node_id: str


def run(config: Config) -> int:
    """Serve until interrupted; returns the exit code."""
    with _listen(config.server.host, config.server.port) as listener:
        host, port = listener.getsockname()[:2]
        app = assemble(config)
        _say(f"serving on http://{host}:{port}/v1")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
    return 0


def assemble(config: Config) -> Starlette:
    cashier = _cashier(config)
    engines = [_load(config, table, cashier) for table in config.models]
    models: list[Model] = list(engines)
    client = httpx.AsyncClient(timeout=(config.ensemble or EnsembleTable()).patience_s)
    if config.ensemble:
        models.append(_ensemble(config.ensemble, models, cashier, client))
    _check_names(models)

    async def stop() -> None:
        await client.aclose()
        for engine in engines:
            await asyncio.to_thread(engine.close)

    return create_app(Stock(tuple(models)), cashier.gate if cashier else None, stop)


def _cashier(config: Config) -> Cashier | None:
    if not config.server.node:
        _say("no [server] node is configured: every model is FREE")
        return None
    rpc = connect(Path(config.server.node).expanduser())
    node_id = call(rpc, "getinfo")["id"]
    try:
        call(rpc, "l402-stats")
    except NodeError as error:
        if error.node_code == UNKNOWN_COMMAND:
            raise NodeError(
                "the node runs without Lyceum's plugin: lightning-cli plugin start <cln_lyceum.py>"
            ) from None
        raise
    plugin = PluginCalls(rpc)
    return Cashier(NodeGate(plugin, config.server.service), NodePayer(plugin), node_id)


def _load(config: Config, table: ModelTable, cashier: Cashier | None) -> Engine:
    path = config.model_path(table)
    card = read_card(path)
    _say(f"loading {path.name} ...")
    try:
        offer = Offer(
            model=table.name or _slug(card.name),
            description=table.description or card.description,
            topics=tuple(table.topics) or card.tags,
            price=table.price(),
            limits=Limits(table.n_ctx, table.max_tokens),
            node_id=cashier.node_id if cashier else "",
        )
    except ValueError as error:
        raise ConfigError(f"model {table.path}: {error}") from None
    settings = EngineSettings(path, table.n_ctx, table.n_gpu_layers, table.threads or None, table.queue)
    return Engine.load(settings, offer)


def _slug(name: str) -> str:
    """A file's title as a model name: `Austrian economics` becomes `austrian-economics`."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")[:64] or "model"


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
    return Ensemble(offer, lambda: muster(client, table.peers, cashier.payer, members), table.budget_msat, patience_s)


def _check_names(models: Sequence[Model]) -> None:
    names = [model.offer.model for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two models are called {twice!r}: give one of them another `name`")


def _listen(host: str, port: int) -> socket.socket:
    """Bound before a model is loaded, so that a port in use is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is in use: stop who uses it, or set another port") from None
        raise ConfigError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from None


def _say(words: str) -> None:
    print(f"lyceum: {words}", file=sys.stderr, flush=True)
