"""Running numbers of an RL stage that steer it: the scale of the rewards, and the coefficient of the KL."""

import math
from collections.abc import Sequence
from typing import Any

from trivium.config import RLConfig
from trivium.objectives.kl import adapted_coefficient

Scale = tuple[float, float]  # a reward r counts as (r - first) / second
UNSCALED: Scale = (0.0, 1.0)


class RewardScale:
    """How rewards are centred and scaled: ``batch`` by those of the step, ``running`` by all so far, ``none`` not.

    The running mean and variance are Welford's (1962), so that they stay exact over many steps; the rewards of a step
    count before they are scaled. Deviations are the unbiased ones; rewards that do not vary are only centred.

    >>> scale = RewardScale("running")
    >>> scale.of([1.0, 3.0]), scale.of([5.0])
    ((2.0, 1.4142135623730951), (3.0, 2.0))
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.count, self.mean, self.squares = 0, 0.0, 0.0  # squares: the sum of squared distances from the mean

    def of(self, rewards: Sequence[float]) -> Scale:
        """The scale for the valid ``rewards`` of this step, the same on every rank."""
        if self.mode == "none":
            return UNSCALED
        if self.mode == "batch":
            self.count, self.mean, self.squares = 0, 0.0, 0.0
        for reward in rewards:
            self.count += 1
            distance = reward - self.mean
            self.mean += distance / self.count
            self.squares += distance * (reward - self.mean)
        deviation = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return self.mean, deviation if deviation > 1e-8 else 1.0

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def restore(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


class KLCoefficient:
    """The weight of the KL: fixed, or with ``kl_target`` adapted after each step (Ziegler et al., 2019)."""

    def __init__(self, config: RLConfig) -> None:
        self.config, self.value = config, float(config.kl_coefficient or 0.0)

    def observe(self, kl: float, rollouts: int) -> None:
        """``kl``: of the step's ``rollouts``, in nats a response."""
        if self.config.kl_target is not None:
            self.value = adapted_coefficient(self.value, kl, self.config.kl_target, rollouts, self.config.kl_horizon)

    def state(self) -> dict[str, Any]:
        return {"value": self.value}

    def restore(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
