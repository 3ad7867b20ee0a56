"""How the next token is drawn: settings, counter-based random numbers, and the draw itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trivium.model.head import filter_logits

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer; the constants are those of splitmix64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


@dataclass(frozen=True)
class SamplingSettings:
    """``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 keep every token. Lengths count completion tokens."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 64
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch shifts int64 arithmetically, so the copied sign bits are masked off."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def uniforms(keys: Tensor, positions: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), (B,) float64, from int64 ``keys`` (B,) and ``positions`` (B,): splitmix64.

    A number depends on its own key and position alone, so what a request draws does not depend on who else is in the
    batch, nor on when it was admitted. Integer arithmetic wraps, on every device alike.
    """
    z = keys + (positions + 1) * _GOLDEN
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    z = z ^ _shift(z, 31)
    return _shift(z, 11).double() * 2.0**-53


def draw(logits: Tensor, uniform: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """Tokens (B,) and their log-probabilities (B,) float32 as sampled, from logits (B, V) and uniforms (B,).

    The distribution is softmax(logits / temperature) after top-k and top-p; the token is the inverse of its cumulative
    sum at ``uniform``. Greedy (temperature 0) takes the first largest logit, with its log-probability at temperature 1.
    """
    logits = logits.float()
    if settings.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    log_probs = filter_logits(logits / settings.temperature, settings.top_k, settings.top_p).log_softmax(-1)
    cumulative = log_probs.double().exp().cumsum(-1)
    total = cumulative[:, -1]
    # strictly below the total, so that the token found always has a positive probability
    goal = torch.minimum(uniform.to(total.dtype) * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, goal[:, None], right=True).squeeze(1)
    return tokens, log_probs.gather(1, tokens[:, None]).squeeze(1)
