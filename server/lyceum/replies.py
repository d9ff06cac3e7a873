"""What other servers reply over HTTP, sellers' and upstreams' alike: read with a bound on everything.

Law: nothing is read that was not asked for: no body beyond `most` bytes, no line beyond MAX_LINE, nothing
compressed (a kilobyte may hold a gigabyte). Raises PeerError; httpx's own errors pass through.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import httpx2 as httpx

from lyceum import wire
from lyceum.errors import PeerError
from lyceum.ports import Chunk

MAX_ANSWER = 8 << 20
MAX_ERROR = 64 << 10
MAX_LINE = 1 << 20
MAX_REASON = 300
LAST_WORDS_S = 0.5
"""After `[DONE]` only the end of the body is waited for, so that its connection can be used again."""

PLAIN = {"Accept-Encoding": "identity"}
"""To be sent with every request whose answer is read here."""

NETWORK_ERRORS = (httpx.HTTPError, httpx.InvalidURL, OSError)


async def whole(response: httpx.Response, most: int) -> bytes:
    """The body, or PeerError when it is longer than `most` bytes."""
    body = bytearray()
    async with aclosing(_pieces(response, most)) as pieces:
        async for piece in pieces:
            body += piece
    return bytes(body)


async def answer(response: httpx.Response, most: int) -> AsyncGenerator[Chunk]:
    """The chunks of a chat-completions stream, as they come; the last one is the `End`."""
    reader = wire.AnswerReader()
    async with aclosing(_lines(response, most)) as lines:
        async for line in lines:
            for chunk in reader.feed(line):
                yield chunk
            if reader.done:
                await _last_words(lines)
                break
    yield reader.close()


def reason(body: bytes) -> str:
    """The sentence in OpenAI's error object, in one line."""
    found = parsed(body)
    error = found.get("error") if isinstance(found, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return " ".join(said.split())[:MAX_REASON] if isinstance(said, str) and said else "no reason given"


def parsed(body: bytes) -> object:
    """The JSON value of `body`; None if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def network_fault(error: Exception) -> str:
    kind = "is silent" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    return f"{kind} ({type(error).__name__})"


async def _pieces(response: httpx.Response, most: int) -> AsyncGenerator[bytes]:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise PeerError("answered in a compressed form that it was not asked for")
    read = 0
    async for piece in response.aiter_bytes():
        read += len(piece)
        if read > most:
            raise PeerError(f"answered more than {most} bytes")
        yield piece


async def _lines(response: httpx.Response, most: int) -> AsyncGenerator[str]:
    rest = bytearray()
    async with aclosing(_pieces(response, most)) as pieces:
        async for piece in pieces:
            rest += piece
            if b"\n" in piece:
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace").rstrip("\r")
            if len(rest) > MAX_LINE:
                raise PeerError(f"answered a line of more than {MAX_LINE} bytes")


async def _last_words(lines: AsyncGenerator[str]) -> None:
    with suppress(TimeoutError, PeerError, *NETWORK_ERRORS):
        async with asyncio.timeout(LAST_WORDS_S):
            async for _ in lines:
                pass
