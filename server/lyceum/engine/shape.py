"""The shape that an answer must have, as a grammar. JSON Schema becomes GBNF by llama-cpp-python's own converter.

Law: a schema is data from a stranger. Nothing that it points to is fetched, and its size and depth are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from llama_cpp.llama_grammar import json_schema_to_gbnf

from lyceum.errors import BadRequest
from lyceum.ports import Ask

FIELD = "response_format"
ANY_CHARACTER, JSON_CHARACTER = r'[^"\\]', r'[^"\\\x7F\x00-\x1F]'
"""The converter lets control characters into strings, which JSON (RFC 8259, section 7) does not."""

DEEPEST = 32
MOST_RULES = 2000


def grammar(ask: Ask) -> str:
    """GBNF, "" where any answer will do. Raises BadRequest for a schema that is none or cannot be followed."""
    return _from_schema(ask.schema) if ask.schema else ask.grammar


@lru_cache(maxsize=64)
def _from_schema(source: str) -> str:
    schema = _read(source)
    parts = list(_walk(schema, 0))
    if len(parts) > MOST_RULES:
        raise BadRequest(f"the schema has {len(parts)} parts; at most {MOST_RULES} are followed", FIELD)
    for part in parts:
        reference = part.get("$ref", "#") if isinstance(part, dict) else "#"
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise BadRequest(
                f"the schema refers to {str(reference)[:100]!r}; only references within it are read", FIELD
            )
    try:
        Draft202012Validator.check_schema(schema)
        return str(json_schema_to_gbnf(source)).replace(ANY_CHARACTER, JSON_CHARACTER)
    except SchemaError as error:
        raise BadRequest(f"this is no JSON Schema: {error.message[:300]} (at {error.json_path})", FIELD) from None
    except Exception as error:  # the converter raises whatever it meets first
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise BadRequest(f"this JSON Schema cannot be followed ({why}); use plain types", FIELD) from None


def _read(source: str) -> Any:
    try:
        return json.loads(source)
    except (ValueError, RecursionError):
        raise BadRequest("the schema is not valid JSON", FIELD) from None


def _walk(part: object, depth: int) -> Iterator[object]:
    """Every object and list within, itself first."""
    if depth > DEEPEST:
        raise BadRequest(f"the schema is nested deeper than {DEEPEST} levels", FIELD)
    if not isinstance(part, dict | list):
        return
    yield part
    for inner in part.values() if isinstance(part, dict) else part:
        yield from _walk(inner, depth + 1)
