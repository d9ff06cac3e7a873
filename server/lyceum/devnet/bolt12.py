"""BOLT12 offers and the invoices made from them: written, really signed, and read with their signature checked.

An invoice here holds no blinded path: on a loopback network the payee is found by its node id, and the
payment hash stands for the secret that a path would carry.
Pure: the clock and the secrets come from the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coincurve import PrivateKey, PublicKeyXOnly

from lyceum.devnet.invoices import CURRENCY, BadBolt11, Bolt11

LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
OFFER, INVOICE = "lno", "lni"
REGTEST = "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"
EXPIRY_SECONDS = 7200

Fields = Mapping[int, bytes]


class T:
    """Types of the TLV records that are written or read here (BOLT12)."""

    METADATA = 0
    CHAINS = 2
    AMOUNT = 8
    DESCRIPTION = 10
    EXPIRY = 14
    ISSUER_ID = 22
    INVREQ_CHAIN = 80
    INVREQ_AMOUNT = 82
    PAYER_ID = 88
    CREATED_AT = 164
    RELATIVE_EXPIRY = 166
    PAYMENT_HASH = 168
    INVOICE_AMOUNT = 170
    NODE_ID = 176
    SIGNATURE = 240


SHOWN: Mapping[int, tuple[str, str]] = {
    T.METADATA: ("invreq_metadata", "hex"),
    T.CHAINS: ("offer_chains", "hashes"),
    T.AMOUNT: ("offer_amount_msat", "number"),
    T.DESCRIPTION: ("offer_description", "text"),
    T.EXPIRY: ("offer_absolute_expiry", "number"),
    T.ISSUER_ID: ("offer_issuer_id", "hex"),
    T.INVREQ_CHAIN: ("invreq_chain", "hex"),
    T.INVREQ_AMOUNT: ("invreq_amount_msat", "number"),
    T.PAYER_ID: ("invreq_payer_id", "hex"),
    T.CREATED_AT: ("invoice_created_at", "number"),
    T.RELATIVE_EXPIRY: ("invoice_relative_expiry", "number"),
    T.PAYMENT_HASH: ("invoice_payment_hash", "hex"),
    T.INVOICE_AMOUNT: ("invoice_amount_msat", "number"),
    T.NODE_ID: ("invoice_node_id", "hex"),
    T.SIGNATURE: ("signature", "hex"),
}
"""What `decode` calls each record, and how it shows it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer as read. No amount means that the payer chooses; `expires_at` None is never.

    `offer_id` is lightningd's: the SHA-256 of the records.
    """

    text: str
    offer_id: str
    issuer_id: str
    chains: tuple[str, ...]
    amount_msat: int | None
    description: str
    expires_at: int | None
    records: Fields

    @property
    def fields(self) -> dict[str, Any]:
        """What `decode` shows of it."""
        return {"type": "bolt12 offer", "offer_id": self.offer_id, **_shown(self.records), "valid": True}


@dataclass(frozen=True, slots=True)
class Request:
    """What a payer asks of the node that made an offer; all hex but the amount."""

    amount_msat: int
    payer_id: str
    metadata: str


def make_offer(issuer_id: str, amount_msat: int | None, description: str, expires_at: int | None) -> Offer:
    records = {T.CHAINS: bytes.fromhex(REGTEST)}
    if amount_msat is not None:
        records[T.AMOUNT] = _truncated(amount_msat)
    if description:
        records[T.DESCRIPTION] = description.encode()
    if expires_at is not None:
        records[T.EXPIRY] = _truncated(expires_at)
    records[T.ISSUER_ID] = bytes.fromhex(issuer_id)
    return read_offer(_text(OFFER, records))


def read_offer(text: str) -> Offer:
    """Any network's offer. Raises BadBolt11."""
    plain, records = _read(OFFER, text)
    if T.ISSUER_ID not in records:
        raise BadBolt11("Offer has no issuer_id")
    return Offer(
        plain,
        hashlib.sha256(_stream(records)).hexdigest(),
        records[T.ISSUER_ID].hex(),
        tuple(_hashes(records[T.CHAINS])) if T.CHAINS in records else (),
        int.from_bytes(records[T.AMOUNT], "big") if T.AMOUNT in records else None,
        records.get(T.DESCRIPTION, b"").decode(),
        int.from_bytes(records[T.EXPIRY], "big") if T.EXPIRY in records else None,
        records,
    )


def make_invoice(offer: Offer, request: Request, payment_hash: str, created_at: int, key: bytes) -> str:
    """The signed text of the invoice that the offer's node answers with."""
    records = {
        T.METADATA: bytes.fromhex(request.metadata),
        **offer.records,
        T.INVREQ_CHAIN: bytes.fromhex(REGTEST),
        T.INVREQ_AMOUNT: _truncated(request.amount_msat),
        T.PAYER_ID: bytes.fromhex(request.payer_id),
        T.CREATED_AT: _truncated(created_at),
        T.RELATIVE_EXPIRY: _truncated(EXPIRY_SECONDS),
        T.PAYMENT_HASH: bytes.fromhex(payment_hash),
        T.INVOICE_AMOUNT: _truncated(request.amount_msat),
        T.NODE_ID: bytes.fromhex(offer.issuer_id),
    }
    signature = PrivateKey(key).sign_schnorr(_signed(records))
    return _text(INVOICE, {**records, T.SIGNATURE: signature})


