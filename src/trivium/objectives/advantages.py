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


def whiten(values: Tensor, valid: Tensor, epsilon: float = 1e-6, keep_mean: bool = False) -> Tensor:
    """Zero mean and unit (unbiased) deviation over the valid entries; entries that are not valid come back as 0.

    Exactly 0 everywhere if all valid entries are equal: the rounding of a mean must not be scaled up. ``keep_mean``
    scales without shifting: the mean stays what it was, and equal entries stay as they are (the rewards of PPO, whose
    sign has a meaning: Ziegler et al., 2019).
    """
    if values.numel() == 0:
        return values
    number = valid.sum().clamp(min=1)
    mean = torch.where(valid, values, 0.0).sum() / number
    centred = torch.where(valid, values - mean, 0.0)
    deviation = ((centred**2).sum() / (number - 1).clamp(min=1)).sqrt()
    spread = torch.where(valid, values, -torch.inf).amax() > torch.where(valid, values, torch.inf).amin()
    if keep_mean:
        return torch.where(valid, torch.where(spread, centred / (deviation + epsilon) + mean, values), 0.0)
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


def gae(
    rewards: Tensor, values: Tensor, sequences: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., 2016, section 3), token by token.

    ``rewards`` and ``values`` are flat (N,), ``sequences`` (N,) contiguous from 0; ``values[t]`` is the critic's value
    of the state *before* token t was drawn. With delta_t = r_t + gamma V_{t+1} - V_t the advantage is the sum of
    (gamma lam)^l delta_{t+l} up to the end of the sequence. Returns (advantages, returns), both (N,) in the type of
    ``rewards``, computed in float64; returns = advantages + values are what the critic learns, so they are taken before
    any whitening.

    The value after the last token is 0, also for a response that was cut at the length limit: the score was given for
    the response as it stands, with nothing to come, and the limit is part of the task. (Bootstrapping there would pay
    the critic's guess of a continuation that is never judged on top of the score.)

    Two responses, of two tokens and of one; the score stands on the last token of each:

    >>> rewards, values = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.25, 1.0])
    >>> advantages, returns = gae(rewards, values, torch.tensor([0, 0, 1]), gamma=1.0, lam=0.5)
    >>> advantages.tolist(), returns.tolist()
    ([0.125, 0.75, 1.0], [0.625, 1.0, 2.0])
    """
    if rewards.numel() == 0:
        return rewards.clone(), rewards.clone()
    wide = values.double()
    follows = torch.zeros_like(wide)  # the value after each token
    follows[:-1] = torch.where(sequences[1:] == sequences[:-1], wide[1:], 0.0)
    deltas = rewards.double() + gamma * follows - wide
    lengths = torch.bincount(sequences)
    places = torch.arange(len(wide), device=wide.device) - (lengths.cumsum(0) - lengths)[sequences]
    grid = deltas.new_zeros(len(lengths), int(lengths.max()))  # a row a sequence, zeros after its end
    grid[sequences, places] = deltas
    running = deltas.new_zeros(len(lengths))
    for place in range(grid.shape[1] - 1, -1, -1):
        running = grid[:, place] + gamma * lam * running
        grid[:, place] = running
    advantages = grid[sequences, places]
    return advantages.to(rewards.dtype), (advantages + wide).to(rewards.dtype)
