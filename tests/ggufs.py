"""Tiny Llama GGUF files made on the fly, so that the engine's tests need no download.

Two kinds: random weights, where every part of the network matters; and a `script`, a network that
says known tokens in a circle, so that the right answer is known to the byte.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

Value: TypeAlias = str | bool | int | float | list[str] | list[int] | list[float]
Tensor: TypeAlias = "tuple[tuple[int, ...], array[float]]"

WIDTH, HEADS, FFN, LAYERS = 64, 4, 96, 2
CONTROL_NAMES = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
MERGES = ("t h", "th e", "i n", "e r", "Ġ the")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte, in the order of the bytes."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]


TOKENS = [*byte_letters(), *(merge.replace(" ", "") for merge in MERGES), *CONTROL_NAMES]
CONTROLS = {name: TOKENS.index(name) for name in CONTROL_NAMES}
END = CONTROLS["<|end|>"]


def random_gguf(path: Path, **metadata: Value) -> Path:
    dice = random.Random(1)  # noqa: S311, the same weights every time
    return write_gguf(path, metadata, {name: _dice(dice, shape) for name, shape in _shapes().items()})


def script_gguf(path: Path, script: Iterable[int], **metadata: Value) -> Path:
    """A network that answers with the tokens of `script`, all different, and then starts again."""
    circle = list(script)
    dice = random.Random(1)  # noqa: S311
    tensors = {name: _zeros(shape) for name, shape in _shapes().items()}
    letters = _dice(dice, (WIDTH, len(TOKENS)))
    tensors["token_embd.weight"] = letters
    before = dict(zip(circle, [circle[-1], *circle], strict=False))
    tensors["output.weight"] = _follow(letters[1], before, circle[0])
    return write_gguf(path, metadata, tensors)


def lora_gguf(path: Path, seed: int, width: int = WIDTH, **metadata: Value) -> Path:
    """An adapter of rank 2 over the first layer of `random_gguf`, strong enough to change what it says."""
    dice = random.Random(seed)  # noqa: S311
    tensors: dict[str, Tensor] = {}
    for name in ("attn_v", "attn_output"):
        tensors[f"blk.0.{name}.weight.lora_a"] = _dice(dice, (width, 2))
        tensors[f"blk.0.{name}.weight.lora_b"] = _dice(dice, (2, width))
    adapter: dict[str, Value] = {
        "general__type": "adapter",
        "adapter__type": "lora",
        "adapter__lora__alpha": 16.0,
    }
    return write_gguf(path, adapter | metadata, tensors)


def spm_gguf(path: Path, **metadata: Value) -> Path:
    """Random weights behind a SentencePiece vocabulary, which puts a space before a text and BOS before all."""
    words = ["▁", "a", "▁a", "b", "ab"]
    tokens = ["<unk>", "<s>", "</s>", "<|endoftext|>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary: dict[str, Value] = {
        "tokenizer__ggml__model": "llama",
        "tokenizer__ggml__pre": "default",
        "tokenizer__ggml__tokens": tokens,
        "tokenizer__ggml__token_type": [2, 3, 3, 3, *[6] * 256, *[1] * len(words)],
        "tokenizer__ggml__scores": [*[0.0] * 260, *[-1.0 - rank for rank in range(len(words))]],
        "tokenizer__ggml__bos_token_id": 1,
        "tokenizer__ggml__eos_token_id": 2,
        "tokenizer__ggml__add_bos_token": True,
    }
    return random_gguf(path, **(vocabulary | metadata))


def bert_gguf(path: Path, words: Sequence[str], **metadata: Value) -> Path:
    """A BERT of random weights for texts of `words`: it reads a text in both directions, and holds no template."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{word}" for word in words)]
    dice = random.Random(1)  # noqa: S311
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (WIDTH, len(tokens)),
        "token_types.weight": (WIDTH, 2),
        "position_embd.weight": (WIDTH, 128),
        "token_embd_norm.weight": (WIDTH,),
        "token_embd_norm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        matrices = {f"attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        matrices |= {"ffn_up": (WIDTH, FFN), "ffn_down": (FFN, WIDTH)}
        for name, shape in matrices.items():
            shapes |= {f"blk.{layer}.{name}.weight": shape, f"blk.{layer}.{name}.bias": shape[1:]}
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= {f"blk.{layer}.{name}.weight": (WIDTH,), f"blk.{layer}.{name}.bias": (WIDTH,)}
    network: dict[str, Value] = {
        "general__architecture": "bert",
        "bert__context_length": 128,
        "bert__embedding_length": WIDTH,
        "bert__block_count": LAYERS,
        "bert__feed_forward_length": FFN,
        "bert__attention__head_count": HEADS,
        "bert__attention__layer_norm_epsilon": 1e-12,
        "bert__attention__causal": False,
        "bert__pooling_type": 1,
        "tokenizer__ggml__model": "bert",
        "tokenizer__ggml__pre": "default",
        "tokenizer__ggml__tokens": tokens,
        "tokenizer__ggml__token_type": [3, 2, 3, 3, 3, *[1] * len(words)],
        "tokenizer__ggml__token_type_count": 2,
        "tokenizer__ggml__bos_token_id": 2,
        "tokenizer__ggml__eos_token_id": 3,
        "tokenizer__ggml__unknown_token_id": 1,
        "tokenizer__ggml__seperator_token_id": 3,
        "tokenizer__ggml__padding_token_id": 0,
        "tokenizer__chat_template": "",
    }
    return write_gguf(path, network | metadata, {name: _dice(dice, shape) for name, shape in shapes.items()})


