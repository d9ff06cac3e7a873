"""OpenAI's endpoints over a stock of models."""

from __future__ import annotations

import time
from dataclasses import asdict
from uuid import uuid4

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lyceum import wire
from lyceum.app.answer import EventStream, events, first_of, whole
from lyceum.app.failures import Refused
from lyceum.app.request import entry_of, or_gone, read_body
from lyceum.app.sale import Sale, Tab
from lyceum.app.stock import Load, Order, Stock, listed, order_answer, order_vectors
from lyceum.ports import Bill, Declined, Gate


class Shop:
    """The endpoints."""

    def __init__(self, stock: Stock, gate: Gate | None, load: Load) -> None:
        self._stock = stock
        self._gate = gate
        self._load = load

    async def health(self, _: Request) -> Response:
        """`degraded` when a configured model could not be loaded or a server behind one is passed over; the
        others serve."""
        servers = [standing for watched in self._stock.watched for standing in watched.standing()]
        degraded = self._stock.broken or any(server.trouble for server in servers)
        body = {
            "status": "degraded" if degraded else "ok",
            "models": sorted(offer.model for offer in self._stock.offers),
            "broken": sorted(self._stock.broken),
            "servers": [asdict(server) for server in servers],
        }
        return JSONResponse(body)

    async def list_models(self, _: Request) -> Response:
        return JSONResponse(wire.write_offers(await listed(self._stock.offers, self._gate, self._load)))

    async def show_model(self, request: Request) -> Response:
        (offer,) = await listed([self._stock.offer(request.path_params["model"])], self._gate, self._load)
        return JSONResponse(wire.write_offer(offer))

    async def chat(self, request: Request) -> Response:
        wanted = wire.read_chat(await read_body(request))
        model = self._stock.model(wanted.ask.model)
        order = await order_answer(model, wanted.ask)
        tab = await self._admit(order, request)
        sale = Sale(model, wanted.ask, order.weighed, tab, self._load)
        envelope = wire.Envelope(f"chatcmpl-{uuid4().hex}", int(time.time()), wanted.ask.model)
        chunks = sale.chunks(piecemeal=wanted.stream)
        if not wanted.stream:
            return await or_gone(request, whole(chunks, envelope, tab.headers))
        first = await or_gone(request, first_of(chunks))
        told = events(first, chunks, envelope, wanted.include_usage)
        return EventStream(told, media_type="text/event-stream", headers=tab.headers)

    async def embed(self, request: Request) -> Response:
        batch, base64 = wire.read_texts(await read_body(request))
        embedder = self._stock.embedder(batch.model)
        tab = await self._admit(await order_vectors(embedder, batch), request)
        price = tab.price(embedder.offer)
        owed = Bill(0, 0, price)
        try:
            with self._load.one_more(batch.model):
                found = await or_gone(request, embedder.embed(batch))
            owed = Bill.for_reading(price, found.usage)
        finally:
            with anyio.CancelScope(shield=True):
                bill = await tab.settle(owed)
        return JSONResponse(wire.write_embeddings(found, batch.model, base64, bill), headers=tab.headers)

    async def _admit(self, order: Order, request: Request) -> Tab:
        if not order.amount_msat or self._gate is None:
            return Tab()
        answer = await self._gate.admit(entry_of(order, request, self._load.of(order.offer.model)))
        if isinstance(answer, Declined):
            raise Refused(answer, order.at(answer.percent).offer)
        return Tab(self._gate, answer, order.amount_msat)
