"""Caveats as text."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, rows
from lyceum.l402 import Caveat, Malformed, caveats

SPLIT = [vector for vector in rows("caveat_strings") if "input" in vector]
LSAT_JS = next(vector for vector in rows("caveat_strings") if "accepts" in vector)
WORDS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("vector", [v for v in SPLIT if "error" not in v], ids=lambda v: v["input"])
def test_published_caveats_split_at_the_first_equals_sign(vector: Row) -> None:
    """Condition and value are the published ones, and encode to the same text."""
    caveat = Caveat.decode(vector["input"].encode())
    assert caveat == Caveat(vector["condition"], vector["value"])
    assert caveat.encode() == vector["reencoded"]


@pytest.mark.parametrize("text", [*(v["input"] for v in SPLIT if "error" in v), *LSAT_JS["rejects"]])
def test_published_non_caveats_are_refused(text: str) -> None:
    """A text without an equals sign is malformed."""
    with pytest.raises(Malformed):
        Caveat.decode(text.encode())


@pytest.mark.parametrize("text", LSAT_JS["accepts"])
def test_lsat_js_comparisons_are_not_ours(text: str) -> None:
    """Of lsat-js's operators only `=` is one; `<` and `>` are malformed, as for Aperture."""
    if "=" in text:
        assert Caveat.decode(text.encode()).encode() == text
    else:
        with pytest.raises(Malformed):
            Caveat.decode(text.encode())


@pytest.mark.parametrize("text", LSAT_JS["trims"])
def test_nothing_is_trimmed(text: str) -> None:
    """Spaces stay where they are: the HMAC covers them."""
    assert Caveat.decode(text.encode()).encode() == text


@pytest.mark.parametrize("raw", [b"a\x95=b", b"=value", b""])
def test_bytes_that_are_no_caveat_are_refused(raw: bytes) -> None:
    """No UTF-8, no condition and nothing at all are malformed."""
    with pytest.raises(Malformed):
        Caveat.decode(raw)


@pytest.mark.parametrize("condition", ["", "a=b"])
def test_a_caveat_that_would_read_differently_cannot_be_built(condition: str) -> None:
    """A condition is not empty and holds no equals sign."""
    with pytest.raises(ValueError, match="condition"):
        Caveat(condition, "value")


def test_repr_hides_the_value() -> None:
    """A gRPC client's preimage is a caveat's value."""
    assert repr(Caveat("preimage", "ab" * 32)) == "Caveat(condition='preimage')"


def test_our_own_caveats_have_the_deployed_text() -> None:
    """Services with tier 0, the rest prefixed with the service's name."""
    assert [
        caveats.services("llm").encode(),
        caveats.valid_until("llm", 2000).encode(),
        caveats.models("llm", ["org/math-1.5", "poet"]).encode(),
        caveats.max_tokens("llm", 64).encode(),
        caveats.capabilities("llm", []).encode(),
    ] == [
        "services=llm:0",
        "llm_valid_until=2000",
        "llm_model=org/math-1.5,poet",
        "llm_max_tokens=64",
        "llm_capabilities=",
    ]


@pytest.mark.parametrize("name", ["", "a:0,b", "a,b", "a:0", "a=b", "A", "a b", "a\n", "é", "a" * 33])
def test_a_service_name_cannot_smuggle_in_another(name: str) -> None:
    """Names outside the alphabet never get into a caveat."""
    with pytest.raises(ValueError, match="service name"):
        caveats.services(name)
    with pytest.raises(ValueError, match="service name"):
        caveats.valid_until(name, 1)
    with pytest.raises(ValueError, match="service name"):
        caveats.models(name, ["m"])


@pytest.mark.parametrize("name", ["", "a,b", "a b", "a\n", "a=b", "é", "a" * 65])
def test_a_model_name_cannot_smuggle_in_another(name: str) -> None:
    """Names outside the alphabet never get into a list."""
    with pytest.raises(ValueError, match="name in a caveat"):
        caveats.models("llm", ["good", name])
    with pytest.raises(ValueError, match="name in a caveat"):
        caveats.capabilities("llm", [name])


@given(WORDS.filter(lambda word: word and "=" not in word), WORDS)
def test_caveats_survive_the_round_trip(condition: str, value: str) -> None:
    """Decoding what was encoded gives the same caveat."""
    caveat = Caveat(condition, value)
    assert Caveat.decode(caveat.encode().encode()) == caveat


@given(st.binary() | WORDS.map(str.encode))
def test_random_bytes_are_read_or_malformed(raw: bytes) -> None:
    """Decoding raises nothing but Malformed, and what it takes it writes back."""
    with contextlib.suppress(Malformed):
        assert Caveat.decode(raw).encode().encode() == raw
