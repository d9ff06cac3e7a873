"""A web server that has one file, and behaves as badly as it is told; also the hub's way to state a file."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`cuts`: after how many bytes each of the next answers breaks off. `claims`: the length stated instead of the
    right one; below 0 none is. `log`: method, path and range of each request.

    `/file.gguf` is the bare file; `/OWNER/REPO/resolve/REVISION/file.gguf` redirects to it as the hub does.
    """

    content: bytes
    ranges: bool = True
    etag: str = '"one"'
    stated: str = ""
    statuses: list[int] = field(default_factory=list)
    gated: bool = False
    claims: int = 0
    cuts: list[int] = field(default_factory=list)
    log: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def file(self) -> str:
        return f"{self.url}/file.gguf"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def ranges_asked(self) -> list[str]:
        return [asked for method, path, asked in self.log if method == "GET" and path == "/file.gguf"]


@contextmanager
def serving_hub(hub: Hub) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, self.path.split("?")[0]
        hub.log.append((self.command, path, self.headers.get("Range", "")))
        hub.tokens.append(self.headers.get("Authorization", ""))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._state(*match.groups())
        elif path == "/file.gguf":
            self._give()
        else:
            self._end(404, {})

    def _state(self, repo: str, revision: str, file: str) -> None:
        """As huggingface.co answers: https://huggingface.co/docs/huggingface_hub/package_reference/file_download."""
        if self.hub.gated:
            return self._end(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        if repo != "owner/repo":
            return self._end(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", COMMIT):
            return self._end(404, {"X-Error-Code": "RevisionNotFound"})
        if file != "file.gguf":
            return self._end(404, {"X-Error-Code": "EntryNotFound"})
        return self._end(302, {
            "Location": self.hub.file.replace("127.0.0.1", "localhost"),
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{self.hub.stated or self.hub.sha256}"',
            "X-Linked-Size": str(len(self.hub.content)),
        })  # fmt: skip

    def _give(self) -> None:
        hub = self.hub
        if hub.statuses:
            self._end(hub.statuses.pop(0), {})
            return
        start, status, extra = 0, 200, {"ETag": hub.etag} if hub.etag else {}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if hub.ranges and asked and self.headers.get("If-Range", hub.etag) == hub.etag:
            start, status = int(asked[1]), 206
            if start >= len(hub.content):
                self._end(416, {"Content-Range": f"bytes */{len(hub.content)}"})
                return
            extra["Content-Range"] = f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}"
        body = hub.content[start:]
        length = {} if hub.claims < 0 else {"Content-Length": str(hub.claims or len(body))}
        self._head(status, extra | length)
        if self.command == "GET":
            self.wfile.write(body[: hub.cuts.pop(0)] if hub.cuts else body)

    def _end(self, status: int, headers: dict[str, str]) -> None:
        self._head(status, headers | {"Content-Length": "0"})

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
