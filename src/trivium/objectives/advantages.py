"""Advantages of rollouts from their rewards. Pure functions: flat tensors and group numbers in, flat tensors out."""

import torch
from torch import Tensor


def _group_sum(values: Tensor, groups: Tensor, count: int) -> Tensor:
    return values.new_zeros(count).index_add_(0, groups, values)


def groups_without_spread(rewards: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """(number of groups,) bool: True where a group's valid rewards are all equal, or fewer than two are valid.

    Judged on the full group, by largest against smallest, so that rounding in a mean can never make up a difference.
    """
    count = int(groups.max()) + 1 if groups.numel() else 0
    low = rewards.new_full((count,), torch.inf).scatter_reduce_(
        0, groups, torch.where(valid, rewards, torch.inf), "amin"
    )
    high = rewards.new_full((count,), -torch.inf).scatter_reduce_(
        0, groups, torch.where(valid, rewards, -torch.inf), "amax"
    )
    return ~(high > low)


def group_advantages(
    rewards: Tensor, groups: Tensor, kind: str, valid: Tensor | None = None, epsilon: float = 1e-6
) -> Tensor:
    """Advantage of each rollout, (N,), from rewards (N,) and group numbers (N,) that count from 0.

    ``group_mean``: r - mean (Dr. GRPO, Liu et al., 2025). ``group_zscore``: (r - mean) / (std + epsilon) with the
    unbiased std (GRPO, Shao et al., 2024). ``leave_one_out``: r - mean of the others (RLOO, Ahmadian et al., 2024).
    ``batch_zscore``: (r - mean of the batch) / (std of the batch + epsilon) (REINFORCE++, Hu, 2025).

    ``valid`` (N,) bool leaves out rollouts that have no reward (an infrastructure error): they count in no mean and get
    an advantage of 0, as does every member of a group without spread (the group kinds).

    >>> group_advantages(torch.tensor([4.0, 1.0, 1.0]), torch.tensor([0, 0, 0]), "leave_one_out").tolist()
    [3.0, -1.5, -1.5]
    """
    valid = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
    rewards = torch.where(valid, rewards, 0.0)  # a reward that is missing may be NaN
    if kind == "batch_zscore":
        return torch.where(valid, whiten(rewards, valid, epsilon), 0.0)
    flat = groups_without_spread(rewards, groups, valid)
    number = _group_sum(valid.to(rewards.dtype), groups, flat.numel()).clamp(min=1)
    mean = _group_sum(rewards, groups, flat.numel()) / number
    centred = torch.where(valid, rewards - mean[groups], 0.0)
    if kind == "group_zscore":
        deviation = (_group_sum(centred**2, groups, flat.numel()) / (number - 1).clamp(min=1)).sqrt()
        centred = centred / (deviation[groups] + epsilon)
    elif kind == "leave_one_out":
        centred = centred * (number / (number - 1).clamp(min=1))[groups]
    elif kind != "group_mean":
        raise ValueError(f"unknown advantage {kind!r}: group_mean, group_zscore, leave_one_out or batch_zscore")
    return torch.where(flat[groups], 0.0, centred)


def whiten(values: Tensor, valid: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Zero mean and unit (unbiased) deviation over the valid entries; entries that are not valid come back as 0.

    Exactly 0 everywhere if all valid entries are equal: the rounding of a mean must not be scaled up.
    """
    if values.numel() == 0:
        return values
    number = valid.sum().clamp(min=1)
    mean = torch.where(valid, values, 0.0).sum() / number
    centred = torch.where(valid, values - mean, 0.0)
    deviation = ((centred**2).sum() / (number - 1).clamp(min=1)).sqrt()
    spread = torch.where(valid, values, -torch.inf).amax() > torch.where(valid, values, torch.inf).amin()
    return torch.where(spread, centred / (deviation + epsilon), 0.0)


def returns_to_go(token_rewards: Tensor, sequences: Tensor) -> Tensor:
    """Sum of the rewards from each token to the end of its sequence; flat (N,), sequences (N,) contiguous from 0.

    >>> returns_to_go(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1])).tolist()
    [3.0, 2.0, 4.0]
    """
    count = int(sequences.max()) + 1 if sequences.numel() else 0
    wide = token_rewards.double()
    running = wide.cumsum(0)
    totals = _group_sum(wide, sequences, count)
    return ((totals.cumsum(0)[sequences] - running) + wide).to(token_rewards.dtype)
