"""What passes between the server and an engine's process: JSON after its length in bytes. Knows neither side.

The server sends orders, one object each. The engine answers with lists of news, at most one list a step; each
piece of news is [number of the request, kind, ...].
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from lyceum.errors import Busy, LyceumError, ModelError, from_rpc
from lyceum.ports import Ask, Candidate, Choice, Delta, End, Message, Usage

Order = dict[str, Any]
News = list[Any]

DELTA, END, FAILED, DONE = range(4)
"""Kinds of news: a piece of an answer, its end, an error, what was asked for."""

PLAIN = 4
"""Length of a piece that is text and a number of tokens, and nothing else."""

SIZE = struct.Struct("<I")
_PLAIN = tuple(field.name for field in fields(Ask) if field.name != "messages")


def pack(message: object) -> bytes:
    body = json.dumps(message, separators=(",", ":"), default=str).encode()
    return SIZE.pack(len(body)) + body


class Unpacker:
    """`feed` it what comes in, in whatever pieces; it gives whole messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        self._data += data
        while len(self._data) >= SIZE.size:
            end = SIZE.size + SIZE.unpack_from(self._data)[0]
            if len(self._data) < end:
                return
            body = bytes(self._data[SIZE.size : end])
            del self._data[:end]
            yield json.loads(body)


def write_ask(ask: Ask) -> Order:
    plain = {name: getattr(ask, name) for name in _PLAIN}
    return plain | {"messages": [(message.role, message.content) for message in ask.messages]}


def read_ask(found: Order) -> Ask:
    messages = tuple(Message(role, content) for role, content in found["messages"])
    return Ask(**{**found, "messages": messages, "stop": tuple(found["stop"])})


def write_delta(number: int, delta: Delta) -> News:
    if not (delta.outside or delta.choices):
        return [number, DELTA, delta.text, delta.tokens]
    choices = [[_write(each.chosen), *map(_write, each.likeliest)] for each in delta.choices]
    return [number, DELTA, delta.text, delta.tokens, delta.outside, choices]


def read_delta(news: News) -> Delta:
    if len(news) == PLAIN:
        return Delta(news[2], news[3])
    choices = tuple(Choice(_read(chosen), tuple(map(_read, likeliest))) for chosen, *likeliest in news[5])
    return Delta(news[2], news[3], outside=news[4], choices=choices)


def write_end(number: int, end: End) -> News:
    used = end.usage
    counts = [used.input_tokens, used.output_tokens, used.input_chars, used.output_chars]
    return [number, END, end.finish, counts, end.confidence]


def read_end(news: News) -> End:
    return End(news[2], Usage(*news[3]), news[4])


def write_error(number: int, error: LyceumError) -> News:
    return [number, FAILED, error.rpc_code, error.message, getattr(error, "param", None), _retry(error)]


def read_error(news: News) -> LyceumError:
    error = from_rpc(news[2], news[3]) or ModelError(news[3])
    if isinstance(error, Busy):
        error.retry_after_s = news[5]
    elif news[4]:
        error.param = news[4]  # type: ignore[attr-defined]
    return error


def _retry(error: LyceumError) -> int | None:
    return error.retry_after_s if isinstance(error, Busy) else None


def _write(candidate: Candidate) -> tuple[str, float]:
    return candidate.text.decode("latin-1"), candidate.logprob


def _read(row: tuple[str, float]) -> Candidate:
    return Candidate(row[0].encode("latin-1"), row[1])
