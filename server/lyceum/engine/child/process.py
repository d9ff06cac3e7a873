"""The process of an engine: one weights file, and everything that stands on it.

Two threads. One reads orders and does what needs no step: it renders, counts, checks. The other owns llama.cpp: it
opens and closes models, steps them in turn, and sends what came of a step in one message.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lyceum.engine.card import read_card
from lyceum.engine.child.chat import Chat
from lyceum.engine.child.vectors import Batch, Embedding
from lyceum.engine.memory import check_memory
from lyceum.engine.messages import DONE, News, Order, Unpacker, pack, read_ask, write_error
from lyceum.engine.native import has_gpu
from lyceum.engine.settings import EngineSettings
from lyceum.engine.slate import READS, Slate
from lyceum.errors import LyceumError, ModelError
from lyceum.ports import Limits

SWITCH_S = 0.0005
"""A thread that comes back from llama.cpp waits this long for one that reads; Python's default is ten times that."""

RECEIVED = 1 << 16

log = logging.getLogger(__name__)
Task = Callable[[], list[News]]


class Process:
    def __init__(self, wire: socket.socket, slate: Slate) -> None:
        self._wire, self._slate = wire, slate
        self._sending = threading.Lock()
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._models: dict[int, Chat | Embedding] = {}

    def run(self) -> None:
        """The thread that owns llama.cpp; never returns."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            busy = [model for model in self._models.values() if model.busy]
            self._send(self._ordered(wait=not busy))
            for model in busy:
                for news in model.step():
                    self._send(news)

    def _ordered(self, wait: bool) -> list[News]:
        """Do what was ordered since."""
        news: list[News] = []
        try:
            while True:
                news += self._tasks.get(block=wait)()
                wait = False
        except queue.Empty:
            return news

    def _send(self, news: Sequence[News]) -> None:
        if news:
            with self._sending:
                self._wire.sendall(pack(news))

    # The thread that reads

    def _read(self) -> None:
        unpacker = Unpacker()
        try:
            while data := self._wire.recv(RECEIVED):
                for order in unpacker.feed(data):
                    self._take(order)
        finally:
            os._exit(0)  # the server is gone, and the other thread may be anywhere

    def _take(self, order: Order) -> None:
        number = order["number"]
        self._slate.enter(READS, number)
        try:
            self._send(getattr(self, f"_{order['do']}")(number, order))
        except Exception as error:
            self._send([write_error(number, _known(error))])
        finally:
            self._slate.leave(READS)

    def _open(self, number: int, order: Order) -> Sequence[News]:
        self._later(number, lambda: self._opened(number, order))
        return ()

    def _weigh(self, number: int, order: Order) -> Sequence[News]:
        return [[number, DONE, self._chat(order).weigh(read_ask(order["ask"]))]]

    def _answer(self, number: int, order: Order) -> Sequence[News]:
        chat, ask = self._chat(order), read_ask(order["ask"])
        job = chat.plan(number, ask)
        self._later(number, lambda: chat.join(job, ask))
        return ()

    def _count(self, number: int, order: Order) -> Sequence[News]:
        return [[number, DONE, sum(map(len, self._embedding(order).read(order["texts"])))]]

    def _embed(self, number: int, order: Order) -> Sequence[News]:
        embedding = self._embedding(order)
        batch = Batch(number, embedding.read(order["texts"]))
        self._later(number, lambda: embedding.join(batch))
        return ()

    def _leave(self, number: int, order: Order) -> Sequence[News]:
        self._later(number, lambda: self._model(order).leave(number))
        return ()

    def _close(self, number: int, order: Order) -> Sequence[News]:
        self._later(number, lambda: self._models.pop(order["model"]).close())
        return ()

    def _later(self, number: int, work: Callable[[], Any]) -> None:
        """On the thread that owns llama.cpp; an error is told to whoever asked."""

        def task() -> list[News]:
            try:
                return work() or []
            except Exception as error:
                return [write_error(number, _known(error))]

        self._tasks.put(task)

    def _opened(self, number: int, order: Order) -> list[News]:
        settings, limits = _settings(order["settings"]), Limits(*order["limits"])
        card, pooled = read_card(settings.path), order["kind"] == "embedding"
        if not (settings.n_gpu_layers and has_gpu()):  # what a GPU has is for llama.cpp to say
            check_memory(card, settings.n_ctx, settings.parallel, pooled)
        kind = Embedding if pooled else Chat
        self._models[number] = kind(settings, limits, card, order["check_tensors"], self._slate)
        return [[number, DONE, None]]

    def _model(self, order: Order) -> Chat | Embedding:
        found = self._models.get(order["model"])
        if found is None:
            raise ModelError("the engine is closed")
        return found

    def _chat(self, order: Order) -> Chat:
        found = self._model(order)
        assert isinstance(found, Chat)  # noqa: S101
        return found

    def _embedding(self, order: Order) -> Embedding:
        found = self._model(order)
        assert isinstance(found, Embedding)  # noqa: S101
        return found


def _known(error: Exception) -> LyceumError:
    if isinstance(error, LyceumError):
        return error
    log.error("an order failed", exc_info=error)
    return ModelError(f"the engine failed: {error}")


def _settings(found: dict[str, Any]) -> EngineSettings:
    lora = found["lora"]
    return EngineSettings(**{**found, "path": Path(found["path"]), "lora": Path(lora) if lora else None})


def main() -> None:
    """`python -m lyceum.engine.child SOCKET SLATE`, both inherited file descriptors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then lets go of us
    sys.setswitchinterval(SWITCH_S)
    wire, slate = map(int, sys.argv[1:])
    Process(socket.socket(fileno=wire), Slate(slate)).run()
