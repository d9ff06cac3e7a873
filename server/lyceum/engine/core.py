"""A loaded model: the thread that owns it, and the line before that. Made and closed by the fleet."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

from lyceum.engine.card import Card
from lyceum.engine.line import Line
from lyceum.engine.native import Context, has_gpu
from lyceum.engine.prompt import ChatTemplate
from lyceum.engine.settings import EngineSettings
from lyceum.engine.worker import Trust, work
from lyceum.errors import ModelError
from lyceum.ports import End

ADD_TEMPLATE = "take an instruction-tuned GGUF, or add one with gguf_new_metadata.py --chat-template-file"
MEMORY = Path("/proc/meminfo")


class Core:
    """Blocks until the model can answer; ModelError names the file and says how to mend it."""

    def __init__(self, settings: EngineSettings, card: Card) -> None:
        check_memory(settings, card)
        self.line = Line(settings.queue)
        ready: Future[Context] = Future()
        self._thread = threading.Thread(
            target=_live, args=(settings, card, self.line, ready), name=f"engine {card.path.name}", daemon=True
        )
        self._thread.start()
        self.vocab = ready.result().vocab
        try:
            self.template = ChatTemplate(card.chat_template, self.vocab)
        except ModelError as error:
            self.close()
            raise ModelError(f"{card.path}: {error.message}; {ADD_TEMPLATE}") from None

    def close(self) -> None:
        """Whoever is being served or waits gets End("cancelled"). Blocks for a step; may be repeated."""
        for job in self.line.close():
            job.deliver(End("cancelled"))
        self._thread.join()


def check_memory(settings: EngineSettings, card: Card, pooled: bool = False) -> None:
    """Raises ModelError, with a context that would fit, when this machine has too little memory free. What a GPU
    has is for llama.cpp to say."""
    n_ctx = settings.n_ctx
    free, needed = free_memory_bytes(), card.memory_bytes(n_ctx, pooled)
    if free is None or needed <= free or (settings.n_gpu_layers and has_gpu()):
        return
    fitting = card.fitting_tokens(free, pooled)
    mend = f"set n_ctx to at most {fitting // 64 * 64}" if fitting >= 64 else "take a smaller model or quantisation"
    raise ModelError(
        f"{card.path} with n_ctx {n_ctx} needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; {mend}"
    )


def free_memory_bytes() -> int | None:
    """What can still be taken without swapping; None where the system does not say."""
    if not MEMORY.exists():
        return None
    rows = (line.split() for line in MEMORY.read_text(encoding="ascii").splitlines())
    return next((int(row[1]) * 1024 for row in rows if row[0] == "MemAvailable:"), None)


def _live(settings: EngineSettings, card: Card, line: Line, ready: Future[Context]) -> None:
    """The engine's thread, from loading to freeing: OpenMP keeps a team per calling thread."""
    lora = (settings.lora, settings.lora_scale) if settings.lora else None
    try:
        context = Context(card, settings.n_ctx, settings.n_gpu_layers, settings.threads(), lora)
    except Exception as error:
        ready.set_exception(error)
        return
    ready.set_result(context)
    refusal = card.refusal if settings.refusal is None else settings.refusal
    try:
        work(context, line, Trust(refusal, card.doubt if settings.doubt is None else settings.doubt))
    finally:
        context.close()
