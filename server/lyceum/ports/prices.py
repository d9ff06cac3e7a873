"""What is counted, what it costs, and the bill that says both."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from lyceum.money import ceil_div, check_msat
from lyceum.tariff import share_msat

CHARS_PER_TOKEN = 6
"""Characters that one token is reckoned at when a worst case is reserved; English needs about 4.5."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was read and written, in tokens and in Unicode characters."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_chars: int = 0
    output_chars: int = 0

    def shortened(self, tokens: int) -> Usage:
        """The same with an answer of at most so many tokens."""
        chars = min(self.output_chars, tokens * CHARS_PER_TOKEN)
        return replace(self, output_tokens=min(self.output_tokens, tokens), output_chars=chars)


class Unit(enum.StrEnum):
    """What a price counts. A buyer can recount characters from the text it holds."""

    CHAR = "char"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Price:
    """msat per answer, and per 1,000 units read and written; the total is rounded up once."""

    base_msat: int = 0
    input_per_1k_msat: int = 0
    output_per_1k_msat: int = 0
    unit: Unit = Unit.CHAR

    def __post_init__(self) -> None:
        check_msat("base_msat", self.base_msat)
        check_msat("input_per_1k_msat", self.input_per_1k_msat)
        check_msat("output_per_1k_msat", self.output_per_1k_msat)

    def at(self, percent: int) -> Price:
        """So many percent of this price, each part rounded up."""
        return Price(
            share_msat(self.base_msat, percent),
            share_msat(self.input_per_1k_msat, percent),
            share_msat(self.output_per_1k_msat, percent),
            self.unit,
        )

    def cost_msat(self, usage: Usage) -> int:
        """Nothing for an empty answer; else base plus what was read and written."""
        read, written = self.units(usage)
        return self.total_msat(read, written) if written else 0

    def reading_msat(self, usage: Usage) -> int:
        """What reading alone costs: embeddings write nothing that is metered."""
        return self.total_msat(self.units(usage)[0], 0)

    def units(self, usage: Usage) -> tuple[int, int]:
        """What was read and written, in the unit of this price."""
        if self.unit is Unit.CHAR:
            return usage.input_chars, usage.output_chars
        return usage.input_tokens, usage.output_tokens

    def most_written(self, read: int, amount_msat: int) -> int | None:
        """How many units may be written, after these were read, for `amount_msat`; None if any number."""
        if not self.output_per_1k_msat:
            return None if self.total_msat(read, 0) <= amount_msat else 0
        left = (amount_msat - self.base_msat) * 1000 - read * self.input_per_1k_msat
        return max(left // self.output_per_1k_msat, 0)

    def total_msat(self, read: int, written: int) -> int:
        return self.base_msat + ceil_div(read * self.input_per_1k_msat + written * self.output_per_1k_msat, 1000)


@dataclass(frozen=True, slots=True)
class Bill:
    """What a seller charged and how it counted; `balance_msat` is left on the buyer's token.

    The units are those of `price`; both are 0 where nothing is owed, as for a failed or an empty answer.
    """

    charged_msat: int
    balance_msat: int
    price: Price
    input_units: int = 0
    output_units: int = 0

    def __post_init__(self) -> None:
        check_msat("charged_msat", self.charged_msat)
        check_msat("balance_msat", self.balance_msat)
        if not all(type(units) is int and units >= 0 for units in (self.input_units, self.output_units)):
            raise ValueError("input_units and output_units must be whole numbers, not negative")

    @classmethod
    def for_answer(cls, price: Price, usage: Usage) -> Bill:
        """What an answer costs, before a till has settled it."""
        read, written = price.units(usage)
        return cls(price.cost_msat(usage), 0, price, *((read, written) if written else ()))

    @classmethod
    def for_reading(cls, price: Price, usage: Usage) -> Bill:
        """What embeddings cost, before a till has settled it."""
        return cls(price.reading_msat(usage), 0, price, price.units(usage)[0])

    @property
    def due_msat(self) -> int:
        """The units at the price: no charge is above it, and one is below it only where less was reserved."""
        if not self.input_units and not self.output_units:
            return 0
        return self.price.total_msat(self.input_units, self.output_units)

    def complaint(self, listed: Price, counted: Usage) -> str:
        """What is wrong with this bill, in a sentence; empty when nothing is.

        `listed` is the dearest price that the buyer agreed to, `counted` what it holds. Characters are
        recounted; of tokens, which only the seller counts, the sum alone.
        """
        read, written = listed.units(counted)
        if self.price.unit is not listed.unit:
            return f"it counts {self.price.unit}s, the price list {listed.unit}s"
        if listed.unit is Unit.CHAR and (self.input_units > read or self.output_units > written):
            return f"it counts {self.input_units}+{self.output_units} characters where there are {read}+{written}"
        allowed_msat = replace(self, price=listed).due_msat
        if self.charged_msat > min(self.due_msat, allowed_msat):
            return f"it charges {self.charged_msat} msat where {min(self.due_msat, allowed_msat)} are due"
        return ""
