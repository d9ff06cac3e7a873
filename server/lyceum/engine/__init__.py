"""GGUF files as Models, by llama.cpp. Knows neither HTTP nor money, except that an engine carries its Offer.

One thread owns a model (`worker`), a bounded line stands before it (`line`), asyncio's side is `engine`;
`native` alone calls llama.cpp, `card`, `prompt` and `text` could do without it.
"""

from lyceum.engine.card import Card, read_card
from lyceum.engine.engine import Engine
from lyceum.engine.settings import EngineSettings

__all__ = ["Card", "Engine", "EngineSettings", "read_card"]
