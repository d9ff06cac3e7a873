"""What llama.cpp says: it tells why it failed only to its log, on the thread that called it."""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ["GGML_NO_BACKTRACE"] = "1"  # before the import: an assertion would fork gdb, if installed

import llama_cpp.llama_cpp as c

LOG_INFO, LOG_ERROR = 2, 4


class _Complaints(threading.local):
    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=8)
        self.hear: Callable[[str], None] | None = None

    def take(self) -> str:
        """The first: those that follow say only who passed it on."""
        first = self.lines[0] if self.lines else "llama.cpp does not say why"
        self.lines.clear()
        return first

    @contextmanager
    def heard_by(self, hear: Callable[[str], None]) -> Iterator[None]:
        """Within, `hear` is told what llama.cpp says on this thread beside complaints."""
        self.hear = hear
        try:
            yield
        finally:
            self.hear = None


llama: Any = c
"""llama.cpp's C functions; imported here, so that nothing calls them before the log is heard."""

complaints = _Complaints()


@c.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
def _hear(level: int, text: bytes, _data: object) -> None:
    if level == LOG_ERROR:
        complaints.lines.append(text.decode("utf-8", "replace").strip())
    elif level == LOG_INFO and complaints.hear:
        complaints.hear(text.decode("utf-8", "replace"))


c.llama_log_set(_hear, ctypes.c_void_p(0))
c.llama_backend_init()
