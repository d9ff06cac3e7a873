"""The grammar that both headers share: schemes, parameters (RFC 9110, 5.6 and 11), lenient base64.

It must not know what a macaroon, a preimage or an invoice is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator

MAX_HEADER_BYTES = 8192
SCHEMES = frozenset({"l402", "lsat"})

Parameters = list[tuple[str, str]]

# `/` and `:` are in no RFC token but in the credentials of other schemes; possessive, hence linear.
_TOKEN = r"[\w!#$%&*+.^`|~/:-]++"
_PART = re.compile(
    rf"""[\s,]*+
    (?: (?P<name>{_TOKEN}) \s*+ = \s*+ (?P<value> "(?:[^"\\]|\\.)*+" | '[^']*+' | [^\s,"']++ )
      | (?P<scheme>{_TOKEN}) (?=[\s,]|$) )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_STANDARD = str.maketrans("-_", "+/")


def challenges(lines: Iterable[str]) -> list[tuple[str, Parameters]]:
    """Each challenge's scheme in lower case and its parameters; several lines read as one list.

    A line is read up to the first thing that is not HTTP: it may be another scheme's dialect.
    """
    found: list[tuple[str, Parameters]] = []
    for part in (part for line in lines for part in _parts(line)):
        if part["scheme"]:
            found.append((part["scheme"].lower(), []))
        elif found:
            found[-1][1].append((part["name"].lower(), _unquoted(part["value"])))
    return found


def _parts(line: str) -> Iterator[re.Match[str]]:
    position = 0
    while part := _PART.match(line, position):
        yield part
        position = part.end()


def _unquoted(value: str) -> str:
    """Single quotes are no HTTP, but sellers send them."""
    if value[0] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    return value.strip("'")


def to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def from_base64(text: str) -> bytes:
    """Standard or url-safe alphabet; padding right or left out, never wrong."""
    body = text.rstrip("=")
    padding = "=" * (-len(body) % 4)
    if text not in (body, body + padding):
        raise ValueError("its base64 is padded wrongly")
    try:
        return base64.b64decode(body.translate(_STANDARD) + padding, validate=True)
    except ValueError:
        raise ValueError("it is not base64") from None


def echoed(raw: bytes, text: str) -> str:
    """`text` as the other side wrote `raw`, or the standard form where it wrote nothing."""
    if text and from_base64(text) != raw:
        raise ValueError("the text and the bytes of a macaroon differ")
    return text or to_base64(raw)
