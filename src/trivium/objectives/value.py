"""The critic's loss and how well its values explain the returns."""

import torch
from torch import Tensor


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, weights: Tensor, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the weighted squared error of the critic, with values held near those before the first update.

    0.5 * sum of w * max((v - R)^2, (v_old + clamp(v - v_old, -clip, clip) - R)^2), the clipped value loss of the
    reference implementation of PPO (Schulman et al., 2017; Engstrom et al., 2020, section 3). ``clip`` 0: no clipping.
    All tensors are (N,), flat over tokens; ``weights`` are over the whole update, so micro-batches add up, and what
    has weight 0 counts nowhere, even if it is NaN. Metrics are sums: ``value_clip_share``, the weight of the tokens
    whose loss is the clipped one and which hence have no gradient.

    >>> one = torch.tensor([1.0])
    >>> float(value_loss(torch.tensor([2.0]), one, torch.tensor([4.0]), one, clip=0.5)[0])  # (1.5 - 4)^2 / 2
    3.125
    """
    used = weights > 0
    values = torch.where(used, values, 0.0)
    old_values, returns = torch.where(used, old_values, 0.0), torch.where(used, returns, 0.0)
    error = (values - returns) ** 2
    clipped = torch.zeros_like(used)
    if clip > 0:
        bounded = (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2
        clipped = bounded > error
        error = torch.maximum(error, bounded)
    metrics = {"value_clip_share": (weights * clipped).sum()}
    return 0.5 * (weights * error).sum(), metrics


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 one that might as well be constant.

    (N,) both; 0 where the returns do not vary, since there is nothing to explain.

    >>> explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    0.75
    """
    if returns.numel() < 2:
        return 0.0
    returns, values = returns.double(), values.double()
    total = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / total) if total > 0 else 0.0
