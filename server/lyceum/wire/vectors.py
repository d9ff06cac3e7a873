"""Embeddings: the texts and their vectors, read and written."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict

from lyceum.errors import BadRequest, PeerError
from lyceum.ports import Bill, Embeddings, TextBatch
from lyceum.wire.body import JsonObject, object_of, text_of, unicode_of

MAX_TEXTS = 256


def read_texts(body: bytes) -> tuple[TextBatch, bool]:
    """An embeddings body, and whether vectors are wanted as base64. Raises BadRequest, or TooLong over 1 MiB."""
    found = object_of(body)
    given = found.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise BadRequest("input must be a non-empty string or a list of them; token ids are not read", "input")
    if len(texts) > MAX_TEXTS:
        raise BadRequest(f"input holds {len(texts)} texts; at most {MAX_TEXTS} are read at once", "input")
    form = found.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise BadRequest("encoding_format must be float or base64", "encoding_format")
    if found.get("dimensions") is not None:
        raise BadRequest("dimensions cannot be chosen: vectors have the model's own length", "dimensions")
    return TextBatch(text_of(found, "model"), tuple(unicode_of(text, "input") for text in texts)), form == "base64"


def write_texts(batch: TextBatch) -> JsonObject:
    return {"model": batch.model, "input": list(batch.texts), "encoding_format": "float"}


def write_embeddings(found: Embeddings, model: str, base64: bool, bill: Bill | None) -> JsonObject:
    """OpenAI's list of vectors; `base64` holds little-endian float32."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if base64 else list(vector)}
        for index, vector in enumerate(found.vectors)
    ]
    ours: JsonObject = {"input_chars": found.usage.input_chars} | ({"charge": asdict(bill)} if bill else {})
    tokens = {"prompt_tokens": found.usage.input_tokens, "total_tokens": found.usage.input_tokens}
    return {"object": "list", "data": data, "model": model, "usage": tokens, "lyceum": ours}


def _packed(vector: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def read_embeddings(body: bytes, count: int) -> tuple[tuple[tuple[float, ...], ...], int]:
    """`count` vectors of one length, in order, scaled to length 1; and the tokens that were read, 0 if unsaid.

    Raises PeerError when that is not what `body` holds.
    """
    try:
        found = json.loads(body)
        rows = {entry["index"]: tuple(float(number) for number in entry["embedding"]) for entry in found["data"]}
        vectors = tuple(_unit_vector(rows[index]) for index in range(count))
        tokens = int((found.get("usage") or {}).get("prompt_tokens", 0))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise PeerError("its vectors cannot be read") from None
    if len(rows) != count or len({len(vector) for vector in vectors}) != 1:
        raise PeerError("its vectors are not one for each text, all of one length")
    return vectors, max(0, tokens)


def _unit_vector(row: Sequence[float]) -> tuple[float, ...]:
    length = math.hypot(*row)
    if not math.isfinite(length) or not length:
        raise ValueError
    return tuple(number / length for number in row)
