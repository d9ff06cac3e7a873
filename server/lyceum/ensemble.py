"""A model of models: cut the question, ask the right members at once, account for every msat.

Knows only the `Model` protocol, so a member may be local, bought or an ensemble itself. Whatever a
member does, the others still answer; all members together never get more than the ask's budget.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from lyceum import router
from lyceum.errors import BadRequest, LyceumError, NoAnswer, OverBudget, PaymentUnknown, PeerError
from lyceum.money import text
from lyceum.ports import Ask, Chunk, Citation, Delta, End, Finish, Member, Model, Offer, Price, Usage

GAP = "\n\n"
"""What stands between the answers to two parts."""

OUTSIDE = "says that this lies outside its field"
OUTSIDE_CODE = "outside-field"
NOBODY = "None of the specialists here knows the field of this question."

LONGEST_S = 600
"""A member that still speaks after so many seconds is cut off: drop by drop it could hold us for ever."""


@dataclass(frozen=True, slots=True)
class Roster:
    """Who can be asked now, and who was called and did not come."""

    models: tuple[Model, ...]
    absent: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Own:
    """One of our own models as a member: we pay nothing for it."""

    model: Model

    @property
    def offer(self) -> Offer:
        return replace(self.model.offer, price=Price(), bundle_msat=0)

    async def weigh(self, ask: Ask) -> Usage:
        return await self.model.weigh(ask)

    def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        return self.model.stream(ask)


class Ensemble:
    """`patience_s`: how long a member may be silent before the answer goes on without it; longer than
    it takes to pay one, or a payment that is merely slow counts as lost.

    `budget_msat`: the most that one answer may spend, also when its asker allows more, since a buyer
    must not set what the seller spends; None leaves it to the ask.
    """

    def __init__(
        self,
        offer: Offer,
        muster: Callable[[], Awaitable[Roster]],
        budget_msat: int | None = None,
        patience_s: float = 30,
    ) -> None:
        self.offer = offer
        self._muster = muster
        self._budget_msat = budget_msat
        self._patience_s = patience_s

    async def weigh(self, ask: Ask) -> Usage:
        """Raises BadRequest for what holds of one model's answer, not of several put together."""
        if ask.schema or ask.grammar or ask.logprobs is not None:
            raise BadRequest("an ensemble's answer has no schema, grammar or logprobs; ask one of its specialists")
        return self.offer.worst_case(ask)

    async def stream(self, ask: Ask) -> AsyncIterator[Chunk]:
        """Raises NoAnswer when nobody's field is touched; a failed consultation ends with "error"."""
        ask = replace(ask, budget_msat=self._allowed_msat(ask))
        roster = await self._muster()
        consultations = self._plan(ask, roster)
        tasks = [asyncio.create_task(consultation.run()) for consultation in consultations]
        try:
            for number, consultation in enumerate(consultations):
                gap = any(earlier.said for earlier in consultations[:number])
                async for delta in consultation.deltas():
                    if gap:
                        yield Delta(GAP)
                    gap = False
                    yield delta
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if all(consultation.outside for consultation in consultations):
            yield Delta(NOBODY, outside=True)
        yield _end(ask, consultations, roster.absent)

    def _allowed_msat(self, ask: Ask) -> int:
        most_msat = self._budget_msat
        return ask.budget_msat if most_msat is None else min(ask.budget_msat or most_msat, most_msat)

    def _plan(self, ask: Ask, roster: Roster) -> list[Consultation]:
        offers = [model.offer for model in roster.models]
        parts = router.plan(ask.question, offers)
        if not parts:
            raise NoAnswer(_nobody(roster))
        prices = [router.first_payment_msat(offers[part.candidates[0]], ask) for part in parts]
        shares = [share.total_msat if share else 0 for share in router.caps(prices, ask.budget_msat)]
        pot = Pot(ask.budget_msat - sum(shares))
        return [
            Consultation(ask, part.text, [roster.models[n] for n in part.candidates], share, pot, self._patience_s)
            for part, share in zip(parts, shares, strict=True)
        ]


@dataclass(slots=True)
class Pot:
    """What of the budget is nobody's: who needs more for a second candidate takes it, who is done gives back."""

    left_msat: int

    def take(self, wanted_msat: int) -> int:
        """As much of it as there is."""
        taken_msat = max(0, min(wanted_msat, self.left_msat))
        self.left_msat -= taken_msat
        return taken_msat

    def give_back(self, msat: int) -> None:
        self.left_msat += msat


