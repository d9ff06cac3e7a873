"""What is written down: the till's side, the purse's, and both as one journal. Knows no SQL."""

from lyceum.books.bought import BillLedger, BillLine, Budget, Purchase, PurseLedger, Scope, Shortfall
from lyceum.books.journal import JournalLedger, Posting
from lyceum.books.sold import (
    Answer,
    FreebieLedger,
    Held,
    Payout,
    Refund,
    RefundLedger,
    RefundState,
    TillLedger,
    Token,
    Topup,
    TopupLedger,
)

__all__ = [
    "Answer",
    "BillLedger",
    "BillLine",
    "Budget",
    "FreebieLedger",
    "Held",
    "JournalLedger",
    "Payout",
    "Posting",
    "Purchase",
    "PurseLedger",
    "Refund",
    "RefundLedger",
    "RefundState",
    "Scope",
    "Shortfall",
    "TillLedger",
    "Token",
    "Topup",
    "TopupLedger",
]
