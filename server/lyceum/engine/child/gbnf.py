"""A grammar (GBNF) read before llama.cpp sees it: is it well formed, and what would following it cost?

Law: a grammar comes from a stranger. llama.cpp recurses over groups on its stack, writes repetitions out, looks for
left recursion by walking every path, which doubles with each rule of `a ::= b | b`, and prints what it cannot read
on stderr. So all that is refused here. So are its special tokens (`<name>`): they are work without text, which
nobody would pay for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lyceum.errors import BadRequest

MOST_BYTES = 64 * 1024
MOST_GROUPS = 2000
MOST_REPEATS = 2000
MOST_ELEMENTS = 500_000
MOST_STEPS = 200_000

ESCAPE = r"\\(?:[trn\\\"\[\]-]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
LITERAL = rf'"(?:[^\\"\x00]|{ESCAPE})*"'
CLASS = rf"\[\^?(?:[^\\\]\x00]|{ESCAPE})*\]"
TOKEN = re.compile(
    rf"""(?P<gap>(?:\s|\#[^\r\n]*)*)(?:
    (?P<head>[a-zA-Z0-9-]+)(?:[ \t]|\#[^\r\n]*)*::=
    | (?P<name>[a-zA-Z0-9-]+)
    | (?P<text>{LITERAL} | {CLASS} | \.)
    | \{{\s*(?P<least>\d{{1,9}})\s*(?P<comma>,\s*(?P<most>\d{{0,9}})\s*)?\}}
    | (?P<mark>[()|*+?])
    | (?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True)
class _Item:
    """A rule's name, or "" for text of `size` characters; up to so many `times`, none where `optional`."""

    name: str
    size: int = 1
    times: int = 1
    optional: bool = False


@dataclass(slots=True)
class _Rule:
    alternatives: list[list[_Item]] = field(default_factory=lambda: [[]])

    @property
    def may_be_empty(self) -> bool:
        return not all(self.alternatives)

    def leading(self, rules: Mapping[str, _Rule]) -> Iterator[str]:
        """The rules that a match may begin with."""
        for alternative in self.alternatives:
            for item in alternative:
                empty = bool(item.name) and rules[item.name].may_be_empty
                if item.name:
                    yield from [item.name] * (item.times if empty else 1)
                if not (empty or item.optional):
                    break


def check(gbnf: str) -> None:
    """Raises BadRequest for a grammar that is not well formed, or asks too much."""
    try:
        size = len(gbnf.encode())
    except UnicodeEncodeError:
        raise _refusal("it is not valid Unicode: it holds half a surrogate pair") from None
    if size > MOST_BYTES:
        raise _refusal(f"it has {size:,} bytes; at most {MOST_BYTES:,} are read")
    if (groups := gbnf.count("(")) > MOST_GROUPS:
        raise _refusal(f"it has {groups:,} opening brackets; at most {MOST_GROUPS:,} are followed")
    rules = _Reader().read(gbnf)
    if "root" not in rules:
        raise _refusal("it has no rule `root`")
    _check_paths(rules)


class _Reader:
    """Groups become rules of their own, as llama.cpp makes them."""

    def __init__(self) -> None:
        self._rules: dict[str, _Rule] = {}
        self._open: list[_Rule] = []
        self._goes_on = False
        self._elements = 0

    def read(self, gbnf: str) -> Mapping[str, _Rule]:
        at = 0
        while found := TOKEN.match(gbnf, at):
            if not self._take(found):
                break
            at = found.end()
            if found["end"] is not None:
                return self._complete()
        raise _refusal(f"it makes no sense at {gbnf[at : at + 30].strip()!r}")

    def _take(self, found: re.Match[str]) -> bool:
        """False where the token cannot stand here: a line ends its rule, but within brackets or after a `|`."""
        begun, ended = found["head"] or found["end"] is not None, "\n" in found["gap"] or "\r" in found["gap"]
        apart = not self._open or (len(self._open) == 1 and ended and not self._goes_on)
        if begun:
            return self._begin(found, apart)
        if apart:
            return False
        self._goes_on = found["mark"] == "|"
        if found["name"] or found["text"]:
            self._add(_Item(found["name"] or "", len(found["text"] or "x")))
        elif found["mark"] == "|":
            self._open[-1].alternatives.append([])
        elif found["mark"] == "(":
            self._group(f"({found.start('mark')}")
        elif found["mark"] == ")":
            self._open.pop()
            return bool(self._open)
        else:
            return self._repeat(found)
        return True

    def _begin(self, found: re.Match[str], apart: bool) -> bool:
        if found["end"] is not None:
            return len(self._open) == 1
        if not apart:
            return False
        self._open = [self._rules.setdefault(found["head"], _Rule())]
        self._goes_on = True
        return True

    def _add(self, item: _Item) -> None:
        self._open[-1].alternatives[-1].append(item)

    def _group(self, name: str) -> None:
        self._add(_Item(name))
        self._open.append(self._rules.setdefault(name, _Rule()))

    def _repeat(self, found: re.Match[str]) -> bool:
        sequence = self._open[-1].alternatives[-1]
        if not sequence:
            return False
        least, most = int(found["least"] or 0), int(found["most"] or 0)
        if max(least, most) > MOST_REPEATS:
            raise _refusal(f"it repeats {max(least, most):,} times; at most {MOST_REPEATS:,} are followed")
        item = sequence[-1]
        item.times *= max(least, most, 1)
        item.optional |= found["mark"] != "+" and not least
        self._elements += item.size * item.times
        if self._elements > MOST_ELEMENTS:
            raise _refusal("its repetitions are too long when written out")
        return True

    def _complete(self) -> Mapping[str, _Rule]:
        items = (item for rule in self._rules.values() for sequence in rule.alternatives for item in sequence)
        missing = next((item.name for item in items if item.name and item.name not in self._rules), None)
        if missing:
            raise _refusal(f"its rule `{missing[:50]}` is not there")
        return self._rules


def _check_paths(rules: Mapping[str, _Rule]) -> None:
    """Walk as llama.cpp will, which forgets where it has been; a left recursion never ends."""
    leading = {name: list(rule.leading(rules)) for name, rule in rules.items()}
    ahead, steps = list(leading), 0
    while ahead:
        steps += 1
        if steps > MOST_STEPS:
            raise _refusal("it is left-recursive, or its rules lead to one another in too many ways")
        ahead.extend(leading[ahead.pop()])


def _refusal(why: str) -> BadRequest:
    return BadRequest(f"this grammar cannot be followed: {why}", "grammar")
