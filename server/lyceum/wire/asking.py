"""What is asked for, as OpenAI's chat completions take it and as `Ask`: read by a seller, written by a buyer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from lyceum.errors import BadRequest
from lyceum.ports import MOST_TOP_K, RANGES, Ask, Message, Role
from lyceum.wire.body import JsonObject, integer_of, number_of, object_of, text_of, unicode_of

MAX_MESSAGES = 256
MAX_STOPS = 4
MAX_LIKELIEST = 20
MAX_SHAPE = 1 << 16
LONGEST_S = 3600.0
NUMBERS: Mapping[str, float] = {each.name: cast("float", each.default) for each in fields(Ask) if each.name in RANGES}
"""An ask's numbers as they are when nothing is said about them."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    ask: Ask
    stream: bool
    include_usage: bool


def read_chat(body: bytes) -> ChatRequest:
    """A chat-completions body. Raises BadRequest naming the parameter, or TooLong over 1 MiB."""
    found = object_of(body)
    try:
        ask = Ask(
            model=text_of(found, "model"),
            messages=_messages(found.get("messages")),
            max_tokens=_max_tokens(found),
            **_numbers(found),
            top_k=_top_k(found),
            seed=integer_of(found, "seed"),
            stop=_stop(found.get("stop")),
            schema=_schema(found.get("response_format")),
            grammar=_grammar(found.get("grammar")),
            logprobs=_likeliest(found),
            budget_msat=integer_of(found.get("lyceum") or {}, "budget_msat") or 0,
            deadline_s=number_of(found.get("lyceum") or {}, "deadline_s", 0.0, LONGEST_S, default=0.0),
        )
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if found.get("n") not in (None, 1):
        raise BadRequest("n must be 1: one answer a request", "n")
    options = found.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options must be an object", "stream_options")
    return ChatRequest(ask, found.get("stream") is True, bool(options.get("include_usage")))


def read_model(body: bytes) -> str:
    """The model that the body of either endpoint names."""
    return text_of(object_of(body), "model")


def _numbers(found: Mapping[str, Any]) -> Any:
    return {name: number_of(found, name, *RANGES[name], default) for name, default in NUMBERS.items()}


def _top_k(found: Mapping[str, Any]) -> int:
    """llama.cpp's own server also takes -1 for all."""
    value = integer_of(found, "top_k") or 0
    if not -1 <= value <= MOST_TOP_K:
        raise BadRequest(f"top_k must be from 0 (all) to {MOST_TOP_K}", "top_k")
    return max(value, 0)


def _max_tokens(found: Mapping[str, Any]) -> int | None:
    """`max_completion_tokens` is the newer name; the smaller one counts when both are there."""
    given = [integer_of(found, name) for name in ("max_tokens", "max_completion_tokens")]
    wanted = min((value for value in given if value is not None), default=None)
    if wanted is not None and wanted < 1:
        raise BadRequest("max_tokens must be at least 1", "max_tokens")
    return wanted


def _stop(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise BadRequest("stop must be a string or a list of non-empty strings", "stop")
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"stop holds {len(stops)} strings; at most {MAX_STOPS} are allowed", "stop")
    return tuple(stops)


def _schema(value: object) -> str:
    """OpenAI's `response_format` as JSON Schema; "" for plain text."""
    if value is None:
        return ""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return ""
    if kind == "json_object":
        return '{"type": "object"}'
    if kind != "json_schema":
        raise BadRequest("response_format.type must be text, json_object or json_schema", "response_format")
    wrapper = cast("JsonObject", value).get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(schema, dict):
        raise BadRequest("response_format.json_schema.schema must be an object: a JSON Schema", "response_format")
    return _short(json.dumps(schema), "response_format")


def _grammar(value: object) -> str:
    """GBNF, as llama.cpp's own server takes it."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str):
        raise BadRequest("grammar must be a string of GBNF", "grammar")
    return _short(value, "grammar")


def _short(shape: str, name: str) -> str:
    if len(shape) > MAX_SHAPE:
        raise BadRequest(f"{name} has {len(shape)} characters; at most {MAX_SHAPE} are read", name)
    return shape


def _likeliest(found: Mapping[str, Any]) -> int | None:
    wanted, number = found.get("logprobs"), integer_of(found, "top_logprobs")
    if wanted not in (None, True, False):
        raise BadRequest("logprobs must be true or false; top_logprobs says how many", "logprobs")
    if number is not None and not 0 <= number <= MAX_LIKELIEST:
        raise BadRequest(f"top_logprobs must be from 0 to {MAX_LIKELIEST}", "top_logprobs")
    if number and not wanted:
        raise BadRequest("top_logprobs needs logprobs: true", "top_logprobs")
    return (number or 0) if wanted else None


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise BadRequest("messages must be a non-empty list", "messages")
    if len(value) > MAX_MESSAGES:
        raise BadRequest(f"messages holds {len(value)} entries; at most {MAX_MESSAGES} are read", "messages")
    return tuple(_message(entry, f"messages[{number}]") for number, entry in enumerate(value))


def _message(entry: object, name: str) -> Message:
    if not isinstance(entry, dict):
        raise BadRequest(f"{name} must be an object", name)
    role = "system" if entry.get("role") == "developer" else entry.get("role")
    if role not in ("system", "user", "assistant"):
        raise BadRequest(f"{name}.role must be system, user or assistant", f"{name}.role")
    return Message(cast("Role", role), _content(entry.get("content"), f"{name}.content"))


def _content(value: object, name: str) -> str:
    parts: list[object] = value if isinstance(value, list) else [{"text": value}]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest(f"{name} must be a string or a list of text parts", name)
    return unicode_of("".join(str(text) for text in texts), name)


def write_chat(ask: Ask) -> JsonObject:
    """The streaming request for `ask`; what is unset is left to the seller's defaults."""
    wanted = {
        "max_tokens": ask.max_tokens,
        "seed": ask.seed,
        "stop": list(ask.stop) or None,
        "top_k": ask.top_k or None,
        "response_format": _response_format(ask.schema),
        "grammar": ask.grammar or None,
        "logprobs": None if ask.logprobs is None else True,
        "top_logprobs": ask.logprobs,
    }
    return (
        {
            "model": ask.model,
            "messages": [{"role": message.role, "content": message.content} for message in ask.messages],
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        | {name: getattr(ask, name) for name, default in NUMBERS.items() if getattr(ask, name) != default}
        | {name: value for name, value in wanted.items() if value is not None}
    )


def _response_format(schema: str) -> JsonObject | None:
    named = {"name": "answer", "schema": json.loads(schema)} if schema else None
    return named and {"type": "json_schema", "json_schema": named}
