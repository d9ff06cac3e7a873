"""The values that rooms exchange and the protocols they meet through; no implementation, no I/O.

Frozen values check themselves on construction, so a wrong one cannot exist.
"""

from lyceum.ports.asks import (
    MOST_TOP_K,
    RANGES,
    Ask,
    Candidate,
    Choice,
    Chunk,
    Citation,
    Delta,
    End,
    Finish,
    Kind,
    Member,
    Message,
    Role,
    Use,
)
from lyceum.ports.gate import Admitted, Declined, Entry, Gate, Headers, Holders, SaleTerms, Settlement
from lyceum.ports.offers import Embedder, Embeddings, Limits, Model, Offer, Standing, TextBatch, Watched
from lyceum.ports.payer import Delivery, Payer, Terms, Ticket, Wanted
from lyceum.ports.prices import CHARS_PER_TOKEN, Bill, Price, Unit, Usage
from lyceum.ports.wallet import Address, Invoice, Outcome, Payment, Wallet

__all__ = [
    "CHARS_PER_TOKEN",
    "MOST_TOP_K",
    "RANGES",
    "Address",
    "Admitted",
    "Ask",
    "Bill",
    "Candidate",
    "Choice",
    "Chunk",
    "Citation",
    "Declined",
    "Delivery",
    "Delta",
    "Embedder",
    "Embeddings",
    "End",
    "Entry",
    "Finish",
    "Gate",
    "Headers",
    "Holders",
    "Invoice",
    "Kind",
    "Limits",
    "Member",
    "Message",
    "Model",
    "Offer",
    "Outcome",
    "Payer",
    "Payment",
    "Price",
    "Role",
    "SaleTerms",
    "Settlement",
    "Standing",
    "Terms",
    "TextBatch",
    "Ticket",
    "Unit",
    "Usage",
    "Use",
    "Wallet",
    "Wanted",
    "Watched",
]
