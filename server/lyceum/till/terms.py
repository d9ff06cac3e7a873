"""What the till is told: its standing terms, and one request."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lyceum import l402
from lyceum.money import check_msat
from lyceum.quote import Subject
from lyceum.tariff import AS_LISTED, Tariff, share_msat


@dataclass(frozen=True, slots=True)
class TillTerms:
    """`bundle_msat`: the least a first payment buys. Lifetimes of tokens and challenges in seconds.

    `challenges_per_minute` is for one client's network; `open_challenges` for all that the node keeps.
    `freebies`: how many requests each network has for nothing, ever, in each service.
    """

    bundle_msat: int = 1000
    token_s: int = 30 * 24 * 3600
    challenge_s: int = 600
    challenges_per_minute: int = 30
    open_challenges: int = 1000
    freebies: int = 0
    tariff: Tariff = AS_LISTED

    def __post_init__(self) -> None:
        check_msat("bundle_msat", self.bundle_msat)
        if self.challenges_per_minute < 1 or self.open_challenges < 1 or self.freebies < 0:
            raise ValueError("at least one challenge must be allowed, and no fewer than none be free")
        if self.token_s <= self.challenge_s or self.challenge_s < 1:
            raise ValueError("a token must outlive its challenge, and both must last at least a second")


@dataclass(frozen=True, slots=True)
class Admission:
    """An `Entry` to a named service; other services than ours may know neither model nor client.

    Amounts are at the list price.
    """

    authorization: tuple[str, ...]
    service: str
    amount_msat: int
    model: str | None = None
    max_tokens: int | None = None
    client: str = ""
    least_msat: int | None = None
    waiting: int = 0

    @property
    def subject(self) -> Subject:
        return Subject.of(self.service, self.model)

    def at(self, percent: int) -> Admission:
        """The same at so many percent of the list price."""
        least_msat = None if self.least_msat is None else share_msat(self.least_msat, percent)
        return replace(self, amount_msat=share_msat(self.amount_msat, percent), least_msat=least_msat)

    def __post_init__(self) -> None:
        l402.caveats.check_service(self.service)
        check_msat("amount_msat", self.amount_msat, least=1)
        if self.least_msat is not None:
            check_msat("least_msat", self.least_msat, least=1)
