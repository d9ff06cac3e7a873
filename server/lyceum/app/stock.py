"""What is for sale, and what a request for it may cost at most: all that is known before anything is paid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from lyceum import wire
from lyceum.errors import BadRequest, ModelError, UnknownModel
from lyceum.ports import Ask, Embedder, Gate, Model, Offer, SaleTerms, TextBatch, Usage, Watched
from lyceum.tariff import share_msat

USEFUL_TOKENS = 64
"""An answer that may be short is begun when the balance pays for so many tokens."""


class Offered(Protocol):
    @property
    def offer(self) -> Offer: ...


T = TypeVar("T", bound=Offered)


@dataclass(frozen=True, slots=True)
class Stock:
    """What a shop sells. `broken`: names of models that are configured and could not be loaded; `watched`: the
    servers behind those whose answers are written elsewhere."""

    models: tuple[Model, ...] = ()
    embedders: tuple[Embedder, ...] = ()
    broken: frozenset[str] = frozenset()
    watched: tuple[Watched, ...] = ()

    @property
    def offers(self) -> list[Offer]:
        return [thing.offer for thing in self._all()]

    def offer(self, name: str) -> Offer:
        return self._find(name, self._all()).offer

    def model(self, name: str) -> Model:
        if self.turns_into_vectors(name):
            raise BadRequest(f"{name} turns texts into vectors: POST /v1/embeddings", "model")
        return self._find(name, self.models)

    def embedder(self, name: str) -> Embedder:
        if any(model.offer.model == name for model in self.models):
            raise BadRequest(f"{name} answers questions: POST /v1/chat/completions", "model")
        return self._find(name, self.embedders)

    def turns_into_vectors(self, name: str) -> bool:
        return any(embedder.offer.model == name for embedder in self.embedders)

    def _all(self) -> tuple[Offered, ...]:
        return (*self.models, *self.embedders)

    def _find(self, name: str, things: Sequence[T]) -> T:
        found = next((thing for thing in things if thing.offer.model == name), None)
        if found:
            return found
        if name in self.broken:
            raise ModelError(f"{name} could not be loaded; whoever runs this server finds the reason in its log")
        names = sorted(thing.offer.model for thing in things)
        raise UnknownModel(f"there is no model {name[:100]!r} here; there are: {', '.join(names) or 'none'}")


@dataclass(frozen=True, slots=True)
class Order:
    """A request that can be served: what it may use, and the most that it may cost.

    `tokens` is the longest answer; `least_msat` what one costs that is short and still of use, if it may be.
    """

    offer: Offer
    weighed: Usage
    amount_msat: int
    tokens: int = 1
    least_msat: int | None = None

    def at(self, percent: int) -> Order:
        """The same at so many percent of the list price."""
        offer = replace(self.offer, price=self.offer.price.at(percent))
        return replace(self, offer=offer, amount_msat=share_msat(self.amount_msat, percent))


async def order_answer(model: Model, ask: Ask) -> Order:
    weighed, offer = await model.weigh(ask), model.offer
    least_msat = offer.price.cost_msat(weighed.shortened(USEFUL_TOKENS)) if ask.may_be_short else None
    return Order(offer, weighed, offer.price.cost_msat(weighed), offer.limits.answer_tokens(ask.max_tokens), least_msat)


async def order_vectors(embedder: Embedder, batch: TextBatch) -> Order:
    weighed, offer = await embedder.weigh(batch), embedder.offer
    return Order(offer, weighed, offer.price.reading_msat(weighed))


async def order_of(stock: Stock, body: bytes) -> Order:
    """Of the body of either endpoint, by the model that it names."""
    name = wire.read_model(body)
    if stock.turns_into_vectors(name):
        batch, _ = wire.read_texts(body)
        return await order_vectors(stock.embedder(name), batch)
    return await order_answer(stock.model(name), wire.read_chat(body).ask)


class Load:
    """How many requests each model is serving now."""

    def __init__(self) -> None:
        self._serving: Counter[str] = Counter()

    def of(self, model: str) -> int:
        return self._serving[model]

    @contextmanager
    def one_more(self, model: str) -> Iterator[None]:
        self._serving[model] += 1
        try:
            yield
        finally:
            self._serving[model] -= 1


async def listed(offers: Iterable[Offer], gate: Gate | None, load: Load) -> list[Offer]:
    """The offers at what the till asks of a stranger now, for the first payment and for each answer."""
    if gate is None:
        return list(offers)
    terms = await gate.terms()
    return [
        replace(offer, bundle_msat=terms.bundle_msat, price=offer.price.at(_percent(terms, offer, load)))
        for offer in offers
    ]


async def priced(order: Order, gate: Gate, load: Load) -> Order:
    """The order at what the till asks of a stranger now."""
    return order.at(_percent(await gate.terms(), order.offer, load))


def _percent(terms: SaleTerms, offer: Offer, load: Load) -> int:
    return terms.tariff.percent(offer.model, load.of(offer.model))
