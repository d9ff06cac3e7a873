"""Answers as chat completions and server-sent events: written by a seller, read by a buyer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import cast, get_args

from lyceum.errors import LyceumError, PeerError
from lyceum.ports import Bill, Candidate, Choice, Chunk, Citation, Delta, End, Finish, Member, Usage
from lyceum.wire.body import JsonObject
from lyceum.wire.offers import MAX_NAME, read_price
from lyceum.wire.problems import problem_of

DONE = "data: [DONE]\n\n"
BALANCE_ENDED = "the token's balance ended before the answer did: top it up (POST /l402/topup) and ask again"
FINISHES = frozenset(get_args(Finish))
MAX_LOGPROBS = 1024
MAX_CITATIONS = 64


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
    return Bill(price=read_price(found["price"]), **counted)


def _citation(entry: JsonObject) -> Citation:
    return Citation(
        int(entry["number"]), str(entry["source"])[:300], str(entry["heading"])[:300], str(entry["text"])[:300]
    )


def _member(entry: JsonObject) -> Member:
    return Member(**{field.name: entry[field.name] for field in fields(Member) if field.name in entry})
