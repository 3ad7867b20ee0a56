"""The decoder: one Transformer whose flags cover the Llama, Mistral, Qwen2, Qwen3, SmolLM3 and OLMo2 families.

Tokens lie flat, (T,), whatever sequences they belong to; how they see each other is the business of ``attend`` (see
``trivium.model.attention``). The vocabulary head runs on demand: ``decoder(tokens, positions, attend, head)`` hands the
final hidden states and the head's weight to ``head`` and returns what that returns, so that a loss touches only the
tokens that carry it. A reward model or a critic has ``score``, a few scalar heads, in place of the vocabulary head.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from trivium.model.attention import Attend

Head = Callable[[Tensor, Tensor], Any]  # (hidden (T, hidden_size), weight (outputs, hidden_size)) -> anything


@dataclass(frozen=True)
class RopeScaling:
    """A published way to stretch RoPE to longer contexts; see ``rope_frequencies``."""

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_context: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True


@dataclass(frozen=True)
class DecoderConfig:
    vocabulary_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    context_length: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["none", "head", "full"] = "none"  # full: over all heads at once (OLMo2)
    norm_position: Literal["before", "after"] = "before"  # after: on the output of attention and MLP (OLMo2)
    tie_embeddings: bool = False
    windows: tuple[int | None, ...] = ()  # sliding window of each layer; empty: none anywhere
    rope_layers: tuple[bool, ...] = ()  # whether each layer rotates; empty: all do
    family: str = "qwen3"  # the Hugging Face model_type it is saved as
    scalar_heads: int = 0  # above 0: so many scores a token in place of logits over the vocabulary

    def window(self, layer: int) -> int | None:
        return self.windows[layer] if self.windows else None

    def rotates(self, layer: int) -> bool:
        return self.rope_layers[layer] if self.rope_layers else True


def rope_frequencies(config: DecoderConfig) -> tuple[Tensor, float]:
    """Angular frequencies (head_dim / 2,) in float32, and the factor on cos and sin that YaRN adds.

    Sources: RoFormer (Su et al., 2021); linear interpolation (Chen et al., 2023); YaRN (Peng et al., 2023, section
    3.2-3.4); Llama 3.1's frequency-dependent scaling (Llama 3 herd of models, 2024, and its published configuration).
    """
    dim, scaling = config.head_dim, config.rope_scaling
    exponents = torch.arange(0, dim, 2, dtype=torch.int64, device="cpu").float() / dim  # real, even under a meta device
    frequencies = 1.0 / (config.rope_theta**exponents)
    if scaling is None:
        return frequencies, 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        wavelengths = 2 * math.pi / frequencies
        longest = scaling.original_context / scaling.low_frequency_factor
        shortest = scaling.original_context / scaling.high_frequency_factor
        smooth = (scaling.original_context / wavelengths - scaling.low_frequency_factor) / (
            scaling.high_frequency_factor - scaling.low_frequency_factor
        )
        blended = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
        scaled = torch.where(wavelengths > longest, frequencies / scaling.factor, blended)
        return torch.where(wavelengths < shortest, frequencies, scaled), 1.0

    def dimension_of(rotations: float) -> float:
        return dim * math.log(scaling.original_context / (rotations * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(dim // 2, device="cpu").float() - low) / (high - low or 0.001)).clamp(0, 1)
    frequencies = frequencies / scaling.factor * ramp + frequencies * (1 - ramp)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return frequencies, factor


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x.roll(x.shape[-1] // 2, -1).mul_(sin).addcmul_(x, cos)


class _Rotate(torch.autograd.Function):
    """``rotate`` in three passes over memory each way; the way back is the turn by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        turned = gradient.roll(gradient.shape[-1] // 2, -1).mul_(sin)
        return torch.addcmul(turned.neg_(), gradient, cos), None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (T, heads, head_dim) by cos and sin (T, 1, head_dim), in the half-split form of Hugging Face weights.

    ``sin`` is negative in its first half, as in ``Decoder.sin``: channel i of the first half and channel i of the
    second are a point in the plane, (a, b) -> (a cos - b sin, b cos + a sin), and rolling by half puts b beside a.
    """
    if not torch.is_grad_enabled():  # a decoding step is short enough for the bookkeeping to show
        return _turn(x, cos, sin)
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return, no-untyped-call]


def _normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / rms(x), and 1 / rms(x). In float32 (or wider) whatever x is, as the checkpoints were trained."""
    wide = x if x.dtype == torch.float64 else x.float()
    mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    scale = mean_square.add_(eps).rsqrt_()
    return wide * scale, scale


class _Normalise(torch.autograd.Function):
    """x / rms(x) * weight over the last dimension, with a backward pass that keeps one tensor instead of four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, scale = _normalise(x, eps)
        ctx.save_for_backward(normed, scale, weight)
        return normed.to(x.dtype) * weight.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        product = gradient * normed  # the wider of the two types
        weight_gradient = product.flatten(0, -2).sum(0).to(weight.dtype)
        along = product.mul_(weight).mean(-1, keepdim=True)  # the part of the gradient that only stretches x
        x_gradient = (gradient.to(normed.dtype) * weight).addcmul_(normed, along, value=-1).mul_(scale)
        return x_gradient.to(gradient.dtype), weight_gradient, None


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return _normalise(x, self.eps)[0].to(x.dtype) * self.weight.to(x.dtype)
        return _Normalise.apply(x, self.weight, self.eps)  # type: ignore[no-any-return, no-untyped-call]


def _attended(attend: Attend, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    return attend(layer, q, k, v, window)


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.attended = _attended
        self.layer, self.window, self.rotates = layer, config.window(layer), config.rotates(layer)
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q = nn.Linear(config.hidden_size, query, bias=config.qkv_bias)
        self.k = nn.Linear(config.hidden_size, key, bias=config.qkv_bias)
        self.v = nn.Linear(config.hidden_size, key, bias=config.qkv_bias)
        self.o = nn.Linear(query, config.hidden_size, bias=config.output_bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm != "none":
            full = config.qk_norm == "full"
            self.q_norm = RMSNorm(query if full else config.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(key if full else config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in (q, k, v))  # (T, heads, head_dim)
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotates:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return self.o(self.attended(attend, self.layer, q, k, v, self.window).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.mlp_size, bias=config.mlp_bias)
        self.up = nn.Linear(config.hidden_size, config.mlp_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.before = config.norm_position == "before"
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        if self.before:
            x = x + self.attention(self.attention_norm(x), cos, sin, attend)
            return x + self.mlp(self.mlp_norm(x))
        x = x + self.attention_norm(self.attention(x, cos, sin, attend))
        return x + self.mlp_norm(self.mlp(x))


class Decoder(nn.Module):
    """See the module's docstring. ``gradient_checkpointing`` recomputes each block in the backward pass."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head: nn.Linear | None = None
        self.score: nn.Linear | None = None
        if config.scalar_heads:
            self.score = nn.Linear(config.hidden_size, config.scalar_heads, bias=False)
        elif not config.tie_embeddings:
            self.head = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)
        self.gradient_checkpointing = False
        self.reset_rope()

    def compile_blocks(self) -> None:
        """torch.compile every block, attention left out: its grids differ from batch to batch, and each would be
        compiled anew."""
        left_out = torch.compiler.disable(_attended)  # here: it loads the compiler, half of the time of a start
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.attended = left_out
            block.compile(dynamic=True)

    def reset_rope(self) -> None:
        """(Re)build the tables cos and sin (context_length, head_dim): made, not loaded, so they are no parameters.

        The first half of ``sin`` carries the minus sign of the rotation, see ``rotate``.
        """
        frequencies, factor = rope_frequencies(self.config)
        angles = torch.outer(torch.arange(self.config.context_length, device="cpu").float(), frequencies)
        cos = torch.cat((angles, angles), dim=-1).cos() * factor
        sin = torch.cat((-angles, angles), dim=-1).sin() * factor
        device = self.embedding.weight.device
        device = torch.device("cpu") if device.type == "meta" else device
        self.register_buffer("cos", cos.to(device), persistent=False)
        self.register_buffer("sin", sin.to(device), persistent=False)

    def initialise(self, generator: torch.Generator, std: float = 0.02) -> None:
        """Normal weights of the given ``std``, residual outputs smaller by sqrt(2 * layers) (GPT-2), zero biases."""
        residual = std / math.sqrt(2 * self.config.layers)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    scale = residual if name.endswith(("attention.o.weight", "mlp.down.weight")) else std
                    parameter.normal_(0.0, scale, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()

    @property
    def head_weight(self) -> Tensor:
        """(vocabulary, hidden_size), or (scalar_heads, hidden_size)"""
        if self.score is not None:
            return self.score.weight
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend, head: Head | None = None) -> Any:
        """Hidden states (T, hidden_size) after the last norm, or ``head(hidden, head_weight)``.

        ``tokens`` and ``positions`` are (T,) int64. Positions must be below ``config.context_length``.
        """
        x = self.embedding(tokens)
        cos = self.cos[positions].unsqueeze(1).to(x.dtype)
        sin = self.sin[positions].unsqueeze(1).to(x.dtype)
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, attend, use_reentrant=False)
            else:
                x = block(x, cos, sin, attend)
        x = self.norm(x)
        return x if head is None else head(x, self.head_weight)

    def logits(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """(T, vocabulary or scalar_heads) in float32, for every token: tests and short texts; losses use ``head``."""
        return self(tokens, positions, attend, lambda hidden, weight: F.linear(hidden, weight).float())  # type: ignore[no-any-return]
