"""OpenAI's JSON and server-sent events: what is refused, and that what one side writes the other reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum.errors import BadRequest, PeerError, TooLong, UnknownModel
from lyceum.ports import (
    Ask,
    Bill,
    Candidate,
    Choice,
    Chunk,
    Citation,
    Delta,
    End,
    Limits,
    Member,
    Message,
    Offer,
    Price,
    Unit,
    Usage,
)
from lyceum.wire import (
    MAX_BODY,
    AnswerReader,
    Envelope,
    error_event,
    problem,
    problem_of,
    read_chat,
    read_offers,
    read_quote,
    read_texts,
    write_chat,
    write_offers,
)
from lyceum.wire.asking import MAX_MESSAGES

HELLO = [{"role": "user", "content": "hello"}]
ENVELOPE = Envelope("chatcmpl-1", 1700000000, "economist")
MEMBER = Member("02aa", "economist", 120, 2, "cc" * 32, paid_msat=3000, credit_msat=2880, seconds=0.5, part="What?")


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


# Requests


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b"[]", None),
        (b"1" * 5000, None),
        (b'{"messages": []}', "model"),
        (chat(model=""), "model"),
        (chat(model=7), "model"),
        (chat(messages=None), "messages"),
        (chat(messages="hello"), "messages"),
        (chat(messages={}), "messages"),
        (chat(messages=[]), "messages"),
        (chat(messages=HELLO * (MAX_MESSAGES + 1)), "messages"),
        (chat(messages=["hello"]), "messages[0]"),
        (chat(messages=[*HELLO, {"role": "tool", "content": "x"}]), "messages[1].role"),
        (chat(messages=[{"content": "x"}]), "messages[0].role"),
        (chat(messages=[{"role": ["user"], "content": "x"}]), "messages[0].role"),
        (chat(messages=[{"role": "user"}]), "messages[0].content"),
        (chat(messages=[{"role": "user", "content": 7}]), "messages[0].content"),
        (chat(messages=[{"role": "user", "content": ["x"]}]), "messages[0].content"),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content"),
        (chat(messages=[{"role": "user", "content": "\ud83d"}]), "messages[0].content"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(max_tokens=-1), "max_tokens"),
        (chat(max_completion_tokens=0), "max_tokens"),
        (chat(max_tokens=True), "max_tokens"),
        (chat(max_tokens="9"), "max_tokens"),
        (chat(max_tokens=1.5), "max_tokens"),
        (chat(temperature=2.1), "temperature"),
        (chat(temperature=-0.1), "temperature"),
        (chat(temperature=True), "temperature"),
        (chat(temperature="hot"), "temperature"),
        (chat(temperature=float("nan")), "temperature"),
        (chat(top_p=1.1), "top_p"),
        (chat(seed="x"), "seed"),
        (chat(stop=7), "stop"),
        (chat(stop=[""]), "stop"),
        (chat(stop=[7]), "stop"),
        (chat(stop=["a"] * 5), "stop"),
        (chat(n=2), "n"),
        (chat(n=[1]), "n"),
        (chat(stream_options="usage"), "stream_options"),
        (chat(lyceum={"budget_msat": "1"}), "budget_msat"),
        (chat(lyceum={"budget_msat": -1}), None),
    ],
    ids=lambda value: None if value is None else str(value)[:60],
)
def test_a_bad_request_names_its_parameter(body: bytes, param: str | None) -> None:
    """Refused as the caller's mistake, before anything is looked up or paid."""
    with pytest.raises(BadRequest) as refusal:
        read_chat(body)
    assert refusal.value.param == param


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1])
def test_a_body_is_at_most_1_mib(size: int) -> None:
    """One byte more is TooLong, before it is parsed."""
    body = chat().ljust(size)
    if size <= MAX_BODY:
        assert read_chat(body).ask.model == "m"
        return
    with pytest.raises(TooLong):
        read_chat(body)


def test_a_full_request_is_read() -> None:
    """Every field where OpenAI puts it, and the budget in our own object."""
    found = read_chat(
        chat(
            messages=[
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
            ],
            max_tokens=7,
            temperature=1,
            top_p=0.5,
            seed=3,
            stop="END",
            n=1,
            stream=True,
            stream_options={"include_usage": True},
            lyceum={"budget_msat": 900},
            user="someone",
        )
    )
    messages = (Message("system", "be brief"), Message("user", "ab"))
    assert found.ask == Ask("m", messages, 7, 1.0, 0.5, seed=3, stop=("END",), budget_msat=900)
    assert (found.stream, found.include_usage) == (True, True)


