"""One challenge as a client reads it that knows both schemes, and the two ways to show what was paid for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lyceum.l402 import Credential, parse_challenge
from lyceum.l402.canonical import canonical, from_base64url, to_base64url
from lyceum.l402.headers import challenges


class Offered:
    """`challenge` and `request`: the parameters of the `Payment` line, and what it asks."""

    def __init__(self, headers: Sequence[Sequence[str]]) -> None:
        lines = [line for name, line in headers if name.lower() == "www-authenticate"]
        self._sold = parse_challenge(lines)
        self.challenge = next(dict(said) for scheme, said in challenges(lines) if scheme == "payment")
        self.request: dict[str, Any] = json.loads(from_base64url(self.challenge["request"]))
        self.invoice: str = self.request["methodDetails"]["invoice"]
        assert self.invoice == self._sold.invoice

    def as_balance(self, preimage: str) -> str:
        return Credential(self._sold.macaroon, bytes.fromhex(preimage)).header()

    def as_payment(self, preimage: str, **changed: str) -> str:
        """As public clients do: the challenge back as it came, and the preimage."""
        said: Any = {"challenge": self.challenge | changed, "payload": {"preimage": preimage}}
        return "Payment " + to_base64url(canonical(said).encode())
