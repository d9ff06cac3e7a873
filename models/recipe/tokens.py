"""How text becomes tokens: a byte-level BPE, four control tokens, and the chat template built from them.

No white space stands around control tokens, so a prompt may be tokenised piece by piece: the template's pieces
as control tokens, a user's text as plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SYSTEM, USER, ASSISTANT, END = CONTROL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>"
    "{% elif message['role'] == 'assistant' %}<|assistant|>"
    "{% else %}<|system|>{% endif %}"
    "{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train(texts: Sequence[str], size: int) -> Tokenizer:
    """A BPE of at most `size` tokens; lower-cased copies make it fair to people who skip capitals."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *(text.lower() for text in texts)], trainer)
    return tokenizer


class Chat:
    """Turns of a conversation as token ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.system, self.user, self.assistant, self.end = (CONTROL.index(token) for token in CONTROL)

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [list(row.ids) for row in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def system_turn(self, text: list[int]) -> list[int]:
        return [self.system, *text, self.end]

    def asked(self, question: list[int]) -> list[int]:
        """A question, up to where the answer begins."""
        return [self.user, *question, self.end, self.assistant]

    def answered(self, answer: list[int]) -> list[int]:
        return [*answer, self.end]
