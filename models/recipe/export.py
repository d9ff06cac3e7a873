"""A trained net and its tokeniser as one GGUF file in Q8_0, by the `gguf` package alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import gguf
from corpus import Card
from llama_cpp import Llama
from net import Net, Shape
from tokenizers import Tokenizer
from tokens import CONTROL, END, TEMPLATE

AUTHOR = "The Lyceum project"


def export(net: Net, tokenizer: Tokenizer, card: Card, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, card)
    _shape(writer, net.shape)
    _vocabulary(writer, tokenizer, net.shape.vocab)
    _weights(writer, net)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_tokens(tokenizer: Tokenizer, path: Path, texts: Sequence[str]) -> None:
    """The file must split text as the net was taught, or every answer would suffer without a word."""
    llama = Llama(str(path), verbose=False)
    for text in texts:
        ours = tokenizer.encode(text, add_special_tokens=False).ids
        theirs = llama.tokenize(text.encode(), add_bos=False, special=False)
        if ours != theirs:
            raise RuntimeError(f"llama.cpp splits {text!r} as {theirs}, not {ours}")


def _describe(writer: gguf.GGUFWriter, card: Card) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(card.title)
    writer.add_basename(card.name)
    writer.add_description(card.description)
    writer.add_author(AUTHOR)
    writer.add_license(card.licence)
    writer.add_languages(["en"])
    writer.add_tags(list(card.topics))
    writer.add_string("lyceum.refusal", card.refusal)


def _shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)


def _vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer, size: int) -> None:
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    spare = [f"<|unused {i}|>" for i in range(size - len(tokens))]
    kinds = [gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *spare])
    writer.add_token_types([*kinds, *(gguf.TokenType.UNUSED for _ in spare)])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_eos_token_id(ids[END])
    writer.add_eot_token_id(ids[END])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _weights(writer: gguf.GGUFWriter, net: Net) -> None:
    """Matrices as Q8_0, norms as f32; the output matrix is the embedding and is left out."""
    eight_bits = gguf.GGMLQuantizationType.Q8_0
    for name, weight in net.state_dict().items():
        data = weight.float().cpu().numpy()
        if data.ndim == 1:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quantize(data, eight_bits), raw_dtype=eight_bits)
