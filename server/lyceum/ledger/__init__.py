"""SQLite as the node's books: one file in the lightning-dir, one short transaction a method.

Its books: what was sold (tokens, reservations), what was added to it (top-ups) and given back
(refunds); what was bought (purchases), and on what it was spent (deliveries). Every commit reaches the
disk before a method returns. Knows no HTTP, no model, no Lightning call.
"""

from lyceum.ledger.bill_book import BillBook
from lyceum.ledger.database import Database
from lyceum.ledger.freebie_book import FreebieBook
from lyceum.ledger.journal import Journal
from lyceum.ledger.purse_book import PurseBook
from lyceum.ledger.refund_book import RefundBook
from lyceum.ledger.schema import SCHEMA
from lyceum.ledger.till_book import TillBook
from lyceum.ledger.topup_book import TopupBook

__all__ = [
    "SCHEMA",
    "BillBook",
    "Database",
    "FreebieBook",
    "Journal",
    "PurseBook",
    "RefundBook",
    "TillBook",
    "TopupBook",
]
