"""The seller: challenge, admit, settle, revoke. One L402 token is one prepaid balance.

Laws: nothing is written before an invoice is paid; a balance is claimed before anything is served;
a charge never exceeds its reservation. Knows no HTTP and no model, only names, limits and msat.
"""

from lyceum.till.challenges import LATE_S
from lyceum.till.terms import Admission, TillTerms
from lyceum.till.till import RESERVATION_S, Till

__all__ = ["LATE_S", "RESERVATION_S", "Admission", "Till", "TillTerms"]
