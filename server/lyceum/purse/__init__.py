"""The buyer: check, journal, pay once, keep what was bought.

Laws: every check comes before the journal, the journal before the wallet, and the row that journals a
payment reserves it in every budget at once; one payment hash is paid at most once; an unknown outcome
counts as spent until the node says otherwise; who overcharged gets nothing more. Knows no HTTP.
"""

from lyceum.purse.bills import Bills
from lyceum.purse.limits import PurseLimits
from lyceum.purse.payer import PursePayer
from lyceum.purse.purse import LONGEST_PAYMENT_S, WINDING_UP_S, Purse

__all__ = ["LONGEST_PAYMENT_S", "WINDING_UP_S", "Bills", "Purse", "PurseLimits", "PursePayer"]
