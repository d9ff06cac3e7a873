"""The sums of both sides: what was received is accounted for to the msat."""

from __future__ import annotations

import pytest

from lyceum.accounts import add_up

SOLD = {"credit_msat": 10_000, "spent_msat": 4000, "owed_msat": 2500, "lapsed_msat": 500}
REFUNDS = {"sent_msat": 2990, "fee_msat": 10}
BOUGHT = {"paid_msat": 3000, "fee_msat": 7}


@pytest.mark.parametrize(("node_msat", "unused_msat"), [(10_000, 0), (13_000, 3000), (0, 0)])
def test_what_was_received_is_accounted_for(node_msat: int, unused_msat: int) -> None:
    """Revenue, refunds, their fees, liabilities and what lapsed; a token that was paid and never shown is owed."""
    sums = add_up(SOLD, REFUNDS, BOUGHT, node_msat)
    assert sums["unused_msat"] == unused_msat
    assert sums["received_msat"] == 10_000 + unused_msat
    parts = ("revenue_msat", "refunds_msat", "refund_fees_msat", "liabilities_msat", "lapsed_msat")
    assert sum(sums[part] for part in parts) == sums["received_msat"]
    assert (sums["spending_msat"], sums["spending_fees_msat"]) == (3000, 7)
