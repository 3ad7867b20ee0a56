"""Optimisers and schedules: AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""

import math

import torch
from torch import nn

from trivium.config import OptimizerConfig, ScheduleConfig


def build_optimizers(decoder: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """One or two optimisers over all parameters that learn. Weight decay touches matrices alone; each group keeps
    ``peak_lr``. The A and B of adapters are matrices of the blocks as any other, for Muon too."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in filter(learns, decoder.parameters()):
        (matrices if parameter.ndim == 2 else others).append(parameter)
    inside = filter(learns, decoder.blocks.parameters())  # type: ignore[union-attr]
    blocks = [parameter for parameter in inside if parameter.ndim == 2]
    in_blocks = {id(parameter) for parameter in blocks}
    optimizers: list[torch.optim.Optimizer] = []
    if config.name == "muon":
        matrices = [parameter for parameter in matrices if id(parameter) not in in_blocks]
        optimizers.append(
            torch.optim.Muon(blocks, lr=config.muon_lr, momentum=config.muon_momentum, weight_decay=config.weight_decay)
        )
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizers.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def learns(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad


def schedule_factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """Share of the peak learning rate at ``step`` (from 0) of ``steps``.

    Warm-up is linear and reaches the peak at step ``warmup``; then ``cosine`` or ``linear`` falls to ``final`` at the
    last step, ``wsd`` (warmup-stable-decay, Hu et al., 2024) stays at the peak and falls linearly over its last
    ``decay`` share.

    >>> [schedule_factor(step, 5, ScheduleConfig(kind="linear", warmup=1, final=0.0)) for step in (0, 1, 4)]
    [0.5, 1.0, 0.0]
    """
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    if config.kind == "constant":
        return 1.0
    start = config.warmup
    if config.kind == "wsd":
        start = max(start, round(steps * (1 - config.decay)) - 1)
    progress = min(1.0, max(0.0, (step - start) / max(1, steps - 1 - start)))
    if config.kind == "cosine":
        progress = 0.5 * (1 - math.cos(math.pi * progress))
    return 1.0 - (1.0 - config.final) * progress


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
