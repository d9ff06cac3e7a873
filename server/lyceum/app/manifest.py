"""The discovery manifest, version 1.0 of the draft (lightninglabs/L402#27), written from offers. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lyceum.ports import Kind, Offer, Price, Unit

JsonObject = dict[str, Any]

PATHS: dict[Kind, str] = {"chat": "/v1/chat/completions", "embedding": "/v1/embeddings"}
UNITS = {Unit.CHAR: "1000 characters", Unit.TOKEN: "1000 tokens"}


def write(service: str, offers: Iterable[Offer], quote_path: str) -> JsonObject:
    offers = list(offers)
    node_id = next((offer.node_id for offer in offers if offer.node_id), "")
    return {
        "version": "1.0",
        "provider": {"name": "Lyceum"} | ({"node_pubkey": node_id} if node_id else {}),
        "currencies": ["msat"],
        "macaroon_versions": [0],
        "payment_methods": ["lightning"],
        "quote_endpoint": quote_path,
        "services": [
            {
                "name": service,
                "description": "answers of language models, by OpenAI's API",
                "tiers": [{"tier": 0, "name": "base"}],
                "resources": [_resource(offer) for offer in offers],
            }
        ],
        "caveats": {
            "services": {"type": "string", "attenuation": "subset"},
            f"{service}_valid_until": {"type": "integer", "attenuation": "earlier"},
            f"{service}_model": {"type": "string", "attenuation": "subset"},
            f"{service}_max_tokens": {"type": "integer", "attenuation": "decreasing"},
        },
    }


def _resource(offer: Offer) -> JsonObject:
    return {
        "path": PATHS[offer.kind],
        "method": "POST",
        "description": offer.description,
        "pricing": _pricing(offer.price) | {"first_payment_at_least_msat": offer.bundle_msat},
        "constraints": {"model": offer.model, "max_tokens": offer.limits.max_tokens},
    }


def _pricing(price: Price) -> JsonObject:
    parts = {"input": price.input_per_1k_msat, "output": price.output_per_1k_msat}
    components = [
        {"constraint": name, "price_msat_per_unit": each_msat, "unit": UNITS[price.unit]}
        for name, each_msat in parts.items()
        if each_msat
    ]
    if not components:
        return {"model": "fixed", "price_msat": price.base_msat}
    return {"model": "formula", "base_msat": price.base_msat, "components": components}
