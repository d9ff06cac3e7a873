"""Canonical JSON and base64url: one spelling of what is signed."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l402_vectors import Row, row
from lyceum.l402.canonical import canonical, from_base64url, to_base64url

MPP = row("mpp_aperture_vectors")
CANONICAL = [vector for vector in MPP["canonicalization"] if "error" not in vector]


@pytest.mark.parametrize("vector", CANONICAL, ids=lambda vector: vector["name"])
def test_published_json(vector: Row) -> None:
    """Order of members, escapes and numbers as RFC 8785 has them."""
    assert canonical(json.loads(vector["input"])) == vector["canonical"]


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {"\udfff": 1}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    """No infinity, no NaN, no half of a surrogate pair."""
    with pytest.raises(ValueError, match=r"JSON|encode"):
        canonical(value).encode()  # type: ignore[arg-type]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back(number: float) -> None:
    """However it is written, it is the same double."""
    assert float(json.loads(canonical(number))) == number


@pytest.mark.parametrize("vector", MPP["base64url"], ids=lambda vector: vector["name"])
def test_published_base64url(vector: Row) -> None:
    """Padding is taken, another alphabet, line ends and stray bits are not."""
    if vector.get("error"):
        with pytest.raises(ValueError, match="base64"):
            from_base64url(vector["encoded"])
        return
    raw = bytes.fromhex(vector.get("decodedHex", ""))
    assert from_base64url(vector["encoded"]) == raw
    assert (to_base64url(raw) == vector["encoded"]) == vector["canonical"]
