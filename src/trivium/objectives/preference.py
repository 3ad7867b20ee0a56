"""Direct preference optimisation: a policy learns from pairs of answers, without a reward model and without sampling.

Sources: Rafailov et al. (2023, section 4); label smoothing: the conservative loss of Mitchell (2023).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDING = 1e-6  # margins closer to 0 are those of equal weights, read in another batch


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    weights: Sequence[float] | Tensor | None = None,
    total: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """-log sigmoid(margin), averaged over pairs by weight: (scalar, metrics).

    The reward that a policy implies is beta times the log ratio of policy and reference, up to a constant of the
    prompt; the margin is the chosen answer's less the rejected one's, so that the constant cancels:
    beta * ((chosen - reference_chosen) - (rejected - reference_rejected)).

    Args:
        chosen, rejected: (P,) log-probabilities of the answers under the policy, each summed over its tokens. Of any
            float type; differences are taken in float32 (or float64 if they are), then logsigmoid.
        reference_chosen, reference_rejected: (P,) the same under the reference policy; they carry no gradient.
        beta: how dear it is to leave the reference; above 0.
        label_smoothing: share of the pairs taken to be the wrong way round, 0 to 0.5. With it a pair costs least at
            the margin ln((1 - s) / s), instead of at an infinite one.
        weights: (P,) of each pair; 1 unless told. A weight of 0 leaves a pair out, whatever its other values are.
        total: the denominator, which a caller that cuts a batch takes from the whole of it: the losses and metrics of
            the parts then add up to those of the batch. The sum of the weights unless told.

    Metrics add up over parts and are means by the same weights: ``accuracy`` (1 where the margin is above 0, 0.5 where
    it is 0 but for rounding, as that of a policy that is the reference), ``margin``, and ``chosen_reward`` and
    ``rejected_reward``, beta times the log ratio of each.

    The policy gives the chosen answer e times the reference's probability and the rejected one half of it. At beta 0.5
    the rewards are 0.5 and -0.346574, the margin is 0.846574:

    >>> log_probs = torch.tensor([-4.0]), torch.tensor([-6.693147]), torch.tensor([-5.0]), torch.tensor([-6.0])
    >>> loss, metrics = dpo_loss(*log_probs, beta=0.5)
    >>> round(float(loss), 6), round(float(metrics["margin"]), 6)
    (0.356892, 0.846574)

    A policy that is the reference costs ln 2. Raises ValueError for impossible options or shapes.
    """
    values = [value if value.dtype == torch.float64 else value.float() for value in (chosen, rejected)]
    fixed = [value.detach().to(values[0]) for value in (reference_chosen, reference_rejected)]
    shares = _shares(values[0], weights, total)
    if any(value.shape != shares.shape for value in (*values, *fixed)):
        raise ValueError(f"{len(shares)} pairs need four log-probabilities each, of the shape ({len(shares)},)")
    if beta <= 0 or not 0 <= label_smoothing < 0.5:
        raise ValueError(f"beta {beta} must be above 0 and label_smoothing {label_smoothing} within 0 and 0.5")
    used = shares > 0
    # masked before anything is computed: 0 times the gradient of a NaN is NaN
    better, worse = (
        beta * torch.where(used, value - reference, 0.0) for value, reference in zip(values, fixed, strict=True)
    )
    margin = better - worse
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    with torch.no_grad():
        right = torch.where(margin.abs() < ROUNDING, 0.5, (margin > 0).to(margin.dtype))
        metrics = {
            "accuracy": (shares * right).sum(),
            "margin": (shares * margin).sum(),
            "chosen_reward": (shares * better).sum(),
            "rejected_reward": (shares * worse).sum(),
        }
    return (shares * loss).sum(), metrics


def _shares(like: Tensor, weights: Sequence[float] | Tensor | None, total: float | None) -> Tensor:
    """(P,) what each pair counts: its weight over the total."""
    if like.ndim != 1:
        raise ValueError(f"log-probabilities are one a pair, of the shape (P,), not {tuple(like.shape)}")
    given = torch.ones_like(like) if weights is None else torch.as_tensor(weights, dtype=like.dtype, device=like.device)
    if bool((given < 0).any()):
        raise ValueError("the weight of a pair is 0 or more")
    whole = float(given.sum()) if total is None else total
    return given / whole if whole else given
