"""The package as a whole: its names, its codes, its laws."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest

from lyceum import l402
from lyceum.errors import BadRequest
from lyceum.l402.refusal import reading

SOURCES = sorted(Path(l402.__file__).parent.glob("*.py"))
EFFECTS = {"asyncio", "logging", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "ssl", "time"}


def imports(source: Path) -> set[str]:
    tree = ast.walk(ast.parse(source.read_text()))
    nodes = list(tree)
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_public_names_are_these() -> None:
    """A change of the public surface is a decision, so it needs this line changed too."""
    assert " ".join(l402.__all__) == (
        "MAX_HEADER_BYTES Ambiguous Caveat Challenge Charge Credential Facts Identifier Macaroon Malformed "
        "Once PaymentChallenge PaymentCredential Reason Refusal Verified attenuate caveats challenge_macaroon "
        "charge_challenge charge_receipt check mint parse parse_authorization parse_challenge parse_metadata "
        "problem_type token_key verify verify_signature"
    )
    assert all(hasattr(l402, name) for name in l402.__all__)
    assert inspect.isfunction(l402.verify)


def test_the_reason_codes_are_stable() -> None:
    """Clients act on these words."""
    assert " ".join(l402.Reason) == (
        "payment-required malformed-credential ambiguous-credential bad-preimage bad-signature unknown-caveat "
        "widened wrong-service expired wrong-model over-limit not-capable unknown-token not-paid revoked exhausted "
        "already-used refunded narrowed"
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_core_does_no_io(source: Path) -> None:
    """Only pure parts of the standard library, pymacaroons, this package and the error tree are imported."""
    for module in imports(source):
        top = module.partition(".")[0]
        ours = module in {"lyceum.errors", "lyceum.l402"} or module.startswith("lyceum.l402.")
        assert ours or top == "pymacaroons" or (top in sys.stdlib_module_names and top not in EFFECTS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_core_never_asks_for_the_time(source: Path) -> None:
    """`datetime` may write and read dates; what time it is comes from the caller."""
    calls = [node.func for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)]
    asked = [call.attr for call in calls if isinstance(call, ast.Attribute)]
    assert set(asked) & {"now", "utcnow", "today"} == set()


@pytest.mark.parametrize("kind", [l402.Malformed, l402.Ambiguous])
def test_both_errors_are_the_callers(kind: type[l402.Malformed] | type[l402.Ambiguous]) -> None:
    """They are bad requests, with the reason as their code."""
    error = kind("a sentence")
    assert isinstance(error, BadRequest)
    assert (error.status, error.code, error.message) == (400, error.reason, "a sentence")


def test_a_decoders_error_forgets_its_cause() -> None:
    """Library errors keep the bytes they failed on; a log of the chain would show them."""
    with pytest.raises(l402.Malformed) as refused, reading("it"):
        b"secret\xff".decode()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
