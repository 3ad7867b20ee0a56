"""Losses over rankings: ordered partitions of responses into tiers, learned from exactly as they were given.

Scores are flat: N entries of R rankings, an entry being one response in one ranking. Tier 0 is best, an equal tier is a
tie, a negative tier is unranked: such a response takes part in nothing, since nothing was said about it. Both losses
are sums over one denominator, ``total_weight``, which a caller that cuts a batch computes once from the whole of it:
the losses and metrics of the parts then add up to those of the batch. All pairs of a ranking must be in one part.

An annotator that says how sure it is gives pairs with probabilities in place of tiers. They are targets of a soft
cross-entropy: the pair (i, j, p) costs -(p ln s(d) + (1 - p) ln s(-d)), with s the logistic function and d the score of
i less that of j, which is least where s(d) = p. What an annotator knows is then no stronger than it was said.

Sources: Bradley and Terry (1952); Plackett (1975), Luce (1959); ties by Rao and Kupper (1967), Davidson (1970) and, in
lists, Efron (1977); reduction by ranking: Ouyang et al. (2022, section 3.5); margins: Touvron et al. (2023, section
3.2.2); centering: Eisenstein et al. (2023, section 2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Numbers = Sequence[int] | Tensor
Preferences = tuple[Sequence[Sequence[int]] | Tensor, Sequence[float] | Tensor]  # (P, 2) entries, (P,) probabilities
TIES = ("soft", "rao_kupper", "davidson", "ignore")


def pairwise_loss(
    scores: Tensor,
    tiers: Numbers,
    rankings: Numbers | None = None,
    *,
    ties: str = "soft",
    tie_parameter: float = 1.5,
    margin: float | Tensor = 0.0,
    label_smoothing: float = 0.0,
    centering: float = 0.0,
    reduction: str = "ranking",
    weights: Sequence[float] | Tensor | None = None,
    total: float | None = None,
    preferences: Preferences | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log-likelihood of all pairs of each ranking under a Bradley-Terry model: (scalar, metrics).

    Args:
        scores: (N,) of any float type; differences are taken in float32 (or float64 if they are), then logsigmoid.
        tiers: (N,) of each entry.
        rankings: (N,) number of each entry's ranking, from 0 to R - 1; None: all entries are one ranking.
        ties: what a tied pair costs. ``soft``: the target 0.5; ``rao_kupper`` and ``davidson``: the log-probability of
            a tie in a model that has one, see ``outcome_log_probs``, which changes the strict pairs too; ``ignore``:
            nothing.
        tie_parameter: theta of Rao-Kupper, above 1; nu of Davidson, above 0.
        margin: by how much the better score must exceed the worse before a pair counts as half right; one number, or
            (R,) one a ranking. Not for tied pairs, nor for those with a probability.
        label_smoothing: share of the strict pairs, and of those with a probability, taken to be the wrong way round.
        centering: weight of the squared mean score of each ranking; pair losses leave the level of scores open.
        reduction: ``ranking``: mean over the pairs of each ranking, then over rankings; ``pair``: over all pairs.
        weights: (R,) of each ranking; 1 unless told. A weight of 0 leaves a ranking out.
        total: ``total_weight`` of the whole batch of which these are a part; its own unless told.
        preferences: pairs of entries (P, 2) and the probability (P,) that the first of each is better. A ranking that
            has such pairs is learned from by them alone, whatever its tiers and ``ties``; the others go by their
            tiers. Both entries are of one ranking, and ranked. Under ``rao_kupper`` the probability is that of a win
            given that there is no tie.

    Metrics add up over parts and are means by the same weights: ``pair_accuracy`` (1 where the better response has the
    higher score, 0.5 where the scores are equal or the pair is tied) and ``score_gap`` (better minus worse, strict
    pairs; tied pairs count as 0). Of a pair with a probability the likelier one is the better; 0.5 is a tie.

    Scores A 0.8, B 0.9, C 0.5 and the ranking A > C > B: A over C costs 0.554355, C over B 0.913015 and A over B
    0.744397. The mean of the three is the loss; one pair of three is the right way round:

    >>> loss, metrics = pairwise_loss(torch.tensor([0.8, 0.9, 0.5]), [0, 2, 1])
    >>> round(float(loss), 6), round(float(metrics["pair_accuracy"]), 3)
    (0.737256, 0.333)

    A judge who finds the first of two better with probability 0.8:

    >>> round(float(pairwise_loss(torch.tensor([1.0, 0.0]), [0, 1], preferences=([(0, 1)], [0.8]))[0]), 6)
    0.513262

    Raises ValueError for impossible options or shapes.
    """
    _check(ties, tie_parameter, reduction, label_smoothing)
    wide = _wide(scores)
    plan = weighted_pairs(
        wide, tiers, rankings, ties=ties, reduction=reduction, weights=weights, total=total, preferences=preferences
    )
    difference = wide[plan.better] - wide[plan.worse]
    demanded = margin.to(wide)[plan.numbers] if isinstance(margin, Tensor) else margin
    win, lost, _ = outcome_log_probs(difference - demanded, ties, tie_parameter)
    tie = outcome_log_probs(difference, ties, tie_parameter)[2]
    strict = (1 - label_smoothing) * win + label_smoothing * lost
    said = torch.where(plan.tied, tie, strict)
    if preferences is not None:
        said = torch.where(plan.soft, _soft(difference, plan.targets, ties, tie_parameter, label_smoothing), said)
    loss = -(plan.shares * said).sum()
    return loss + _centering(wide, plan, centering), _metrics(difference, plan)


