"""OpenAI's chat-completions JSON and server-sent events, to and from our values. Pure functions.

Both sides use it: what a server writes here, a buyer reads here. Lyceum's own facts travel in one
extra object, `lyceum`, which other clients ignore.
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from http import HTTPStatus
from typing import Any, cast, get_args

from lyceum.errors import BadRequest, LyceumError, PeerError, TooLong
from lyceum.money import MAX_MSAT, check_msat
from lyceum.ports import (
    MOST_TOP_K,
    RANGES,
    Ask,
    Bill,
    Candidate,
    Choice,
    Chunk,
    Citation,
    Delta,
    Embeddings,
    End,
    Finish,
    Kind,
    Limits,
    Member,
    Message,
    Offer,
    Price,
    Role,
    TextBatch,
    Unit,
    Usage,
)

MAX_BODY = 1 << 20
MAX_MESSAGES = 256
MAX_STOPS = 4
MAX_LIKELIEST = 20
MAX_SHAPE = 1 << 16
MAX_TEXTS = 256
MAX_ADDRESS = 4096
MAX_LOGPROBS = 1024
MAX_NAME = 200
MAX_CITATIONS = 64
MAX_TOPICS = 2048
MAX_OFFERS = 4096
LONGEST_S = 3600.0
NUMBERS: Mapping[str, float] = {each.name: cast("float", each.default) for each in fields(Ask) if each.name in RANGES}
"""An ask's numbers as they are when nothing is said about them."""

FINISHES = frozenset(get_args(Finish))
DONE = "data: [DONE]\n\n"
BALANCE_ENDED = "the token's balance ended before the answer did: top it up (POST /l402/topup) and ask again"

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    ask: Ask
    stream: bool
    include_usage: bool


# Reading a request


def read_chat(body: bytes) -> ChatRequest:
    """A chat-completions body. Raises BadRequest naming the parameter, or TooLong over 1 MiB."""
    if len(body) > MAX_BODY:
        raise TooLong(f"the body has {len(body)} bytes; at most {MAX_BODY} are read")
    found = _object(body)
    try:
        ask = Ask(
            model=_text(found, "model"),
            messages=_messages(found.get("messages")),
            max_tokens=_max_tokens(found),
            **_numbers(found),
            top_k=_top_k(found),
            seed=_integer(found, "seed"),
            stop=_stop(found.get("stop")),
            schema=_schema(found.get("response_format")),
            grammar=_grammar(found.get("grammar")),
            logprobs=_likeliest(found),
            budget_msat=_integer(found.get("lyceum") or {}, "budget_msat") or 0,
            deadline_s=_number(found.get("lyceum") or {}, "deadline_s", 0.0, LONGEST_S, default=0.0),
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
    return _text(_object(body), "model")


def _object(body: bytes) -> JsonObject:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not valid JSON") from None
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object")
    return found


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name} must be a non-empty string", name)
    return value


def _integer(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name) if isinstance(found, Mapping) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{name} must be an integer", name)
    return value


def _number(found: Mapping[str, Any], name: str, least: float, most: float, default: float) -> float:
    value = found.get(name) if isinstance(found, Mapping) else None
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise BadRequest(f"{name} must be a number from {least:g} to {most:g}", name)
    return float(value)


def _numbers(found: Mapping[str, Any]) -> Any:
    return {name: _number(found, name, *RANGES[name], default) for name, default in NUMBERS.items()}


def _top_k(found: Mapping[str, Any]) -> int:
    """llama.cpp's own server also takes -1 for all."""
    value = _integer(found, "top_k") or 0
    if not -1 <= value <= MOST_TOP_K:
        raise BadRequest(f"top_k must be from 0 (all) to {MOST_TOP_K}", "top_k")
    return max(value, 0)


def _max_tokens(found: Mapping[str, Any]) -> int | None:
    """`max_completion_tokens` is the newer name; the smaller one counts when both are there."""
    given = [_integer(found, name) for name in ("max_tokens", "max_completion_tokens")]
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
    wanted, number = found.get("logprobs"), _integer(found, "top_logprobs")
    if wanted not in (None, True, False):
        raise BadRequest("logprobs must be true or false; top_logprobs says how many", "logprobs")
    if number is not None and not 0 <= number <= MAX_LIKELIEST:
        raise BadRequest(f"top_logprobs must be from 0 to {MAX_LIKELIEST}", "top_logprobs")
    if number and not wanted:
        raise BadRequest("top_logprobs needs logprobs: true", "top_logprobs")
    return (number or 0) if wanted else None


