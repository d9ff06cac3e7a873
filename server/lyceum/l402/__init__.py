"""L402: pay a Lightning invoice, get in.

A server answers 402 with a macaroon and an invoice; the macaroon's identifier contains the
invoice's payment hash. Paying reveals the preimage of that hash, and macaroon and preimage together
are the credential. The server needs no memory to check it: the preimage hashes to what the
identifier says, the macaroon's chain of HMACs starts from a key that only the server can derive,
and every caveat allows the request. A holder may add caveats, which only ever narrow.

The scheme `Payment` asks for the same invoice in other words: its challenge is signed rather than
handed out, comes back whole, and buys one answer instead of a balance.

Laws of this package:

1. No I/O: no sockets, files, clock or randomness; no prices, no models. Facts come from the caller.
2. Constructors raise ValueError, our mistake; decoders raise Malformed, theirs, and nothing else.
   Two different credentials in one request are the one exception: Ambiguous.
3. What is unknown is refused; adding a caveat to a token never turns a no into a yes.
4. No message and no `repr` shows a macaroon or a preimage.
"""

from lyceum.l402 import caveats
from lyceum.l402.caveats import Caveat
from lyceum.l402.challenge import Challenge, parse_challenge
from lyceum.l402.charge import Charge, charge_challenge, charge_receipt
from lyceum.l402.conditions import Facts, check
from lyceum.l402.credential import Credential, parse_authorization, parse_metadata
from lyceum.l402.headers import MAX_HEADER_BYTES
from lyceum.l402.identifier import Identifier
from lyceum.l402.macaroon import (
    Macaroon,
    attenuate,
    challenge_macaroon,
    mint,
    parse,
    token_key,
    verify_signature,
)
from lyceum.l402.payment import PaymentChallenge, PaymentCredential, problem_type
from lyceum.l402.refusal import Ambiguous, Malformed, Reason, Refusal
from lyceum.l402.verify import Once, Verified, verify

__all__ = [
    "MAX_HEADER_BYTES",
    "Ambiguous",
    "Caveat",
    "Challenge",
    "Charge",
    "Credential",
    "Facts",
    "Identifier",
    "Macaroon",
    "Malformed",
    "Once",
    "PaymentChallenge",
    "PaymentCredential",
    "Reason",
    "Refusal",
    "Verified",
    "attenuate",
    "caveats",
    "challenge_macaroon",
    "charge_challenge",
    "charge_receipt",
    "check",
    "mint",
    "parse",
    "parse_authorization",
    "parse_challenge",
    "parse_metadata",
    "problem_type",
    "token_key",
    "verify",
    "verify_signature",
]