def test_what_is_left_out_has_a_default() -> None:
    """The shortest request: no stream, greedy, as long as the model allows, no budget."""
    found = read_chat(chat(temperature=None, stop=None, seed=None, stream_options=None, lyceum=None))
    assert found.ask == Ask("m", (Message("user", "hello"),))
    assert (found.stream, found.include_usage) == (False, False)


def test_the_smaller_limit_counts() -> None:
    """`max_completion_tokens` is the newer name of `max_tokens`; both may be there."""
    assert read_chat(chat(max_tokens=9, max_completion_tokens=5)).ask.max_tokens == 5


@given(
    st.builds(
        Ask,
        st.text(min_size=1),
        st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text()), min_size=1).map(
            tuple
        ),
        st.none() | st.integers(1, 10**6),
        st.floats(0, 2),
        st.floats(0, 1),
        st.floats(0, 1),
        st.none() | st.integers(),
        st.lists(st.text(min_size=1), max_size=4).map(tuple),
    )
)
def test_a_buyers_request_is_read_by_a_seller(ask: Ask) -> None:
    """What write_chat writes, read_chat reads: the same ask, streamed, with usage."""
    found = read_chat(json.dumps(write_chat(ask)).encode())
    assert found.ask == ask
    assert (found.stream, found.include_usage) == (True, True)


def test_a_budget_is_not_sent_to_a_seller() -> None:
    """What a buyer would pay at most is no business of whom it pays."""
    assert "budget_msat" not in json.dumps(write_chat(Ask("m", (Message("user", "x"),), budget_msat=9)))


# Answers


def events(*chunks: Chunk, include_usage: bool = True) -> str:
    *deltas, end = chunks
    assert isinstance(end, End)
    written = [ENVELOPE.delta(delta, not at) for at, delta in enumerate(deltas) if isinstance(delta, Delta)]
    return "".join(written) + ENVELOPE.end(end, include_usage)


def read(stream: str) -> tuple[list[Chunk], End]:
    """Read as it comes from a socket: bytes, split at the newline byte alone."""
    reader = AnswerReader()
    chunks = [chunk for line in stream.encode().split(b"\n") for chunk in reader.feed(line.decode())]
    return chunks, reader.close()


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\r\u2028\u2029\x85\x1c"\\😀é'), min_size=1
)
DELTAS = st.builds(Delta, TEXTS, member=st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
ENDS = st.builds(
    End,
    st.sampled_from(["stop", "length", "error", "cancelled"]),
    st.builds(Usage, *[st.integers(0, 9999)] * 3),
    st.none() | st.integers(-90000, 0).map(lambda number: number / 10_000),
    st.lists(st.just(MEMBER), max_size=2).map(tuple),
    st.lists(st.just(Citation(1, "bread.md", "Yeast", "It eats sugar.")), max_size=2).map(tuple),
    st.none() | st.builds(Bill, *[st.integers(0, 9999)] * 2, st.builds(Price), *[st.integers(0, 9999)] * 2),
    st.booleans(),
)


@given(st.lists(DELTAS), ENDS, st.booleans())
def test_what_a_seller_writes_a_buyer_reads(deltas: list[Delta], end: End, include_usage: bool) -> None:
    """Texts with any newline, separator or emoji; usage, members and bill; characters are counted by the reader."""
    chunks, found = read(events(*deltas, end, include_usage=include_usage))
    assert chunks == deltas
    chars = sum(len(delta.text) for delta in deltas)
    usage = Usage(end.usage.input_tokens, end.usage.output_tokens, end.usage.input_chars, chars)
    assert found == End(end.finish, usage, end.confidence, end.members, end.citations, end.bill, end.exhausted)


@pytest.mark.parametrize("include_usage", [True, False])
def test_usage_is_in_the_last_chunk(include_usage: bool) -> None:
    """In a chunk of its own without choices if the caller asked for it, else on the closing one."""
    lines = events(Delta("yes"), End("stop", Usage(5, 7)), include_usage=include_usage).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert len(chunks) == (3 if include_usage else 2)
    assert chunks[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    assert bool(chunks[-1]["choices"]) is not include_usage
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_a_chunk_is_openais_chunk() -> None:
    """The role comes once; id, model and object in every chunk."""
    first, second = (json.loads(ENVELOPE.delta(Delta("x"), opening)[6:]) for opening in (True, False))
    assert first["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": "x"}, "finish_reason": None}]
    assert "role" not in second["choices"][0]["delta"]
    assert {chunk["object"] for chunk in (first, second)} == {"chat.completion.chunk"}
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in (first, second)} == {
        ("chatcmpl-1", "economist", 1700000000)
    }


