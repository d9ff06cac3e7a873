"""JSON Schema as GBNF, by llama-cpp-python's own converter.

Law: a schema is data from a stranger. Nothing that it points to is fetched; its size, its depth and all that the
converter writes out for it are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from llama_cpp import llama_grammar

from lyceum.engine.child import gbnf
from lyceum.errors import BadRequest

FIELD = "response_format"
ANY_CHARACTER, JSON_CHARACTER = r'[^"\\]', r'[^"\\\x7F\x00-\x1F]'
"""The converter lets control characters into strings, which JSON (RFC 8259, section 7) does not."""

MOST_BYTES = 64 * 1024
MOST_PARTS = 2000
DEEPEST = 32
LONGEST_NAME = 200

MOST_REPEATS = 900
"""What llama.cpp still follows of a repetition as the converter writes it: one bracket within another."""

REPEATS = ("minItems", "maxItems", "minLength", "maxLength")
NOTES = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated"}
)
"""What a schema says about itself, and not about the answer."""

QUANTIFIER = re.compile(r"\{(\d*)\s*,?\s*(\d*)\}")


@lru_cache(maxsize=64)
def to_gbnf(source: str) -> str:
    """Raises BadRequest for what is no schema, or asks too much."""
    schema = _read(source)
    _check_bounds(schema)
    try:
        Draft202012Validator.check_schema(schema)
        found = _converted(schema).replace(ANY_CHARACTER, JSON_CHARACTER)
        gbnf.check(found)
    except SchemaError as error:
        raise _refusal(f"this is no JSON Schema: {error.message[:300]} (at {error.json_path})") from None
    except BadRequest as error:
        raise _refusal(f"this JSON Schema cannot be followed: {error.message.partition(': ')[2]}") from None
    except Exception as error:  # the converter raises whatever it meets first
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise _refusal(f"this JSON Schema cannot be followed ({why}); use plain types") from None
    return found


def _read(source: str) -> Any:
    if len(source) > MOST_BYTES:
        raise _refusal(f"the schema has {len(source):,} characters; at most {MOST_BYTES:,} are read")
    try:
        return json.loads(source)
    except (ValueError, RecursionError):
        raise _refusal("the schema is not valid JSON") from None


def _check_bounds(schema: object) -> None:
    parts = list(_walk(schema, 0))
    if len(parts) > MOST_PARTS:
        raise _refusal(f"the schema has {len(parts):,} parts; at most {MOST_PARTS:,} are followed")
    for part in parts:
        _check_names(part)
        reference = part.get("$ref")
        if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
            raise _refusal(f"the schema refers to {reference[:100]!r}; only references within it, as #/..., are read")
    repeats = sum(max(_repeats(part), default=0) for part in parts)
    if repeats > gbnf.MOST_GROUPS:
        raise _refusal(f"the schema's lengths and counts add up to {repeats:,}; at most {gbnf.MOST_GROUPS:,}")


def _check_names(part: dict[str, Any]) -> None:
    long = next((name for name in part if len(name) > LONGEST_NAME), None)
    if long:
        raise _refusal(f"the schema's name {long[:20]!r}... is longer than {LONGEST_NAME} characters")


def _repeats(part: dict[str, Any]) -> Iterator[int]:
    """How often the converter writes something again."""
    for name in REPEATS:
        value = part.get(name, 0)
        if isinstance(value, int) and value > MOST_REPEATS:
            raise _refusal(f"the schema's {name} is {value:,}; at most {MOST_REPEATS} can be followed")
        yield value if isinstance(value, int) else 0
    pattern = part.get("pattern")
    numbers = [number for pair in QUANTIFIER.findall(pattern) for number in pair] if isinstance(pattern, str) else []
    if any(len(number) > 3 or int(number or 0) > MOST_REPEATS for number in numbers):
        raise _refusal(f"the schema's pattern repeats more than {MOST_REPEATS} times")
    yield sum(int(number or 0) for number in numbers)


def _walk(part: object, depth: int) -> Iterator[dict[str, Any]]:
    """Every object within, itself first."""
    if depth > DEEPEST:
        raise _refusal(f"the schema is nested deeper than {DEEPEST} levels")
    if isinstance(part, dict):
        yield part
        for inner in part.values():
            yield from _walk(inner, depth + 1)
    elif isinstance(part, list):
        for inner in part:
            yield from _walk(inner, depth + 1)


def _converted(schema: Any) -> str:
    converter: Any = _Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    converter.visit(converter.resolve_refs(schema, ""), "")
    return str(converter.format_grammar())


class _Converter(llama_grammar.SchemaConverter):
    """Mends what llama-cpp-python's gets wrong: references to references, quotes in constants, schemas that allow
    anything. Stops where references make a small schema large."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call, unused-ignore]
        self._visits = 0

    def resolve_refs(self, schema: Any, _url: str) -> Any:
        """Each reference gets a name that can be a rule's."""
        names: dict[str, str] = {}
        for part in _walk(schema, 0):
            if isinstance(reference := part.get("$ref"), str):
                part["$ref"] = names.setdefault(reference, f"#/ref-{len(names)}")
                self._refs[part["$ref"]] = _target(schema, reference)
        return schema

    def visit(self, schema: Any, name: Any) -> Any:
        self._visits += 1
        if self._visits > MOST_PARTS:
            raise ValueError("its references lead to too many parts")
        if isinstance(schema, dict):
            schema = {key: value for key, value in schema.items() if key not in NOTES}
            if schema.get("items") in ({}, True):
                schema["items"] = {"title": "anything"}  # the converter takes an empty schema for none
        if name and schema in (True, {}):
            return self._add_primitive("value", llama_grammar.PRIMITIVE_RULES["value"])
        return super().visit(schema, name)  # type: ignore[no-untyped-call, unused-ignore]

    def _format_literal(self, literal: str) -> str:
        """A JSON text as GBNF, its letters as they are."""
        plain = json.dumps(json.loads(literal), ensure_ascii=False)
        return '"' + re.sub(r'["\\]', r"\\\g<0>", plain) + '"'


def _target(schema: Any, reference: str) -> Any:
    """What a JSON pointer (RFC 6901) points to."""
    found = schema
    for step in reference.removeprefix("#").split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def _refusal(why: str) -> BadRequest:
    return BadRequest(why, FIELD)