def read_texts(body: bytes) -> tuple[TextBatch, bool]:
    """An embeddings body, and whether vectors are wanted as base64. Raises BadRequest, or TooLong over 1 MiB."""
    if len(body) > MAX_BODY:
        raise TooLong(f"the body has {len(body)} bytes; at most {MAX_BODY} are read")
    found = _object(body)
    given = found.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadRequest("input must be a non-empty string or a list of them; token ids are not read", "input")
    if len(texts) > MAX_TEXTS:
        raise BadRequest(f"input holds {len(texts)} texts; at most {MAX_TEXTS} are read at once", "input")
    form = found.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise BadRequest("encoding_format must be float or base64", "encoding_format")
    if found.get("dimensions") is not None:
        raise BadRequest("dimensions cannot be chosen: vectors have the model's own length", "dimensions")
    return TextBatch(_text(found, "model"), tuple(_unicode(text, "input") for text in texts)), form == "base64"


def read_topup(body: bytes) -> int:
    """The amount in msat that a holder wants to add to its token. Raises BadRequest."""
    amount_msat = _integer(_object(body), "amount_msat")
    if amount_msat is None or not 1 <= amount_msat <= MAX_MSAT:
        raise BadRequest(f"amount_msat must be a number of msat from 1 to {MAX_MSAT}", "amount_msat")
    return amount_msat


def read_refund(body: bytes) -> str:
    """Where a holder wants its refund. Raises BadRequest."""
    address = _text(_object(body), "address")
    if len(address) > MAX_ADDRESS:
        raise BadRequest(f"address has {len(address)} characters; at most {MAX_ADDRESS} are read", "address")
    return address


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
    return _unicode("".join(str(text) for text in texts), name)


def _unicode(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} is not valid Unicode: it holds half a surrogate pair", name) from None
    return text


# Writing an answer


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every chunk of one answer repeats. `created`: Unix seconds."""

    answer_id: str
    created: int
    model: str

    def whole(self, deltas: Sequence[Delta], end: End) -> JsonObject:
        message = {"role": "assistant", "content": "".join(delta.text for delta in deltas)}
        tokens = [choice for delta in deltas for choice in delta.choices]
        choice = {"message": message, "finish_reason": end.finish} | _logprobs(tokens)
        account = _account(end)
        if any(delta.outside for delta in deltas):
            account["lyceum"]["outside"] = True
        return self._frame("chat.completion", choice) | account

    def delta(self, delta: Delta, first: bool) -> str:
        change = {"role": "assistant"} if first else {}
        choice = {"delta": change | {"content": delta.text}, "finish_reason": None} | _logprobs(delta.choices)
        return _event(self._frame("chat.completion.chunk", choice) | _aside(delta))

    def end(self, end: End, include_usage: bool) -> str:
        """The closing events. Usage rides on the last one: a chunk of its own if the caller asked so."""
        closing = self._frame("chat.completion.chunk", {"delta": {}, "finish_reason": end.finish})
        if not include_usage:
            return _event(closing | _account(end)) + DONE
        return _event(closing) + _event(closing | {"choices": []} | _account(end)) + DONE

    def _frame(self, kind: str, choice: JsonObject) -> JsonObject:
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, **choice}],
        }


def _aside(delta: Delta) -> JsonObject:
    """What of a piece only Lyceum's own clients read."""
    ours: JsonObject = {"member": delta.member} if delta.member else {}
    if delta.outside:
        ours["outside"] = True
    return {"lyceum": ours} if ours else {}


def _logprobs(choices: Sequence[Choice]) -> JsonObject:
    """OpenAI's `logprobs` object; nothing where none were asked for."""
    if not choices:
        return {}
    rows = [_candidate(c.chosen) | {"top_logprobs": [_candidate(other) for other in c.likeliest]} for c in choices]
    return {"logprobs": {"content": rows}}


def _candidate(candidate: Candidate) -> JsonObject:
    text = candidate.text.decode("utf-8", "replace")
    return {"token": text, "logprob": round(candidate.logprob, 6), "bytes": list(candidate.text)}


def _event(value: JsonObject) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _account(end: End) -> JsonObject:
    used = end.usage
    tokens = {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
    }
    ours: JsonObject = {"input_chars": used.input_chars, "output_chars": used.output_chars}
    if end.confidence is not None:
        ours["confidence"] = round(end.confidence, 4)
    if end.bill:
        ours["charge"] = asdict(end.bill)
    if end.exhausted:
        ours["stopped"] = {"code": "exhausted", "detail": BALANCE_ENDED}
    if end.members:
        ours["members"] = [asdict(member) for member in end.members]
    if end.citations:
        ours["citations"] = [asdict(citation) for citation in end.citations]
    return {"usage": tokens, "lyceum": ours}


