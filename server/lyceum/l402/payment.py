"""The `Payment` scheme (draft-httpauth-payment-01): a challenge that needs no memory, and what is shown for it.

The id of a challenge is an HMAC over all that it says, so whoever holds the key knows its own again.
It must not know what is paid for, nor how; that is for the intents, of which `charge` is one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from lyceum.l402.canonical import Json, canonical, from_base64url, to_base64url
from lyceum.l402.refusal import Reason, reading

# RFC 9110, 5.6.4: a tab and anything from space on may stand in quotes.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class PaymentChallenge:
    """`request` and `opaque` are base64url of JSON, `expires` is RFC 3339; what may be absent is empty."""

    id: str
    realm: str
    method: str
    intent: str
    request: str
    expires: str = ""
    digest: str = ""
    description: str = ""
    opaque: str = ""

    def __post_init__(self) -> None:
        if not all((self.id, self.realm, self.method, self.intent, self.request)):
            raise ValueError("it needs id, realm, method, intent and request")
        if any(_CONTROL.search(value) for value in asdict(self).values()):
            raise ValueError("it holds a control character")

    @classmethod
    def signed(
        cls, key: bytes, *, realm: str, method: str, intent: str, request: Json, expires: str = ""
    ) -> PaymentChallenge:
        """A challenge of our own, whose id only `key` can make."""
        encoded = to_base64url(canonical(request).encode())
        made = challenge_id(key, (realm, method, intent, encoded, expires, "", ""))
        return cls(made, realm, method, intent, encoded, expires)

    @classmethod
    def read(cls, found: Mapping[str, object]) -> PaymentChallenge:
        """From the parameters of a header or the members of a credential; others are passed over."""
        with reading("the Payment challenge"):
            values = [found.get(each.name, "") for each in fields(cls)]
            if not all(isinstance(value, str) for value in values):
                raise ValueError("its members are texts")
            return cls(*map(str, values))

    def header_line(self) -> str:
        given = ((name, value) for name, value in asdict(self).items() if value)
        return "Payment " + ", ".join(f'{name}="{_escaped(value)}"' for name, value in given)

    def is_signed(self, key: bytes) -> bool:
        slots = (self.realm, self.method, self.intent, self.request, self.expires, self.digest, self.opaque)
        try:
            return hmac.compare_digest(challenge_id(key, slots).encode(), self.id.encode())
        except ValueError:
            return False

    def details(self) -> dict[str, object]:
        """What `request` says; whoever trusts it has asked `is_signed` first."""
        with reading("the request of the Payment challenge"):
            return _object(from_base64url(self.request))


@dataclass(frozen=True, slots=True)
class PaymentCredential:
    """The challenge as it was given, and the preimage that paying revealed. Possession is everything."""

    challenge: PaymentChallenge
    preimage: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.preimage) != 32:
            raise ValueError("a preimage has 32 bytes")

    @classmethod
    def decode(cls, text: str) -> PaymentCredential:
        with reading("the Payment credential"):
            found = _object(from_base64url(text))
            challenge, payload = found.get("challenge"), found.get("payload")
            if not isinstance(challenge, dict) or not isinstance(payload, dict):
                raise ValueError("it needs a challenge and a payload")
            return cls(PaymentChallenge.read(challenge), _preimage(payload.get("preimage")))

    @property
    def payment_hash(self) -> bytes:
        return hashlib.sha256(self.preimage).digest()


def challenge_id(key: bytes, slots: Sequence[str]) -> str:
    """The HMAC over realm, method, intent, request, expires, digest and opaque, joined by `|`.

    Nothing escapes the `|`, so slots that hold one are refused: two challenges would have one id.
    """
    if any("|" in slot for slot in slots):
        raise ValueError("a slot of a Payment challenge may not hold `|`")
    return to_base64url(hmac.digest(key, "|".join(slots).encode(), "sha256"))


def receipt(challenge_id: str, method: str, reference: str, timestamp: str) -> str:
    """The value of `Payment-Receipt`; `reference` is the payment hash, never the preimage."""
    said = {"challengeId": challenge_id, "method": method, "reference": reference, "status": "success"}
    return to_base64url(canonical({**said, "timestamp": timestamp}).encode())


def problem_type(reason: Reason) -> str:
    """The scheme's own name for a refusal: a URI, the `type` of an RFC 9457 problem."""
    return "https://paymentauth.org/problems/" + _PROBLEMS.get(reason, "verification-failed")


_PROBLEMS = {
    Reason.PAYMENT_REQUIRED: "payment-required",
    Reason.MALFORMED: "malformed-credential",
    Reason.EXPIRED: "payment-expired",
    Reason.EXHAUSTED: "payment-insufficient",
    Reason.ALREADY_USED: "invalid-challenge",
    Reason.BAD_SIGNATURE: "lightning/unknown-challenge",
    Reason.BAD_PREIMAGE: "lightning/invalid-preimage",
}


def _preimage(value: object) -> bytes:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ValueError("its preimage is not 64 hex digits")
    return bytes.fromhex(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _object(raw: bytes) -> dict[str, object]:
    try:
        found = json.loads(raw)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found
