"""The seller: challenge, admit, settle, top up, give back. One L402 token is one prepaid balance.

Laws: nothing is written before an invoice is paid; a balance is claimed before anything is served;
a charge never exceeds its reservation. Knows no HTTP and no model, only names, limits and msat.
"""

from lyceum.till.challenges import LATE_S
from lyceum.till.counter import Counter
from lyceum.till.refunds import Refunds, RefundTerms
from lyceum.till.terms import Admission, TillTerms
from lyceum.till.till import RESERVATION_S, Till
from lyceum.till.topups import Topups

__all__ = [
    "LATE_S",
    "RESERVATION_S",
    "Admission",
    "Counter",
    "RefundTerms",
    "Refunds",
    "Till",
    "TillTerms",
    "Topups",
]
