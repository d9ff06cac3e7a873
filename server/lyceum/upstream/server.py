"""One server: a URL, what is known of its health, and requests to it. Chooses nothing and retries nothing.

Law: whatever a server does wrong becomes `Failed`, without its key and without its URL, which are its owner's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx2 as httpx

from lyceum import replies, wire
from lyceum.errors import BadRequest, LyceumError, PeerError, TooLong
from lyceum.ports import Chunk, End
from lyceum.upstream.settings import Patience

log = logging.getLogger(__name__)

WELL_FOR_S = 60.0
RETRY_S = 5.0
"""How long a look is believed that found a server well, and one that did not."""

MOST_WAIT_S = 60
BUSY = frozenset({429, 503})
REFUSED = frozenset({400, 422})
TOO_LARGE = 413


class Failed(PeerError):
    """A server failed a request. `again`: the same one may be asked again, since it was busy or the connection
    failed. `busy_s`: it is well and wants to be left alone for so many seconds. `detail`: for its owner alone."""

    def __init__(self, message: str, again: bool = False, busy_s: int = 0, detail: str = "") -> None:
        super().__init__(message)
        self.again = again
        self.busy_s = busy_s
        self.detail = detail


class Server:
    """`trouble` says why it is passed over, "" while it is well; `outstanding` counts requests under way."""

    def __init__(self, name: str, url: str, model: str, key: str, patience: Patience) -> None:
        self.trouble = "was not looked at yet"
        self.outstanding = self.served = 0
        self._name = name
        self._url = url
        self._wanted = self._model = model
        self._headers = replies.PLAIN | ({"Authorization": f"Bearer {key}"} if key else {})
        self._key = key
        self._timeout = httpx.Timeout(None, connect=patience.connect_s, write=patience.connect_s)
        self._look_s = patience.connect_s
        self._known_until = 0.0
        self._misses = 0

    @property
    def stale(self) -> bool:
        """Is what we know of it too old to go by?"""
        return time.monotonic() > self._known_until

    async def look(self, client: httpx.AsyncClient) -> None:
        """Ask for its models: is it there, and has it ours? Never raises for what the server does."""
        try:
            async with asyncio.timeout(self._look_s), self._open(client, "GET", "models", None) as response:
                self._model = self._found(wire.read_model_names(await replies.whole(response, replies.MAX_ANSWER)))
        except TimeoutError:
            self._note("is silent", RETRY_S)
        except Failed as failure:
            self._note(failure.message, RETRY_S, failure.detail)
        except LyceumError as error:
            self._note(error.message, RETRY_S)
        else:
            self._note("", WELL_FOR_S)

    async def chat(self, client: httpx.AsyncClient, body: wire.JsonObject) -> AsyncGenerator[Chunk]:
        """The answer. Raises Failed; BadRequest or TooLong where it will not serve what was asked."""
        async with (
            self._asked(client, "chat/completions", body) as response,
            aclosing(replies.answer(response, replies.MAX_ANSWER)) as chunks,
        ):
            async for chunk in chunks:
                if isinstance(chunk, End):
                    self._misses = 0
                yield chunk

    async def embeddings(self, client: httpx.AsyncClient, body: wire.JsonObject) -> bytes:
        """The body that holds the vectors. Raises as `chat` does."""
        async with self._asked(client, "embeddings", body) as response:
            return await replies.whole(response, replies.MAX_ANSWER)

    def failed(self, failure: Failed) -> None:
        """Unless it is only busy, it is passed over until a look finds it well: at once, since the request may have
        been to blame, but later with every failure in a row."""
        if failure.busy_s:
            return
        self._note(failure.message, min(self._misses * RETRY_S, MOST_WAIT_S), failure.detail)
        self._misses += 1

    @asynccontextmanager
    async def _asked(
        self, client: httpx.AsyncClient, path: str, body: wire.JsonObject
    ) -> AsyncIterator[httpx.Response]:
        self.outstanding += 1
        self.served += 1
        try:
            async with self._open(client, "POST", path, body | {"model": self._model}) as response:
                yield response
        finally:
            self.outstanding -= 1

    @asynccontextmanager
    async def _open(
        self, client: httpx.AsyncClient, method: str, path: str, body: wire.JsonObject | None
    ) -> AsyncIterator[httpx.Response]:
        begun = False
        try:
            request = client.stream(
                method, f"{self._url}/{path}", json=body, headers=self._headers, timeout=self._timeout
            )
            async with request as response:
                begun = True
                await self._check(response)
                yield response
        except replies.NETWORK_ERRORS as error:
            raise Failed(replies.network_fault(error), again=not begun) from None
        except PeerError as error:
            raise error if isinstance(error, Failed) else Failed(error.message) from None

    async def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == httpx.codes.OK:
            return
        said = self._without_key(replies.reason(await replies.whole(response, replies.MAX_ERROR)))
        if status == TOO_LARGE:
            raise TooLong(f"the model's server refuses this: {said}")
        if status in REFUSED:
            raise BadRequest(f"the model's server refuses this: {said}")
        if status in BUSY:
            raise Failed("is busy", again=True, busy_s=_retry_after_s(response))
        raise Failed(f"answered {status}", detail=said)

    def _found(self, names: list[str]) -> str:
        """Our model's name there."""
        wanted = self._wanted or (self._name if self._name in names or len(names) != 1 else names[0])
        if wanted not in names:
            listed = ", ".join(names)[: replies.MAX_REASON] or "none"
            raise Failed("lacks the model", detail=f"it is asked for {wanted!r} and has: {listed}")
        return wanted

    def _note(self, trouble: str, for_s: float, detail: str = "") -> None:
        """What is known of it for so long; its owner is told of a change."""
        self._known_until = time.monotonic() + for_s
        if trouble and trouble != self.trouble:
            log.warning("%s: %s is passed over: it %s. %s", self._name, self._url, trouble, detail)
        elif self.trouble and not trouble:
            log.warning("%s: %s answers", self._name, self._url)
        self.trouble = trouble

    def _without_key(self, said: str) -> str:
        return said.replace(self._key, "(key)") if self._key else said


def _retry_after_s(response: httpx.Response) -> int:
    said = response.headers.get("Retry-After", "")
    return min(max(int(said), 1), MOST_WAIT_S) if said.isascii() and said.isdigit() and len(said) < 9 else 1
