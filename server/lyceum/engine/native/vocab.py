"""A model's tokens: text to numbers and back, and which of them are special."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from lyceum.engine.native.log import complaints
from lyceum.engine.native.log import llama as c
from lyceum.errors import BadRequest, ModelError

BLOCK = 4096
"""Characters tokenised at once. llama.cpp runs several models' pre-tokenizers through std::regex, which
recurses per character: 40,000 letters without a break overflow an 8 MiB stack and kill the process."""

CONTROL = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_UNKNOWN
ROOT = b"root"


class Special(NamedTuple):
    """A token that stands for its whole text. One that is not `control` is also found in plain text by
    llama.cpp. It swallows the white space `before` or `after` it."""

    text: str
    token: int
    control: bool
    before: bool
    after: bool


class Vocab:
    """A model's tokens: `pieces` are their bytes (none for control tokens), `specials` go by their text."""

    def __init__(self, model: Any) -> None:
        self._vocab = c.llama_model_get_vocab(model)
        self._lock = threading.Lock()
        tokens = range(c.llama_vocab_n_tokens(self._vocab))
        self.pieces = [self._piece(token) for token in tokens]
        self.longest = max(map(len, self.pieces))
        self.ends = frozenset(token for token in tokens if c.llama_vocab_is_eog(self._vocab, token))
        self.specials = {special.text: special for special in self._specials(tokens)}
        self.bos, self.eos = c.llama_vocab_bos(self._vocab), c.llama_vocab_eos(self._vocab)
        self.add_bos = bool(c.llama_vocab_get_add_bos(self._vocab)) and self.bos >= 0
        self.add_eos = bool(c.llama_vocab_get_add_eos(self._vocab)) and self.eos >= 0
        self._in_blocks = c.llama_vocab_type(self._vocab) == c.LLAMA_VOCAB_TYPE_BPE

    def name(self, token: int) -> str:
        """A special token as templates write it."""
        return next((special.text for special in self.specials.values() if special.token == token), "")

    def tokenize(self, text: str) -> list[int]:
        """`text` as text: no control token comes of it, whatever it says. Any thread may call."""
        with self._open():
            parts = _blocks(text) if self._in_blocks else [text]
            return [token for part in parts for token in self._tokenize(part.encode())]

    def framed(self, text: str) -> list[int]:
        """`text` between the special tokens that the model wants around a whole text. Any thread may call."""
        if not self._in_blocks:
            with self._open():
                return self._tokenize(text.encode(), frame=True)
        first, last = [self.bos] * self.add_bos, [self.eos] * self.add_eos
        return [*first, *self.tokenize(text), *last]

    def check_grammar(self, gbnf: str) -> None:
        """Raises BadRequest unless llama.cpp can follow `gbnf`, which `lyceum.engine.child.gbnf` has checked already.
        Any thread may call."""
        with self._open():
            if not self.ends:
                raise BadRequest("this model has no end token, so no grammar can end its answers", "grammar")
            c.llama_sampler_free(self.grammar(gbnf))

    def grammar(self, gbnf: str) -> Any:
        """A sampler that forbids what `gbnf` does not allow; the caller frees it."""
        sampler = c.llama_sampler_init_grammar(self._vocab, gbnf.encode(), ROOT)
        if not sampler:
            raise BadRequest(f"llama.cpp cannot follow this grammar: {complaints.take()}", "grammar")
        return sampler

    def close(self) -> None:
        with self._lock:
            self._vocab = None

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._vocab is None:
                raise ModelError("the engine is closed")
            yield

    def _tokenize(self, raw: bytes, frame: bool = False) -> list[int]:
        room = len(raw) + 4  # a token takes a byte or more; some models put a space before, and a frame around
        found = (c.llama_token * room)()
        count = c.llama_tokenize(self._vocab, raw, len(raw), found, room, frame, False)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenise a text of {len(raw)} bytes")
        return list(found[:count])

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:size]

    def _specials(self, tokens: range) -> Iterator[Special]:
        for token in tokens:
            attributes = c.llama_vocab_get_attr(self._vocab, token)
            text = c.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
            if text and attributes & (CONTROL | c.LLAMA_TOKEN_ATTR_USER_DEFINED):
                before, after = c.LLAMA_TOKEN_ATTR_LSTRIP, c.LLAMA_TOKEN_ATTR_RSTRIP
                control = bool(attributes & CONTROL)
                yield Special(text, token, control, bool(attributes & before), bool(attributes & after))


def _blocks(text: str) -> Iterator[str]:
    """`text` in pieces of at most BLOCK characters, cut between words where there are any."""
    start = 0
    while len(text) - start > BLOCK:
        space = text.rfind(" ", start + 1, start + BLOCK)
        cut = space if space > 0 else start + BLOCK
        yield text[start:cut]
        start = cut
    yield text[start:]
