"""One answer for one payment: the intent `charge` of the method `lightning` (draft-lightning-charge-00).

What was promised is written into the request, under the seller's HMAC: invoice, amount, and, in
`externalId`, token and model. The draft has `opaque` for such things, but public clients do not send
it back. It must not know what is left on a token, nor whether the invoice is paid.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime

from lyceum.l402.canonical import Json
from lyceum.l402.conditions import Facts
from lyceum.l402.payment import PaymentChallenge, PaymentCredential, receipt
from lyceum.l402.refusal import Reason, Refusal

METHOD = "lightning"
_KEY_INFO = b"lyceum payment challenge key\x01"
_NETWORKS = {"bitcoin": "mainnet", "regtest": "regtest", "signet": "signet"}
"""lightningd's names and the draft's, which has none for testnet."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one payment buys: an answer of `model` ("" where the service has none) for at most `amount_msat`."""

    token_id: bytes
    payment_hash: bytes
    amount_msat: int
    model: str = ""

    def __post_init__(self) -> None:
        if len(self.payment_hash) != 32 or len(self.token_id) != 32:
            raise ValueError("payment_hash and token_id must be 32 bytes each")
        if self.amount_msat < 1000 or self.amount_msat % 1000:
            raise ValueError("a charge is in whole satoshis")


def charge_challenge(
    master_key: bytes, service: str, charge: Charge, invoice: str, network: str, expires_at: int
) -> PaymentChallenge:
    """The challenge that asks for `charge`. `expires_at`: Unix seconds, later than the invoice's own end."""
    named = {"network": _NETWORKS[network]} if network in _NETWORKS else {}
    request: Json = {
        "amount": str(charge.amount_msat // 1000),
        "currency": "sat",
        "description": " ".join(filter(None, ["L402", service, charge.model])),
        "externalId": f"{charge.token_id.hex()}/{charge.model}",
        "methodDetails": {"invoice": invoice, "paymentHash": charge.payment_hash.hex(), **named},
    }
    expires = _rfc3339(expires_at)
    return PaymentChallenge.signed(
        _key(master_key), realm=service, method=METHOD, intent="charge", request=request, expires=expires
    )


def verify_charge(credential: PaymentCredential, master_key: bytes, facts: Facts) -> Charge | Refusal:
    """The charge that was paid for, or why this is none of ours, or none for this request."""
    challenge = credential.challenge
    if not challenge.is_signed(_key(master_key)):
        return Refusal(Reason.BAD_SIGNATURE, "the challenge was not made here or was altered; pay for a new one")
    charge = _promised(challenge)
    if not hmac.compare_digest(credential.payment_hash, charge.payment_hash):
        return Refusal(
            Reason.BAD_PREIMAGE, "the preimage is not that of this challenge's invoice; send the one paid for"
        )
    if challenge.realm != facts.service:
        return Refusal(Reason.WRONG_SERVICE, "the payment was for another service; pay for this one")
    if charge.model != (facts.model or ""):
        return Refusal(Reason.WRONG_MODEL, "the payment was for another model; ask that one, or pay for this one")
    if facts.now >= datetime.fromisoformat(challenge.expires).timestamp():
        return Refusal(Reason.EXPIRED, "the challenge has expired; the macaroon beside it is still good")
    return charge


def charge_receipt(challenge_id: str, payment_hash: str, now: int) -> str:
    """The value of `Payment-Receipt`: this challenge was paid by this payment. `now`: Unix seconds."""
    return receipt(challenge_id, METHOD, payment_hash, _rfc3339(now))


def _promised(challenge: PaymentChallenge) -> Charge:
    """From a challenge that is our own."""
    request = challenge.details()
    token_id, _, model = str(request["externalId"]).partition("/")
    details = request["methodDetails"]
    assert isinstance(details, dict)  # noqa: S101
    payment_hash = bytes.fromhex(details["paymentHash"])
    return Charge(bytes.fromhex(token_id), payment_hash, int(str(request["amount"])) * 1000, model)


def _key(master_key: bytes) -> bytes:
    """A key for nothing else; one block of HKDF-Expand, as for tokens."""
    return hmac.digest(master_key, _KEY_INFO, "sha256")


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
