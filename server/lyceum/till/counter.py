"""What holders may ask of their tokens: what is on one, an invoice that adds to it, what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lyceum import l402
from lyceum.books import Refund, Token, Topup
from lyceum.errors import TokenRefused
from lyceum.till.refunds import Refunds
from lyceum.till.till import Till
from lyceum.till.topups import Topups


class Counter:
    """Each method raises TokenRefused with the reason for a credential that is not good for it."""

    def __init__(self, till: Till, topups: Topups, refunds: Refunds, *, now: Callable[[], int]) -> None:
        self._till = till
        self._topups = topups
        self._refunds = refunds
        self._now = now

    def token(self, authorization: Sequence[str], service: str) -> Token:
        """Also one that has expired or was closed."""
        return self._token(self._identify(authorization, service), service)

    def topups(self, token_id: str, limit: int) -> Sequence[Topup]:
        return self._topups.history(token_id, limit)

    def top_up(self, authorization: Sequence[str], service: str, amount_msat: int) -> Topup:
        return self._topups.ask(self.token(authorization, service), amount_msat, self._till.terms.challenge_s)

    def reclaim(self, authorization: Sequence[str], service: str, address: str) -> Refund:
        """Take back what is left, or replace the address of a refund that has not landed.

        Raises BadAddress and TooSmall as `Refunds.claim` does.
        """
        verified = self._identify(authorization, service)
        if not verified.whole:
            said = "a token that was narrowed to hand it on gives nothing back: send it as it was bought"
            raise TokenRefused(said, l402.Reason.NARROWED)
        token = self._token(verified, service)
        until = token.expires_at + self._refunds.terms.window_s
        if until < self._now() and token.closed_at is None:
            said = f"the token expired, and what was left could be taken back until {until} (Unix seconds)"
            raise TokenRefused(said, l402.Reason.EXPIRED)
        return self._refunds.claim(token, address)

    def _token(self, verified: l402.Verified, service: str) -> Token:
        token = self._till.token_of(verified, service)
        if isinstance(token, l402.Refusal):
            raise TokenRefused(token.detail, token.reason)
        return token

    def _identify(self, authorization: Sequence[str], service: str) -> l402.Verified:
        """An expired token still says whose it is, if it is the one that was sold and none made from it."""
        found = self._till.identify(authorization, l402.Facts(service, self._now()))
        if isinstance(found, l402.Refusal) and found.reason is l402.Reason.EXPIRED:
            ever = self._till.identify(authorization, l402.Facts(service, 0))
            found = ever if isinstance(ever, l402.Verified) and ever.whole else found
        if isinstance(found, l402.Refusal):
            raise TokenRefused(found.detail, found.reason)
        return found
