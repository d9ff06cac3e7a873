"""One token at the counter: challenge, verify, reserve, settle, revoke."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lyceum import l402
from lyceum.books import Answer, FreebieLedger, Held, TillLedger, Token
from lyceum.errors import BadRequest
from lyceum.money import check_msat, whole_sats_msat
from lyceum.ports import Admitted, Declined, Settlement, Wallet
from lyceum.quote import Quote
from lyceum.till.challenges import Challenges
from lyceum.till.terms import Admission, TillTerms
from lyceum.till.topups import Topups

RESERVATION_S = 900
"""How long a reservation lives when nobody settles it; longer than any answer takes."""


class Till:
    def __init__(
        self,
        wallet: Wallet,
        ledger: TillLedger,
        master_key: bytes,
        terms: TillTerms,
        *,
        now: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        topups: Topups,
        freebies: FreebieLedger,
    ) -> None:
        self._wallet = wallet
        self._ledger = ledger
        self._freebies = freebies
        self._master_key = master_key
        self._now = now
        self._challenges = Challenges(wallet, master_key, now, random_bytes)
        self._topups = topups
        self.terms = terms

    def admit(self, admission: Admission) -> Admitted | Declined:
        """Verify and reserve, or say why not and what to pay.

        Raises Ambiguous for two credentials; RateLimited or TooManyChallenges in place of a challenge.
        """
        shown = self._shown(admission)
        if isinstance(shown, l402.Refusal):
            return self._gift(admission, shown) or self._decline(admission, shown)
        token, once = shown
        percent = self._percent(admission, token)
        held = self._hold(admission.at(percent), token, once)
        if isinstance(held, l402.Refusal):
            return self._decline(admission, held)
        receipt = once and l402.charge_receipt(once.challenge_id, token.payment_hash, self._now())
        headers = (("Payment-Receipt", receipt),) if receipt else ()
        return Admitted(
            held.reservation, token.token_id, token.payment_hash, held.amount_msat, held.balance_msat, headers, percent
        )

    def _percent(self, admission: Admission, token: Token | None = None) -> int:
        """Today's share of the list price; what a token was promised for this holds as long as its challenge."""
        prepaid_msat = token.credit_msat if token else 0
        percent = self.terms.tariff.percent(admission.model, admission.waiting, prepaid_msat)
        quote = Quote.decode(bytes.fromhex(token.token_id)) if token else None
        if quote and quote.subject == admission.subject.digest() and self._now() <= quote.expires_at:
            return min(percent, quote.percent)
        return percent

    def _gift(self, admission: Admission, refusal: l402.Refusal) -> Admitted | None:
        """A free request for a known network that shows no credential; there is nothing to settle."""
        asks = admission.client and refusal.reason is l402.Reason.PAYMENT_REQUIRED
        if not asks or not self._freebies.take(admission.service, admission.client, self.terms.freebies):
            return None
        return Admitted("", "", "", admission.amount_msat, 0)

    def verify(self, admission: Admission) -> Token | l402.Refusal:
        """The token that the request holds, or why it holds none. Reserves nothing."""
        shown = self._shown(admission)
        return shown if isinstance(shown, l402.Refusal) else shown[0]

    def _shown(self, admission: Admission) -> tuple[Token, l402.Once | None] | l402.Refusal:
        facts = l402.Facts(admission.service, self._now(), admission.model, admission.max_tokens)
        verified = self.identify(admission.authorization, facts)
        if isinstance(verified, l402.Refusal):
            return verified
        token = self.token_of(verified, admission.service)
        if isinstance(token, l402.Refusal):
            return token
        return (token, verified.once) if token.closed_at is None else _REFUNDED

    def identify(self, authorization: Sequence[str], facts: l402.Facts) -> l402.Verified | l402.Refusal:
        """Whose token these header lines hold, or why it is not good for the request. Asks neither book nor node."""
        try:
            credential = l402.parse_authorization(authorization)
        except l402.Malformed as error:
            return l402.Refusal(error.reason, error.message)
        if credential is None:
            return l402.Refusal(l402.Reason.PAYMENT_REQUIRED, "pay the invoice, then send the credential")
        return l402.verify(credential, self._master_key, facts)

    def _hold(self, admission: Admission, token: Token, once: l402.Once | None) -> Held | l402.Refusal:
        """Reserve the worst case. A `Payment` may have no more than it was made for, of a token that is whole."""
        now, wanted_msat = self._now(), admission.amount_msat
        most_msat = min(wanted_msat, once.amount_msat) if once else wanted_msat
        least_msat = min(admission.least_msat or wanted_msat, wanted_msat)
        if least_msat > most_msat:
            return _exhausted(most_msat, least_msat)
        held = self._ledger.reserve(
            token.token_id, most_msat, least_msat, now, now + RESERVATION_S, whole=once is not None
        )
        if held:
            return held
        token = self._ledger.token(token.token_id) or token
        if token.closed_at is not None:
            return _REFUNDED
        return _ALREADY_USED if once else _exhausted(token.balance_msat, least_msat)

    def settle(self, reservation: str, charge_msat: int) -> Settlement:
        """Charge what was delivered, at most what was reserved; a repeat changes nothing."""
        check_msat("charge_msat", charge_msat)
        settled = self._ledger.settle(reservation, charge_msat, self._now())
        if settled is None:
            raise BadRequest("no such reservation: it was never made, or lapsed and was given back", "reservation")
        return settled

    def quote(self, amount_msat: int, client: str) -> int:
        """What a first payment for a request of so much would be now, in msat. Makes none. Raises RateLimited."""
        self._challenges.limit_quotes(client, self.terms)
        return self._first_msat(check_msat("amount_msat", amount_msat, least=1))

    def revoke(self, token_id: str) -> bool:
        """Refuse this token from now on; False if it was revoked before."""
        if len(token_id) != 64 or set(token_id) - set("0123456789abcdef"):
            raise BadRequest("token_id must be 64 lower-case hex digits, as l402-tokens lists them", "token_id")
        return self._ledger.revoke(token_id, self._now())

    def tokens(self, limit: int) -> Sequence[Token]:
        return self._ledger.tokens(limit)

    def token(self, token_id: str) -> Token | None:
        return self._ledger.token(token_id)

    def answers(self, token_id: str, limit: int) -> Sequence[Answer]:
        return self._ledger.answers(token_id, limit)

    def sales(self) -> dict[str, int]:
        return self._ledger.sales()

    def lapsed_msat(self, expired_before: int) -> int:
        return self._ledger.lapsed_msat(expired_before)

    def token_of(self, verified: l402.Verified, service: str) -> Token | l402.Refusal:
        """The balance row with all that was paid for it: written on the first use after the node says that
        the invoice is paid, and raised by top-ups in the same way."""
        token_id = verified.token_id.hex()
        if self._ledger.is_revoked(token_id):
            return l402.Refusal(l402.Reason.REVOKED, "the seller revoked this token")
        token = self._ledger.token(token_id)
        if token:
            return self._ledger.token(token_id) or token if self._topups.collect(token_id) else token
        received_msat = self._wallet.received_msat(verified.payment_hash.hex())
        if received_msat is None:
            return l402.Refusal(l402.Reason.NOT_PAID, "the invoice of this token is not paid")
        self._challenges.paid(verified.payment_hash.hex())
        expires_at = verified.expires_at or self._now() + self.terms.token_s
        return self._ledger.open_token(
            Token(
                token_id,
                verified.payment_hash.hex(),
                service,
                received_msat,
                created_at=self._now(),
                expires_at=expires_at,
            )
        )

    def _first_msat(self, amount_msat: int) -> int:
        return whole_sats_msat(max(amount_msat, self.terms.bundle_msat))

    def _decline(self, admission: Admission, refusal: l402.Refusal) -> Declined:
        percent = self._percent(admission)
        amount_msat = self._first_msat(admission.at(percent).amount_msat)
        lines = self._challenges.issue(admission, amount_msat, percent, self.terms)
        headers = tuple(("WWW-Authenticate", line) for line in lines)
        return Declined(
            refusal.reason, refusal.detail, headers, amount_msat, l402.problem_type(refusal.reason), percent
        )


_ALREADY_USED = l402.Refusal(
    l402.Reason.ALREADY_USED,
    "this payment bought one answer, which was given or is under way; what it left is on the macaroon beside it",
)


_REFUNDED = l402.Refusal(l402.Reason.REFUNDED, "what was left on this token was taken back; pay for a new one")


def _exhausted(left_msat: int, amount_msat: int) -> l402.Refusal:
    return l402.Refusal(
        l402.Reason.EXHAUSTED,
        f"this request may cost {amount_msat} msat and the token holds {max(left_msat, 0)}: "
        "top it up, pay the new invoice, or ask for less",
    )
