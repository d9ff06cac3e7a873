"""JSON in its one canonical form (RFC 8785), and base64url without padding (RFC 4648, 5).

What is signed must have one spelling, so both readers are strict. It must not know what is written.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from lyceum.l402.headers import from_base64

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def canonical(value: Json) -> str:
    """Raises ValueError for text that is no Unicode and for numbers that JSON lacks."""
    if isinstance(value, Mapping):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(each)}" for name, each in members) + "}"
    if value is None or isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence):
        return "[" + ",".join(map(canonical, value)) + "]"
    return _number(float(value))


def _number(number: float) -> str:
    """As ECMAScript writes a double: the fewest digits that read back to it (RFC 8785, 3.2.2.3)."""
    if not math.isfinite(number):
        raise ValueError("JSON knows no infinity and no NaN")
    if not number:
        return "0"
    if 1e-6 <= abs(number) < 1e21:
        return format(Decimal(repr(number)), "f").removesuffix(".0")
    return repr(number).replace("e-0", "e-")


def to_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def from_base64url(text: str) -> bytes:
    """Padding may be there; another alphabet or bits that mean nothing may not: a second spelling of one text."""
    raw = from_base64(text)
    if to_base64url(raw) != text.rstrip("="):
        raise ValueError("it is not base64url in its one spelling")
    return raw
