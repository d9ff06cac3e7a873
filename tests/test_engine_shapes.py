"""What an answer may look like: grammars, JSON Schema, log-probabilities, and words that are no answer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="the `server` extra (llama-cpp-python) is not installed")

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ggufs import END, random_gguf, script_gguf
from lyceum.engine import Engine, EngineSettings
from lyceum.engine.card import read_card
from lyceum.engine.child import gbnf, shape
from lyceum.engine.child.field import FieldGuard
from lyceum.engine.native import Vocab, lend
from lyceum.errors import BadRequest
from lyceum.ports import Ask, Delta, End, Limits, Message, Offer

N_CTX = 1024
OUTSIDE = "Not mine."


DOUBLING = "root ::= r0\n" + "\n".join(f"r{n} ::= r{n + 1} | r{n + 1}" for n in range(60)) + '\nr60 ::= "a"'
"""llama.cpp would walk 2^60 paths through this."""


def says(content: str = "hello", **fields: object) -> Ask:
    return Ask("tiny", (Message("user", content),), **fields)  # type: ignore[arg-type]


def heard(engine: Engine, ask: Ask) -> tuple[list[Delta], End]:
    async def collect() -> tuple[list[Delta], End]:
        chunks = [chunk async for chunk in engine.stream(ask)]
        assert isinstance(chunks[-1], End)
        return [chunk for chunk in chunks if isinstance(chunk, Delta)], chunks[-1]

    return asyncio.run(collect())


def text_of(engine: Engine, ask: Ask) -> str:
    return "".join(delta.text for delta in heard(engine, ask)[0])


def loaded(path: Path, **settings: object) -> Engine:
    offer = Offer("tiny", limits=Limits(context_tokens=N_CTX, max_tokens=900))
    return Engine.load(EngineSettings(path, N_CTX, **settings), offer)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = loaded(random_gguf(tmp_path_factory.mktemp("ggufs") / "random.gguf"))
    yield engine
    engine.close()


@pytest.fixture
def saying(tmp_path: Path) -> Iterator[object]:
    """Engines that say a given text and end."""
    engines: list[Engine] = []

    def say(text: bytes, **settings: object) -> Engine:
        engines.append(loaded(script_gguf(tmp_path / f"{len(engines)}.gguf", [*text, END]), **settings))
        return engines[-1]

    yield say
    for engine in engines:
        engine.close()


# Shapes

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}, "tall": {"type": "boolean"}},
    "required": ["name", "age", "tall"],
}


@pytest.mark.parametrize("seed", range(6))
def test_a_schema_is_followed_by_a_model_that_knows_nothing(dice: Engine, seed: int) -> None:
    """Random weights at a high temperature: still JSON with just these fields."""
    found = json.loads(text_of(dice, says(temperature=2.0, seed=seed, schema=json.dumps(PERSON), max_tokens=400)))
    assert {name: type(value) for name, value in found.items()} == {"name": str, "age": int, "tall": bool}


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        ({"enum": ["red", "green"]}, ["red", "green"]),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}, None),
        ({"$defs": {"n": {"type": "null"}}, "$ref": "#/$defs/n"}, [None]),
        ({"const": {'say "hé"': "a\\b\nc 🎓"}}, [{'say "hé"': "a\\b\nc 🎓"}]),
        ({"$defs": {"a": {"$ref": "#/$defs/b~1c"}, "b/c": {"enum": [1]}}, "$ref": "#/$defs/a"}, [1]),
    ],
)
def test_schemas_of_many_kinds(dice: Engine, schema: object, allowed: list[object] | None) -> None:
    found = json.loads(text_of(dice, says(schema=json.dumps(schema), max_tokens=100)))
    assert found in allowed if allowed else len(found) == 2


LIST = {"type": "object", "properties": {"next_one": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
FORM = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z]{3}-[0-9]{2}$"},
        "day": {"type": "string", "format": "date"},
        "of": {"type": ["integer", "null"]},
        "any": {"description": "whatever"},
    },
    "required": ["id", "day", "of", "any"],
}


@pytest.mark.parametrize("schema", [{}, {"title": "Anything"}, {"type": "object"}, FORM, LIST])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_said_is_valid(dice: Engine, schema: dict[str, object], seed: int) -> None:
    """By another library's reading of the schema, whenever the answer came to its end; {} is any object."""
    ask = says(temperature=1.5, seed=seed, schema=json.dumps(schema), max_tokens=800)
    deltas, end = heard(dice, ask)
    if end.finish == "stop":
        found = json.loads("".join(delta.text for delta in deltas))
        assert isinstance(found, dict)
        Draft202012Validator(schema).validate(found)


