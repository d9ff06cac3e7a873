"""What caveats mean, and that adding one never helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, rows
from lyceum.l402 import Caveat, Facts, Reason, Refusal, caveats, check

FACTS = Facts("llm", 1000, model="math", max_tokens=64, capability="chat")
PREIMAGE = "ab" * 32
JUDGED = [vector for vector in rows("caveat_verification") if "lyceum" in vector]


def reason(texts: list[str], facts: Facts = FACTS) -> Reason | None:
    refusal = check([Caveat.decode(text.encode()) for text in texts], facts)
    return refusal.reason if refusal else None


def ours(*texts: str) -> list[str]:
    return ["services=llm:0", *texts]


@pytest.mark.parametrize("vector", rows("services_caveat_values"), ids=lambda vector: vector["value"])
def test_published_services_values(vector: Row) -> None:
    """Entries are name:tier with a whole number; anything else is malformed."""
    expected = None if vector["ok"] else Reason.MALFORMED
    assert reason([f"services={vector['value']}"], Facts("a", 0)) == expected


@pytest.mark.parametrize("vector", JUDGED)
def test_published_verifications(vector: Row) -> None:
    """Each published case is decided as upstream, or more strictly where `lyceum.why` says so."""
    case = vector["lyceum"]
    upstream = vector.get("ok", vector.get("ok_aperture", True))
    assert reason(case["caveats"], Facts(**case["facts"])) == case["reason"]
    assert upstream == (case["reason"] is None) or case["why"].startswith("stricter")


@pytest.mark.parametrize("vector", rows("timeout_satisfier"), ids=lambda vector: str(vector["timeouts"]))
def test_published_timeouts(vector: Row) -> None:
    """A later end widens; an end that is past refuses."""
    ends = [f"{vector['condition']}={end}" for end in vector["timeouts"]]
    found = reason(["services=restricted:0", *ends], Facts(vector["service"], vector["now"]))
    allowed = None if vector["final_ok"] else Reason.EXPIRED
    assert found == (allowed if vector["prev_ok"] else Reason.WIDENED)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["llm_valid_until=1001"], None),
        (["llm_valid_until=1000"], Reason.EXPIRED),
        (["llm_valid_until=2000", "llm_valid_until=2001"], Reason.WIDENED),
        (["llm_valid_until=2000", "llm_valid_until=999"], Reason.EXPIRED),
        (["llm_model=math,poet"], None),
        (["llm_model=poet"], Reason.WRONG_MODEL),
        (["llm_model="], Reason.WRONG_MODEL),
        (["llm_model=math", "llm_model=math,poet"], Reason.WIDENED),
        (["llm_model=math,poet", "llm_model=poet"], Reason.WRONG_MODEL),
        (["llm_max_tokens=64"], None),
        (["llm_max_tokens=63"], Reason.OVER_LIMIT),
        (["llm_max_tokens=64", "llm_max_tokens=65"], Reason.WIDENED),
        (["llm_capabilities=chat,embed"], None),
        (["llm_capabilities="], Reason.NOT_CAPABLE),
        (["llm_capabilities=chat", "llm_capabilities=chat,embed"], Reason.WIDENED),
        ([f"preimage={PREIMAGE}"], None),
        ([f"preimage={PREIMAGE}", f"preimage={PREIMAGE}"], None),
        ([f"preimage={PREIMAGE}", f"preimage={'cd' * 32}"], Reason.WIDENED),
        (["preimage=ab"], Reason.MALFORMED),
        (["services=llm:0,other:0"], Reason.WIDENED),
        (["other_valid_until=2000"], Reason.UNKNOWN_CAVEAT),
        (["expiration=2000"], Reason.UNKNOWN_CAVEAT),
    ],
)
def test_each_condition(texts: list[str], expected: Reason | None) -> None:
    """Every condition holds, fails and may not be widened, as the table says."""
    assert reason(ours(*texts)) == expected


@pytest.mark.parametrize("value", ["", "soon", "1_0", " 10", "10.0", "1e9", "٣", "9" * 20])
def test_numbers_are_plain_digits(value: str) -> None:
    """What only Python would read as a number is malformed."""
    assert reason(ours(f"llm_valid_until={value}")) == Reason.MALFORMED
    assert reason(ours(f"llm_max_tokens={value}")) == Reason.MALFORMED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llm_model=math", Reason.WRONG_MODEL),
        ("llm_max_tokens=64", Reason.OVER_LIMIT),
        ("llm_capabilities=", None),
    ],
)
def test_a_request_that_does_not_say(text: str, expected: Reason | None) -> None:
    """Without a model or a length nothing is granted; a request that needs no capability passes."""
    assert reason(ours(text), Facts("llm", 1000)) == expected


def test_no_services_caveat_opens_nothing() -> None:
    """A token without one is refused, whatever else it says."""
    assert reason(["llm_valid_until=2000"]) == Reason.WRONG_SERVICE


def test_facts_need_a_proper_service() -> None:
    """A service's name becomes part of conditions, so it is checked."""
    with pytest.raises(ValueError, match="service name"):
        Facts("llm:0,all", 0)


def test_the_caveats_we_write_are_the_conditions_we_know() -> None:
    """Everything that `caveats` builds holds for a request that it is meant for."""
    built = [
        caveats.services("llm"),
        caveats.valid_until("llm", 1001),
        caveats.models("llm", ["math"]),
        caveats.max_tokens("llm", 64),
        caveats.capabilities("llm", ["chat"]),
    ]
    assert check(built, FACTS) is None


CONDITIONS = ["services", "llm_valid_until", "llm_model", "llm_max_tokens", "llm_capabilities", "preimage"]
LISTS = st.lists(st.sampled_from(["math", "poet", "chat", ""]), max_size=3).map(",".join)
SERVICES = st.lists(st.sampled_from(["llm:0", "llm:1", "other:0"]), min_size=1, max_size=3).map(",".join)
VALUES = (
    LISTS
    | SERVICES
    | st.integers(0, 130).map(str)
    | st.integers(900, 1100).map(str)
    | st.sampled_from([PREIMAGE, "cd" * 32])
    | st.text(max_size=20)
)
CAVEATS = st.builds(
    Caveat,
    st.sampled_from(CONDITIONS) | st.text(min_size=1, max_size=20).filter(lambda text: "=" not in text),
    VALUES,
)
# Every token that `mint` signs names a service.
SIGNED = st.lists(CAVEATS, max_size=4).flatmap(
    lambda found: st.permutations([*found, caveats.services("llm")]) | st.just([caveats.services("llm"), *found])
)
REQUESTS = st.builds(
    Facts,
    st.just("llm"),
    st.integers(900, 1100),
    st.sampled_from([None, "math", "poet"]),
    st.none() | st.integers(1, 130),
    st.sampled_from([None, "chat"]),
)


@given(SIGNED, CAVEATS, REQUESTS)
def test_adding_a_caveat_never_turns_a_no_into_a_yes(signed: list[Caveat], more: Caveat, facts: Facts) -> None:
    """Whatever a holder appends to a signed token, a refused request stays refused."""
    if check(signed, facts):
        assert check([*signed, more], facts)


@given(st.lists(CAVEATS, max_size=4), REQUESTS)
def test_a_refusal_tells_no_secret(found: list[Caveat], facts: Facts) -> None:
    """Check raises nothing, and its sentences repeat no preimage."""
    refusal = check([*found, Caveat(PREIMAGE, PREIMAGE)], facts)
    assert isinstance(refusal, Refusal)
    assert PREIMAGE not in refusal.detail
    assert refusal.detail
