"""SQLite as the node's books: one file in the lightning-dir, one short transaction a method.

Its books share it: what was sold (tokens, reservations), what was bought (purchases), on what it was spent
(deliveries). Every
commit reaches the disk before a method returns. Knows no HTTP, no model, no Lightning call.
"""

from lyceum.ledger.bill_book import BillBook
from lyceum.ledger.database import Database
from lyceum.ledger.purse_book import PurseBook
from lyceum.ledger.schema import SCHEMA
from lyceum.ledger.till_book import TillBook

__all__ = ["SCHEMA", "BillBook", "Database", "PurseBook", "TillBook"]
