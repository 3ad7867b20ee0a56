"""Estimators of the KL divergence of the policy from a reference, per sampled token (Schulman, 2020)."""

import torch
from torch import Tensor


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor, estimator: str) -> Tensor:
    """Per-token estimate, the shape of the inputs; natural logarithms, tokens sampled from the policy.

    With d = log reference - log policy: k1 = -d (unbiased, may be negative), k2 = d²/2, k3 = exp(d) - d - 1 (unbiased
    and never negative). Raises ValueError for any other name.
    """
    difference = reference_log_probs - log_probs
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return 0.5 * difference**2
    if estimator == "k3":
        return torch.expm1(difference) - difference
    raise ValueError(f"unknown KL estimator {estimator!r}: k1, k2 or k3")


def kl_penalty(log_probs: Tensor, reference_log_probs: Tensor, estimator: str) -> Tensor:
    """Per-token KL term for a *loss*: the estimator's value, with the gradient of the KL itself.

    On tokens sampled from the policy the gradient of the KL is E[log(policy/reference) ∇ log policy], which is what
    differentiating k2 gives. Differentiating k3 as it stands gives (1 - reference/policy) ∇ log policy instead, which
    is the gradient of the KL in the other direction, so k3 keeps its value and takes the gradient of k2. k1 has no
    place in a loss (its gradient averages to zero): ValueError.
    """
    if estimator == "k1":
        raise ValueError("k1 belongs in the reward: as a loss its expected gradient is zero")
    surrogate = kl_estimate(log_probs, reference_log_probs.detach(), "k2")
    if estimator == "k2":
        return surrogate
    value = kl_estimate(log_probs.detach(), reference_log_probs.detach(), estimator)
    return value + surrogate - surrogate.detach()


def adapted_coefficient(coefficient: float, kl: float, target: float, rollouts: int, horizon: int) -> float:
    """The next coefficient of a KL that is to stay near ``target`` (Ziegler et al., 2019, section 2.2).

    A proportional controller in log space: coefficient * (1 + clamp(kl / target - 1, -0.2, 0.2) * rollouts / horizon).
    ``kl`` and ``target`` are in nats a response; ``rollouts`` were sampled since the last change.

    >>> adapted_coefficient(0.1, kl=12.0, target=6.0, rollouts=100, horizon=1000)
    0.10200000000000001
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * rollouts / horizon)
