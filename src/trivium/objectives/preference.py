"""Preference optimisation: a policy learns from answers that were compared or marked, without a reward model.

All losses are over *log ratios*: the log-probability of an answer under the policy less that under the reference, the
tokens summed, or averaged where a loss says so. Beta times it is the reward that the policy implies, up to a constant
of the prompt, which cancels in the difference of two answers to it.

Sources: Rafailov et al. (2023; K-wise: appendix A.3), label smoothing by Mitchell (2023), robust: Chowdhury et al.
(2024), IPO: Azar et al. (2023), hinge: Zhao et al. (2023) and Liu et al. (2023), APO: D'Oosterlinck et al. (2024),
SimPO: Meng et al. (2024), ORPO: Hong et al. (2024), ties: Chen et al. (2024), KTO: Ethayarajh et al. (2024).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.objectives import ranking

ROUNDING = 1e-6  # margins closer to 0 are those of equal weights, read in another batch
CERTAIN = -1e-7  # a log-probability above it counts as this: the odds of what is certain are infinite
PAIR_LOSSES = ("sigmoid", "robust", "ipo", "hinge", "apo_zero", "apo_down", "simpo", "orpo")
REFERENCE_FREE = ("simpo", "orpo")  # these know no reference, and take means over tokens

Numbers = Sequence[float] | Tensor
Flags = Sequence[bool] | Tensor
Metrics = dict[str, Tensor]


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor | None,
    reference_rejected: Tensor | None,
    *,
    loss: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    tied: Flags | None = None,
    ties: str = "ignore",
    tie_parameter: float = 1.5,
    targets: Numbers | None = None,
    lengths: tuple[Numbers, Numbers] | None = None,
    target_margin: float = 0.0,
    weights: Numbers | None = None,
    total: float | None = None,
) -> tuple[Tensor, Metrics]:
    """What pairs of answers cost, averaged over pairs by weight: (scalar, metrics).

    The margin m is the chosen answer's reward less the rejected one's, c - r:
    beta * ((chosen - reference_chosen) - (rejected - reference_rejected)). With s the logistic function, and e for
    ``label_smoothing``, a pair costs by ``loss``

    - ``sigmoid``: -(1 - e) ln s(m) - e ln s(-m); least at m = ln((1 - e) / e), infinite without smoothing
    - ``robust``: (-(1 - e) ln s(m) + e ln s(-m)) / (1 - 2e); of pairs a share e of which is the wrong way round, its
      mean is that of ``sigmoid`` over the right ones
    - ``ipo``: (m / beta - 1 / (2 beta))^2, the log ratios themselves
    - ``hinge``: max(0, 1 - m)
    - ``apo_zero``: s(-c) + s(r); ``apo_down``: s(c) + s(-m)
    - ``simpo``: -ln s(m - target_margin), of mean log-probabilities without reference
    - ``orpo``: -beta ln s(odds), with odds = ln(p / (1 - p)) of the chosen less that of the rejected answer, and ln p
      the mean log-probability; the imitation of the chosen answer that belongs to it is the caller's

    Args:
        chosen, rejected: (P,) log-probabilities of the answers under the policy, each summed over its tokens. Of any
            float type; differences are taken in float32 (or float64 if they are), then the loss.
        reference_chosen, reference_rejected: (P,) the same under the reference policy; they carry no gradient. None: 0,
            no reference. ``simpo`` and ``orpo`` know none, whatever is given.
        beta: how dear it is to leave the reference; above 0.
        label_smoothing: share of the pairs taken to be the wrong way round, 0 to 0.5; ``sigmoid`` and ``robust``.
        tied: (P,) whether nothing was said of the order of a pair, so that "chosen" and "rejected" are mere names.
        ties: what a tied pair costs, ``sigmoid`` only but for ``ignore``: nothing. ``soft``: the target 0.5.
            ``rao_kupper`` and ``davidson``: the log-probability of a tie in a model that has one, which changes the
            strict pairs too (``ranking.outcome_log_probs``, of the margin).
        tie_parameter: theta of Rao-Kupper, above 1; nu of Davidson, above 0.
        targets: (P,) probability that the first of the two is better, ``sigmoid`` only; NaN: by ``tied`` alone. A pair
            that has one goes by it, whatever ``tied`` says. Under ``rao_kupper`` and ``davidson`` it is the
            probability of a win given that there is no tie.
        lengths: tokens of the chosen and of the rejected answers, (P,) each: log-probabilities are then means over
            tokens, of policy and reference alike. ``simpo`` and ``orpo`` need them.
        target_margin: ``simpo``: by how much the chosen reward shall exceed the rejected one.
        weights: (P,) of each pair; 1 unless told. A weight of 0 leaves a pair out, whatever its other values are.
        total: the denominator, which a caller that cuts a batch takes from the whole of it: the losses and metrics of
            the parts then add up to those of the batch. The sum of the weights unless told, without ignored ties.

    Metrics add up over parts and are means by the same weights: ``accuracy`` (1 where the margin is above 0, 0.5 where
    it is 0 but for rounding, as that of a policy that is the reference, and where the pair is tied), ``margin``, and
    ``chosen_reward`` and ``rejected_reward``, beta times the log ratio of each (``simpo``, ``orpo``: beta times the
    mean log-probability). Of a pair with a probability the likelier answer is the chosen one; of a tied pair, or one
    of 0.5, both rewards are the mean of the two and the margin is 0.

    The policy gives the chosen answer e times the reference's probability and the rejected one half of it. At beta 0.5
    the rewards are 0.5 and -0.346574, the margin is 0.846574:

    >>> log_probs = torch.tensor([-4.0]), torch.tensor([-6.693147]), torch.tensor([-5.0]), torch.tensor([-6.0])
    >>> loss, metrics = dpo_loss(*log_probs, beta=0.5)
    >>> round(float(loss), 6), round(float(metrics["margin"]), 6)
    (0.356892, 0.846574)
    >>> round(float(dpo_loss(*log_probs, beta=0.5, loss="hinge")[0]), 6)
    0.153426

    A policy that is the reference costs ln 2. Raises ValueError for impossible options or shapes.
    """
    _check(loss, beta, label_smoothing, ties, tie_parameter, target_margin, targets, lengths)
    values = _wide(chosen, rejected)
    fixed = (None, None) if loss in REFERENCE_FREE else (reference_chosen, reference_rejected)
    of_pairs = [None if given is None else _like(values[0], given) for given in (tied, targets, *(lengths or ()))]
    if any(value is not None and value.shape != values[0].shape for value in (*values, *fixed, *of_pairs)):
        raise ValueError(f"{len(chosen)} pairs need four log-probabilities each, of the shape ({len(chosen)},)")
    level = torch.zeros_like(values[0], dtype=torch.bool) if of_pairs[0] is None else of_pairs[0].bool()
    told = torch.full_like(values[0], torch.nan) if of_pairs[1] is None else of_pairs[1]
    untold = told.isnan()
    shares = _shares(values[0], weights, total, level & untold if ties == "ignore" else None)
    if bool((((told < 0) | (told > 1)) & (shares > 0)).any()):
        raise ValueError("a target is the probability that the first answer is better, between 0 and 1")
    per = of_pairs[2:] or [None, None]
    first, second = (_log_ratios(*given, shares > 0) for given in zip(values, fixed, per, strict=True))
    margin, likely = beta * (first - second), torch.where(untold, torch.where(level, 0.5, 1.0), told)
    if loss == "sigmoid":
        costs = _cross_entropy(margin, likely, level & untold, ~untold, label_smoothing, ties, tie_parameter)
    else:
        costs = _costs(loss, first, second, beta, label_smoothing, target_margin)
    return (shares * costs).sum(), _pair_metrics(beta * first, beta * second, shares, likely)


def kto_loss(
    log_probs: Tensor,
    reference: Tensor | None,
    desirable: Flags,
    *,
    beta: float,
    baseline: float | Tensor,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weights: Numbers | None = None,
    total: float | None = None,
) -> tuple[Tensor, Metrics]:
    """What answers that are good or bad by themselves cost, averaged by weight: (scalar, metrics).

    A good answer costs desirable_weight * s(-beta (d - z)), a bad one undesirable_weight * s(-beta (z - d)), with d
    its log ratio, z the baseline and s the logistic function (Ethayarajh et al., 2024, section 4.1).

    Args:
        log_probs: (N,) of the answers under the policy, summed over their tokens.
        reference: (N,) the same under the reference policy, without gradient; None: 0.
        desirable: (N,) whether each answer is good.
        beta: how soon a reward saturates; above 0.
        baseline: the KL of policy and reference that rewards are measured from, at least 0, in units of a log ratio;
            see ``mismatched_kl``. No gradient goes through it. All parts of a batch must be given the same. One that is
            not a number, of a policy that has diverged, makes a loss that is none.
        desirable_weight, undesirable_weight: what good and bad answers count, for lists in which one kind is rare. They
            are no part of ``total``.
        weights: (N,) of each answer; 1 unless told. A weight of 0 leaves one out, whatever its other values are.
        total: the denominator of the whole batch, see ``dpo_loss``; the sum of the weights unless told.

    Metrics add up over parts, see ``kto_means`` for what is made of their sums: ``desirable_reward`` and
    ``undesirable_reward``, weighted sums over the total of the rewards beta * d of each kind, ``desirable_share`` and
    ``undesirable_share``, what there is of each kind; ``accuracy``, the share of the answers on their side of the
    baseline, 0.5 for one that is on it; and ``baseline``.

    Log ratios 1 and 2 over a baseline of 0.5, beta 1: the good answer costs s(-0.5), the bad one s(1.5).

    >>> loss, _ = kto_loss(torch.tensor([1.0, 2.0]), torch.zeros(2), [True, False], beta=1.0, baseline=0.5)
    >>> round(float(loss), 6)
    0.597558

    Raises ValueError for impossible options or shapes.
    """
    values = _wide(log_probs)[0]
    shares, good = _shares(values, weights, total), _like(values, desirable).bool()
    if good.shape != shares.shape or (reference is not None and reference.shape != shares.shape):
        raise ValueError(f"{len(shares)} answers need a reference and a mark each, of the shape ({len(shares)},)")
    level = torch.as_tensor(baseline, dtype=values.dtype, device=values.device).detach()
    if beta <= 0 or bool(level < 0) or min(desirable_weight, undesirable_weight) < 0:
        raise ValueError(
            f"beta {beta} must be above 0, baseline {float(level)} and the weights of both kinds 0 or more"
        )
    ratio = _log_ratios(values, reference, None, shares > 0)
    towards = torch.where(good, ratio - level, level - ratio)
    kind = desirable_weight * good.to(values.dtype) + undesirable_weight * (~good).to(values.dtype)
    loss = (shares * kind * torch.sigmoid(-beta * towards)).sum()
    with torch.no_grad():
        metrics = {"accuracy": (shares * _right(beta * towards)).sum(), "baseline": shares.sum() * level}
        for name, of in (("desirable", good), ("undesirable", ~good)):
            metrics[f"{name}_reward"] = (torch.where(of, shares, 0.0) * beta * ratio).sum()
            metrics[f"{name}_share"] = torch.where(of, shares, 0.0).sum()
    return loss, metrics


def kto_means(metrics: Mapping[str, float | Tensor]) -> dict[str, float]:
    """From the summed metrics of ``kto_loss`` over all parts of a batch: the mean reward of good answers
    (``desirable_reward``) and of bad ones, and ``margin``, their difference; what is missing for want of such answers
    is left out.

    >>> kto_means({"desirable_reward": 0.375, "desirable_share": 0.75, "undesirable_reward": -0.25,
    ...            "undesirable_share": 0.25})
    {'desirable_reward': 0.5, 'undesirable_reward': -1.0, 'margin': 1.5}
    """
    found = {
        f"{name}_reward": float(metrics[f"{name}_reward"]) / float(metrics[f"{name}_share"])
        for name in ("desirable", "undesirable")
        if float(metrics[f"{name}_share"]) > 0
    }
    if len(found) == 2:
        found["margin"] = found["desirable_reward"] - found["undesirable_reward"]
    return found


def mismatched_kl(log_ratios: Tensor, weights: Numbers | None = None) -> Tensor:
    """The baseline of ``kto_loss``: max(0, mean of ``log_ratios``), a scalar without gradient.

    ``log_ratios`` (N,): of policy over reference, summed over tokens, of answers under prompts that are not theirs
    (Ethayarajh et al., 2024, section 4.1: that of the next answer of the batch). ``weights`` (N,): 1 unless told; 0
    leaves one out. Of no answers it is 0. It is biased, and noisy with few: it must come from the whole batch.

    >>> float(mismatched_kl(torch.tensor([1.0, -0.5]))), float(mismatched_kl(torch.tensor([-1.0, -0.5])))
    (0.25, 0.0)
    """
    values = _wide(log_ratios)[0].detach()
    shares = _shares(values, weights, None)
    return (shares * torch.where(shares > 0, values, 0.0)).sum().clamp(min=0.0)


def listwise_loss(
    log_probs: Tensor,
    reference: Tensor | None,
    tiers: Sequence[int] | Tensor,
    rankings: Sequence[int] | Tensor | None = None,
    *,
    beta: float,
    ties: str = "ignore",
    weights: Numbers | None = None,
    total: float | None = None,
) -> tuple[Tensor, Metrics]:
    """The negative log-likelihood of whole rankings under the implied rewards, mean over rankings: (scalar, metrics).

    The K-wise form of DPO: ``ranking.plackett_luce_loss`` of beta times the log ratios (Rafailov et al., 2023, appendix
    A.3). Of two answers it is ``dpo_loss``; K answers to which policy and reference give the same cost ln K!.

    ``log_probs`` (N,) of entries, an entry being one answer in one ranking, summed over tokens; ``reference`` (N,) the
    same without gradient, None: 0; ``tiers`` (N,): 0 is best, equal is tied, negative is unranked, which takes part in
    nothing; ``rankings`` (N,): number of each entry's ranking, None: all are one. ``ties``: ``ignore`` (tied answers
    are never compared) or ``soft``. ``weights`` (R,) of the rankings, ``total``: ``ranking.total_weight`` of the whole
    batch. Metrics are those of ``dpo_loss``, over the pairs of each ranking, which share out its weight.

    >>> loss, metrics = listwise_loss(torch.tensor([-3.0, -5.0, -7.0]), torch.tensor([-5.0, -6.0, -7.0]), [0, 1, 2],
    ...                               beta=1.0)  # rewards 2, 1 and 0
    >>> round(float(loss), 6), float(metrics["accuracy"])
    (0.720868, 1.0)

    Raises ValueError for impossible options or shapes.
    """
    values = _wide(log_probs)[0]
    if beta <= 0:
        raise ValueError(f"beta {beta} must be above 0")
    if reference is not None and reference.shape != values.shape:
        raise ValueError(f"{len(values)} answers need as many log-probabilities of the reference, not {len(reference)}")
    rewards = beta * (values if reference is None else values - reference.detach().to(values))
    loss, _ = ranking.plackett_luce_loss(rewards, tiers, rankings, ties=ties, weights=weights, total=total)
    with torch.no_grad():
        pairs = ranking.weighted_pairs(rewards, tiers, rankings, ties=ties, weights=weights, total=total)
        likely = torch.where(pairs.tied, 0.5, 1.0).to(rewards)
        return loss, _pair_metrics(rewards[pairs.better], rewards[pairs.worse], pairs.shares, likely)


# ---- what one pair costs --------------------------------------------------------------------------------------------


def _cross_entropy(
    margin: Tensor, likely: Tensor, tied: Tensor, soft: Tensor, smoothing: float, ties: str, tie_parameter: float
) -> Tensor:
    """(P,) the negative log-likelihood of what was said: a win, a tie or, if ``soft``, the probability ``likely``."""
    win, lost, tie = ranking.outcome_log_probs(margin, ties, tie_parameter)
    odds = win - lost if ties == "rao_kupper" else margin  # in Davidson's model they differ by the margin too
    target = (1 - smoothing) * likely + smoothing * (1 - likely)
    uncertain = target * F.logsigmoid(odds) + (1 - target) * F.logsigmoid(-odds)
    strict = (1 - smoothing) * win + smoothing * lost
    return -torch.where(soft, uncertain, torch.where(tied, tie, strict))


def _costs(loss: str, first: Tensor, second: Tensor, beta: float, smoothing: float, target_margin: float) -> Tensor:
    """(P,) the losses other than ``sigmoid``, of the log ratios of the chosen and the rejected answers."""
    margin = beta * (first - second)
    if loss == "robust":
        told, turned = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        return ((1 - smoothing) * told - smoothing * turned) / (1 - 2 * smoothing)
    if loss == "ipo":
        return (first - second - 1 / (2 * beta)) ** 2
    if loss == "hinge":
        return F.relu(1 - margin)
    if loss == "apo_zero":
        return torch.sigmoid(-beta * first) + torch.sigmoid(beta * second)
    if loss == "apo_down":
        return torch.sigmoid(beta * first) + torch.sigmoid(-margin)
    if loss == "simpo":
        return -F.logsigmoid(margin - target_margin)
    return -beta * F.logsigmoid(_log_odds(first) - _log_odds(second))


def _log_odds(log_probs: Tensor) -> Tensor:
    """ln(p / (1 - p)) from ln p, with a gradient that is finite where p is 1 but for rounding."""
    below = log_probs - F.relu(log_probs - CERTAIN).detach()
    return below - torch.log(-torch.expm1(below))


# ---- parts of all losses --------------------------------------------------------------------------------------------


def _check(
    loss: str,
    beta: float,
    smoothing: float,
    ties: str,
    tie_parameter: float,
    target_margin: float,
    targets: Numbers | None,
    lengths: tuple[Numbers, Numbers] | None,
) -> None:
    """Options that are impossible, or that the loss would not read."""
    if loss not in PAIR_LOSSES:
        raise ValueError(f"unknown loss {loss!r}: {', '.join(PAIR_LOSSES)}")
    if beta <= 0 or not 0 <= smoothing < 0.5:
        raise ValueError(f"beta {beta} must be above 0 and label_smoothing {smoothing} within 0 and 0.5")
    if ties not in ranking.TIES:
        raise ValueError(f"unknown ties {ties!r}: {', '.join(ranking.TIES)}")
    if (ties == "rao_kupper" and tie_parameter <= 1) or (ties == "davidson" and tie_parameter <= 0):
        raise ValueError(f"tie_parameter {tie_parameter}: theta of Rao-Kupper is above 1, nu of Davidson above 0")
    if loss != "sigmoid" and (ties != "ignore" or targets is not None):
        raise ValueError(f"tied pairs and targets are for the loss sigmoid; {loss} knows strict pairs alone")
    if smoothing and loss not in ("sigmoid", "robust"):
        raise ValueError(f"label_smoothing is for the losses sigmoid and robust, not for {loss}")
    if target_margin and loss != "simpo":
        raise ValueError(f"target_margin is for the loss simpo, not for {loss}")
    if loss in REFERENCE_FREE and lengths is None:
        raise ValueError(f"{loss} is of mean log-probabilities: it needs the lengths of the answers")


def _wide(*values: Tensor) -> list[Tensor]:
    return [value if value.dtype == torch.float64 else value.float() for value in values]


def _like(values: Tensor, given: Numbers | Flags) -> Tensor:
    return torch.as_tensor(given, dtype=values.dtype, device=values.device)


def _log_ratios(log_probs: Tensor, reference: Tensor | None, lengths: Tensor | None, used: Tensor) -> Tensor:
    """(N,) of policy over reference, or their means over tokens; 0 for what is not used."""
    ratio = log_probs if reference is None else log_probs - reference.detach().to(log_probs)
    # masked before anything else is computed: 0 times the gradient of a NaN is NaN
    ratio = torch.where(used, ratio, 0.0)
    # an answer of no token has the sum 0
    return ratio if lengths is None else ratio / torch.where(used, lengths, 1.0).clamp(min=1)


def _shares(like: Tensor, weights: Numbers | None, total: float | None, left_out: Tensor | None = None) -> Tensor:
    """(P,) what each pair counts: its weight over the total; nothing if it is left out."""
    if like.ndim != 1:
        raise ValueError(f"log-probabilities are one a pair, of the shape (P,), not {tuple(like.shape)}")
    given = torch.ones_like(like) if weights is None else _like(like, weights)
    if bool((given < 0).any()):
        raise ValueError("the weight of a pair is 0 or more")
    if given.shape != like.shape:
        raise ValueError(f"{len(like)} pairs need a weight each, of the shape ({len(like)},)")
    if left_out is not None:
        given = torch.where(left_out, 0.0, given)
    whole = float(given.sum()) if total is None else total
    return given / whole if whole else given


def _right(margin: Tensor) -> Tensor:
    """1 where the margin is above 0, 0.5 where it is 0 but for rounding."""
    return torch.where(margin.abs() < ROUNDING, 0.5, (margin > 0).to(margin.dtype))


@torch.no_grad()
def _pair_metrics(first: Tensor, second: Tensor, shares: Tensor, likely: Tensor) -> Metrics:
    """Metrics of rewards (P,) each, of which the first is the better with the probability ``likely``."""
    even, mean = likely == 0.5, (first + second) / 2
    better = torch.where(even, mean, torch.where(likely > 0.5, first, second))
    worse = torch.where(even, mean, torch.where(likely > 0.5, second, first))
    return {
        "accuracy": (shares * _right(better - worse)).sum(),
        "margin": (shares * (better - worse)).sum(),
        "chosen_reward": (shares * better).sum(),
        "rejected_reward": (shares * worse).sum(),
    }
