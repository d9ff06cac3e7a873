"""OpenAI's endpoints over a stock of models."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar
from uuid import uuid4

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lyceum import wire
from lyceum.app.answer import EventStream, events, first_of, whole
from lyceum.app.failures import Refused
from lyceum.app.request import credential_lines, network_of, or_gone, read_body
from lyceum.app.sale import Sale, Tab
from lyceum.errors import BadRequest, ModelError, UnknownModel
from lyceum.ports import Bill, Declined, Embedder, Entry, Gate, Model, Offer, Watched

T = TypeVar("T")

USEFUL_TOKENS = 64
"""An answer that may be short is begun when the balance pays for so many tokens."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What a shop sells. `broken`: names of models that are configured and could not be loaded; `watched`: the
    servers behind those whose answers are written elsewhere."""

    models: tuple[Model, ...] = ()
    embedders: tuple[Embedder, ...] = ()
    broken: frozenset[str] = frozenset()
    watched: tuple[Watched, ...] = ()


class Shop:
    """The endpoints."""

    def __init__(self, stock: Stock, gate: Gate | None) -> None:
        self._models = {model.offer.model: model for model in stock.models}
        self._embedders = {embedder.offer.model: embedder for embedder in stock.embedders}
        self._broken = stock.broken
        self._watched = stock.watched
        self._gate = gate

    async def health(self, _: Request) -> Response:
        """`degraded` when a configured model could not be loaded or a server behind one is passed over; the
        others serve."""
        servers = [standing for watched in self._watched for standing in watched.standing()]
        degraded = self._broken or any(server.trouble for server in servers)
        body = {
            "status": "degraded" if degraded else "ok",
            "models": sorted(self._offers()),
            "broken": sorted(self._broken),
            "servers": [asdict(server) for server in servers],
        }
        return JSONResponse(body)

    async def list_models(self, _: Request) -> Response:
        return JSONResponse(wire.write_offers(await self._listed(self._offers().values())))

    async def show_model(self, request: Request) -> Response:
        (offer,) = await self._listed([self._find(request.path_params["model"], self._offers())])
        return JSONResponse(wire.write_offer(offer))

    async def chat(self, request: Request) -> Response:
        wanted = wire.read_chat(await read_body(request))
        if wanted.ask.model in self._embedders:
            raise BadRequest(f"{wanted.ask.model} turns texts into vectors: POST /v1/embeddings", "model")
        model = self._find(wanted.ask.model, self._models)
        weighed = await model.weigh(wanted.ask)
        price = model.offer.price
        tokens = model.offer.limits.answer_tokens(wanted.ask.max_tokens)
        least_msat = price.cost_msat(weighed.shortened(USEFUL_TOKENS)) if wanted.ask.may_be_short else None
        tab = await self._admit(model.offer, tokens, price.cost_msat(weighed), request, least_msat)
        sale = Sale(model, wanted.ask, weighed, tab)
        envelope = wire.Envelope(f"chatcmpl-{uuid4().hex}", int(time.time()), wanted.ask.model)
        chunks = sale.chunks(piecemeal=wanted.stream)
        if not wanted.stream:
            return await or_gone(request, whole(chunks, envelope, tab.headers))
        first = await or_gone(request, first_of(chunks))
        told = events(first, chunks, envelope, wanted.include_usage)
        return EventStream(told, media_type="text/event-stream", headers=tab.headers)

    async def embed(self, request: Request) -> Response:
        batch, base64 = wire.read_texts(await read_body(request))
        if batch.model in self._models:
            raise BadRequest(f"{batch.model} answers questions: POST /v1/chat/completions", "model")
        embedder = self._find(batch.model, self._embedders)
        amount_msat = embedder.offer.price.reading_msat(await embedder.weigh(batch))
        tab = await self._admit(embedder.offer, 1, amount_msat, request)
        price = embedder.offer.price
        owed = Bill(0, 0, price)
        try:
            found = await or_gone(request, embedder.embed(batch))
            owed = Bill.for_reading(price, found.usage)
        finally:
            with anyio.CancelScope(shield=True):
                bill = await tab.settle(owed)
        return JSONResponse(wire.write_embeddings(found, batch.model, base64, bill), headers=tab.headers)

    def _offers(self) -> dict[str, Offer]:
        chat = {name: model.offer for name, model in self._models.items()}
        return chat | {name: embedder.offer for name, embedder in self._embedders.items()}

    async def _listed(self, offers: Iterable[Offer]) -> list[Offer]:
        """The offers, with what the till wants for a first payment today."""
        bundle_msat = await self._gate.bundle_msat() if self._gate else 0
        return [replace(offer, bundle_msat=bundle_msat) for offer in offers]

    def _find(self, name: str, things: Mapping[str, T]) -> T:
        if name in things:
            return things[name]
        if name in self._broken:
            raise ModelError(f"{name} could not be loaded; whoever runs this server finds the reason in its log")
        raise UnknownModel(f"there is no model {name[:100]!r} here; there are: {', '.join(sorted(things)) or 'none'}")

    async def _admit(
        self, offer: Offer, tokens: int, amount_msat: int, request: Request, least_msat: int | None = None
    ) -> Tab:
        if not amount_msat or self._gate is None:
            return Tab()
        entry = Entry(credential_lines(request), offer.model, tokens, amount_msat, network_of(request), least_msat)
        answer = await self._gate.admit(entry)
        if isinstance(answer, Declined):
            raise Refused(answer, offer)
        return Tab(self._gate, answer, amount_msat)
