"""Values out of the JSON body of a request. Each function raises BadRequest naming the parameter that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lyceum.errors import BadRequest, TooLong

MAX_BODY = 1 << 20

JsonObject = dict[str, Any]


def object_of(body: bytes) -> JsonObject:
    """Raises TooLong over 1 MiB."""
    if len(body) > MAX_BODY:
        raise TooLong(f"the body has {len(body)} bytes; at most {MAX_BODY} are read")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not valid JSON") from None
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object")
    return found


def text_of(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name} must be a non-empty string", name)
    return value


def integer_of(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name) if isinstance(found, Mapping) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{name} must be an integer", name)
    return value


def number_of(found: Mapping[str, Any], name: str, least: float, most: float, default: float) -> float:
    value = found.get(name) if isinstance(found, Mapping) else None
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise BadRequest(f"{name} must be a number from {least:g} to {most:g}", name)
    return float(value)


def unicode_of(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} is not valid Unicode: it holds half a surrogate pair", name) from None
    return text