def test_a_grammar_allows_nothing_else(dice: Engine) -> None:
    """One of the texts that it spells out, and then the end."""
    deltas, end = heard(dice, says(grammar='root ::= "grüezi" | "adieu"'))
    assert "".join(delta.text for delta in deltas) in ("grüezi", "adieu")
    assert end.finish == "stop"


def test_free_and_shaped_answers_take_turns(dice: Engine) -> None:
    """A grammar leaves nothing behind for the next ask."""
    free = text_of(dice, says(max_tokens=20))
    text_of(dice, says(grammar='root ::= "x"'))
    assert text_of(dice, says(max_tokens=20)) == free


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"schema": "{"}, "response_format", "not valid JSON"),
        ({"schema": '{"type": "banana"}'}, "response_format", "no JSON Schema"),
        ({"schema": '{"$ref": "https://example.com/s.json"}'}, "response_format", "only references within"),
        ({"schema": '{"$ref": "file:///etc/passwd"}'}, "response_format", "only references within"),
        ({"schema": '{"$ref": "#/$defs/none"}'}, "response_format", "cannot be followed"),
        ({"schema": '{"$ref": "#name"}'}, "response_format", "only references within"),
        (
            {"schema": '{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}'},
            "response_format",
            "left-recursive",
        ),
        ({"schema": '{"type": "string", "maxLength": 1000000000}'}, "response_format", "at most 900 can be followed"),
        ({"schema": '{"pattern": "^a{99999}$"}'}, "response_format", "pattern repeats more than 900"),
        ({"schema": '{"pattern": "^(?=a)$"}'}, "response_format", "cannot be followed"),
        ({"schema": '{"const": "\\ud83c"}'}, "response_format", "not valid Unicode"),
        ({"schema": json.dumps({"enum": ["x" * 70_000]})}, "response_format", "at most 65,536 are read"),
        ({"schema": json.dumps({"properties": {"x" * 300: {}}})}, "response_format", "longer than 200 characters"),
        ({"schema": '{"items": ' * 40 + "{}" + "}" * 40}, "response_format", "nested deeper"),
        ({"grammar": "root ::= ["}, "grammar", r"makes no sense at '\['"),
        ({"grammar": 'leaf ::= "a"'}, "grammar", "no rule `root`"),
        ({"grammar": "root ::= leaf"}, "grammar", "its rule `leaf` is not there"),
        ({"grammar": 'root ::= root "a"'}, "grammar", "left-recursive"),
        ({"grammar": 'root ::= ("a" |)*'}, "grammar", "left recursion"),
        ({"grammar": 'root ::= "a\x00"'}, "grammar", "makes no sense"),
        ({"grammar": 'root ::= "a" "b" )'}, "grammar", r"makes no sense at '\)'"),
        ({"grammar": 'root ::= "a"\n"b"'}, "grammar", "makes no sense"),
        ({"grammar": "root ::= <|end|>"}, "grammar", "makes no sense"),
        ({"grammar": 'root ::= "\ud83c"'}, "grammar", "not valid Unicode"),
        ({"grammar": "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000}, "grammar", "opening brackets"),
        ({"grammar": 'root ::= "' + "a" * 70_000 + '"'}, "grammar", "at most 65,536"),
        ({"grammar": 'root ::= "' + "a" * 30_000 + '"{2000}'}, "grammar", "too long when written out"),
        ({"grammar": 'root ::= "a"{9999}'}, "grammar", "repeats 9,999 times"),
        ({"grammar": DOUBLING}, "grammar", "too many ways"),
        ({"logprobs": 21}, "top_logprobs", "from 0 to 20"),
        ({"min_p": 2.0}, "min_p", "from 0 to 1"),
    ],
)
def test_a_shape_that_cannot_be_followed(dice: Engine, fields: dict[str, object], param: str, said: str) -> None:
    """Refused when it is weighed, before anything is paid; the engine goes on."""
    with pytest.raises(BadRequest, match=said) as caught:
        asyncio.run(dice.weigh(says(**fields)))  # type: ignore[arg-type]
    assert caught.value.param == param
    assert text_of(dice, says(max_tokens=3))


