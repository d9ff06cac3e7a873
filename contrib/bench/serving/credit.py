"""A buyer, a seller and a token with more on it than a benchmark can use."""

from __future__ import annotations

from lyceum.demo import plugin_path
from lyceum.devnet import Devnet, Node
from lyceum.node import call

SERVICE = "lyceum"
CREDIT_MSAT = 500_000_000
CHANNEL_MSAT = 1_000_000_000
BUDGETS = ("max-payment", "budget-hour", "budget-day", "budget-peer")
UNLIMITED = {"lyceum-challenges-per-minute": 100_000, "lyceum-open-challenges": 100_000}


def buyer_and_seller(devnet: Devnet) -> tuple[Node, Node]:
    budgets = {f"lyceum-{name}-msat": 2 * CREDIT_MSAT for name in BUDGETS}
    buyer = devnet.node("buyer", plugin=plugin_path(), options=budgets)
    seller = devnet.node("seller", plugin=plugin_path(), options=UNLIMITED)
    devnet.connect(buyer, seller, CHANNEL_MSAT)
    return buyer, seller


def buy(buyer: Node, seller: Node) -> str:
    """The `Authorization` line of a token that holds CREDIT_MSAT."""
    declined = call(seller.rpc, "l402-admit", {"service": SERVICE, "amount_msat": CREDIT_MSAT})["declined"]
    challenge = next(line for _, line in declined["headers"] if line.startswith("L402 "))
    paying = {"challenge": challenge, "origin": "bench", "cap_msat": CREDIT_MSAT}
    return str(call(buyer.rpc, "l402-pay", paying)["ticket"]["authorization"])
