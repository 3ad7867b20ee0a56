"""The policy-gradient loss: one function over orthogonal choices (ratio, clipping) and explicit token weights.

Tokens are flat: N completion tokens of S sequences. Averages are taken by ``token_weights``, computed once from the
whole batch, so the loss of a batch is the plain sum of the losses of its micro-batches, on any number of processes.
"""

import torch
from torch import Tensor


def token_weights(lengths: Tensor, aggregation: str, max_length: int) -> Tensor:
    """Weight of the tokens of each sequence, (S,), for lengths (S,) of *all* sequences of the update.

    ``token``: every token alike, 1 / total tokens (DAPO). ``sequence``: mean over sequences of token means,
    1 / (S * length) (GRPO). ``constant``: sum of tokens over S * ``max_length`` (Dr. GRPO). Sequences of length 0
    (masked) count nowhere.

    >>> token_weights(torch.tensor([1, 3]), "sequence", 8).tolist()
    [0.5, 0.1666666716337204]
    """
    used = lengths > 0
    sequences = used.sum().clamp(min=1)
    if aggregation == "token":
        weights = torch.ones_like(lengths, dtype=torch.float32) / lengths.sum().clamp(min=1)
    elif aggregation == "sequence":
        weights = 1.0 / (sequences * lengths.clamp(min=1)).float()
    elif aggregation == "constant":
        weights = torch.ones_like(lengths, dtype=torch.float32) / (sequences * max_length)
    else:
        raise ValueError(f"unknown aggregation {aggregation!r}: token, sequence or constant")
    return torch.where(used, weights, 0.0)


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    sequences: Tensor,
    weights: Tensor,
    *,
    ratio: str = "token",
    clipping: str = "symmetric",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss (scalar) and metrics of one micro-batch; all inputs are flat (N,) over completion tokens.

    ``log_probs`` of the policy (with gradient) and ``old_log_probs`` of the behaviour policy, under the same sampling
    settings; ``advantages`` per token; ``sequences``: number of each token's sequence, counting from 0;
    ``weights``: see ``token_weights``; a weight of 0 masks a token whatever its other values are, NaN included.

    ``ratio``: w = exp(log_probs - old) per ``token``, or the geometric mean over the ``sequence`` (GSPO, Zheng et al.,
    2025).
    ``clipping``: ``symmetric`` and ``higher`` take min(wA, clip(w, 1 - clip_low, 1 + clip_high)A) (PPO; DAPO raises the
    upper bound); ``capped_weight`` takes -detach(min(w, 1 + clip_high)) A log_prob (CISPO, MiniMax 2025); ``none``
    takes wA. Metrics are sums that add up over micro-batches: ``ratio_mean``, ``clip_share`` (weighted),
    ``max/ratio_deviation``.
    """
    used = weights > 0
    log_probs = torch.where(used, log_probs, 0.0)
    change = torch.where(used, log_probs - old_log_probs, 0.0)
    advantages = torch.where(used, advantages, 0.0)
    if ratio == "sequence":
        count = int(sequences.max()) + 1 if sequences.numel() else 0
        number = change.new_zeros(count).index_add_(0, sequences, used.to(change.dtype)).clamp(min=1)
        change = (change.new_zeros(count).index_add(0, sequences, change) / number)[sequences]
    elif ratio != "token":
        raise ValueError(f"unknown ratio {ratio!r}: token or sequence")
    weight = change.exp()
    low, high = 1 - clip_low, 1 + clip_high
    if clipping in ("symmetric", "higher"):
        bounded = weight.clamp(low, high) * advantages
        surrogate = torch.minimum(weight * advantages, bounded)
        clipped = weight * advantages > bounded
    elif clipping == "capped_weight":
        surrogate = weight.detach().clamp(max=high) * advantages * log_probs
        clipped = weight > high
    elif clipping == "none":
        surrogate = weight * advantages
        clipped = torch.zeros_like(used)
    else:
        raise ValueError(f"unknown clipping {clipping!r}: symmetric, higher, capped_weight or none")
    with torch.no_grad():
        metrics = {
            "ratio_mean": (weights * weight).sum(),
            "clip_share": (weights * clipped).sum(),
            "max/ratio_deviation": torch.where(used, (weight - 1).abs(), 0.0).amax()
            if weight.numel()
            else weight.sum(),
        }
    return -(weights * surrogate).sum(), metrics