def test_a_whole_answer_is_openais_completion() -> None:
    """Message, finish reason, usage; members and charge in our own object."""
    end = End("length", Usage(5, 7, 20, 3), -0.12345678, (MEMBER,), bill=Bill(120, 2880, Price(100, 0, 1000), 20, 3))
    whole = ENVELOPE.whole([Delta("yes")], end)
    assert whole["object"] == "chat.completion"
    assert whole["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "length"}
    ]
    assert whole["lyceum"]["charge"] == {
        "charged_msat": 120,
        "balance_msat": 2880,
        "price": {"base_msat": 100, "input_per_1k_msat": 0, "output_per_1k_msat": 1000, "unit": "char"},
        "input_units": 20,
        "output_units": 3,
    }
    assert whole["lyceum"]["members"][0]["payment_hash"] == "cc" * 32
    assert whole["lyceum"]["confidence"] == -0.1235


@pytest.mark.parametrize(
    "line",
    [
        "data: {",
        "data: 7",
        "data: []",
        "data: null",
        "data: " + "[" * 100_000,
        "data: {}",
        'data: {"choices": 7}',
        'data: {"choices": [7]}',
        'data: {"choices": [{"delta": "x"}]}',
        'data: {"choices": [{"delta": {"content": 7}}]}',
        'data: {"choices": [{"delta": {"content": "x"}}], "lyceum": "x"}',
        'data: {"error": "gone"}',
    ],
    ids=lambda line: line[:60],
)
def test_what_is_no_stream_is_a_peer_error(line: str) -> None:
    """A peer that sends something else has failed; nothing else is raised."""
    with pytest.raises(PeerError):
        AnswerReader().feed(line)


@pytest.mark.parametrize("line", ["", ": a comment", "event: x", "id: 7", "data: [DONE]"])
def test_other_lines_say_nothing(line: str) -> None:
    """Comments keep a connection alive; they are no answer and no error."""
    assert list(AnswerReader().feed(line)) == []


@pytest.mark.parametrize(
    "account",
    [
        {"usage": {"prompt_tokens": "many"}},
        {"usage": {"prompt_tokens": float("inf")}},
        {"usage": 7},
        {"usage": {"total_tokens": 1}, "lyceum": 7},
        {"usage": {"total_tokens": 1}, "lyceum": {"members": [7]}},
        {"usage": {"total_tokens": 1}, "lyceum": {"members": [{}]}},
        {"usage": {"total_tokens": 1}, "lyceum": {"charge": {"charged_msat": -1, "balance_msat": 0}}},
        {"usage": {"total_tokens": 1}, "lyceum": {"charge": {"charged_msat": 1.5, "balance_msat": 0}}},
        {"usage": {"total_tokens": 1}, "lyceum": {"charge": {"charged_msat": 1}}},
    ],
    ids=str,
)
def test_an_account_that_cannot_be_read_is_a_peer_error(account: dict[str, Any]) -> None:
    """Wrong types and amounts below nothing are refused at the end of the answer."""
    reader = AnswerReader()
    reader.feed("data: " + json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]} | account))
    with pytest.raises(PeerError, match="account"):
        reader.close()


def test_an_answer_that_breaks_off_is_a_peer_error() -> None:
    """Without a finish reason the answer has no end, whatever was said."""
    reader = AnswerReader()
    reader.feed(ENVELOPE.delta(Delta("half an"), True).strip())
    with pytest.raises(PeerError, match="broke off"):
        reader.close()


