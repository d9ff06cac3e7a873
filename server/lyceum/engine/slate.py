"""A page that the server and an engine's process both see: what is in llama.cpp's hands, and since which turn.

The server cannot interrupt a call into llama.cpp, nor can the process that made it tell. So whoever calls writes
here before and after, and the server looks. Two lanes, since two threads call: one steps, one reads requests.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from typing import NamedTuple

STEPS, READS = range(2)
_LANE = struct.Struct("<QQ")


class Entry(NamedTuple):
    """`turn` is odd during a call; `request` is whose call it is, 0 where it is everybody's."""

    turn: int
    request: int

    @property
    def busy(self) -> bool:
        return bool(self.turn % 2)


class Slate:
    """Made by the server with `new`, opened by the engine from the file descriptor that it inherits."""

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._turns = [0, 0]

    @classmethod
    def new(cls) -> tuple[Slate, tempfile._TemporaryFileWrapper[bytes]]:
        """The slate, and the file that keeps its descriptor open until the engine has it."""
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.truncate(mmap.PAGESIZE)
        return cls(file.fileno()), file  # type: ignore[return-value]

    def enter(self, lane: int, request: int = 0) -> None:
        self._write(lane, request)

    def leave(self, lane: int) -> None:
        self._write(lane, 0)

    def look(self, lane: int) -> Entry:
        return Entry(*_LANE.unpack_from(self._page, lane * _LANE.size))

    def _write(self, lane: int, request: int) -> None:
        self._turns[lane] += 1
        _LANE.pack_into(self._page, lane * _LANE.size, self._turns[lane], request)