def _follow(letters: array[float], before: dict[int, int], first: int) -> Tensor:
    """Rows that answer with a token where the one `before` it, or for `first` the prompt's end, was seen."""
    rows = array("f", bytes(4 * len(letters)))
    for token, seen in [*before.items(), (first, CONTROLS["<|assistant|>"])]:
        for column in range(WIDTH):
            rows[token * WIDTH + column] += letters[seen * WIDTH + column]
    return (WIDTH, len(TOKENS)), rows


def _shapes() -> dict[str, tuple[int, ...]]:
    """Llama's tensors; ggml names the fastest dimension first."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, len(TOKENS)), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        shapes |= {f"{block}{name}.weight": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"{block}attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}ffn_{name}.weight": (WIDTH, FFN) for name in ("gate", "up")}
        shapes[f"{block}ffn_down.weight"] = (FFN, WIDTH)
    return shapes | {"output.weight": (WIDTH, len(TOKENS))}


def _size(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def _zeros(shape: tuple[int, ...]) -> Tensor:
    return shape, array("f", [1.0 if len(shape) == 1 else 0.0] * _size(shape))


def _dice(dice: random.Random, shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 1:
        return _zeros(shape)
    return shape, array("f", [dice.gauss(0, 0.3) for _ in range(_size(shape))])


def _metadata() -> dict[str, Value]:
    kinds = [3 if token in CONTROLS else 1 for token in TOKENS]
    return {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.description": "A network made for a test.",
        "llama.context_length": 2048,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(TOKENS),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": CONTROLS["<|system|>"],
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def write_gguf(path: Path, metadata: dict[str, Value], tensors: dict[str, Tensor]) -> Path:
    """GGUF version 3: header, metadata, tensor infos, then each tensor on a boundary of 32 bytes.

    `metadata` overrides the defaults; its keys are written with `__` for a dot, and an empty text leaves one out.
    """
    named = {key.replace("__", "."): value for key, value in metadata.items()}
    pairs = {key: value for key, value in (_metadata() | named).items() if value != ""}
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs))
    head += b"".join(_text(key) + _value(value) for key, value in pairs.items())
    data = b""
    for name, (shape, numbers) in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += _pad(numbers.tobytes())
    path.write_bytes(_pad(head) + data)
    return path


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return _array(value)


def _array(values: Sequence[str | int | float]) -> bytes:
    kind, form = (8, "") if isinstance(values[0], str) else (5, "i") if isinstance(values[0], int) else (6, "f")
    items = [_text(value) if isinstance(value, str) else struct.pack(f"<{form}", value) for value in values]
    return struct.pack("<IIQ", 9, kind, len(values)) + b"".join(items)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _pad(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 32)
