"""Revenue, spending, refunds and liabilities, from the sums of the books and of the node. Pure."""

from __future__ import annotations

from collections.abc import Mapping

Sums = Mapping[str, int]


def add_up(sold: Sums, refunds: Sums, bought: Sums, node_received_msat: int) -> dict[str, int]:
    """All in msat. `received` is revenue, refunds with their fees, liabilities and what lapsed, exactly.

    `node_received_msat` is what the node's invoices of ours were paid, so that `unused`, tokens that were
    paid and never shown, are known: the books hear of a token at its first use. Where the node has
    forgotten paid invoices (autoclean) they cannot be, and count nothing.
    """
    unused_msat = max(0, node_received_msat - sold["credit_msat"])
    return {
        "received_msat": sold["credit_msat"] + unused_msat,
        "revenue_msat": sold["spent_msat"],
        "refunds_msat": refunds["sent_msat"],
        "refund_fees_msat": refunds["fee_msat"],
        "liabilities_msat": sold["owed_msat"] + unused_msat,
        "unused_msat": unused_msat,
        "lapsed_msat": sold["lapsed_msat"],
        "spending_msat": bought["paid_msat"],
        "spending_fees_msat": bought["fee_msat"],
    }
