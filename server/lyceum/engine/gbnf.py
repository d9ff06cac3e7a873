"""What following a grammar costs llama.cpp, reckoned before it sees one. Knows GBNF's text only.

Law: a grammar comes from a stranger. llama.cpp recurses over groups on its stack, writes repetitions out, and looks
for left recursion by walking every path, which doubles with each rule of `a ::= b | b`; so all three are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lyceum.errors import BadRequest

MOST_BYTES = 64 * 1024
MOST_GROUPS = 2000
MOST_ELEMENTS = 500_000
MOST_STEPS = 200_000

TOKEN = re.compile(
    r"""(?:\s|\#[^\r\n]*)*(?:
    (?P<rule>[a-zA-Z0-9-]+)(?:[ \t]|\#[^\r\n]*)*::= | (?P<name>[a-zA-Z0-9-]+)
    | (?P<text>"(?:[^"\\]|\\.)*" | \[(?:[^\]\\]|\\.)*\] | !?<[^>]*> | \.)
    | \{\s*(?P<least>\d+)\s*(?:,\s*(?P<most>\d*)\s*)?\} | (?P<mark>[()|*+?]) | (?P<end>\Z))""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True)
class _Item:
    """A rule's name, or "" for text of `size` characters; `optional` where it may be left out."""

    name: str
    size: int = 1
    optional: bool = False


@dataclass(slots=True)
class _Rule:
    alternatives: list[list[_Item]] = field(default_factory=lambda: [[]])

    @property
    def may_be_empty(self) -> bool:
        return not all(self.alternatives)


def check(gbnf: str) -> None:
    """Raises BadRequest for a grammar that asks too much; what is merely wrong is left to llama.cpp to say."""
    try:
        size = len(gbnf.encode())
    except UnicodeEncodeError:
        raise _refusal("it is not valid Unicode: it holds half a surrogate pair") from None
    if size > MOST_BYTES:
        raise _refusal(f"it has {size:,} bytes; at most {MOST_BYTES:,} are read")
    if (groups := gbnf.count("(")) > MOST_GROUPS:
        raise _refusal(f"it has {groups:,} opening brackets; at most {MOST_GROUPS:,} are followed")
    _check_paths(_read(gbnf))


def _read(gbnf: str) -> Mapping[str, _Rule]:
    """Groups become rules of their own, as llama.cpp makes them."""
    rules: dict[str, _Rule] = {}
    open_rules = [_Rule()]
    at = elements = 0
    while (found := TOKEN.match(gbnf, at)) and found["end"] is None:
        at = found.end()
        last = open_rules[-1].alternatives[-1]
        if found["rule"]:
            open_rules = [rules.setdefault(found["rule"], _Rule())]
        elif found["name"] or found["text"]:
            last.append(_Item(found["name"] or "", len(found["text"] or "x")))
        elif found["mark"] == "|":
            open_rules[-1].alternatives.append([])
        elif found["mark"] == "(":
            group = f"({at}"
            last.append(_Item(group))
            open_rules.append(rules.setdefault(group, _Rule()))
        elif found["mark"] == ")":
            open_rules = open_rules[:-1] or open_rules
        elif last:
            last[-1].optional |= found["mark"] in ("*", "?") or found["least"] in ("0", "00")
            elements += last[-1].size * max(int(found["least"] or 1), int(found["most"] or 1))
        if elements > MOST_ELEMENTS:
            raise _refusal("its repetitions are too long when written out")
    if not found:
        raise _refusal(f"it makes no sense at {gbnf[at : at + 20]!r}")
    return rules


def _check_paths(rules: Mapping[str, _Rule]) -> None:
    """Walk as llama.cpp will, which forgets where it has been; a left recursion never ends."""
    leading = {name: list(_leading(rule, rules)) for name, rule in rules.items()}
    ahead, steps = list(leading), 0
    while ahead:
        steps += 1
        if steps > MOST_STEPS:
            raise _refusal("it is left-recursive, or its rules lead to one another in too many ways")
        ahead.extend(leading.get(ahead.pop(), ()))


def _leading(rule: _Rule, rules: Mapping[str, _Rule]) -> Iterator[str]:
    """The rules that a match of `rule` may begin with."""
    for alternative in rule.alternatives:
        for item in alternative:
            if item.name:
                yield item.name
            skipped = item.optional or (item.name in rules and rules[item.name].may_be_empty)
            if not skipped:
                break


def _refusal(why: str) -> BadRequest:
    return BadRequest(f"this grammar cannot be followed: {why}", "grammar")