def test_half_a_surrogate_pair_is_replaced() -> None:
    """JSON may carry one; it could not be sent on as UTF-8, and would break the whole answer."""
    (delta,) = AnswerReader().feed('data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}')
    assert delta == Delta("a?")


def test_a_negative_count_is_none_at_all() -> None:
    """A peer's token counts cannot lower what it is reckoned to charge below nothing."""
    _, end = read(events(Delta("x"), End("stop", Usage(-5, -7, -9))))
    assert end.usage == Usage(output_chars=1)


# Errors


def test_an_error_within_a_stream_reaches_the_buyer() -> None:
    """The event that a seller writes raises PeerError with its sentence where it is read."""
    reader = AnswerReader()
    with pytest.raises(PeerError, match="no such model"):
        reader.feed(error_event(UnknownModel("no such model")).split("\n")[0])


def test_an_error_is_a_problem_and_openais_error_object() -> None:
    """RFC 9457 with a stable code; beside it the same where clients of OpenAI's API look."""
    assert problem_of(BadRequest("too hot", "temperature")) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "too hot",
        "code": "bad-request",
        "error": {"message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": "bad-request"},
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (402, "payment_required"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_openais_kind_of_error_says_whose_fault_it_was(status: int, kind: str) -> None:
    """Clients of OpenAI's API decide by it whether to mend the request, pay, wait or try again."""
    assert problem(status, "a-code", "a sentence")["error"]["type"] == kind


def test_a_problem_takes_further_members() -> None:
    """A price, a model: RFC 9457's extension members stand beside the five."""
    assert problem(402, "expired", "the token has expired", amount_msat=3000)["amount_msat"] == 3000


# Offers

OFFERS = st.builds(
    Offer,
    st.text(),
    st.text(max_size=2000),
    st.lists(st.text(max_size=80), max_size=9).map(tuple),
    st.builds(Price, *[st.integers(0, 10**9)] * 3, st.sampled_from(Unit)),
    st.integers(1, 10**6).flatmap(lambda most: st.builds(Limits, st.integers(most, 10**6), st.just(most))),
    st.sampled_from(["chat", "embedding"]),
    st.integers(0, 10**9),
    st.text("0123456789abcdef", max_size=64),
    st.text("0123456789abcdef", max_size=66),
)


@given(st.lists(OFFERS, max_size=4))
def test_a_list_of_offers_is_read_as_it_was_written(offers: list[Offer]) -> None:
    """Names, topics, prices, limits: what a seller lists is what a buyer sees."""
    assert read_offers(json.dumps(write_offers(offers)).encode()) == offers


def test_models_without_a_price_are_left_out() -> None:
    """Another server's plain model list is no error, only nothing to buy."""
    assert read_offers(b'{"data": [{"id": "gpt", "object": "model"}, {"id": "x", "lyceum": null}]}') == []


@pytest.mark.parametrize(
    "change",
    [
        {"price": {"base_msat": -1, "unit": "char"}},
        {"price": {"base_msat": 1.5, "unit": "char"}},
        {"price": {"base_msat": 1, "unit": "page"}},
        {"price": {"base_msat": 1, "unit": "char", "per_smile_msat": 1}},
        {"price": 7},
        {"limits": {"context_tokens": 10, "max_tokens": 11}},
        {"limits": {"context_tokens": float("inf"), "max_tokens": 1}},
        {"bundle_msat": "1"},
        {"topics": 7},
    ],
    ids=str,
)
def test_a_wrong_offer_is_a_peer_error(change: dict[str, Any]) -> None:
    """A price that cannot be reckoned with is not for sale to us."""
    listed = write_offers([Offer("m")])
    listed["data"][0]["lyceum"] |= change
    with pytest.raises(PeerError):
        read_offers(json.dumps(listed).encode())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": 7}', b'{"data": [7]}', b"[" * 100_000])
def test_what_is_no_list_is_a_peer_error(body: bytes) -> None:
    """The sentence says what to check."""
    with pytest.raises(PeerError, match="check the URL"):
        read_offers(body)


# The shape of an answer


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        (None, ""),
        ({"type": "text"}, ""),
        ({"type": "json_object"}, '{"type": "object"}'),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}, '{"type": "array"}'),
    ],
)
def test_a_response_format_becomes_a_schema(given: object, schema: str) -> None:
    """OpenAI's three kinds."""
    assert read_chat(chat(response_format=given)).ask.schema == schema


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("response_format", "json"),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": "object"}}),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": {"title": "x" * 70_000}}}),
        ("grammar", 7),
        ("grammar", "x" * 70_000),
        ("logprobs", 3),
        ("top_logprobs", 2),
        ("min_p", 1.5),
        ("top_k", -2),
        ("top_k", 0.5),
        ("frequency_penalty", 2.5),
        ("presence_penalty", "much"),
        ("repeat_penalty", 0),
    ],
)
def test_a_wrong_shape_is_named(field: str, wrong: object) -> None:
    with pytest.raises(BadRequest) as error:
        read_chat(chat(**{field: wrong}))
    assert error.value.param == field


