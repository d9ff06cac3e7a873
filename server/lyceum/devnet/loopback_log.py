"""The node's log file, in lightningd's line format. The clock comes from the caller."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

LEVELS = {
    "trace": "TRACE",
    "debug": "DEBUG",
    "info": "INFO",
    "unusual": "UNUSUAL",
    "warn": "UNUSUAL",
    "broken": "**BROKEN**",
    "error": "**BROKEN**",
}


class Log:
    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._clock = clock

    def write(self, level: str, source: str, message: str) -> None:
        """One line per line of the message. Raises KeyError for a level that lightningd does not have."""
        mark = LEVELS[level]
        moment = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for line in message.split("\n"):
            self._file.write(f"{stamp} {mark:<7} {source}: {line}\n")

    def close(self) -> None:
        self._file.close()
