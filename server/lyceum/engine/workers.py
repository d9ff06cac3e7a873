"""All engines' processes: one for each weights file, shared by the models that stand on it. Makes `Core`s, which
the fleet loads and puts down. Remembers which shapes have cost a process its life."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from lyceum.engine.messages import Order, write_ask, write_end
from lyceum.engine.settings import EngineSettings
from lyceum.engine.worker import Inbox, Worker
from lyceum.errors import BadRequest
from lyceum.ports import Ask, End, Kind, Limits

Key = tuple[Path, int]

MOST_REMEMBERED = 10_000


class Workers:
    def __init__(self) -> None:
        self._running: dict[Key, Worker] = {}
        self._cores: dict[Worker, set[Core]] = {}
        self._hostile: dict[str, None] = {}
        self._checked: set[tuple[Path, int, int]] = set()

    async def open(self, settings: EngineSettings, limits: Limits, kind: Kind) -> Core:
        """Raises ModelError naming the file."""
        path = settings.path.resolve()
        key = (path, settings.n_gpu_layers)
        worker = self._running.get(key)
        if worker is None or not worker.alive():
            worker = self._running[key] = Worker(path, self._lost)
            self._cores[worker] = set()
        state = path.stat()
        version = (path, state.st_size, state.st_mtime_ns)
        core = Core(self, worker)
        self._cores[worker].add(core)
        order = {
            "do": "open",
            "settings": asdict(settings),
            "limits": (limits.context_tokens, limits.max_tokens),
            "kind": kind,
            "check_tensors": version not in self._checked,
        }
        try:
            await core.opened(order)
        except BaseException:
            self.release(core)
            raise
        self._checked.add(version)
        return core

    def release(self, core: Core) -> None:
        """Ends the process with its last core."""
        cores = self._cores.get(core.worker, set())
        if core not in cores:
            return
        cores.discard(core)
        core.on_lost = _nothing
        if not cores:
            core.worker.end()
        elif core.worker.alive():
            core.worker.tell(0, {"do": "close", "model": core.number})

    def check_shape(self, ask: Ask, digest: str) -> None:
        """Raises BadRequest for a shape that llama.cpp did not come back from."""
        if digest in self._hostile:
            field = "response_format" if ask.schema else "grammar"
            raise BadRequest("following this took so long that the engine had to be stopped: simplify it", field)

    def _lost(self, worker: Worker, blamed: set[str]) -> None:
        self._hostile |= dict.fromkeys(blamed)
        while len(self._hostile) > MOST_REMEMBERED:
            del self._hostile[next(iter(self._hostile))]
        self._running = {key: other for key, other in self._running.items() if other is not worker}
        for core in self._cores.pop(worker, set()):
            core.on_lost()


class Core:
    """A model opened in a process. Methods raise what the process answers, or ModelError when it is dead."""

    def __init__(self, workers: Workers, worker: Worker) -> None:
        self.worker = worker
        self.number = 0
        self.on_lost: Callable[[], None] = _nothing
        self._workers = workers
        self._asked: set[Inbox] = set()

    @property
    def lost(self) -> bool:
        return not self.worker.alive()

    async def opened(self, order: Order) -> None:
        inbox = self.worker.start(order)
        self.number = inbox.number
        await self.worker.answer(inbox)

    async def weigh(self, ask: Ask) -> tuple[int, int]:
        """Tokens of the prompt and, at most, of the answer."""
        prompt, answer = await self.worker.answer(self._start("weigh", ask))
        return prompt, answer

    def ask(self, ask: Ask) -> Inbox:
        """The answer's news, until it is left."""
        inbox = self._start("answer", ask)
        self._asked.add(inbox)
        return inbox

    def leave(self, inbox: Inbox, over: bool) -> None:
        """Nobody listens any more. Unless it was `over`, the process hears of it before its next step."""
        self.worker.forget(inbox)
        self._asked.discard(inbox)
        if not over and self.worker.alive():
            self.worker.tell(inbox.number, {"do": "leave", "model": self.number})

    def texts(self, do: Literal["count", "embed"], texts: Sequence[str]) -> Inbox:
        return self.worker.start({"do": do, "model": self.number, "texts": texts})

    def close(self) -> None:
        """Whoever is being served or waits gets End("cancelled")."""
        for inbox in self._asked:
            inbox.put(write_end(inbox.number, End("cancelled")))
        self._workers.release(self)

    def _start(self, do: Literal["weigh", "answer"], ask: Ask) -> Inbox:
        shape = _digest(ask)
        self._workers.check_shape(ask, shape)
        return self.worker.start({"do": do, "model": self.number, "ask": write_ask(ask)}, shape)


def _nothing() -> None:
    pass


def _digest(ask: Ask) -> str:
    shape = ask.schema or ask.grammar
    return hashlib.sha256(shape.encode("utf-8", "surrogatepass")).hexdigest() if shape else ""
