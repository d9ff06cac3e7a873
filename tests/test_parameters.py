"""What lightning-cli may send, and what is refused with the parameter's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lyceum import parameters
from lyceum.errors import BadRequest


@pytest.mark.parametrize("value", [1500, "1500", "1500msat"])
def test_an_amount_comes_in_lightningd_s_spellings(value: object) -> None:
    """A number, its text, or its text with the unit."""
    assert parameters.msat("amount_msat", value) == 1500


def test_header_lines_come_alone_or_listed() -> None:
    """No header, one line, or several."""
    assert parameters.lines("authorization", None) == ()
    assert parameters.lines("authorization", "L402 a:b") == ("L402 a:b",)
    assert parameters.lines("authorization", ["a", "b"]) == ("a", "b")


@pytest.mark.parametrize(
    ("value", "unix_s"),
    [
        (0, 0),
        ("1793491200", 1793491200),
        ("2026-11-01", 1793491200),
        ("2026-11-01T01:00", 1793494800),
        ("2026-11-01T01:00:00+01:00", 1793491200),
        ("0001-01-01", 0),
    ],
)
def test_a_moment_is_a_day_or_a_number(value: object, unix_s: int) -> None:
    """UTC, unless it says otherwise."""
    assert parameters.moment("since", value) == unix_s


def test_urls_are_separated_by_commas() -> None:
    """Spaces and empty entries do not count."""
    assert parameters.urls("lyceum-peers", " https://a , http://b:1,") == ["https://a", "http://b:1"]
    assert parameters.urls("lyceum-peers", None) == []


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (parameters.msat, -1),
        (parameters.msat, "1.5"),
        (parameters.msat, "5sat"),
        (parameters.msat, True),
        (parameters.msat, "9" * 30),
        (parameters.count, 0),
        (parameters.count, "many"),
        (parameters.count, 100_001),
        (parameters.moment, "yesterday"),
        (parameters.moment, -1),
        (parameters.moment, True),
        (parameters.moment, "9" * 30),
        (parameters.word, ""),
        (parameters.word, 7),
        (parameters.lines, {"a": 1}),
        (parameters.lines, ["a", 1]),
        (parameters.urls, "ftp://a"),
    ],
)
def test_a_wrong_value_names_its_parameter(read: Callable[[str, Any], object], value: object) -> None:
    """The message says which parameter, so that a long command line can be mended."""
    with pytest.raises(BadRequest, match="the-name") as caught:
        read("the-name", value)
    assert caught.value.param == "the-name"


def test_shares_are_read() -> None:
    """Names and percentages as a person types them; nothing at all is no share."""
    assert parameters.shares("prices", " economist=150, *=90 ,a/b=1,") == (
        ("economist", 150),
        ("*", 90),
        ("a/b", 1),
    )
    assert parameters.shares("prices", "") == parameters.shares("prices", None) == ()
    assert parameters.tiers("tiers", "100000=90,1000msat=95") == ((100_000, 90), (1000, 95))


@pytest.mark.parametrize("text", ["economist", "=5", "a=", "a=0", "a=10001", "a=-1", "a=1.5", "a=1;b=2"])
def test_a_wrong_share_is_named(text: str) -> None:
    """With the option's name, so that it can be mended."""
    with pytest.raises(BadRequest, match="lyceum-prices"):
        parameters.shares("lyceum-prices", text)
