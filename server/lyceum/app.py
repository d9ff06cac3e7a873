"""The web server: OpenAI's API over any set of Models, with the till at its door.

The order is the contract: parse, then what cannot be delivered (404, 413, 503), then the till (402),
then generate, then settle exactly what was delivered. Endpoints raise; errors are mapped once.
Knows no lightningd, no llama.cpp and no macaroon: header lines pass through as text.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import TypeVar
from uuid import uuid4

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from lyceum import wire
from lyceum.errors import BadRequest, LyceumError, ModelError, NoAnswer, TooLong, UnknownModel
from lyceum.ports import Admitted, Ask, Bill, Chunk, Declined, Delta, Embedder, End, Gate, Member, Model, Offer, Usage

log = logging.getLogger(__name__)
T = TypeVar("T")

NO_STORE = {"Cache-Control": "no-store"}
SETTLE_ATTEMPTS_S = (0.0, 0.5, 2.0)
CLIENT_GONE = 499


class Refused(LyceumError):
    """The till declined; carries what it said, headers and all."""

    status, code = 402, "payment-required"

    def __init__(self, declined: Declined, offer: Offer) -> None:
        super().__init__(declined.detail)
        self.declined = declined
        self.offer = offer


@dataclass(frozen=True, slots=True)
class Stock:
    """What a shop sells. `broken`: names of models that are configured and could not be loaded."""

    models: tuple[Model, ...] = ()
    embedders: tuple[Embedder, ...] = ()
    broken: frozenset[str] = frozenset()


def create_app(stock: Stock, gate: Gate | None, stop: Callable[[], Awaitable[None]] | None = None) -> Starlette:
    """An ASGI app that sells `stock` through `gate`; without a gate all is free. `stop` runs last."""
    shop = Shop(stock, gate)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        if stop:
            await stop()

    return Starlette(
        routes=[
            Route("/health", shop.health),
            Route("/v1/models", shop.list_models),
            Route("/v1/models/{model:path}", shop.show_model),
            Route("/v1/chat/completions", shop.chat, methods=["POST"]),
            Route("/v1/embeddings", shop.embed, methods=["POST"]),
        ],
        exception_handlers={
            Refused: _payment_required,
            LyceumError: _failed,
            HTTPException: _no_route,
            ClientDisconnect: _gone,
        },
        lifespan=lifespan,
    )


class Shop:
    """The endpoints."""

    def __init__(self, stock: Stock, gate: Gate | None) -> None:
        self._models = {model.offer.model: model for model in stock.models}
        self._embedders = {embedder.offer.model: embedder for embedder in stock.embedders}
        self._broken = stock.broken
        self._gate = gate

    async def health(self, _: Request) -> Response:
        """`degraded` when a configured model could not be loaded; the others serve."""
        status = "degraded" if self._broken else "ok"
        body = {"status": status, "models": sorted(self._offers()), "broken": sorted(self._broken)}
        return JSONResponse(body)

    async def list_models(self, _: Request) -> Response:
        return JSONResponse(wire.write_offers(await self._listed(self._offers().values())))

    async def show_model(self, request: Request) -> Response:
        (offer,) = await self._listed([self._find(request.path_params["model"], self._offers())])
        return JSONResponse(wire.write_offer(offer))

    async def chat(self, request: Request) -> Response:
        wanted = wire.read_chat(await _body(request))
        if wanted.ask.model in self._embedders:
            raise BadRequest(f"{wanted.ask.model} turns texts into vectors: POST /v1/embeddings", "model")
        model = self._find(wanted.ask.model, self._models)
        weighed = await model.weigh(wanted.ask)
        amount_msat = model.offer.price.cost_msat(weighed)
        tokens = model.offer.limits.answer_tokens(wanted.ask.max_tokens)
        sale = Sale(model, wanted.ask, weighed, await self._admit(model.offer, tokens, amount_msat, request))
        envelope = wire.Envelope(f"chatcmpl-{uuid4().hex}", int(time.time()), wanted.ask.model)
        chunks = sale.chunks(piecemeal=wanted.stream)
        if not wanted.stream:
            return await _or_gone(request, _whole(chunks, envelope))
        first = await _or_gone(request, _first(chunks))
        events = _events(first, chunks, envelope, wanted.include_usage)
        return EventStream(events, media_type="text/event-stream", headers=NO_STORE)

    async def embed(self, request: Request) -> Response:
        batch, base64 = wire.read_texts(await _body(request))
        if batch.model in self._models:
            raise BadRequest(f"{batch.model} answers questions: POST /v1/chat/completions", "model")
        embedder = self._find(batch.model, self._embedders)
        amount_msat = embedder.offer.price.reading_msat(await embedder.weigh(batch))
        tab = await self._admit(embedder.offer, 1, amount_msat, request)
        owed_msat = 0
        try:
            found = await _or_gone(request, embedder.embed(batch))
            owed_msat = embedder.offer.price.reading_msat(found.usage)
        finally:
            with anyio.CancelScope(shield=True):
                bill = await tab.settle(owed_msat)
        return JSONResponse(wire.write_embeddings(found, batch.model, base64, bill), headers=NO_STORE)

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

    async def _admit(self, offer: Offer, tokens: int, amount_msat: int, request: Request) -> Tab:
        if not amount_msat or self._gate is None:
            return Tab()
        lines = request.headers.getlist("authorization")
        answer = await self._gate.admit(lines, offer.model, tokens, amount_msat)
        if isinstance(answer, Declined):
            raise Refused(answer, offer)
        return Tab(self._gate, answer)


@dataclass(frozen=True, slots=True)
class Tab:
    """What one request may cost, reserved at the till; empty for what is free."""

    gate: Gate | None = None
    admitted: Admitted | None = None

    async def settle(self, charge_msat: int) -> Bill | None:
        if self.gate is None or self.admitted is None:
            return None
        for wait_s in SETTLE_ATTEMPTS_S:
            await asyncio.sleep(wait_s)
            try:
                settled = await self.gate.settle(self.admitted.reservation, charge_msat)
            except LyceumError as error:
                log.warning("settling %s msat failed: %s", charge_msat, error.message)
            else:
                return Bill(settled.charged_msat, settled.balance_msat)
        return None


class Sale:
    """One answer being sold: counts what is delivered, and settles it however the answer ends."""

    def __init__(self, model: Model, ask: Ask, weighed: Usage, tab: Tab) -> None:
        self._model = model
        self._ask = ask
        self._read = replace(weighed, output_tokens=0, output_chars=0)
        self._tab = tab

    async def chunks(self, piecemeal: bool) -> AsyncGenerator[Chunk]:
        """The model's chunks; the `End` comes after the till has settled, and carries the bill.

        An answer that the model failed to finish costs nothing, nor does one that says only that the
        question lies outside its field. One that the buyer broke off costs what was handed over until
        then: `piecemeal` as it was written, else nothing.
        """
        delivered, owed, end, outside = self._read, self._read, End("error"), False
        try:
            async with aclosing(self._model.stream(self._ask)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    if isinstance(chunk, End):
                        end = chunk
                        delivered = _exact(delivered, chunk.usage)
                        owed = self._read if outside else delivered
                        break
                    yield chunk
                    outside = outside or chunk.outside
                    delivered = _after(delivered, chunk)
                    owed = delivered if piecemeal and not outside else owed
        except Exception:
            owed = self._read
            raise
        finally:
            with anyio.CancelScope(shield=True):
                bill = await self._tab.settle(self._model.offer.price.cost_msat(owed))
        yield replace(end, usage=delivered, bill=bill)


def _after(usage: Usage, delta: Delta) -> Usage:
    return replace(
        usage,
        output_tokens=usage.output_tokens + delta.tokens,
        output_chars=usage.output_chars + len(delta.text),
    )


def _exact(counted: Usage, reported: Usage) -> Usage:
    """Tokens as the model reports them at its end; characters as they were handed over."""
    return replace(
        counted,
        input_tokens=reported.input_tokens or counted.input_tokens,
        output_tokens=reported.output_tokens or counted.output_tokens,
    )


class EventStream(StreamingResponse):
    """Closes its iterator at once when the client goes, not whenever it is collected."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


