"""A file from the network, whole and right, or not at all.

It grows as NAME.part, with a note beside it of what it is part of. Broken off, it goes on where it stopped: with
If-Range when the server gave a strong ETag, without when a known SHA-256 settles it in the end, else from the start.
Law: NAME itself appears only once its digest and its first bytes are right.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx

from lyceum.errors import ConfigError, ModelError, ServiceError
from lyceum.shelf import amounts
from lyceum.shelf.source import Source

TIMEOUT_S = 30.0
TRIES = 5
"""That bring nothing new, one after the other."""

SPARE = 1.05
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOTHING_LEFT = 416
LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Report = Callable[[int, int], None]
"""Bytes there, bytes in all; the latter 0 while nobody says."""


@dataclass(frozen=True, slots=True)
class Fetched:
    path: Path
    size: int
    sha256: str
    resumed_at: int = 0


class _Broken(Exception):
    """The transfer ended too early; another try may go on."""


def fetch(source: Source, folder: Path, report: Report, wait: Callable[[float], None] = time.sleep) -> Fetched:
    """Raises ConfigError if the name is taken, ServiceError for network and disk, ModelError for wrong bytes."""
    target = folder / source.file
    if target.exists():
        return _there_already(target, source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            httpx.Client(follow_redirects=True, timeout=TIMEOUT_S) as client,
            _Part(target, source) as part,
        ):
            resumed_at = part.size
            _receive_all(client, source, part, report, wait)
            digest = _check(part, source)
            part.finish()
            return Fetched(target, target.stat().st_size, digest, resumed_at)
    except OSError as error:
        raise ServiceError(f"cannot write into {folder}: {error.strerror}") from None


def _there_already(target: Path, source: Source) -> Fetched:
    if source.sha256 and digest_of(target) == source.sha256:
        size = target.stat().st_size
        return Fetched(target, size, source.sha256, resumed_at=size)
    raise ConfigError(f"{target} is there already; move it away, or name another folder with --to")


class _Part:
    """The growing file. `etag`: what the server calls the version that it is part of."""

    def __init__(self, target: Path, source: Source) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self._of = {"url": source.url, "sha256": source.sha256}
        self.etag = ""

    def __enter__(self) -> _Part:
        self._file = self.path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ServiceError(f"{self.path} is being fetched already, by another process") from None
        known = self._read_note()
        self.etag = str(known.pop("etag", ""))
        if known != self._of or not (self.etag or self._of["sha256"]):
            self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def restart(self, etag: str = "") -> None:
        self.etag = etag
        self._file.truncate(0)
        self._note.write_text(json.dumps(self._of | {"etag": etag}), encoding="utf-8")

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self.path.replace(self._target)
        self._note.unlink()

    def discard(self) -> None:
        self.path.unlink()
        self._note.unlink(missing_ok=True)

    def _read_note(self) -> dict[str, object]:
        try:
            found = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _receive_all(
    client: httpx.Client, source: Source, part: _Part, report: Report, wait: Callable[[float], None]
) -> None:
    most, tries = part.size, 0
    while True:
        try:
            return _receive(client, source, part, report)
        except (_Broken, httpx.TransportError) as error:
            tries = 0 if part.size > most else tries + 1
            most = max(most, part.size)
            hopeless = isinstance(error, httpx.ConnectError | httpx.UnsupportedProtocol) and not part.size
            if tries >= TRIES or hopeless:
                raise ServiceError(_given_up(source, part, error)) from None
            wait(min(2.0**tries, 30.0))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(f"cannot fetch {source.url}: {error}") from None


def _given_up(source: Source, part: _Part, error: Exception) -> str:
    why = str(error) or type(error).__name__
    if not part.size:
        return f"cannot fetch {source.url}: {why}; check the network"
    return f"broken off ({why}); {amounts.size(part.size)} are kept in {part.path}: the same command goes on from there"


def _receive(client: httpx.Client, source: Source, part: _Part, report: Report) -> None:
    headers = {**source.headers, "Accept-Encoding": "identity"}
    if (start := part.size) and start == source.size:
        return
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.etag and not source.sha256:
            headers["If-Range"] = part.etag
    with client.stream("GET", source.url, headers=headers) as response:
        if response.status_code == NOTHING_LEFT and start:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.restart()
            raise _Broken("the file there is shorter than our part of it")
        _accept(response, source)
        total = _total(response, start) or source.size
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            part.restart(_strong_etag(response))
        _check_room(part, total)
        _copy(response, part, total, report)


def _accept(response: httpx.Response, source: Source) -> None:
    status = response.status_code
    if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        return
    if status in LATER:
        raise _Broken(f"the server answered {status}")
    mend = {
        401: "; it wants a login: set HF_TOKEN for the hub",
        403: "; it refuses: accept the model's terms on its page, and set HF_TOKEN for the hub",
        404: "; correct the address",
    }
    raise ServiceError(f"{source.url} answered {status}{mend.get(status, '')}")


def _total(response: httpx.Response, start: int) -> int:
    """Bytes of the whole file, 0 if the server does not say. Raises _Broken if it sends another range than asked."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return int(response.headers.get("Content-Length", "0"))
    match = RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match or int(match[1]) != start:
        raise _Broken("the server sent another range than was asked for")
    return 0 if match[2] == "*" else int(match[2])


def _strong_etag(response: httpx.Response) -> str:
    etag: str = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else ""


def _check_room(part: _Part, total: int) -> None:
    needed, free = int((total - part.size) * SPARE), shutil.disk_usage(part.path.parent).free
    if total and needed > free:
        raise ServiceError(
            f"{part.path.parent} has {amounts.size(free)} free and {amounts.size(needed)} are needed;"
            " make room, or name another folder with --to"
        )


def _copy(response: httpx.Response, part: _Part, total: int, report: Report) -> None:
    report(part.size, total)
    try:
        for chunk in response.iter_bytes():
            part.write(chunk)
            report(part.size, total)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ServiceError(
            f"the disk is full: {amounts.size(part.size)} of {amounts.size(total) if total else 'the file'} are kept in"
            f" {part.path}; make room and run the same command again, it goes on from there"
        ) from None
    if total and part.size < total:
        raise _Broken("the connection was closed")


def _check(part: _Part, source: Source) -> str:
    digest = digest_of(part.path)
    if source.sha256 and digest != source.sha256:
        part.discard()
        raise ModelError(
            f"{source.file} is not what {source.stated_by} promises: SHA-256 expected {source.sha256}, found {digest};"
            " it was removed"
        )
    with part.path.open("rb") as file:
        start = file.read(4)
    if start != b"GGUF":
        part.discard()
        raise ModelError(f"{source.url} is no GGUF file: it begins with {start!r}; it was removed")
    return digest


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
