"""Sellers' web servers for tests: real ones as processes of their own, and crooked ones in a thread."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lyceum.demo import models_directory
from lyceum.devnet import Node
from lyceum.devnet.process import Daemon
from lyceum.ports import Bill, Delta, End, Limits, Offer, Price, Usage
from lyceum.wire import Envelope, write_offers

PRICES = "base_msat = 100\ninput_per_1k_msat = 200\noutput_per_1k_msat = 1000\n"
Answer = Callable[[Request], Awaitable[Response]]


def weights(name: str) -> Path:
    return models_directory() / name / f"{name}.Q8_0.gguf"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def write_config(path: Path, node: Path | None, port: int, *models: str, prices: str = PRICES, more: str = "") -> Path:
    tables = [f'[[model]]\npath = "{weights(name)}"\nn_ctx = 512\nmax_tokens = 120\n{prices}' for name in models]
    path.write_text(f'[server]\nport = {port}\nnode = "{node or ""}"\n' + "".join(tables) + more)
    return path


@contextmanager
def serving(directory: Path, node: Node | None, *models: str, prices: str = PRICES, more: str = "") -> Iterator[str]:
    """`lyceum serve` as a process; yields its URL."""
    with server_process(directory, node, *models, prices=prices, more=more) as (url, _):
        yield url


@contextmanager
def server_process(
    directory: Path, node: Node | None, *models: str, prices: str = PRICES, more: str = ""
) -> Iterator[tuple[str, Daemon]]:
    port = free_port()
    socket = node.rpc_path if node else None
    config = write_config(directory / f"{port}.toml", socket, port, *models, prices=prices, more=more)
    server = Daemon(
        "server", [sys.executable, "-m", "lyceum", "serve", "--config", str(config)], directory / f"{port}.log"
    )
    server.spawn()
    try:
        server.await_ready(lambda: _healthy(port))
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.end()


def _healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except OSError:
        return False


@dataclass
class Rogue:
    """A seller that lists an honest offer and answers questions as `answer` does; counts what it was asked."""

    answer: Answer
    node_id: str = ""
    asked: int = 0
    paid: list[str] = field(default_factory=list)

    @property
    def offer(self) -> Offer:
        return Offer(
            "austrian-economics",
            "economics of Mises and Hayek",
            ("mises", "hayek", "prices", "socialism", "calculation", "money", "economics"),
            Price(base_msat=100, output_per_1k_msat=1000),
            Limits(512, 120),
            bundle_msat=1000,
            node_id=self.node_id,
        )

    def app(self) -> Starlette:
        async def models(_: Request) -> Response:
            return JSONResponse(write_offers([self.offer]))

        async def chat(request: Request) -> Response:
            self.asked += 1
            authorization = request.headers.get("authorization")
            if authorization:
                self.paid.append(authorization)
            return await self.answer(request)

        return Starlette(routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])])


@contextmanager
def in_thread(app: Starlette) -> Iterator[str]:
    """Serve an app from a thread of this process; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join()


def asks_for(lines: Callable[[], tuple[str, str]]) -> Answer:
    """Answers 402 with the given challenge lines, for ever."""

    async def answer(_: Request) -> Response:
        response = JSONResponse({"code": "payment-required", "error": {"message": "pay"}}, 402)
        for line in await asyncio.to_thread(lines):
            response.headers.append("WWW-Authenticate", line)
        return response

    return answer


def bills(lines: Callable[[], tuple[str, str]], bill: Bill) -> Answer:
    """Sells the answer "Gold." for what the challenge lines ask, and bills it so."""
    unpaid = asks_for(lines)
    envelope = Envelope("chatcmpl-1", 1, "austrian-economics")
    events = envelope.delta(Delta("Gold."), True) + envelope.end(End("stop", Usage(output_chars=5), bill=bill), True)

    async def answer(request: Request) -> Response:
        if "authorization" not in request.headers:
            return await unpaid(request)
        return Response(events, media_type="text/event-stream")

    return answer


async def garbage(_: Request) -> Response:
    return PlainTextResponse("<html>busy</html>" * 10)


async def goes_silent(_: Request) -> Response:
    async def words() -> object:
        yield 'data: {"choices":[{"delta":{"content":"Prices "}}]}\n\n'
        await asyncio.sleep(60)

    return StreamingResponse(words(), media_type="text/event-stream")  # type: ignore[arg-type]
