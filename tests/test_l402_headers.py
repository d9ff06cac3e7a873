"""The grammar of the headers, and base64 as people send it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, rows
from lyceum.l402.headers import SCHEMES, challenges, echoed, from_base64, to_base64

IS_CHALLENGE = [vector for vector in rows("challenge_headers_upstream") if "is_challenge" in vector]


@pytest.mark.parametrize("vector", rows("base64_lenient"), ids=lambda vector: vector["input"])
def test_published_base64(vector: Row) -> None:
    """Both alphabets, padded or not; wrong padding is refused."""
    if vector["error"]:
        with pytest.raises(ValueError, match="padded"):
            from_base64(vector["input"])
    else:
        assert from_base64(vector["input"]) == vector["output"].encode()


@pytest.mark.parametrize("vector", IS_CHALLENGE, ids=lambda vector: vector["header"])
def test_published_schemes(vector: Row) -> None:
    """L402 and LSAT are recognised in any case, other schemes are not."""
    assert any(scheme in SCHEMES for scheme, _ in challenges([vector["header"]])) == vector["is_challenge"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["L402 a=1, b=2"], [("l402", [("a", "1"), ("b", "2")])]),
        (['L402 a="1",b = "2"'], [("l402", [("a", "1"), ("b", "2")])]),
        (["L402", "a=1"], [("l402", [("a", "1")])]),
        (["L402\r\n a=1,\t,,b=2"], [("l402", [("a", "1"), ("b", "2")])]),
        (["LSAT A=1, L402 B=2"], [("lsat", [("a", "1")]), ("l402", [("b", "2")])]),
        (['Basic realm="L402 a=\\"1\\", b=2"'], [("basic", [("realm", 'L402 a="1", b=2')])]),
        (["L402 a='1,2', b=''"], [("l402", [("a", "1,2"), ("b", "")])]),
        (["L402 a=eA==, b=+/-_"], [("l402", [("a", "eA=="), ("b", "+/-_")])]),
        (["Negotiate, Bearer, L402 a=1"], [("negotiate", []), ("bearer", []), ("l402", [("a", "1")])]),
        (["a=1, L402 b=2"], [("l402", [("b", "2")])]),
        (['L402 a=1, b="open'], [("l402", [("a", "1")])]),
        (['X "open', "L402 a=1"], [("x", []), ("l402", [("a", "1")])]),
        ([], []),
    ],
)
def test_challenges_are_read_as_http_says(lines: list[str], expected: list[tuple[str, object]]) -> None:
    """Quotes, escapes, empty elements, folds, several schemes, and a stop at what is not HTTP."""
    assert challenges(lines) == expected


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    """Reading a line never fails, however strange it is."""
    assert isinstance(challenges([text, f"L402 {text}"]), list)


@given(st.binary())
def test_base64_survives_the_round_trip(raw: bytes) -> None:
    """Standard, url-safe and unpadded forms all decode to the same bytes."""
    text = to_base64(raw)
    for form in (text, text.rstrip("="), text.replace("+", "-").replace("/", "_")):
        assert from_base64(form) == raw


@pytest.mark.parametrize("text", ["a", "abcde", "ab=c", "ab c", "ab\n", "é", "====", "a!=="])
def test_what_is_not_base64_is_refused(text: str) -> None:
    """Nothing is skipped over: another text would mean the same bytes."""
    with pytest.raises(ValueError, match="base64"):
        from_base64(text)


def test_an_echo_must_be_of_the_same_bytes() -> None:
    """The text kept beside a macaroon is that macaroon's."""
    assert echoed(b"\xfb", "-w") == "-w"
    assert echoed(b"\xfb", "") == "+w=="
    with pytest.raises(ValueError, match="differ"):
        echoed(b"\xfb", "AA")
