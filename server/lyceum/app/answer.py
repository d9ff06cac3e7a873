"""An answer's chunks as a response: whole, or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from lyceum import wire
from lyceum.errors import LyceumError, NoAnswer
from lyceum.ports import Chunk, Delta, End, Member


class EventStream(StreamingResponse):
    """Closes its iterator at once when the client goes, not whenever it is collected."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


async def events(
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


async def first_of(chunks: AsyncGenerator[Chunk]) -> Chunk:
    """The first chunk, fetched before the status line is sent: a failure still gets its own status."""
    chunk = await anext(chunks)
    if isinstance(chunk, End):
        _check_answered(chunk)
    return chunk


async def whole(chunks: AsyncGenerator[Chunk], envelope: wire.Envelope, headers: Mapping[str, str]) -> Response:
    deltas: list[Delta] = []
    end = End("error")
    async with aclosing(chunks):
        async for chunk in chunks:
            if isinstance(chunk, End):
                end = chunk
            else:
                deltas.append(chunk)
    _check_answered(end)
    return JSONResponse(envelope.whole(deltas, end), headers=headers)


def _check_answered(end: End) -> None:
    if end.finish == "error":
        raise NoAnswer("no specialist answered: " + "; ".join(_why(member) for member in end.members))


def _why(member: Member) -> str:
    return f"{member.model}: {member.error or 'no answer'}"
