"""The Llama architecture, small, in the shape and with the tensor names that llama.cpp reads.

Module names are GGUF tensor names, so export is a loop. Rotary pairs are neighbours, as llama.cpp has them for
this architecture, so queries and keys need no reordering. Knows nothing of text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name everyone uses)


@dataclass(frozen=True, slots=True)
class Shape:
    vocab: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 768
    context: int = 512
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    dropout: float = 0.1

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = nn.Dropout(shape.dropout)
        self.attn_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_v = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.ffn_gate = nn.Linear(shape.width, shape.ffn, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.ffn, bias=False)
        self.ffn_down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        x = x + self.dropout(self._attend(self.attn_norm(x), turn))
        h = self.ffn_norm(x)
        out: Tensor = x + self.dropout(self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h)))
        return out

    def _attend(self, h: Tensor, turn: Tensor) -> Tensor:
        q, k, v = (self._by_head(part(h)) for part in (self.attn_q, self.attn_k, self.attn_v))
        mixed = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v, is_causal=True)
        joined: Tensor = self.attn_output(mixed.transpose(1, 2).flatten(2))
        return joined

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Net(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.dropout = nn.Dropout(shape.dropout)
        self.token_embd = nn.Embedding(shape.vocab, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.register_buffer("turn", turns(shape), persistent=False)
        self.apply(_start_small)

    def forward(self, tokens: Tensor) -> Tensor:
        """The state after each token; `logits` turns the states that matter into scores."""
        turn = self.get_buffer("turn")[:, : tokens.shape[1]]
        x = self.dropout(self.token_embd(tokens))
        for block in self.blk:
            x = block(x, turn)
        out: Tensor = self.output_norm(x)
        return out

    def logits(self, states: Tensor) -> Tensor:
        return F.linear(states, self.token_embd.weight)


def turns(shape: Shape) -> Tensor:
    """Cosine and sine of the rotary angle by position and pair: (2, context, head_width / 2)."""
    pair = torch.arange(0, shape.head_width, 2) / shape.head_width
    angle = torch.outer(torch.arange(shape.context).float(), shape.rope_base**-pair)
    return torch.stack((angle.cos(), angle.sin()))


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotates each pair of neighbouring features by the angle of its position."""
    cos, sin = turn.to(x.dtype)
    even, odd = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)


def _start_small(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
