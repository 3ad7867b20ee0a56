"""The size dial: a name or explicit dimensions to a whole ``DecoderConfig``; what is left out is derived and told."""

from typing import TYPE_CHECKING

import torch

from trivium.errors import UserError
from trivium.model.decoder import Decoder, DecoderConfig

if TYPE_CHECKING:  # a type and no more: the model knows nothing of recipes
    from trivium.config import ModelConfig

# width and depth; the other dimensions follow from the rules of ``derive``
SIZES: dict[str, tuple[int, int]] = {
    "nano": (128, 4),  # 0.87M with a vocabulary of 512
    "micro": (192, 4),  # 1.97M with 1,024
    "mini": (512, 8),  # 29.5M with 8,192
    "small": (768, 12),  # 109.5M with 32,000
}


def derive(model: "ModelConfig", vocabulary_size: int) -> tuple[DecoderConfig, str]:
    """The decoder that ``model`` asks for, and a line that tells what was derived, its parameters and its cost.

    Explicit dimensions win over the size's. Left out: heads are as many as give each a width of 32 (below a hidden size
    of 512) or 64, or the next width that divides; ``kv_heads`` equals ``heads``; ``mlp_size`` is 8/3 of the hidden
    size, which gives a gated MLP the parameters of a plain one four times as wide (Shazeer, 2020), rounded up to a
    multiple of 32. UserError for dimensions that do not fit together.

    >>> from trivium.config import ModelConfig
    >>> derive(ModelConfig(size="nano"), 512)[0].mlp_size
    352
    """
    hidden, layers = SIZES[model.size] if model.size else (0, 0)
    hidden, layers = model.hidden_size or hidden, model.layers or layers
    if not hidden or not layers:
        raise UserError("model: without model.size, give model.hidden_size and model.layers.")
    heads, head_dim = _heads(hidden, model.heads, model.head_dim)
    kv_heads = model.kv_heads or heads
    if heads % kv_heads:
        raise UserError(f"model.kv_heads = {kv_heads} must divide the {heads} heads; try {_divisors(heads)}.")
    mlp = model.mlp_size or -(-hidden * 8 // 3 // 32) * 32
    config = DecoderConfig(
        vocabulary_size=vocabulary_size,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_size=mlp,
        context_length=model.context_length,
        rope_theta=model.rope_theta,
        qk_norm="head" if model.qk_norm else "none",
        tie_embeddings=model.tie_embeddings,
        family="qwen3" if model.qk_norm else "llama",
    )
    return config, describe(config, model)


def _heads(hidden: int, heads: int | None, head_dim: int | None) -> tuple[int, int]:
    if heads is None:
        if head_dim is None:
            wanted = 32 if hidden < 512 else 64
            head_dim = next((dim for dim in range(wanted, hidden + 1, 2) if hidden % dim == 0), hidden)
        if hidden % head_dim:
            raise UserError(
                f"model.head_dim = {head_dim} must divide model.hidden_size = {hidden}, or give model.heads."
            )
        heads = hidden // head_dim
    if hidden % heads:
        raise UserError(f"model.hidden_size = {hidden} must be a multiple of model.heads = {heads}.")
    head_dim = head_dim or hidden // heads
    if head_dim % 2:
        raise UserError(
            f"model.head_dim = {head_dim} must be even, since rotary positions turn pairs; "
            f"change model.heads = {heads} or model.hidden_size = {hidden}."
        )
    return heads, head_dim


def _divisors(number: int) -> str:
    return ", ".join(str(divisor) for divisor in range(1, number + 1) if number % divisor == 0)


def parameter_count(config: DecoderConfig) -> int:
    """Parameters, a tied head counted once; made without memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Decoder(config).parameters())


def training_flops(config: DecoderConfig) -> int:
    """Floating-point operations a token in training: forward and backward, at the mean distance of a full context.

    Six for each weight of a matrix product (the head included, the embedding look-up not), and 12 for each query
    channel and token it sees: half the context on average, or half of it and the rest full under a sliding window.
    Source: Kaplan et al., 2020, section 2.1; PaLM (Chowdhery et al., 2022), appendix B.
    """
    channels = config.heads * config.head_dim
    attention = config.hidden_size * (2 * channels + 2 * config.kv_heads * config.head_dim)
    matrices = config.layers * (attention + 3 * config.hidden_size * config.mlp_size)
    matrices += (config.scalar_heads or config.vocabulary_size) * config.hidden_size
    seen = 0.0
    for layer in range(config.layers):
        window = min(config.window(layer) or config.context_length, config.context_length)
        seen += window * (1 - window / (2 * config.context_length))
    return round(6 * matrices + 12 * channels * seen)


def describe(config: DecoderConfig, model: "ModelConfig") -> str:
    """One line: the size, which dimensions were derived, parameters and cost."""
    shape = ("layers", "hidden_size", "heads", "kv_heads", "head_dim", "mlp_size")
    given = [name for name in shape if getattr(model, name) is not None]
    show = lambda names: ", ".join(f"{name} {getattr(config, name)}" for name in names)  # noqa: E731
    derived = show([name for name in shape if name not in given])
    parts = [
        f"model {model.size}" if model.size else "model",
        f"given {show(given)}" if given else "",
        f"derived {derived}" if derived else "",
        f"{parameter_count(config):,} parameters",
        f"{training_flops(config) / 1e6:,.1f} million operations a token in training",
    ]
    return "; ".join(filter(None, parts))
