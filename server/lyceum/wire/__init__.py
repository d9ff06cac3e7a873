"""OpenAI's JSON and server-sent events, to and from our values. Pure functions.

Both sides use it: what a server writes here, a buyer reads here. Lyceum's own facts travel in one
extra object, `lyceum`, which other clients ignore.
"""

from lyceum.wire.answers import AnswerReader, Envelope, error_event
from lyceum.wire.asking import read_chat, read_model, write_chat
from lyceum.wire.body import MAX_BODY, JsonObject
from lyceum.wire.holders import read_refund, read_topup
from lyceum.wire.offers import read_model_names, read_offers, read_quote, write_offer, write_offers
from lyceum.wire.problems import problem, problem_of
from lyceum.wire.vectors import read_embeddings, read_texts, write_embeddings, write_texts

__all__ = [
    "MAX_BODY",
    "AnswerReader",
    "Envelope",
    "JsonObject",
    "error_event",
    "problem",
    "problem_of",
    "read_chat",
    "read_embeddings",
    "read_model",
    "read_model_names",
    "read_offers",
    "read_quote",
    "read_refund",
    "read_texts",
    "read_topup",
    "write_chat",
    "write_embeddings",
    "write_offer",
    "write_offers",
    "write_texts",
]
