"""One restriction as text, `condition=value`, and the five that we write ourselves.

Names are checked before they enter a caveat: a `,` or `:` in one would smuggle in a second entry.
What a caveat means is no business of this module; see `conditions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lyceum.l402.refusal import reading

_SERVICE = re.compile(r"[a-z0-9_-]{1,32}")
_NAME = re.compile(r"[A-Za-z0-9._/-]{1,64}")


@dataclass(frozen=True, slots=True)
class Caveat:
    """The value stays out of `repr`: it may be a preimage."""

    condition: str
    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.condition or "=" in self.condition:
            raise ValueError("a caveat needs a condition, and no `=` in it")

    def encode(self) -> str:
        return f"{self.condition}={self.value}"

    @classmethod
    def decode(cls, raw: bytes) -> Caveat:
        """Split at the first `=`, nothing trimmed, as Aperture does."""
        with reading("a caveat"):
            condition, equals, value = raw.decode().partition("=")
            if not equals:
                raise ValueError("it has no `=`")
            return cls(condition, value)


def check_service(service: str) -> str:
    """`service`, or ValueError if it cannot be part of a condition."""
    if not _SERVICE.fullmatch(service):
        raise ValueError("a service name is 1 to 32 of a-z 0-9 _ -")
    return service


def services(service: str) -> Caveat:
    return Caveat("services", f"{check_service(service)}:0")


def valid_until(service: str, unix_s: int) -> Caveat:
    """Good while the clock is before `unix_s`."""
    return _own(service, "valid_until", str(unix_s))


def models(service: str, names: Iterable[str]) -> Caveat:
    return _own(service, "model", _listed(names))


def max_tokens(service: str, most: int) -> Caveat:
    return _own(service, "max_tokens", str(most))


def capabilities(service: str, names: Iterable[str]) -> Caveat:
    return _own(service, "capabilities", _listed(names))


def _own(service: str, condition: str, value: str) -> Caveat:
    return Caveat(f"{check_service(service)}_{condition}", value)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    if not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("a name in a caveat is 1 to 64 of A-Z a-z 0-9 . _ / -")
    return ",".join(names)