def error_event(error: LyceumError) -> str:
    """OpenAI's error object, where an answer breaks off."""
    return _event({"error": problem_of(error)["error"]}) + DONE


def problem_of(error: LyceumError) -> JsonObject:
    code = getattr(error, "reason", error.code)
    return problem(error.status, code, error.message, param=getattr(error, "param", None))


def problem(
    status: int, code: str, detail: str, *, kind: str = "about:blank", param: str | None = None, **more: object
) -> JsonObject:
    """RFC 9457's problem with a stable `code`; `error` says the same where clients of OpenAI's API look.

    `kind` is the problem's type, a URI. The codes are listed in plugin/README.md.
    """
    said = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
    error = {"message": detail, "type": _error_type(status), "param": param, "code": code}
    return said | more | {"error": error}


def _error_type(status: int) -> str:
    """OpenAI's four kinds of error."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    named = {HTTPStatus.PAYMENT_REQUIRED: "payment_required", HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error"}
    return named.get(HTTPStatus(status), "invalid_request_error")


# The list of models


def write_offers(offers: Iterable[Offer]) -> JsonObject:
    return {"object": "list", "data": [write_offer(offer) for offer in offers]}


def write_offer(offer: Offer) -> JsonObject:
    """OpenAI's model object; ours beside it: what it knows, costs and allows."""
    ours = {
        "description": offer.description,
        "topics": list(offer.topics),
        "price": asdict(offer.price),
        "limits": asdict(offer.limits),
        "kind": offer.kind,
        "bundle_msat": offer.bundle_msat,
        "digest": offer.digest,
        "node_id": offer.node_id,
    }
    return {"id": offer.model, "object": "model", "created": 0, "owned_by": offer.node_id or "lyceum", "lyceum": ours}


def read_offers(body: bytes) -> list[Offer]:
    """A peer's model list; entries without a `lyceum` object are not for sale and left out.

    Raises PeerError when it is no such list, or an entry's prices or limits are wrong.
    """
    try:
        entries = json.loads(body)["data"]
        return [_offer(entry) for entry in entries[:MAX_OFFERS] if isinstance(entry.get("lyceum"), dict)]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise PeerError("the peer's model list is not one: check the URL") from None


def read_model_names(body: bytes) -> list[str]:
    """What any OpenAI-compatible server calls its models. Raises PeerError when it is no such list."""
    try:
        return [str(entry["id"])[:MAX_NAME] for entry in json.loads(body)["data"][:MAX_OFFERS]]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise PeerError("its list of models is not one: check the URL") from None


def _offer(entry: JsonObject) -> Offer:
    ours = entry["lyceum"]
    return Offer(
        model=str(entry["id"]),
        description=str(ours.get("description", ""))[:2000],
        topics=tuple(str(topic)[:80] for topic in ours.get("topics", [])[:MAX_TOPICS]),
        price=_price(ours["price"]),
        limits=Limits(int(ours["limits"]["context_tokens"]), int(ours["limits"]["max_tokens"])),
        kind=_kind(ours.get("kind", "chat")),
        bundle_msat=check_msat("bundle_msat", ours.get("bundle_msat", 0)),
        digest=str(ours.get("digest", ""))[:64],
        node_id=str(ours.get("node_id", ""))[:66],
    )


def _kind(value: object) -> Kind:
    if value not in get_args(Kind):
        raise ValueError
    return cast("Kind", value)


# Embeddings