def test_how_to_choose_tokens_goes_there_and_comes_back() -> None:
    """Top-k and penalties as OpenAI and llama.cpp name them; -1 is llama.cpp's word for all."""
    ask = Ask("m", (Message("user", "hi"),), top_k=40, frequency_penalty=0.5, presence_penalty=-1.0, repeat_penalty=1.1)
    assert read_chat(json.dumps(write_chat(ask)).encode()).ask == ask
    assert read_chat(chat(top_k=-1)).ask.top_k == 0
    assert not {"top_k", "frequency_penalty", "repeat_penalty"} & write_chat(Ask("m", ask.messages)).keys()


def test_a_deadline_is_lyceum_s_own_field() -> None:
    """Seconds, for whoever would rather have no answer than a late one; it names no payer."""
    ask = read_chat(chat(lyceum={"deadline_s": 2.5, "payer": "somebody"}, payer="somebody")).ask
    assert (ask.deadline_s, ask.payer) == (2.5, "")
    with pytest.raises(BadRequest, match="deadline_s must be a number from 0 to 3600"):
        read_chat(chat(lyceum={"deadline_s": -1}))


def test_one_answer_has_one_shape() -> None:
    with pytest.raises(BadRequest, match="one of them"):
        read_chat(chat(response_format={"type": "json_object"}, grammar="root ::= [a-z]"))


def test_a_request_is_read_as_it_was_written() -> None:
    """Every sampling field survives the way to a peer."""
    ask = Ask("m", (Message("user", "hello"),), 9, 0.5, 0.9, 0.1, 3, ("END",), '{"type": "array"}', "", 2)
    assert read_chat(json.dumps(write_chat(ask)).encode()).ask == ask


def test_log_probabilities_are_openais() -> None:
    """Token, its bytes, and the likeliest others; and a buyer reads the same values."""
    half = Candidate(b"\xc3", -0.25)
    delta = Delta("x", choices=(Choice(Candidate(b"x", -0.5), (Candidate(b"x", -0.5), half)),))
    event = json.loads(ENVELOPE.delta(delta, False)[6:])
    (row,) = event["choices"][0]["logprobs"]["content"]
    assert row["token"] == "x"
    assert row["top_logprobs"][1] == {"token": "\ufffd", "logprob": -0.25, "bytes": [0xC3]}
    (read_back,), _ = read(events(delta, End("stop")))
    assert isinstance(read_back, Delta)
    assert read_back.choices == delta.choices


# Embeddings


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("input", ""),
        ("input", []),
        ("input", [1, 2]),
        ("input", ["a"] * 257),
        ("input", "\ud800"),
        ("encoding_format", "hex"),
        ("dimensions", 3),
        ("model", ""),
    ],
)
def test_a_wrong_embeddings_request_is_named(field: str, wrong: object) -> None:
    with pytest.raises(BadRequest) as error:
        read_texts(json.dumps({"model": "m", "input": "a"} | {field: wrong}).encode())
    assert error.value.param == field


def test_a_402_may_name_a_price() -> None:
    """As the till's problem does; anything else is no quote, and no error."""
    price = Price(200, 0, 2000)
    body = problem(402, "payment-required", "pay", price=asdict(price))
    assert read_quote(json.dumps(body).encode()) == price
    for wrong in (b"", b"{}", b"[]", b'{"price": 7}', b'{"price": {"base_msat": -1, "unit": "char"}}', b"[" * 10**5):
        assert read_quote(wrong) is None