def test_an_ambiguous_grammar_is_given_up(dice: Engine) -> None:
    """Each letter quadruples the ways to read it; the engine is free again before that hurts."""
    with pytest.raises(BadRequest, match="too many ways at once"):
        heard(dice, says(grammar='root ::= "a" root "b" | "a" root "c" | "a" root "d"', max_tokens=100))
    assert text_of(dice, says(max_tokens=3))


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    weights = lend(read_card(random_gguf(tmp_path_factory.mktemp("ggufs") / "vocab.gguf")), 0)
    yield weights.vocab
    weights.give_back()


def test_a_model_that_cannot_end_takes_no_shape(vocab: Vocab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the grammar says, its answers would never be over. (llama.cpp guesses an end token for most files.)"""
    monkeypatch.setattr(vocab, "ends", frozenset())
    for fields, param in (({"schema": "{}"}, "response_format"), ({"grammar": 'root ::= "a"'}, "grammar")):
        with pytest.raises(BadRequest, match="no end token") as caught:
            shape.check(says(**fields), vocab)
        assert caught.value.param == param


PARTS = [
    "root ::= ",
    "\n",
    "a ::= ",
    "a ",
    '"x" ',
    "[a-z] ",
    "(",
    ")",
    "* ",
    "+ ",
    "? ",
    "| ",
    "{2,3} ",
    ". ",
    "# c\n",
    "\\",
]


@given(parts=st.lists(st.sampled_from(PARTS), max_size=30))
def test_what_is_well_formed_here_is_so_for_llama_cpp(vocab: Vocab, parts: list[str]) -> None:
    """All that it may still find is a left recursion by repeating nothing."""
    grammar = "root ::= " + "".join(parts)
    if not refusal(gbnf.check, grammar):
        found = refusal(vocab.check_grammar, grammar)
        assert not found or "left recursion" in found


def refusal(check: Callable[[str], None], grammar: str) -> str:
    try:
        check(grammar)
    except BadRequest as error:
        return error.message
    return ""


def test_min_p_forbids_what_is_unlikely(dice: Engine) -> None:
    """At 1 only the likeliest token is left, whatever the temperature."""
    assert text_of(dice, says(temperature=2.0, min_p=1.0, max_tokens=20)) == text_of(dice, says(max_tokens=20))


def test_one_candidate_is_greedy(dice: Engine) -> None:
    """With top_k 1 temperature has nothing to choose from; with all it has."""
    greedy = text_of(dice, says(max_tokens=20))
    assert text_of(dice, says(temperature=2.0, top_k=1, max_tokens=20)) == greedy
    assert text_of(dice, says(temperature=2.0, top_k=0, seed=1, max_tokens=20)) != greedy


@pytest.mark.parametrize("fields", [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repeat_penalty": 5.0}])
def test_what_was_written_is_written_less(dice: Engine, fields: dict[str, Any]) -> None:
    """Among eight letters a random network has its favourites, and is turned away from what it has said."""
    ask = says(max_tokens=40, logprobs=0, grammar="root ::= [a-h]{40}")
    assert most_written(dice, replace(ask, **fields)) < most_written(dice, ask)


def most_written(engine: Engine, ask: Ask) -> int:
    """How often the token comes that comes most often."""
    tokens = [choice.chosen.text for delta in heard(engine, ask)[0] for choice in delta.choices]
    return max(map(tokens.count, tokens))


# Log-probabilities


def test_every_token_is_reported(dice: Engine) -> None:
    """As many as were written, and their mean is the confidence: the model's own, whatever the grammar allows."""
    deltas, end = heard(dice, says(grammar="root ::= [a-z]{30}", logprobs=3))
    choices = [choice for delta in deltas for choice in delta.choices]
    assert len(choices) == end.usage.output_tokens == 30
    assert end.confidence == pytest.approx(math.fsum(choice.chosen.logprob for choice in choices) / 30, abs=1e-6)
    for choice in choices:
        assert len(choice.likeliest) == 3
        assert choice.likeliest[0].logprob >= choice.chosen.logprob
        assert choice.likeliest[0].logprob >= choice.likeliest[1].logprob >= choice.likeliest[2].logprob
    assert b"".join(choice.chosen.text for choice in choices).decode() == "".join(delta.text for delta in deltas)


def test_nothing_is_reported_unasked(dice: Engine) -> None:
    deltas, _ = heard(dice, says(max_tokens=5))
    assert not any(delta.choices for delta in deltas)


def test_what_a_stop_string_cuts_away_is_not_reported(saying: object) -> None:
    """The tokens of the stop string are held back, then dropped."""
    deltas, _ = heard(saying(b"abcde"), says(stop=("cd",), logprobs=0))  # type: ignore[operator]
    assert [choice.chosen.text for delta in deltas for choice in delta.choices] == [b"a", b"b"]


# Outside the field


def test_a_refusal_is_marked(saying: object) -> None:
    """In one piece, whole or not at all."""
    (delta,), end = heard(saying(b"Not mie.", refusal="Not mie."), says())  # type: ignore[operator]
    assert (delta.text, delta.outside, delta.tokens) == ("Not mie.", True, 8)
    assert end.finish == "stop"


def test_what_only_begins_like_a_refusal_is_an_answer(saying: object) -> None:
    """It is all said, and not marked."""
    deltas, _ = heard(saying(b"Not yours"), says())  # type: ignore[operator]
    plain = "".join(delta.text for delta in deltas)
    deltas, _ = heard(saying(b"Not yours", refusal="Not mine."), says())  # type: ignore[operator]
    assert "".join(delta.text for delta in deltas) == plain
    assert not any(delta.outside for delta in deltas)


def test_an_answer_in_doubt_is_none(tmp_path: Path) -> None:
    """Random weights are never sure of a token: beyond the doubt they say that it is not their field."""
    path = random_gguf(tmp_path / "random.gguf")
    for doubt, outside in ((0.999, True), (0.0, False)):
        engine = loaded(path, refusal=OUTSIDE, doubt=doubt)
        deltas, _ = heard(engine, says(max_tokens=20))
        engine.close()
        assert [delta.outside for delta in deltas[:1]] == [outside]
        assert (deltas[0].text == OUTSIDE) is outside


def test_a_shaped_answer_is_never_in_doubt(tmp_path: Path) -> None:
    """What a grammar forces says nothing about the field."""
    engine = loaded(random_gguf(tmp_path / "random.gguf"), refusal=OUTSIDE, doubt=0.999)
    assert text_of(engine, says(grammar='root ::= "yes"')) == "yes"
    engine.close()


def test_doubt_is_about_the_beginning() -> None:
    """After the first ten tokens an unlikely one no longer counts."""
    guard = FieldGuard(OUTSIDE, 0.5)
    for _ in range(10):
        guard.hear("x", -0.1)
    guard.hear("y", -9.0)
    assert not guard.outside
    assert not guard.undecided
