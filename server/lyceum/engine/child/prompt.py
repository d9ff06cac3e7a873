"""A conversation as the tokens its model was trained on. Knows templates and tokens, no model.

Law: control tokens come from the template alone. Whatever a message says is text, so nobody can forge
a turn by typing one. And no message is left out unsaid: what is sold is read.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from lyceum.engine.native import Special, Vocab
from lyceum.errors import BadRequest, ModelError
from lyceum.ports import Message

GUARD = "\v"
"""White space around a placeholder: where a template trims a message, we see it and trim as well."""


class ChatTemplate:
    def __init__(self, source: str, vocab: Vocab) -> None:
        self._vocab = vocab
        self._specials = {s.text: s for s in vocab.specials.values() if s.control or _marks_turns(s, source)}
        self._special = _any_of(self._specials)
        self._forged = _any_of(text for text, special in self._specials.items() if not special.control)
        try:
            self._render = Jinja2ChatFormatter(source, vocab.name(vocab.eos), vocab.name(vocab.bos))
        except TemplateError as error:
            raise ModelError(f"its chat template is broken: {error}") from None

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """Raises BadRequest where the template refuses `messages` or leaves one of them out."""
        try:
            tokens = [token for part in self._parts(messages) for token in self._tokens(part)]
        except UnicodeEncodeError:
            raise BadRequest("a message is not valid Unicode: it holds half a surrogate pair", "messages") from None
        if self._vocab.add_bos and tokens[:1] != [self._vocab.bos]:
            tokens.insert(0, self._vocab.bos)
        if not tokens:
            raise BadRequest("nothing is left of the messages after the model's chat template", "messages")
        return tokens

    def _tokens(self, part: str | int) -> list[int]:
        if isinstance(part, int):
            return [part]
        cuts = [0, *(match.start() + 1 for match in self._forged.finditer(part)), len(part)]
        return [token for start, end in pairwise(cuts) for token in self._vocab.tokenize(part[start:end])]

    def _parts(self, messages: Sequence[Message]) -> Iterator[str | int]:
        """Text and special tokens in turn. Text of the template and of messages is joined where they
        meet, so that it is tokenised as it would be in one go."""
        text, strip = "", False
        for literal, content in self._pieces(messages):
            start = 0
            for match in self._special.finditer(literal):
                special = self._specials[match[0]]
                yield _stripped(text + literal[start : match.start()], strip, special.before)
                yield special.token
                text, strip, start = "", special.after, match.end()
            text += literal[start:] + content
        yield _stripped(text, strip, False)

    def _pieces(self, messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
        """The rendered prompt as pairs: what the template says, then the content that follows."""
        nonce = f"{secrets.randbelow(10**30):030}"  # digits, which no filter of a template changes
        marks = [f"{GUARD}{nonce}{i:06}{GUARD}" if m.content else "" for i, m in enumerate(messages)]
        rendered = self._rendered(messages, marks)
        pieces = re.split(f"({GUARD}?){nonce}(\\d{{6}})({GUARD}?)", rendered)
        _check_complete(messages, {int(index) for index in pieces[2::4]})
        for literal, left, index, right in zip(pieces[0::4], pieces[1::4], pieces[2::4], pieces[3::4], strict=False):
            yield literal, _stripped(messages[int(index)].content, not left, not right)
        yield pieces[-1], ""

    def _rendered(self, messages: Sequence[Message], marks: Sequence[str]) -> str:
        turns: list[Any] = [{"role": m.role, "content": mark} for m, mark in zip(messages, marks, strict=True)]
        try:
            return str(self._render(messages=turns).prompt)
        except Exception as error:  # a template is a program: it refuses by any exception it likes
            raise BadRequest(f"the model's chat template refuses these messages: {error}", "messages") from None


def _marks_turns(special: Special, source: str) -> bool:
    """Some converters give the template's own markers a kind of token that llama.cpp finds in any text."""
    return len(special.text) > 2 and not special.text.isspace() and special.text in source


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of `texts`, and nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def _check_complete(messages: Sequence[Message], seen: set[int]) -> None:
    for index, message in enumerate(messages):
        if message.content and index not in seen:
            raise BadRequest(
                f"the model's chat template leaves out messages[{index}] (role {message.role}); ask without it",
                "messages",
            )


def _stripped(text: str, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text