async def _events(
    first: Chunk, rest: AsyncGenerator[Chunk], envelope: wire.Envelope, include_usage: bool
) -> AsyncGenerator[str]:
    async with aclosing(rest):
        try:
            yield _event(first, envelope, include_usage, opening=True)
            async for chunk in rest:
                yield _event(chunk, envelope, include_usage)
        except LyceumError as error:
            yield wire.error_event(error)


def _event(chunk: Chunk, envelope: wire.Envelope, include_usage: bool, opening: bool = False) -> str:
    if isinstance(chunk, End):
        return envelope.end(chunk, include_usage)
    return envelope.delta(chunk, opening)


async def _first(chunks: AsyncGenerator[Chunk]) -> Chunk:
    """The first chunk, fetched before the status line is sent: a failure still gets its own status."""
    chunk = await anext(chunks)
    if isinstance(chunk, End):
        _check_answered(chunk)
    return chunk


async def _whole(chunks: AsyncGenerator[Chunk], envelope: wire.Envelope) -> Response:
    deltas: list[Delta] = []
    end = End("error")
    async with aclosing(chunks):
        async for chunk in chunks:
            if isinstance(chunk, End):
                end = chunk
            else:
                deltas.append(chunk)
    _check_answered(end)
    return JSONResponse(envelope.whole(deltas, end), headers=NO_STORE)


def _check_answered(end: End) -> None:
    if end.finish == "error":
        raise NoAnswer("no specialist answered: " + "; ".join(_why(member) for member in end.members))


def _why(member: Member) -> str:
    return f"{member.model}: {member.error or 'no answer'}"


async def _or_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects first."""
    worker = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        raise ClientDisconnect
    finally:
        watcher.cancel()
        worker.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    """The body, never more of it than is allowed."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > wire.MAX_BODY:
            raise TooLong(f"the body is longer than {wire.MAX_BODY} bytes: send fewer or shorter messages")
    return body


async def _payment_required(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    declined = error.declined
    body = wire.problem(
        error.status,
        "Payment Required",
        declined.reason,
        declined.detail,
        amount_msat=declined.amount_msat,
        model=error.offer.model,
        price=asdict(error.offer.price),
    )
    response = JSONResponse(body, error.status, NO_STORE, "application/problem+json")
    for name, value in declined.headers:
        response.headers.append(name, value)
    return response


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, LyceumError)  # noqa: S101
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return JSONResponse(wire.error_body(error), error.status, headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "no-such-route"}}
    return JSONResponse(body, error.status_code, error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
