"""What an answer should cost, from the text that its buyer holds and the price list that it saw before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lyceum.ports import Ask, Bill, Delta, Offer, Usage


@dataclass(slots=True)
class Reckoning:
    """Counts an answer while it comes. Tokens are the seller's word; characters are not."""

    offer: Offer
    ask: Ask
    written: int = 0
    outside: bool = False

    def hear(self, delta: Delta) -> None:
        self.written += len(delta.text)
        self.outside = self.outside or delta.outside

    def counted(self, told: Usage) -> Usage:
        """What was read and written; nothing of an answer that only says that this is not its field."""
        if self.outside:
            return Usage()
        return replace(told, input_chars=self.ask.input_chars, output_chars=self.written)

    def due_msat(self, told: Usage) -> int:
        return self.offer.price.cost_msat(self.counted(told))

    def complaint(self, bill: Bill, told: Usage) -> str:
        """What is wrong with the bill of this answer, in a sentence; empty when nothing is."""
        due_msat = self.due_msat(told)
        if bill.charged_msat > due_msat:
            return f"it charged {bill.charged_msat} msat for an answer that costs {due_msat} by its price list"
        return bill.complaint(self.offer.price, self.counted(told))
