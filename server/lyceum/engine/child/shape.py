"""The shape that an answer must have, as a grammar (GBNF)."""

from __future__ import annotations

from functools import lru_cache

from lyceum.engine.child import gbnf
from lyceum.engine.native import Vocab
from lyceum.errors import BadRequest
from lyceum.ports import Ask


def grammar(ask: Ask) -> str:
    """GBNF, "" where any answer will do. Raises BadRequest for what is no schema or grammar, or asks too much."""
    if ask.schema:
        from lyceum.engine.child import schema  # noqa: PLC0415, its libraries take long, and few ask for it

        return schema.to_gbnf(ask.schema)
    return _checked(ask.grammar) if ask.grammar else ""


def check(ask: Ask, vocab: Vocab) -> None:
    """Raises BadRequest naming the field unless an answer of these tokens can have the shape that is asked for."""
    if not (found := grammar(ask)):
        return
    try:
        vocab.check_grammar(found)
    except BadRequest as error:
        raise BadRequest(error.message, "response_format" if ask.schema else "grammar") from None


@lru_cache(maxsize=64)
def _checked(grammar: str) -> str:
    gbnf.check(grammar)
    return grammar