@dataclass(slots=True)
class Consultation:
    """One part of the question: its candidates are tried in turn, with this part's share and what the pot has."""

    ask: Ask
    text: str
    candidates: Sequence[Model]
    share_msat: int
    pot: Pot
    patience_s: float
    members: list[Member] = field(default_factory=list)
    citations: tuple[Citation, ...] = ()
    said: str = ""
    finish: str = "error"
    _queue: asyncio.Queue[Delta | None] = field(default_factory=asyncio.Queue)

    @property
    def outside(self) -> bool:
        """Everybody was asked, and everybody said that it is not their field."""
        return bool(self.members) and all(member.code == OUTSIDE_CODE for member in self.members)

    async def run(self) -> None:
        try:
            await self._try_candidates()
        finally:
            self._queue.put_nowait(None)

    async def deltas(self) -> AsyncIterator[Delta]:
        while (delta := await self._queue.get()) is not None:
            yield delta

    async def _try_candidates(self) -> None:
        left_msat = self.share_msat
        for model in self.candidates:
            price_msat = router.first_payment_msat(model.offer, self.ask)
            left_msat += self.pot.take(price_msat + router.fee_allowance_msat(price_msat) - left_msat)
            (caps,) = router.caps([price_msat], left_msat)
            if caps is None:
                self.members.append(self._too_dear(model.offer, price_msat, left_msat))
                continue
            member = await self._consult(model, router.part_of(self.ask, model.offer, self.text, caps))
            self.members.append(member)
            left_msat -= _at_stake(member, caps)
            if self.said:
                break
        self.pot.give_back(left_msat)

    async def _consult(self, model: Model, ask: Ask) -> Member:
        started = time.monotonic()
        try:
            member = await self._listen(model, ask)
        except LyceumError as error:
            member = _lost(model.offer, ask, error.message, error.code)
        except TimeoutError:
            silent = f"silent for {self.patience_s:g} s, or not done in {LONGEST_S} s, at {len(self.said)} characters"
            member = _lost(model.offer, ask, silent, PeerError.code)
        except Exception as error:
            member = _lost(model.offer, ask, f"failed ({type(error).__name__})", LyceumError.code)
        return replace(member, seconds=round(time.monotonic() - started, 3), part=self.text)

    async def _listen(self, model: Model, ask: Ask) -> Member:
        chunks = model.stream(ask)
        label = model.offer.model
        deadline = time.monotonic() + LONGEST_S
        outside = False
        try:
            while True:
                left_s = deadline - time.monotonic()
                chunk = await asyncio.wait_for(anext(chunks), min(self.patience_s, left_s))
                if isinstance(chunk, End):
                    break
                outside = outside or chunk.outside
                if not outside:
                    self._say(chunk.text, chunk.tokens, label)
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
        self.finish = chunk.finish
        if self.said:
            self._say(f" [{label}]", 0, label)
            self.citations += chunk.citations
        member = replace(chunk.members[0] if chunk.members else _local(model.offer, chunk), confidence=chunk.confidence)
        return replace(member, ok=False, error=OUTSIDE, code=OUTSIDE_CODE) if outside and member.ok else member

    def _say(self, words: str, tokens: int, label: str) -> None:
        self.said += words
        self._queue.put_nowait(Delta(words, tokens, label))

    def _too_dear(self, offer: Offer, price_msat: int, left_msat: int) -> Member:
        error = f"may ask {text(price_msat)}, and the budget has {text(left_msat)} left for this part"
        return Member(offer.node_id, offer.model, ok=False, error=error, code=OverBudget.code, part=self.text)


def _lost(offer: Offer, ask: Ask, error: str, code: str) -> Member:
    """A member that gave no account: all that it was given to spend may be spent."""
    if ask.budget_msat:
        error, code = f"{error}; up to {text(ask.budget_msat)} may have been paid", PaymentUnknown.code
    return Member(offer.node_id, offer.model, ok=False, error=error, code=code)


def _at_stake(member: Member, caps: router.Caps) -> int:
    """What a consultation took from its money; all of it when a payment's outcome is not known."""
    return caps.total_msat if member.code == PaymentUnknown.code else member.paid_msat + member.fee_msat


def _local(offer: Offer, end: End) -> Member:
    return Member(offer.node_id, offer.model, ok=end.finish != "error")


def _nobody(roster: Roster) -> str:
    absent = "; ".join(f"{member.model}: {member.error}" for member in roster.absent)
    if not roster.models:
        return f"no specialist could be reached ({absent or 'none is configured'})"
    known = ", ".join(sorted({model.offer.model for model in roster.models}))
    return f"no specialist's field touches this question; known here: {known}. Nothing was paid"


def _end(ask: Ask, consultations: Sequence[Consultation], absent: tuple[Member, ...]) -> End:
    said = [consultation for consultation in consultations if consultation.said]
    usage = Usage(input_chars=ask.input_chars, output_chars=len(GAP.join(consultation.said for consultation in said)))
    members = [member for consultation in consultations for member in consultation.members]
    confidences = [member.confidence for member in members if member.ok and member.confidence is not None]
    return End(
        _finish(consultations),
        usage,
        min(confidences, default=None),
        (*members, *absent),
        tuple(citation for consultation in said for citation in consultation.citations),
    )


def _finish(consultations: Sequence[Consultation]) -> Finish:
    said = [consultation for consultation in consultations if consultation.said]
    if any(consultation.finish == "length" for consultation in said):
        return "length"
    return "stop" if said or all(consultation.outside for consultation in consultations) else "error"
