"""What an answer should cost, from the text that its buyer holds and the price list that it saw before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lyceum.ports import Ask, Bill, Delta, Offer, Price, Usage
from lyceum.router import first_payment_msat


@dataclass(slots=True)
class Reckoning:
    """Counts an answer while it comes. Tokens are the seller's word; characters are not.

    `quoted` is the price in the 402 that this request was answered with first, if it was.
    """

    offer: Offer
    ask: Ask
    written: int = 0
    outside: bool = False
    quoted: Price | None = None

    @property
    def price(self) -> Price:
        """The last one that was shown before the answer: a quote counts if it leads to no dearer first payment."""
        if self.quoted is None:
            return self.offer.price
        worst_msat = self.quoted.cost_msat(self.offer.worst_case(self.ask))
        return self.quoted if worst_msat <= first_payment_msat(self.offer, self.ask) else self.offer.price

    def hear(self, delta: Delta) -> None:
        self.written += len(delta.text)
        self.outside = self.outside or delta.outside

    def counted(self, told: Usage) -> Usage:
        """What was read and written; nothing of an answer that only says that this is not its field."""
        if self.outside:
            return Usage()
        return replace(told, input_chars=self.ask.input_chars, output_chars=self.written)

    def due_msat(self, told: Usage) -> int:
        return self.price.cost_msat(self.counted(told))

    def complaint(self, bill: Bill, told: Usage) -> str:
        """What is wrong with the bill of this answer, in a sentence; empty when nothing is."""
        due_msat = self.due_msat(told)
        if bill.charged_msat > due_msat:
            return f"it charged {bill.charged_msat} msat for an answer that costs {due_msat} by the price it showed"
        return bill.complaint(self.price, self.counted(told))
