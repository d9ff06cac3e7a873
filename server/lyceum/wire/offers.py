"""The list of models and their prices: written by a seller, read by a buyer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import cast, get_args

from lyceum.errors import PeerError
from lyceum.money import check_msat
from lyceum.ports import Kind, Limits, Offer, Price, Unit
from lyceum.wire.body import JsonObject

MAX_NAME = 200
MAX_TOPICS = 2048
MAX_OFFERS = 4096


def write_offers(offers: Iterable[Offer]) -> JsonObject:
    return {"object": "list", "data": [write_offer(offer) for offer in offers]}


def write_offer(offer: Offer) -> JsonObject:
    """OpenAI's model object; ours beside it: what it knows, costs and allows."""
    ours = {
        "description": offer.description,
        "topics": list(offer.topics),
        "price": asdict(offer.price),
        "limits": asdict(offer.limits),
        "kind": offer.kind,
        "bundle_msat": offer.bundle_msat,
        "digest": offer.digest,
        "node_id": offer.node_id,
    }
    return {"id": offer.model, "object": "model", "created": 0, "owned_by": offer.node_id or "lyceum", "lyceum": ours}


def read_offers(body: bytes) -> list[Offer]:
    """A peer's model list; entries without a `lyceum` object are not for sale and left out.

    Raises PeerError when it is no such list, or an entry's prices or limits are wrong.
    """
    try:
        entries = json.loads(body)["data"]
        return [_offer(entry) for entry in entries[:MAX_OFFERS] if isinstance(entry.get("lyceum"), dict)]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise PeerError("the peer's model list is not one: check the URL") from None


def read_model_names(body: bytes) -> list[str]:
    """What any OpenAI-compatible server calls its models. Raises PeerError when it is no such list."""
    try:
        return [str(entry["id"])[:MAX_NAME] for entry in json.loads(body)["data"][:MAX_OFFERS]]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise PeerError("its list of models is not one: check the URL") from None


def _offer(entry: JsonObject) -> Offer:
    ours = entry["lyceum"]
    return Offer(
        model=str(entry["id"]),
        description=str(ours.get("description", ""))[:2000],
        topics=tuple(str(topic)[:80] for topic in ours.get("topics", [])[:MAX_TOPICS]),
        price=read_price(ours["price"]),
        limits=Limits(int(ours["limits"]["context_tokens"]), int(ours["limits"]["max_tokens"])),
        kind=_kind(ours.get("kind", "chat")),
        bundle_msat=check_msat("bundle_msat", ours.get("bundle_msat", 0)),
        digest=str(ours.get("digest", ""))[:64],
        node_id=str(ours.get("node_id", ""))[:66],
    )


def _kind(value: object) -> Kind:
    if value not in get_args(Kind):
        raise ValueError
    return cast("Kind", value)


def read_quote(body: bytes) -> Price | None:
    """The price that a 402's problem body names; None where it names none that can be read."""
    try:
        return read_price(json.loads(body)["price"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def read_price(found: JsonObject) -> Price:
    return Price(**{**found, "unit": Unit(found["unit"])})
