"""What caveats mean: a table of conditions, each with two questions, as Aperture's satisfiers ask them.

Stricter than Aperture in two ways. An unknown condition refuses (there it is skipped, so it restricts
nothing), and every caveat must hold, not only the last of its condition: so adding one never helps.
The clock and the request are facts from the caller; nothing is looked up here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lyceum.l402.caveats import Caveat, check_service
from lyceum.l402.refusal import Reason, Refusal

_SERVICE_TIER = re.compile(r"([a-z0-9_-]{1,32}):[0-9]{1,3}")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_PREIMAGE = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request needs. `now` is Unix seconds; None means that the request does not say."""

    service: str
    now: int
    model: str | None = None
    max_tokens: int | None = None
    capability: str | None = None

    def __post_init__(self) -> None:
        check_service(self.service)


@dataclass(frozen=True, slots=True)
class Rule:
    """May the later value follow the earlier? Does a value allow the request? If not, why, in a sentence."""

    narrows: Callable[[str, str], bool]
    holds: Callable[[str, Facts], bool]
    reason: Reason
    detail: str


def check(caveats: Sequence[Caveat], facts: Facts) -> Refusal | None:
    """The first thing that speaks against the request, None if nothing does."""
    rules = {name.format(service=facts.service): rule for name, rule in _RULES.items()}
    earlier: dict[str, str] = {}
    for position, caveat in enumerate(caveats, start=1):
        rule = rules.get(caveat.condition)
        if rule is None:
            return Refusal(Reason.UNKNOWN_CAVEAT, f"caveat {position} is not known here; send a token without it")
        try:
            refusal = _judge(rule, earlier.get(caveat.condition), caveat.value, facts)
        except ValueError as error:
            return Refusal(Reason.MALFORMED, f"the value of caveat {position} cannot be read: {error}")
        if refusal:
            return refusal
        earlier[caveat.condition] = caveat.value
    # Elsewhere such a token opens every service. Here it opens none, and `mint` signs none: a holder
    # could add the caveat, the one addition that would help.
    return None if "services" in earlier else Refusal(Reason.WRONG_SERVICE, _OTHER_SERVICE)


def expiry(caveats: Sequence[Caveat], service: str) -> int | None:
    """When caveats that passed `check` stop being good, in Unix seconds."""
    ends = [_number(c.value) for c in caveats if c.condition == f"{service}_valid_until"]
    return min(ends, default=None)


def is_whole(caveats: Sequence[Caveat], service: str) -> bool:
    """Whether these are the caveats of a token as it is sold; the preimage that gRPC clients add narrows nothing."""
    found = [caveat.condition for caveat in caveats if caveat.condition != "preimage"]
    return sorted(found) == sorted(["services", f"{service}_valid_until"])


def _judge(rule: Rule, earlier: str | None, value: str, facts: Facts) -> Refusal | None:
    if earlier is not None and not rule.narrows(earlier, value):
        return Refusal(Reason.WIDENED, "a caveat allows more than an earlier one; a later caveat may only narrow")
    return None if rule.holds(value, facts) else Refusal(rule.reason, rule.detail)


def _number(value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise ValueError("it is not a whole number")
    return int(value)


def _names(value: str) -> set[str]:
    return set(value.split(",")) - {""}


def _services(value: str) -> set[str]:
    """Tiers are read and, as in Aperture, not compared."""
    entries = [_SERVICE_TIER.fullmatch(entry) for entry in value.split(",")]
    names = {entry[1] for entry in entries if entry}
    if not all(entries):
        raise ValueError("each entry of `services` is name:tier")
    return names


def _no_more(earlier: str, later: str) -> bool:
    return _number(later) <= _number(earlier)


def _subset(earlier: str, later: str) -> bool:
    return _names(later) <= _names(earlier)


_OTHER_SERVICE = "the token is not good for this service; pay for one that is"

_RULES = {
    "services": Rule(
        lambda earlier, later: _services(later) <= _services(earlier),
        lambda value, facts: facts.service in _services(value),
        Reason.WRONG_SERVICE,
        _OTHER_SERVICE,
    ),
    "{service}_valid_until": Rule(
        _no_more,
        lambda value, facts: facts.now < _number(value),
        Reason.EXPIRED,
        "the token has expired; pay for a new one",
    ),
    "{service}_model": Rule(
        _subset,
        lambda value, facts: facts.model in _names(value),
        Reason.WRONG_MODEL,
        "the token is for other models; ask one of those or pay for a new token",
    ),
    "{service}_max_tokens": Rule(
        _no_more,
        lambda value, facts: facts.max_tokens is not None and facts.max_tokens <= _number(value),
        Reason.OVER_LIMIT,
        "the token limits the length of answers; set max_tokens, no higher than its limit",
    ),
    "{service}_capabilities": Rule(
        _subset,
        lambda value, facts: facts.capability is None or facts.capability in _names(value),
        Reason.NOT_CAPABLE,
        "the token lacks the capability that this request needs; pay for one that has it",
    ),
    # A gRPC client carries its preimage here; it limits nothing and may not change.
    "preimage": Rule(
        operator.eq,
        lambda value, _: _PREIMAGE.fullmatch(value) is not None,
        Reason.MALFORMED,
        "the preimage caveat is not 64 hex digits; add the preimage as the node gave it",
    ),
}
