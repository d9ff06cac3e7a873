"""The web server: OpenAI's API over any set of Models, with the till at its door.

The order is the contract: parse, then what cannot be delivered (404, 413, 503), then the till (402),
then generate, then settle exactly what was delivered. Endpoints raise; errors are mapped once.
Knows no lightningd, no llama.cpp and no macaroon: header lines pass through as text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route

from lyceum.app.browsers import CORS
from lyceum.app.counter import Counter
from lyceum.app.discovery import Discovery
from lyceum.app.failures import HANDLERS
from lyceum.app.shop import Shop
from lyceum.app.stock import Load, Stock
from lyceum.ports import Gate, Holders

__all__ = ["Stock", "create_app"]


def create_app(
    stock: Stock,
    gate: Gate | None,
    stop: Callable[[], Awaitable[None]] | None = None,
    holders: Holders | None = None,
) -> Starlette:
    """An ASGI app that sells `stock` through `gate`; without a gate all is free. `stop` runs last.

    With `holders`, those who bought see their balance, add to it and take it back.
    """
    load = Load()
    shop = Shop(stock, gate, load)

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
            *(Discovery(stock, gate, load).routes() if gate else ()),
            *(Counter(holders).routes() if holders else ()),
        ],
        middleware=[CORS],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
