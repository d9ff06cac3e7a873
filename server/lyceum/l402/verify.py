"""Is this credential good for this request? Cheap questions first; the answer is a value.

It proves that the invoice was paid once, not that the token has not been used up since: that is
for whoever keeps the book.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from lyceum.l402.caveats import Caveat
from lyceum.l402.charge import verify_charge
from lyceum.l402.conditions import Facts, check, expiry, is_whole
from lyceum.l402.credential import Credential
from lyceum.l402.identifier import Identifier
from lyceum.l402.macaroon import parse, token_key, verify_signature
from lyceum.l402.payment import PaymentCredential
from lyceum.l402.refusal import Malformed, Reason, Refusal


@dataclass(frozen=True, slots=True)
class Once:
    """It was shown by a `Payment` credential: to have one answer, for at most `amount_msat`."""

    challenge_id: str
    amount_msat: int


@dataclass(frozen=True, slots=True)
class Verified:
    """Whose token it is; `expires_at` in Unix seconds, None if the credential does not say. `once`: for one answer.

    `whole`: it is the macaroon as it was sold. What was narrowed was handed on for use, not for taking
    the money out, and a `Payment` is for one answer.
    """

    token_id: bytes
    payment_hash: bytes
    expires_at: int | None
    once: Once | None = None
    whole: bool = False


def verify(credential: Credential | PaymentCredential, master_key: bytes, facts: Facts) -> Verified | Refusal:
    if isinstance(credential, PaymentCredential):
        charge = verify_charge(credential, master_key, facts)
        if isinstance(charge, Refusal):
            return charge
        once = Once(credential.challenge.id, charge.amount_msat)
        return Verified(charge.token_id, charge.payment_hash, None, once)
    try:
        return _verify(credential, master_key, facts)
    except Malformed as error:
        return Refusal(error.reason, error.message)


def _verify(credential: Credential, master_key: bytes, facts: Facts) -> Verified | Refusal:
    macaroon = parse(credential.macaroon)
    identifier = Identifier.decode(macaroon.identifier)
    if not hmac.compare_digest(credential.payment_hash, identifier.payment_hash):
        return Refusal(Reason.BAD_PREIMAGE, "the preimage is not that of this token's invoice; send the one paid for")
    if not verify_signature(token_key(master_key, macaroon.identifier), macaroon):
        return Refusal(Reason.BAD_SIGNATURE, "the token was not made here or was altered; pay for a new one")
    caveats = [Caveat.decode(raw) for raw in macaroon.caveats]
    refusal = check(caveats, facts)
    if refusal:
        return refusal
    expires_at, whole = expiry(caveats, facts.service), is_whole(caveats, facts.service)
    return Verified(identifier.token_id, identifier.payment_hash, expires_at, whole=whole)
