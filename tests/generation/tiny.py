"""A small decoder with everything that could go wrong in a cache, and the plain way to continue a prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.layout import ragged_layout

BASE: dict[str, Any] = {
    "vocabulary_size": 23,
    "hidden_size": 16,
    "layers": 2,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 4,
    "mlp_size": 24,
    "context_length": 48,
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped-query": {"kv_heads": 2, "qk_norm": "head", "qkv_bias": True},
    "sliding window": {"kv_heads": 1, "windows": (None, 3)},
    "tied": {"tie_embeddings": True, "rope_layers": (True, False)},
    "olmo": {"norm_position": "after", "qk_norm": "full"},
}


def decoder_of(kind: str = "grouped-query", seed: int = 1) -> Decoder:
    """Large random weights, so that the distributions are far from uniform."""
    decoder = Decoder(DecoderConfig(**{**BASE, **KINDS[kind]}))
    decoder.initialise(torch.Generator().manual_seed(seed), std=0.4)
    return decoder


def plain_logits(decoder: Decoder, tokens: Sequence[int]) -> Tensor:
    """(tokens, vocabulary), one sequence by itself, without a cache."""
    layout = ragged_layout([len(tokens)])
    with torch.no_grad():
        return decoder.logits(torch.tensor(tokens), layout.positions, GridAttention(layout))


def plain_greedy(decoder: Decoder, prompt: Sequence[int], count: int, stops: Sequence[int] = ()) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + count:
        tokens.append(int(plain_logits(decoder, tokens)[-1].argmax()))
        if tokens[-1] in stops:
            break
    return tokens[len(prompt) :]
