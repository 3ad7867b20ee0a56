"""What a reward model is worth, measured on prompts that it has not seen.

A *pair* is two responses of which a ranking puts one above the other. The model is right (1) where it gives that one
the higher score, wrong (0) where the lower, and half right (0.5) where the scores are equal. Pairs that the annotator
tied are counted (``tied``) and judged by nothing here: scores that differ cannot be right about them, and a fixed half
would only draw the model, the baseline and the ceiling alike towards chance. Shares are over all pairs; intervals come
from a bootstrap over conversations, since the pairs of one prompt are not independent.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.evaluation.calibration import calibration_error, log_loss, reliability_bins
from trivium.evaluation.intervals import cluster_draws
from trivium.feedback.rankings.coefficients import tau_b
from trivium.feedback.rankings.grouping import prompt_share, task_key
from trivium.feedback.rankings.record import UNRANKED, Ranking
from trivium.training.reward import RankedTask

Floats = NDArray[np.float64]
RESAMPLES = 2_000
MARGIN_BINS = 5


@dataclass(frozen=True)
class Scored:
    """A task with its scores: ``values`` (responses,), heads averaged on the normalised scale, decides who is ahead;
    ``raw`` (responses, heads) gives the probabilities. NaN where the model could not read a response."""

    task: RankedTask
    values: Floats
    raw: Floats


@dataclass
class Pairs:
    """Pairs as columns. ``right`` and ``length_right`` are 0, 0.5 or 1, ``probability`` is what the model gives to the
    better response, ``gap`` the difference of the values; ``cluster`` numbers the conversations."""

    right: list[float] = field(default_factory=list)
    length_right: list[float] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    cluster: list[int] = field(default_factory=list)
    rankings: set[int] = field(default_factory=set)
    prompts: set[tuple[Any, ...]] = field(default_factory=set)
    taus: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)
    tied: int = 0


Win = Callable[[Floats], Floats]  # differences of raw scores to the probability of the first, given that one wins


def evaluate(scored: Sequence[Scored], win: Win, longer_is_better: bool, seed: int) -> dict[str, Any]:
    """The part of evaluation.json that comes from held-out rankings: ``pairs``, ``reliability``, ``by_margin``,
    ``by_criterion``, ``sections`` and ``ceiling``. Numbers without any pair behind them are None.

    ``win`` turns differences of raw scores into probabilities; ``longer_is_better`` is the length-only baseline, as
    ``longer_wins`` fits it on the training rankings.
    """
    direction = 1.0 if longer_is_better else -1.0
    whole = collect(scored, win, direction)
    criteria = sorted({ranking.criterion for item in scored for ranking in item.task.rankings})
    sections = sorted({_section(item) for item in scored} - {""})
    return {
        "pairs": describe(whole, seed),
        "reliability": reliability(whole),
        "by_margin": by_margin(whole),
        "by_criterion": {
            name: describe(collect(scored, win, direction, {name}), seed, f"criterion/{name}") for name in criteria
        },
        "sections": {
            name: _share(collect([item for item in scored if _section(item) == name], win, direction), seed)
            for name in sections
        },
        "ceiling": {name: ceiling(scored, name, seed) for name in criteria},
        "baseline": "longer" if longer_is_better else "shorter",
    }


def longer_wins(tasks: Iterable[RankedTask]) -> bool:
    """Whether the longer response (in characters) is the better one in at least half of the pairs of ``tasks``."""
    signs = [
        np.sign(len(task.responses[better].text) - len(task.responses[worse].text))
        for task in tasks
        for ranking in task.rankings
        for better, worse in ranking.pairs
    ]
    return sum(signs) >= 0


def collect(scored: Sequence[Scored], win: Win, direction: float, criteria: set[str] | None = None) -> Pairs:
    """The pairs of all rankings, or of those under ``criteria``."""
    pairs = Pairs()
    clusters: dict[float, int] = {}
    differences: list[Floats] = []
    number = 0
    for item in scored:
        lengths = [len(response.text) for response in item.task.responses]
        cluster = clusters.setdefault(prompt_share(item.task.prompt), len(clusters))
        for ranking in item.task.rankings:
            if criteria is not None and ranking.criterion not in criteria:
                continue
            number += 1
            pairs.tied += len(ranking.ties)
            for better, worse in ranking.pairs:
                gap = float(item.values[better] - item.values[worse])
                pairs.right.append(_half(gap))
                pairs.length_right.append(_half(direction * (lengths[better] - lengths[worse])))
                pairs.gap.append(gap)
                pairs.cluster.append(cluster)
                pairs.rankings.add(number)
                pairs.prompts.add(item.task.prompt.messages)
                differences.append(item.raw[better] - item.raw[worse])
            tau = _tau(ranking, item.values)
            if not math.isnan(tau):
                pairs.taus.setdefault(item.task.prompt.messages, []).append(tau)
    if differences:
        pairs.probability = win(np.array(differences)).mean(axis=1).tolist()  # the mean of what the heads say
    return pairs


def _half(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)


def _tau(ranking: Ranking, values: Floats) -> float:
    ranked = [number for number, tier in enumerate(ranking.tiers) if tier != UNRANKED]
    return tau_b([-ranking.tiers[number] for number in ranked], [values[number] for number in ranked])


def _section(item: Scored) -> str:
    """The part of a benchmark that a prompt belongs to: its task, else the section its metadata names; "" for none."""
    prompt = item.task.prompt
    return prompt.task or str(prompt.metadata.get("section", ""))


def describe(pairs: Pairs, seed: int, name: str = "pairs") -> dict[str, Any]:
    """Accuracy, calibration and the length-only baseline of some pairs."""
    taus = [float(np.mean(of_prompt)) for of_prompt in pairs.taus.values()]
    accuracy = cluster_interval(pairs.right, pairs.cluster, seed, name)
    length = cluster_interval(pairs.length_right, pairs.cluster, seed, name)
    better = [ours - theirs for ours, theirs in zip(pairs.right, pairs.length_right, strict=True)]
    difference = cluster_interval(better, pairs.cluster, seed, name)
    return {
        "n": len(pairs.right),
        "rankings": len(pairs.rankings),
        "prompts": len(pairs.prompts),
        "tied": pairs.tied,
        "accuracy": accuracy["estimate"],
        "low": accuracy["low"],
        "high": accuracy["high"],
        "log_loss": log_loss(pairs.probability),
        "ece": calibration_error(reliability(pairs)),
        "length_accuracy": length["estimate"],
        "length_low": length["low"],
        "length_high": length["high"],
        "difference": difference,
        "tau_b": float(np.mean(taus)) if taus else None,
    }


def reliability(pairs: Pairs) -> list[dict[str, float]]:
    """How often the response that the model prefers is the better one, by how sure it is: bins of [0.5, 1]."""
    return reliability_bins(pairs.probability)


def by_margin(pairs: Pairs) -> list[dict[str, float]]:
    """Accuracy by the distance of the two normalised scores, in parts of equally many pairs."""
    gaps = np.abs(pairs.gap)
    right = np.array(pairs.right)
    order = np.argsort(gaps, kind="stable")
    parts = [part for part in np.array_split(order, MARGIN_BINS) if part.size]
    return [
        {
            "low": float(gaps[part].min()),
            "high": float(gaps[part].max()),
            "n": int(part.size),
            "accuracy": float(right[part].mean()),
        }
        for part in parts
    ]


def ceiling(scored: Sequence[Scored], criterion: str, seed: int) -> dict[str, Any] | None:
    """How well one annotator foretells the others: the most that can be asked of a model. None without such tasks.

    For each annotator of a task that two or more ranked, the reference is the majority of the others, pair by pair;
    pairs on which it is undecided are left out. Who was asked about the same responses in another task, say in another
    way, is none of the others. An annotator's tie counts half. ``model`` is the model's accuracy on
    the same pairs against the same references, and ``difference`` that of the model less the annotator's.
    """
    human: list[float] = []
    model: list[float] = []
    cluster: list[int] = []
    clusters: dict[float, int] = {}
    for item, rankings in _asked(scored, criterion):
        place = clusters.setdefault(prompt_share(item.task.prompt), len(clusters))
        for first, second in combinations(range(len(item.task.responses)), 2):
            votes = [(ranking.annotator, _vote(ranking, first, second)) for ranking in rankings]
            said = [(name, vote) for name, vote in votes if vote is not None]
            for name, own in said:
                reference = np.sign(sum(vote for other, vote in said if other != name))
                if reference:
                    human.append(_half(own * reference))
                    model.append(_half(float(item.values[first] - item.values[second]) * reference))
                    cluster.append(place)
    if not human:
        return None
    against = cluster_interval(model, cluster, seed, "ceiling")
    gaps = [ours - theirs for ours, theirs in zip(model, human, strict=True)]
    found = cluster_interval(human, cluster, seed, "ceiling")
    return {
        "n": len(human),
        "accuracy": found["estimate"],
        "low": found["low"],
        "high": found["high"],
        "model": {"accuracy": against["estimate"], "low": against["low"], "high": against["high"]},
        "difference": cluster_interval(gaps, cluster, seed, "ceiling"),
    }


def _asked(scored: Sequence[Scored], criterion: str) -> Iterator[tuple[Scored, list[Ranking]]]:
    """The rankings under ``criterion`` of each task that annotators were given."""
    for item in scored:
        groups: dict[str, list[Ranking]] = {}
        for ranking in item.task.rankings:
            if ranking.criterion == criterion:
                groups.setdefault(task_key(ranking), []).append(ranking)
        for rankings in groups.values():
            yield item, rankings


def _vote(ranking: Ranking, first: int, second: int) -> int | None:
    """1 where ``first`` is above ``second``, -1 below, 0 for a tie, None where one of them is unranked."""
    a, b = ranking.tiers[first], ranking.tiers[second]
    return None if UNRANKED in (a, b) else (a < b) - (a > b)


def _share(pairs: Pairs, seed: int) -> dict[str, Any]:
    found = cluster_interval(pairs.right, pairs.cluster, seed, "section")
    return {"n": len(pairs.right), "accuracy": found["estimate"], "low": found["low"], "high": found["high"]}


def cluster_interval(values: Sequence[float], clusters: Sequence[int], seed: int, name: str) -> dict[str, float | None]:
    """The mean of ``values`` with its 95% percentile bootstrap interval over clusters: the ratio of resampled sums.

    Equal ``clusters``, ``seed`` and ``name`` give equal resamples, so differences are paired. All None for no values.
    """
    if not values:
        return {"estimate": None, "low": None, "high": None}
    _, number = np.unique(clusters, return_inverse=True)
    count = np.bincount(number).astype(np.float64)
    total = np.bincount(number, weights=values)
    draws = cluster_draws(count.size, seed, f"reward-evaluation/{name}", RESAMPLES)
    means = [(drawn @ total) / (drawn @ count) for drawn in draws]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return {"estimate": float(np.mean(values)), "low": float(low), "high": float(high)}


def policy_variance(scores: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """How the scores of sampled responses vary: within a prompt (what a group-relative method learns from) and
    between prompts; (prompt, sample). Variances are of the population: std² = std_within² + std_between² for equally
    many samples a prompt. None without prompts.
    """
    if not scores:
        return None
    means = np.array([np.mean(of_prompt) for of_prompt in scores])
    flat = np.concatenate([np.asarray(of_prompt, dtype=np.float64) for of_prompt in scores])
    return {
        "prompts": len(scores),
        "samples": len(flat),
        "mean": float(flat.mean()),
        "std_within": float(math.sqrt(np.mean([np.var(of_prompt) for of_prompt in scores]))),
        "std_between": float(means.std()),
        "std": float(flat.std()),
    }
