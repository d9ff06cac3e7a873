"""BOLT11 invoices: made, really signed by the node's key, and read with their signature checked.

Pure: the clock and the secrets come from the caller. Knows no ledger.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import bech32
import bolt11
from bolt11.models.features import Feature, FeatureExtra, Features, FeatureState
from bolt11.models.tags import Tag, TagChar, Tags
from coincurve import PrivateKey
from coincurve.ecdsa import cdata_to_der, deserialize_recoverable, recoverable_convert

CURRENCY = "bcrt"
MIN_FINAL_CLTV = 10
UNWRITTEN_EXPIRY_SECONDS = 3600
"""BOLT11's own default, which lightningd leaves out."""
DEFAULT_EXPIRY_SECONDS = 604_800
URI = "lightning:"
SIGNATURE_GROUPS = 104
"""64 bytes and one, in groups of five bits."""

FEATURES: dict[Feature | FeatureExtra, FeatureState] = {
    Feature.var_onion_optin: FeatureState.required,
    Feature.payment_secret: FeatureState.required,
    Feature.basic_mpp: FeatureState.supported,
}


class BadBolt11(ValueError):
    """The text is no BOLT11 invoice; the message is lightningd's."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What the payee decides; hashes and secrets are hex. No amount means the payer chooses."""

    amount_msat: int | None
    payment_hash: str
    payment_secret: str
    description: str
    created_at: int
    expiry: int
    cltv: int = MIN_FINAL_CLTV
    hash_description: bool = False


@dataclass(frozen=True, slots=True)
class Bolt11:
    """An invoice as read. `fields` is what `decode` shows of it."""

    bolt11: str
    currency: str
    payee: str
    payment_hash: str
    payment_secret: str
    amount_msat: int | None
    description: str | None
    expires_at: int
    fields: dict[str, Any]


def make(draft: Draft, key: bytes) -> str:
    """The signed invoice text."""
    if draft.hash_description:
        about = Tag(TagChar.description_hash, hashlib.sha256(draft.description.encode()).hexdigest())
    else:
        about = Tag(TagChar.description, draft.description)
    tags = [
        Tag(TagChar.payment_secret, draft.payment_secret),
        Tag(TagChar.payment_hash, draft.payment_hash),
        about,
        *([] if draft.expiry == UNWRITTEN_EXPIRY_SECONDS else [Tag(TagChar.expire_time, draft.expiry)]),
        Tag(TagChar.min_final_cltv_expiry, draft.cltv),
        Tag(TagChar.features, Features.from_feature_list(FEATURES)),
    ]
    amount_msat = None if draft.amount_msat is None else bolt11.MilliSatoshi(draft.amount_msat)
    invoice = bolt11.Bolt11(CURRENCY, draft.created_at, Tags(tags), amount_msat)
    return str(bolt11.encode(invoice, key.hex()))


def sign(unsigned: str, key: bytes) -> str:
    """The same invoice with the node's signature in place of what stood there. Raises BadBolt11."""
    human, data = bech32.bech32_decode(unsigned)
    if human is None or data is None or len(data) <= SIGNATURE_GROUPS:
        raise BadBolt11("Bad bech32 string")
    signed = data[:-SIGNATURE_GROUPS]
    message = human.encode() + bytes(bech32.convertbits(signed, 5, 8) or ())
    signature = bech32.convertbits(PrivateKey(key).sign_recoverable(message), 8, 5) or []
    return bech32.bech32_encode(human, signed + signature)


def read(text: str) -> Bolt11:
    """Any network's invoice. Raises BadBolt11."""
    plain = text.lower().removeprefix(URI)
    if not plain.startswith("ln"):
        raise BadBolt11("Bad bech32 string")
    try:
        found = bolt11.decode(plain)
    except Exception as problem:  # the library lets bech32's, bitstring's and coincurve's errors through
        raise BadBolt11("Bad bech32 string") from problem
    amount_msat = None if found.amount_msat is None else int(found.amount_msat)
    return Bolt11(
        plain,
        found.currency,
        str(found.payee),
        found.payment_hash,
        str(found.payment_secret),
        amount_msat,
        found.description,
        found.date + found.expiry,
        _fields(found, amount_msat),
    )


def _fields(found: Any, amount_msat: int | None) -> dict[str, Any]:
    optional = {
        "amount_msat": amount_msat,
        "description": found.description,
        "description_hash": found.description_hash,
        "features": found.features and _feature_hex(found.features),
        "payment_metadata": found.metadata,
    }
    return {
        "currency": found.currency,
        "created_at": found.date,
        "expiry": found.expiry,
        "payee": found.payee,
        "min_final_cltv_expiry": found.min_final_cltv_expiry,
        "payment_secret": found.payment_secret,
        "payment_hash": found.payment_hash,
        "signature": _der_hex(found.signature.signature_data),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _feature_hex(features: Features) -> str:
    bits = int(features.data.uint)
    return bits.to_bytes((bits.bit_length() + 7) // 8, "big").hex()


def _der_hex(signature: bytes) -> str:
    der: bytes = cdata_to_der(recoverable_convert(deserialize_recoverable(signature)))
    return der.hex()