def read_invoice(text: str) -> Bolt11:
    """An invoice for regtest. Raises BadBolt11, also for a wrong signature."""
    plain, records = _read(INVOICE, text)
    try:
        _check_signature(records)
        created_at = int.from_bytes(records[T.CREATED_AT], "big")
        expiry = int.from_bytes(records[T.RELATIVE_EXPIRY], "big") if T.RELATIVE_EXPIRY in records else EXPIRY_SECONDS
        return Bolt11(
            plain,
            CURRENCY if records[T.INVREQ_CHAIN].hex() == REGTEST else "another network",
            records[T.NODE_ID].hex(),
            records[T.PAYMENT_HASH].hex(),
            records[T.PAYMENT_HASH].hex(),
            int.from_bytes(records[T.INVOICE_AMOUNT], "big"),
            records.get(T.DESCRIPTION, b"").decode(),
            created_at + expiry,
            _shown(records),
        )
    except KeyError as missing:
        raise BadBolt11(f"the invoice has no record {missing}") from None


def described(text: str) -> dict[str, Any]:
    """What `decode` shows of an offer or an invoice. Raises BadBolt11."""
    if text.startswith(f"{OFFER}1"):
        return read_offer(text).fields
    return {"type": "bolt12 invoice", **read_invoice(text).fields, "valid": True}


def name_of(text: str) -> str:
    """Under which name lightningd lists the text of an invoice."""
    return "bolt12" if text.startswith(f"{INVOICE}1") else "bolt11"


def _check_signature(records: Fields) -> None:
    unsigned = {kind: value for kind, value in records.items() if kind != T.SIGNATURE}
    try:
        signer = PublicKeyXOnly(records[T.NODE_ID][1:])
        good = signer.verify(records[T.SIGNATURE], _signed(unsigned))
    except ValueError:
        good = False
    if not good:
        raise BadBolt11("Invalid signature")


def _signed(records: Fields) -> bytes:
    return _tagged(b"lightninginvoicesignature", _merkle_root(records))


# BOLT12, signature calculation


def _merkle_root(records: Fields) -> bytes:
    written = [(kind, _record(kind, records[kind])) for kind in sorted(records)]
    nonce = b"LnNonce" + written[0][1]
    nodes = [_branch(_tagged(b"LnLeaf", raw), _tagged(nonce, _bigsize(kind))) for kind, raw in written]
    while len(nodes) > 1:
        pairs = [_branch(*nodes[at : at + 2]) for at in range(0, len(nodes) - 1, 2)]
        nodes = pairs + nodes[len(pairs) * 2 :]
    return nodes[0]


def _branch(one: bytes, other: bytes) -> bytes:
    return _tagged(b"LnBranch", min(one, other) + max(one, other))


def _tagged(tag: bytes, message: bytes) -> bytes:
    hashed = hashlib.sha256(tag).digest()
    return hashlib.sha256(hashed + hashed + message).digest()


# TLV records in letters of five bits, without a checksum


def _text(prefix: str, records: Fields) -> str:
    bits = "".join(f"{byte:08b}" for byte in _stream(records))
    bits += "0" * (-len(bits) % 5)
    return f"{prefix}1" + "".join(LETTERS[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def _read(prefix: str, text: str) -> tuple[str, dict[int, bytes]]:
    plain = text.lower()
    if not plain.startswith(f"{prefix}1"):
        raise BadBolt11(f"not a text that begins with {prefix}1")
    try:
        bits = "".join(f"{LETTERS.index(letter):05b}" for letter in plain[len(prefix) + 1 :])
        raw = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))
        records = dict(_records(raw))
    except (ValueError, IndexError):
        raise BadBolt11("invalid bech32 string") from None
    if list(records) != sorted(records) or not records:
        raise BadBolt11("invalid bech32 string")
    return plain, records


def _records(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(raw):
        kind, at = _read_bigsize(raw, at)
        size, at = _read_bigsize(raw, at)
        if at + size > len(raw):
            raise ValueError("a record is cut off")
        yield kind, raw[at : at + size]
        at += size


def _stream(records: Fields) -> bytes:
    return b"".join(_record(kind, records[kind]) for kind in sorted(records))


def _record(kind: int, value: bytes) -> bytes:
    return _bigsize(kind) + _bigsize(len(value)) + value


def _bigsize(number: int) -> bytes:
    if number < 0xFD:
        return bytes([number])
    return b"\xfd" + number.to_bytes(2, "big")


def _read_bigsize(raw: bytes, at: int) -> tuple[int, int]:
    if raw[at] < 0xFD:
        return raw[at], at + 1
    size = {0xFD: 2, 0xFE: 4, 0xFF: 8}[raw[at]]
    return int.from_bytes(raw[at + 1 : at + 1 + size], "big"), at + 1 + size


def _truncated(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _hashes(raw: bytes) -> Sequence[str]:
    return [raw[at : at + 32].hex() for at in range(0, len(raw), 32)]


def _shown(records: Fields) -> dict[str, Any]:
    return {SHOWN[kind][0]: _show(SHOWN[kind][1], value) for kind, value in records.items() if kind in SHOWN}


def _show(how: str, value: bytes) -> Any:
    if how == "number":
        return int.from_bytes(value, "big")
    if how == "text":
        return value.decode()
    return _hashes(value) if how == "hashes" else value.hex()
