"""GGUF files as Models, by llama.cpp. Knows neither HTTP nor money, except that an engine carries its Offer.

One thread owns a model (`core`, `worker`), a bounded line stands before it (`line`), asyncio's side is `engine`;
`fleet` loads and unloads, `native` alone calls llama.cpp, `card`, `prompt`, `shape`, `field` and `text` could do
without it.
"""

from lyceum.engine.card import Card, read_card
from lyceum.engine.core import free_memory_bytes
from lyceum.engine.embedder import EmbeddingEngine
from lyceum.engine.engine import Engine
from lyceum.engine.fleet import Fleet
from lyceum.engine.native import TYPES, quantise
from lyceum.engine.settings import EngineSettings

__all__ = [
    "TYPES",
    "Card",
    "EmbeddingEngine",
    "Engine",
    "EngineSettings",
    "Fleet",
    "free_memory_bytes",
    "quantise",
    "read_card",
]
