"""GGUF files as Models, by llama.cpp. Knows neither HTTP nor money, except that an engine carries its Offer.

Law: the server imports no llama.cpp, which runs in processes of its own (`child` and `native`; `worker` is the
server's side of one). `engine` and `embedder` are what is served, `fleet` loads and puts down, `card` reads files.
"""

from lyceum.engine.card import Card, read_card
from lyceum.engine.embedder import EmbeddingEngine
from lyceum.engine.engine import Engine
from lyceum.engine.fleet import Fleet
from lyceum.engine.memory import free_memory_bytes
from lyceum.engine.settings import EngineSettings

__all__ = [
    "Card",
    "EmbeddingEngine",
    "Engine",
    "EngineSettings",
    "Fleet",
    "free_memory_bytes",
    "read_card",
]