def write_embeddings(found: Embeddings, model: str, base64: bool, bill: Bill | None) -> JsonObject:
    """OpenAI's list of vectors; `base64` holds little-endian float32."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if base64 else list(vector)}
        for index, vector in enumerate(found.vectors)
    ]
    ours: JsonObject = {"input_chars": found.usage.input_chars} | ({"charge": asdict(bill)} if bill else {})
    tokens = {"prompt_tokens": found.usage.input_tokens, "total_tokens": found.usage.input_tokens}
    return {"object": "list", "data": data, "model": model, "usage": tokens, "lyceum": ours}


def _packed(vector: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def write_texts(batch: TextBatch) -> JsonObject:
    return {"model": batch.model, "input": list(batch.texts), "encoding_format": "float"}


def read_embeddings(body: bytes, count: int) -> tuple[tuple[tuple[float, ...], ...], int]:
    """`count` vectors of one length, in order, scaled to length 1; and the tokens that were read, 0 if unsaid.

    Raises PeerError when that is not what `body` holds.
    """
    try:
        found = json.loads(body)
        rows = {entry["index"]: tuple(float(number) for number in entry["embedding"]) for entry in found["data"]}
        vectors = tuple(_unit_vector(rows[index]) for index in range(count))
        tokens = int((found.get("usage") or {}).get("prompt_tokens", 0))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise PeerError("its vectors cannot be read") from None
    if len(rows) != count or len({len(vector) for vector in vectors}) != 1:
        raise PeerError("its vectors are not one for each text, all of one length")
    return vectors, max(0, tokens)


def _unit_vector(row: Sequence[float]) -> tuple[float, ...]:
    length = math.hypot(*row)
    if not math.isfinite(length) or not length:
        raise ValueError
    return tuple(number / length for number in row)


# Writing a request and reading an answer


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


class AnswerReader:
    """Server-sent lines in, chunks out; ends with the `End` that `close` gives. `done` after `[DONE]`.

    Raises PeerError on anything that is no chat-completions stream, and on an error event.
    """

    def __init__(self) -> None:
        self.done = False
        self._finish: Finish | None = None
        self._account: JsonObject = {}
        self._chars = 0

    def feed(self, line: str) -> Sequence[Chunk]:
        self.done = self.done or (line.startswith("data:") and line[5:].strip() == "[DONE]")
        if self.done or not line.startswith("data:"):
            return ()
        try:
            event = json.loads(line[5:])
            self._note(event)
            aside = event.get("lyceum") or {}
            return [
                Delta(
                    text,
                    member=str(aside.get("member", ""))[:MAX_NAME],
                    outside=aside.get("outside") is True,
                    choices=_choices(choice),
                )
                for choice in event["choices"]
                if (text := self._text(choice))
            ]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise PeerError("the peer sent something that is not a chat-completions stream") from None

    def close(self) -> End:
        if self._finish is None:
            raise PeerError("the peer broke off before the end of its answer")
        ours = self._account.get("lyceum") or {}
        try:
            return End(
                finish=self._finish,
                usage=self._usage(ours),
                confidence=_finite(ours.get("confidence")),
                members=tuple(_member(entry) for entry in ours.get("members", ())),
                citations=tuple(_citation(entry) for entry in ours.get("citations", ())[:MAX_CITATIONS]),
                bill=_bill(ours.get("charge")),
                exhausted=(ours.get("stopped") or {}).get("code") == "exhausted",
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            raise PeerError("the peer's account of its answer cannot be read") from None

    def _note(self, event: JsonObject) -> None:
        if event.get("error"):
            raise PeerError(f"the peer failed: {str(event['error'].get('message'))[:300]}")
        if event.get("usage"):
            self._account = event

    def _text(self, choice: JsonObject) -> str:
        reason = choice.get("finish_reason")
        if reason:
            self._finish = cast("Finish", reason) if reason in FINISHES else "stop"
        text = choice.get("delta", {}).get("content") or ""
        if not isinstance(text, str):
            raise TypeError
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair could not be passed on
        self._chars += len(text)
        return text

    def _usage(self, ours: JsonObject) -> Usage:
        """Tokens as the peer counted them; written characters as we did."""
        usage = self._account.get("usage") or {}
        return Usage(
            max(0, int(usage.get("prompt_tokens", 0))),
            max(0, int(usage.get("completion_tokens", 0))),
            max(0, int(ours.get("input_chars", 0))),
            self._chars,
        )


def _choices(choice: JsonObject) -> tuple[Choice, ...]:
    rows = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(
        Choice(_read_candidate(row), tuple(_read_candidate(other) for other in row.get("top_logprobs", ())))
        for row in rows[:MAX_LOGPROBS]
    )


def _read_candidate(row: JsonObject) -> Candidate:
    text = bytes(list(row["bytes"])) if row.get("bytes") is not None else str(row["token"]).encode()
    return Candidate(text, _finite(row["logprob"]) or 0.0)


def _finite(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _bill(found: JsonObject | None) -> Bill | None:
    if not found:
        return None
    counted = {name: found[name] for name in ("charged_msat", "balance_msat", "input_units", "output_units")}
    return Bill(price=_price(found["price"]), **counted)


def read_quote(body: bytes) -> Price | None:
    """The price that a 402's problem body names; None where it names none that can be read."""
    try:
        return _price(json.loads(body)["price"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _price(found: JsonObject) -> Price:
    return Price(**{**found, "unit": Unit(found["unit"])})


def _citation(entry: JsonObject) -> Citation:
    return Citation(
        int(entry["number"]), str(entry["source"])[:300], str(entry["heading"])[:300], str(entry["text"])[:300]
    )


def _member(entry: JsonObject) -> Member:
    return Member(**{field.name: entry[field.name] for field in fields(Member) if field.name in entry})