def plackett_luce_loss(
    scores: Tensor,
    tiers: Numbers,
    rankings: Numbers | None = None,
    *,
    ties: str = "soft",
    centering: float = 0.0,
    weights: Sequence[float] | Tensor | None = None,
    total: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log-likelihood of each ranking as a row of choices, mean over rankings: (scalar, metrics).

    The best is chosen from all with probability softmax(scores), the second from the rest, and so on; the sum over the
    choices of one ranking is its loss, so K equal scores cost ln K!. ``scores``, ``tiers``, ``rankings``,
    ``centering``, ``weights``, ``total`` and metrics: see ``pairwise_loss``.

    A tier of several is where the order within it was not said. ``soft``: the members are chosen one after the other,
    and each choice is made among the later tiers and the *expected* rest of the tier: for the m-th of t members, all of
    them at (t - m + 1) / t of their weight (Efron's treatment). No order is preferred, the loss is least where their
    scores are equal, and equal scores still cost ln K!. ``ignore``: each member is chosen from itself and the later
    tiers alone, so that tied responses are never compared; a last tier of several then costs nothing, which makes
    "these three in order, the others below" the likelihood of the first three choices.

    >>> round(float(plackett_luce_loss(torch.tensor([2.0, 1.0, 0.0]), [0, 1, 2])[0]), 6)
    0.720868
    """
    if ties not in ("soft", "ignore"):
        raise ValueError(f"ties {ties!r} are for pairs; a listwise loss knows soft and ignore")
    wide = _wide(scores)
    plan = weighted_pairs(wide, tiers, rankings, ties=ties, weights=weights, total=total)
    entries, choices, logs = _choices(plan, ties)
    loss = _nothing(wide)
    if entries:
        counts = torch.tensor(logs, dtype=wide.dtype, device=wide.device)
        candidates = wide[torch.tensor(choices, device=wide.device)] + counts
        chosen = torch.tensor(entries, device=wide.device)
        of = torch.tensor([plan.number_of[entry] for entry in entries], device=wide.device)
        loss = (plan.ranking_shares[of] * (candidates.logsumexp(1) - wide[chosen])).sum()
    return loss + _centering(wide, plan, centering), _metrics(wide[plan.better] - wide[plan.worse], plan)


def outcome_log_probs(
    difference: Tensor, ties: str = "soft", tie_parameter: float = 1.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities that the first of two wins, loses, ties, from score differences of any shape.

    ``rao_kupper``, theta: win = 1 / (1 + theta exp(-d)), lose = 1 / (1 + theta exp(d)), the rest is a tie.
    ``davidson``, nu: exp(d/2), exp(-d/2) and nu, over their sum. ``soft`` and ``ignore``: the Bradley-Terry model, in
    which win and lose make 1; the last value is then no probability but the mean of the first two, the negative
    cross-entropy of the target 0.5.

    >>> [round(float(value.exp()), 6) for value in outcome_log_probs(torch.tensor(1.0), "rao_kupper", 2.0)]
    [0.576117, 0.155362, 0.268521]
    """
    if ties == "rao_kupper":
        threshold = math.log(tie_parameter)
        win, lost = F.logsigmoid(difference - threshold), F.logsigmoid(-difference - threshold)
        return win, lost, math.log(tie_parameter**2 - 1) + win + lost
    if ties == "davidson":
        half = difference / 2
        tie = torch.full_like(half, math.log(tie_parameter))
        whole = torch.stack([half, -half, tie]).logsumexp(0)
        return half - whole, -half - whole, tie - whole
    win, lost = F.logsigmoid(difference), F.logsigmoid(-difference)
    return win, lost, (win + lost) / 2


def total_weight(
    tiers: Numbers,
    rankings: Numbers | None = None,
    *,
    ties: str = "soft",
    reduction: str = "ranking",
    weights: Sequence[float] | Tensor | None = None,
    preferences: Preferences | None = None,
) -> float:
    """The denominator of a batch: the weights of the rankings that have a pair, or (``pair``) of all their pairs.

    >>> total_weight([0, 1, 0, 1, 2], [0, 0, 1, 1, 1]), total_weight([0, 1, 0, 1, 2], [0, 0, 1, 1, 1], reduction="pair")
    (2.0, 4.0)
    """
    pairs = _all_pairs(_groups(tiers, rankings), ties, preferences)
    return sum(_units([len(found) for found in pairs], reduction, weights))


# ---- which entries are compared, and with what weight ---------------------------------------------------------------

Group = list[tuple[int, int]]  # (entry, tier) of the ranked entries of one ranking
Pair = tuple[int, int, bool, float | None]  # better entry, worse entry, tied, probability of better where one was said


@dataclass(frozen=True)
class WeightedPairs:
    """P pairs: entries (P,), whether they are tied (P,), whether a probability was said of them (P,) and which (P,),
    their ranking (P,) and their share of the loss (P,).

    ``ranking_shares`` (R,): the share of each ranking; those of its pairs add up to it.
    """

    groups: list[Group]
    number_of: dict[int, int]
    better: Tensor
    worse: Tensor
    tied: Tensor
    soft: Tensor
    targets: Tensor
    numbers: Tensor
    shares: Tensor
    ranking_shares: Tensor


def weighted_pairs(
    scores: Tensor,
    tiers: Numbers,
    rankings: Numbers | None = None,
    *,
    ties: str = "soft",
    reduction: str = "ranking",
    weights: Sequence[float] | Tensor | None = None,
    total: float | None = None,
    preferences: Preferences | None = None,
) -> WeightedPairs:
    """The pairs that ``pairwise_loss`` learns from; of ``scores`` only shape, type and device are read."""
    if scores.ndim != 1 or len(tiers) != len(scores):
        raise ValueError(f"scores of shape {tuple(scores.shape)} need one tier each, not {len(tiers)}")
    groups = _groups(tiers, rankings)
    pairs = _all_pairs(groups, ties, preferences)
    units = _units([len(found) for found in pairs], reduction, weights)
    # what counts for nothing is left out, not multiplied by 0, which would let its NaN through
    groups = [group if unit else [] for group, unit in zip(groups, units, strict=True)]
    pairs = [found if unit else [] for found, unit in zip(pairs, units, strict=True)]
    whole = sum(units) if total is None else total
    share = [unit / whole if unit else 0.0 for unit in units]
    flat = [
        (first, second, tied, said is not None, said or 0.0, number, share[number] / len(found))
        for number, found in enumerate(pairs)
        for first, second, tied, said in found
    ]
    columns = list(zip(*flat, strict=True)) or [()] * 7

    def tensor(values: Sequence[float], kind: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=kind, device=scores.device)

    return WeightedPairs(
        groups,
        {entry: number for number, group in enumerate(groups) for entry, _ in group},
        tensor(columns[0], torch.long),
        tensor(columns[1], torch.long),
        tensor(columns[2], torch.bool),
        tensor(columns[3], torch.bool),
        tensor(columns[4], scores.dtype),
        tensor(columns[5], torch.long),
        tensor(columns[6], scores.dtype),
        tensor(share, scores.dtype),
    )


def _groups(tiers: Numbers, rankings: Numbers | None) -> list[Group]:
    """The ranked entries of each ranking, by number."""
    levels = [int(tier) for tier in (tiers.tolist() if isinstance(tiers, Tensor) else tiers)]
    if rankings is None:
        numbers = [0] * len(levels)
    else:
        numbers = [int(number) for number in (rankings.tolist() if isinstance(rankings, Tensor) else rankings)]
    if len(numbers) != len(levels) or min(numbers, default=0) < 0:
        raise ValueError(f"{len(levels)} tiers need as many ranking numbers from 0 on, not {len(numbers)}")
    groups: list[Group] = [[] for _ in range(max(numbers, default=-1) + 1)]
    for entry, (number, tier) in enumerate(zip(numbers, levels, strict=True)):
        if tier >= 0:
            groups[number].append((entry, tier))
    return groups


def _all_pairs(groups: Sequence[Group], ties: str, preferences: Preferences | None) -> list[list[Pair]]:
    """The pairs of each ranking: those with a probability where it has any, else those of its tiers."""
    soft = _soft_pairs(groups, preferences) if preferences is not None else {}
    return [soft.get(number) or _pairs(group, ties) for number, group in enumerate(groups)]


def _soft_pairs(groups: Sequence[Group], preferences: Preferences) -> dict[int, list[Pair]]:
    """By ranking, the pairs with a probability, the likelier entry first."""
    number_of = {entry: number for number, group in enumerate(groups) for entry, _ in group}
    entries, probabilities = (part.tolist() if isinstance(part, Tensor) else part for part in preferences)
    found: dict[int, list[Pair]] = {}
    for (first, second), probability in zip(entries, probabilities, strict=True):
        number = number_of.get(first)
        if number is None or number_of.get(second) != number or first == second:
            raise ValueError(f"the entries {first} and {second} are not two ranked entries of one ranking")
        if not 0 <= probability <= 1:
            raise ValueError(f"the probability {probability} that entry {first} is better must lie between 0 and 1")
        better, worse, said = (first, second, probability) if probability >= 0.5 else (second, first, 1 - probability)
        found.setdefault(number, []).append((better, worse, said == 0.5, said))
    return found


def _pairs(group: Group, ties: str) -> list[Pair]:
    """The pairs of every two entries by their tiers; without tied ones where they are ignored."""
    found: list[Pair] = []
    for place, (entry, tier) in enumerate(group):
        for other, level in group[place + 1 :]:
            if tier == level:
                if ties != "ignore":
                    found.append((entry, other, True, None))
            else:
                found.append((entry, other, False, None) if tier < level else (other, entry, False, None))
    return found


def _units(pairs: Sequence[int], reduction: str, weights: Sequence[float] | Tensor | None) -> list[float]:
    """What each ranking counts before the division by the total; 0 for one that has no pair."""
    own = [1.0] * len(pairs) if weights is None else [float(weight) for weight in weights]
    if len(own) < len(pairs) or min(own, default=0.0) < 0:
        raise ValueError(f"{len(pairs)} rankings need a weight of at least 0 each, not {own[:9]}")
    return [
        weight * (count if reduction == "pair" else 1) if count else 0.0
        for weight, count in zip(own, pairs, strict=False)
    ]


def _choices(plan: WeightedPairs, ties: str) -> tuple[list[int], list[list[int]], list[list[float]]]:
    """For every choice: the entry chosen, the entries to choose from, and the logarithm of what each of them counts.

    Rows are filled up with the entry itself at -inf: another ranking's NaN must not reach this one.
    """
    widest = max(map(len, plan.groups), default=0)
    entries: list[int] = []
    choices: list[list[int]] = []
    logs: list[list[float]] = []
    for group in plan.groups:
        sizes: dict[int, int] = {}
        for entry, tier in sorted(group, key=lambda item: item[1]):
            before = sizes[tier] = sizes.get(tier, 0) + 1
            members = sum(level == tier for _, level in group)
            rest = math.log((members - before + 1) / members)
            row = [(other, 0.0) for other, level in group if level > tier]
            if ties == "ignore":
                row.append((entry, 0.0))
            else:
                row += [(other, rest) for other, level in group if level == tier]
            row += [(entry, -math.inf)] * (widest - len(row))
            entries.append(entry)
            choices.append([other for other, _ in row])
            logs.append([log for _, log in row])
    return entries, choices, logs


# ---- parts of both losses -------------------------------------------------------------------------------------------


def _check(ties: str, tie_parameter: float, reduction: str, label_smoothing: float) -> None:
    if ties not in TIES:
        raise ValueError(f"unknown ties {ties!r}: {', '.join(TIES)}")
    if (ties == "rao_kupper" and tie_parameter <= 1) or (ties == "davidson" and tie_parameter <= 0):
        raise ValueError(f"tie_parameter {tie_parameter}: theta of Rao-Kupper is above 1, nu of Davidson above 0")
    if reduction not in ("ranking", "pair"):
        raise ValueError(f"unknown reduction {reduction!r}: ranking or pair")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing {label_smoothing} must lie between 0 and 0.5")


def _wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def _nothing(scores: Tensor) -> Tensor:
    """Zero, and still part of the graph: an empty part of a batch has a gradient too. A NaN does not get through."""
    return torch.where(torch.zeros_like(scores, dtype=torch.bool), scores, 0.0).sum()


def _soft(difference: Tensor, targets: Tensor, ties: str, tie_parameter: float, smoothing: float) -> Tensor:
    """(P,) the negative cross-entropy of the targets and what the model says of pairs that it does not tie."""
    odds = difference
    if ties == "rao_kupper":
        win, lost, _ = outcome_log_probs(difference, ties, tie_parameter)
        odds = win - lost
    smoothed = (1 - smoothing) * targets + smoothing * (1 - targets)
    return smoothed * F.logsigmoid(odds) + (1 - smoothed) * F.logsigmoid(-odds)


def _centering(scores: Tensor, plan: WeightedPairs, weight: float) -> Tensor:
    """``weight`` times the squared mean score of each ranking, averaged as the rankings are."""
    if not weight or not plan.number_of:
        return _nothing(scores)
    entries = torch.tensor(list(plan.number_of), device=scores.device)
    numbers = torch.tensor(list(plan.number_of.values()), device=scores.device)
    sums = scores.new_zeros(len(plan.groups)).index_add(0, numbers, scores[entries])
    counts = torch.tensor([max(len(group), 1) for group in plan.groups], device=scores.device)
    return weight * (plan.ranking_shares * (sums / counts) ** 2).sum()


def _metrics(difference: Tensor, plan: WeightedPairs) -> dict[str, Tensor]:
    with torch.no_grad():
        right = torch.where(plan.tied, 0.5, (difference.sign() + 1) / 2)
        gap = torch.where(plan.tied, 0.0, difference)
        return {"pair_accuracy": (plan.shares * right).sum(), "score_gap": (plan.shares * gap).sum()}
