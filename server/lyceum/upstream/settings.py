"""How the servers behind one model are reached; checked on construction. Knows no file and no environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

Feature = Literal["schema", "grammar", "min_p", "logprobs"]
"""What not every OpenAI-compatible server does, and some ignore without a word."""

FEATURES: frozenset[str] = frozenset(get_args(Feature))


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for a connection, for the first piece of an answer, and for each further one."""

    connect_s: int = 5
    first_token_s: int = 60
    between_tokens_s: int = 20

    def __post_init__(self) -> None:
        if min(self.connect_s, self.first_token_s, self.between_tokens_s) <= 0:
            raise ValueError("connect_s, first_token_s and between_tokens_s must be more than 0 seconds")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """`urls`: as OpenAI's clients take a base URL; `/v1` is added to one without a path. `model`: its name there,
    "" for the one that is listed. `parallel`: requests under way at once over all servers; `queue`: those that may
    wait for one of them to end. Raises ValueError."""

    urls: tuple[str, ...]
    model: str = ""
    key: str = field(default="", repr=False)
    supports: frozenset[str] = frozenset()
    parallel: int = 32
    queue: int = 16
    patience: Patience = Patience()

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("urls must name at least one server")
        if len(set(self.bases)) != len(self.urls):
            raise ValueError("urls names a server twice")
        if not self.key.isascii() or not (self.key.isprintable() and " " not in self.key):
            raise ValueError("the key must be printable ASCII without spaces")
        unknown = sorted(self.supports - FEATURES)
        if unknown:
            raise ValueError(f"supports holds {unknown[0]!r}; known: {', '.join(sorted(FEATURES))}")

    @property
    def bases(self) -> tuple[str, ...]:
        return tuple(_base(url) for url in self.urls)


def _base(url: str) -> str:
    """Raises ValueError naming the URL, without what may be a password in it."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname or ''}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown} is no http:// or https:// URL")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"the URL of {shown} must hold no user, password or query: name a variable in key_env")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"
