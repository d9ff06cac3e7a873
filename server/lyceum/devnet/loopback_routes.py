"""The shortest way from payer to payee over channels that can carry the amount; pure.

One payment takes one way: it is not split over several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from lyceum.devnet.loopback_ledger import Hop, Side

Step = tuple[str, int, tuple[Hop, ...]]


def find_route(
    sides: Sequence[Side], fees_msat: Mapping[str, int], payer: str, payee: str, msat: int
) -> tuple[Hop, ...] | None:
    """Hops from payer to payee, each with what it carries; nodes between add their flat fee.

    Searched from the payee backwards, where the amount is known. Empty when paying oneself.
    """
    waiting: deque[Step] = deque([(payee, msat, ())])
    seen = {payee}
    while waiting:
        node, arriving_msat, way = waiting.popleft()
        if node == payer:
            return way
        for sender, hop in _into(sides, node, arriving_msat):
            if sender not in seen:
                seen.add(sender)
                waiting.append((sender, arriving_msat + fees_msat.get(sender, 0), (hop, *way)))
    return None


def _into(sides: Sequence[Side], node: str, msat: int) -> Iterator[tuple[str, Hop]]:
    for side in sides:
        if side.peer_id == node and side.spendable_msat >= msat:
            yield side.node_id, Hop(side.channel, side.node_id, node, msat)
