"""The two models: the committed tiny one, and a large one of random weights that never ends an answer.

The large one is Llama's architecture with 24 layers, 1,024 wide, 2,816 in the middle, 16 heads over 8 of keys, and
32,000 tokens: 349 million weights, Q8_0. A character of a prompt is one token; the tokens that it says are made-up
words, since the rows of all others in its output are zero, the end token's among them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lyceum.engine.native import quantise

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / "build" / "bench"
TINY = ROOT / "models" / "austrian-economics" / "austrian-economics.Q8_0.gguf"

WIDTH, HEADS, KV_HEADS, FFN, LAYERS, VOCAB, CONTEXT = 1024, 16, 8, 2816, 24, 32_000, 8192
HEAD = WIDTH // HEADS
CONTROL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
F32, F16 = 0, 1
STRING, BOOL, UINT32, INT32, FLOAT32, ARRAY = 8, 7, 4, 5, 6, 9

Value = str | bool | int | float | list[str] | list[int]
Tensor = tuple[str, tuple[int, ...]]


def large() -> Path:
    """Made on first use, which takes about half a minute; kept under build/."""
    path = CACHE / "large.Q8_0.gguf"
    if not path.exists():
        print("making a model of 349 million random weights ...", file=sys.stderr, flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        half = CACHE / "large.F16.gguf"
        write(half)
        quantise(half, path, "Q8_0")
        half.unlink()
    return path


def write(path: Path) -> None:
    """GGUF version 3: header, metadata, what tensors there are, then each of them on a boundary of 32 bytes."""
    tensors = list(_tensors())
    pairs = _metadata()
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs))
    head += b"".join(_text(key) + _value(value) for key, value in pairs.items())
    offset = 0
    for name, shape in tensors:
        kind = F32 if len(shape) == 1 else F16
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += _padded(_bytes(shape))
    with path.open("wb") as file:
        file.write(head.ljust(_padded(len(head)), b"\0"))
        dice = np.random.default_rng(1)
        for name, shape in tensors:
            _write_tensor(file, name, shape, dice)


def _write_tensor(file: BinaryIO, name: str, shape: tuple[int, ...], dice: np.random.Generator) -> None:
    if len(shape) == 1:
        raw = np.ones(shape, np.float32).tobytes()
    else:
        columns, rows = shape
        values = dice.standard_normal((rows, columns), np.float32) * np.float32(0.5 / columns**0.5)
        if name == "output.weight":
            values[: _silent()] = 0
        raw = values.astype(np.float16).tobytes()
    file.write(raw.ljust(_padded(len(raw)), b"\0"))


def _tensors() -> Iterator[Tensor]:
    """ggml names the fastest dimension first."""
    yield "token_embd.weight", (WIDTH, VOCAB)
    for layer in range(LAYERS):
        for name, shape in _block().items():
            yield f"blk.{layer}.{name}.weight", shape
    yield "output_norm.weight", (WIDTH,)
    yield "output.weight", (WIDTH, VOCAB)


def _block() -> dict[str, tuple[int, ...]]:
    return {
        "attn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, KV_HEADS * HEAD),
        "attn_v": (WIDTH, KV_HEADS * HEAD),
        "attn_output": (WIDTH, WIDTH),
        "ffn_norm": (WIDTH,),
        "ffn_gate": (WIDTH, FFN),
        "ffn_up": (WIDTH, FFN),
        "ffn_down": (FFN, WIDTH),
    }


def _metadata() -> dict[str, Value]:
    tokens = _tokens()
    control = {tokens.index(name) for name in CONTROL}
    return {
        "general.architecture": "llama",
        "general.name": "large",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD,
        "llama.vocab_size": VOCAB,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if number in control else 1 for number in range(VOCAB)],
        "tokenizer.ggml.merges": ["q q"],
        "tokenizer.ggml.bos_token_id": tokens.index(CONTROL[0]),
        "tokenizer.ggml.eos_token_id": tokens.index(CONTROL[-1]),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def _tokens() -> list[str]:
    """Bytes, one merge, control tokens, and then words that no text is cut into."""
    quiet = [*_letters(), "qq", *CONTROL]
    return quiet + [f"\u0120{_word(number)}" for number in range(VOCAB - len(quiet))]


def _silent() -> int:
    """How many tokens are never said: those of prompts."""
    return 256 + 1 + len(CONTROL)


def _letters() -> list[str]:
    """GPT-2's printable letter for each byte, in the order of the bytes."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]


def _word(number: int) -> str:
    letters = ""
    for _ in range(4):
        number, place = divmod(number, 26)
        letters = chr(ord("a") + place) + letters
    return letters


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    return _array(value)


def _array(values: Sequence[Any]) -> bytes:
    texts = isinstance(values[0], str)
    items = [_text(value) if texts else struct.pack("<i", value) for value in values]
    return struct.pack("<IIQ", ARRAY, STRING if texts else INT32, len(values)) + b"".join(items)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _bytes(shape: tuple[int, ...]) -> int:
    count = int(np.prod(shape))
    return count * (4 if len(shape) == 1 else 2)


def _padded(size: int) -> int:
    return -(-size // 32) * 32
