"""A node's key and what lightningd makes with it: the node id, derived secrets, signed messages.

Pure but for `load`, which keeps the key in a file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from coincurve import PrivateKey, PublicKey

ZBASE32 = "ybndrfg8ejkmcpqxot1uwisza345h769"
RECOVERY_BASE = 31
"""lnd's header byte for a recoverable signature under a compressed key; lightningd writes the same."""


def zbase32_encode(data: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in data)
    padded = bits + "0" * (-len(bits) % 5)
    return "".join(ZBASE32[int(padded[at : at + 5], 2)] for at in range(0, len(padded), 5))


def zbase32_decode(text: str) -> bytes:
    """Raises ValueError for a letter outside the alphabet."""
    bits = "".join(f"{ZBASE32.index(letter):05b}" for letter in text)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


def message_digest(message: str) -> bytes:
    framed = b"Lightning Signed Message:" + message.encode()
    return hashlib.sha256(hashlib.sha256(framed).digest()).digest()


def recover(message: str, zbase: str) -> str:
    """The node id that signed `message`; ValueError when `zbase` is no signature."""
    signature = zbase32_decode(zbase)
    if len(signature) != 65 or not RECOVERY_BASE <= signature[0] <= RECOVERY_BASE + 3:
        raise ValueError("zbase is not valid zbase32")
    recoverable = signature[1:] + bytes([signature[0] - RECOVERY_BASE])
    try:
        key = PublicKey.from_signature_and_message(recoverable, message_digest(message), hasher=None)
    except Exception as problem:  # coincurve raises bare Exception
        raise ValueError("zbase is not a signature") from problem
    return key.format().hex()


@dataclass(frozen=True, slots=True)
class NodeKey:
    secret: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> NodeKey:
        """The key in the file, made and written on first use."""
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        return cls(path.read_bytes())

    @property
    def node_id(self) -> str:
        return PublicKey.from_secret(self.secret).format().hex()

    def derive(self, data: bytes) -> bytes:
        """`makesecret`: the same 32 bytes for the same data, on this node only."""
        return hmac.new(self.secret, b"makesecret" + data, hashlib.sha256).digest()

    def sign(self, message: str) -> tuple[bytes, int]:
        """Signature (r and s) and recovery id over the digest of a Lightning signed message."""
        signature = PrivateKey(self.secret).sign_recoverable(message_digest(message), hasher=None)
        return signature[:64], signature[64]


def zbase(signature: bytes, recovery_id: int) -> str:
    return zbase32_encode(bytes([RECOVERY_BASE + recovery_id]) + signature)
