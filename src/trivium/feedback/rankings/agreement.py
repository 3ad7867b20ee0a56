"""How far annotators agree: by criterion, annotator and kind, against gold and over time.

Two annotators are compared on a task over the pairs of responses that both ranked. Each says of a pair that the first
is better, that the second is, or that they are tied. Three shares follow, and a tie counts differently in each:

- ``agreement``: both say the same; a tie agrees with a tie alone.
- ``ties_half``: the same, but a tie against an order counts one half.
- ``strict``: the same order, of the pairs in which neither says a tie.

``tau_b`` is the mean over pairs of annotators, ``w`` the mean of Kendall's W over tasks (responses that all ranked).
``alpha`` takes as units the responses of each task, and as a unit's values the place each annotator gave it: its rank
among those the annotator ranked, ties sharing the mean rank, moved to [0, 1] as (rank - 1) / (ranked - 1), so that the
last of 3 and the last of 9 are the same place. With equal numbers of responses that is alpha over the ranks themselves.
Intervals are percentile bootstraps over tasks (95%).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.feedback.rankings.coefficients import (
    LEVELS,
    Floats,
    alpha_of,
    cohen_kappa,
    coincidences,
    kendall_w,
    krippendorff_alpha,
    tau_b,
    tied_ranks,
)
from trivium.feedback.rankings.grouping import by_task, effective
from trivium.feedback.rankings.record import UNRANKED, Ranking
from trivium.streams import generator

__all__ = ["agreement_report", "compare", "kendall_w", "krippendorff_alpha", "places", "tau_b"]

RESAMPLES = 500
BLOCK = 20  # rankings of an annotator that make one point over time
# What is summed for each ranking, over the other annotators of its task.
SUMS = ("same", "tie_against_order", "strict_same", "strict", "compared", "tau", "taus", "tied", "pairs")


@dataclass(frozen=True)
class Comparison:
    """One task: its rankings, their ``sums`` [rankings, SUMS] against each other, W, and the places [rankings, K]."""

    rankings: Sequence[Ranking]
    sums: Floats
    w: float
    places: Floats
    confusion: dict[tuple[str, str], Floats]  # two kinds -> [3, 3] counts: what the one said, what the other said


@cache
def _pairs(number: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(number, 1)


def places(tiers: Sequence[int]) -> Floats:
    """Where each response stands, from 0 (first) to 1 (last); ``nan`` for unranked ones and where only one is ranked.

    >>> places([0, 1, 0, -1]).tolist()
    [0.25, 1.0, 0.25, nan]
    """
    array = np.asarray(tiers, dtype=np.float64)
    ranked = array != UNRANKED
    result = np.full(len(array), np.nan)
    if ranked.sum() > 1:
        result[ranked] = (tied_ranks(array[ranked].tolist()) - 1) / (ranked.sum() - 1)
    return result


def compare(rankings: Sequence[Ranking]) -> Comparison:
    """The rankings of one task, by different annotators, against each other."""
    tiers = np.array([ranking.tiers for ranking in rankings])
    first, second = _pairs(tiers.shape[1])
    ranked = (tiers[:, first] != UNRANKED) & (tiers[:, second] != UNRANKED)  # [rankings, pairs]
    signs = np.sign(tiers[:, second] - tiers[:, first]) * ranked  # 1: the first response is better
    said = np.stack([signs == 1, ranked & (signs == 0), signs == -1]).astype(np.float64)  # [3, rankings, pairs]
    sums = np.zeros((len(rankings), len(SUMS)))
    sums[:, SUMS.index("tied")] = said[1].sum(axis=1)
    sums[:, SUMS.index("pairs")] = ranked.sum(axis=1)
    w = math.nan
    if len(rankings) > 1:
        others = said.sum(axis=1, keepdims=True) - said  # what the other annotators say of each pair
        sums[:, 0] = (said * others).sum(axis=(0, 2))
        sums[:, 1] = (said[1] * (others[0] + others[2]) + (said[0] + said[2]) * others[1]).sum(axis=1)
        sums[:, 2] = (said[0] * others[0] + said[2] * others[2]).sum(axis=1)
        sums[:, 3] = ((said[0] + said[2]) * (others[0] + others[2])).sum(axis=1)
        sums[:, 4] = (said.sum(axis=0) * others.sum(axis=0)).sum(axis=1)
        sums[:, 5], sums[:, 6] = _taus(signs.astype(np.float64), ranked.astype(np.float64))
        common = (tiers != UNRANKED).all(axis=0)
        w = kendall_w(tiers[:, common]) if common.sum() > 1 else math.nan
    return Comparison(
        rankings, sums, w, np.stack([places(ranking.tiers) for ranking in rankings]), _confusion(rankings, said)
    )


def _taus(signs: Floats, ranked: Floats) -> tuple[Floats, Floats]:
    """For each ranking the sum of its tau-b with the others, and how many of those are defined."""
    untied = np.abs(signs) @ ranked.T  # [a, b]: pairs that a does not tie, of those that both ranked
    scale = np.sqrt(untied * untied.T)
    np.fill_diagonal(scale, 0)
    taus = np.divide(signs @ signs.T, scale, out=np.zeros_like(scale), where=scale > 0)
    return taus.sum(axis=1), (scale > 0).sum(axis=1).astype(np.float64)


def _confusion(rankings: Sequence[Ranking], said: Floats) -> dict[tuple[str, str], Floats]:
    kinds = [ranking.kind for ranking in rankings]
    if len(set(kinds)) < 2:
        return {}
    counts = {kind: said[:, [k == kind for k in kinds]].sum(axis=1) for kind in sorted(set(kinds))}  # [3, pairs]
    # Which response of a pair is first is arbitrary: both ways of naming it are counted.
    table = {(a, b): counts[a] @ counts[b].T for a, b in itertools.combinations(counts, 2)}
    return {kinds: matrix + matrix[::-1, ::-1] for kinds, matrix in table.items()}


def agreement_report(
    rankings: Iterable[Ranking], gold: Mapping[str, Sequence[int]] | None = None, seed: int = 0
) -> dict[str, Any]:
    """All of it as plain data; what is undefined is None.

    ``rankings``: any; corrected ones are left out, skipped ones are counted. ``gold``: the right tiers of tasks, by
    the ``task`` of a ranking. Keys: ``rankings``, ``skipped``, ``corrected``, ``annotators``, ``tasks``; ``all`` and
    ``by_criterion`` (see ``_measures``), ``by_annotator``, ``between_kinds``, ``gold``, ``by_day``, ``by_nth``.

    Raises:
        ValueError: a gold order has another length than its task has responses.
    """
    given = list(rankings)
    valid = effective(given)
    compared = [compare(group) for group in by_task(valid).values()]
    flat = [(ranking, row) for task in compared for ranking, row in zip(task.rankings, task.sums, strict=True)]
    criteria: dict[str, list[Comparison]] = {}
    for task in compared:
        criteria.setdefault(task.rankings[0].criterion, []).append(task)
    return {
        "rankings": sum(ranking.skipped is None for ranking in valid),
        "skipped": sum(ranking.skipped is not None for ranking in valid),
        "corrected": len(given) - len(valid),
        "annotators": len({ranking.annotator for ranking in valid}),
        "tasks": len(compared),
        "all": _measures(compared, seed),
        "by_criterion": {name: _measures(tasks, seed) for name, tasks in sorted(criteria.items())},
        "by_annotator": _by_annotator(valid, flat, gold or {}),
        "between_kinds": _between_kinds(compared),
        "gold": _gold_interval(valid, gold or {}, seed),
        "by_day": _by_day(flat),
        "by_nth": _by_nth(valid, flat),
    }


def _measures(tasks: Sequence[Comparison], seed: int) -> dict[str, Any]:
    """The measures over some tasks: ``tasks`` (with two annotators or more), ``rankings``, ``tie_share``, and each
    share or coefficient as ``{"estimate", "low", "high"}``."""
    shared = [task for task in tasks if len(task.rankings) > 1]
    totals = np.array([task.sums.sum(axis=0) for task in tasks]).reshape(-1, len(SUMS))
    result: dict[str, Any] = {
        "rankings": sum(len(task.rankings) for task in tasks),
        "tasks": len(shared),
        "tie_share": _ratio(totals[:, 7].sum(), totals[:, 8].sum()),
    }
    sums = np.array([task.sums.sum(axis=0) for task in shared]).reshape(-1, len(SUMS))
    result["comparisons"] = int(sums[:, 4].sum() / 2)  # each was seen from both sides
    weights = _resamples(len(shared), seed)
    ws = np.array([task.w for task in shared])
    known = ~np.isnan(ws)
    for name, above, below in (
        ("agreement", sums[:, 0], sums[:, 4]),
        ("ties_half", sums[:, 0] + sums[:, 1] / 2, sums[:, 4]),
        ("strict", sums[:, 2], sums[:, 3]),
        ("tau_b", sums[:, 5], sums[:, 6]),
        ("w", np.where(known, ws, 0.0), known.astype(np.float64)),
    ):
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = (weights @ above) / (weights @ below)
        result[name] = _interval(_ratio(above.sum(), below.sum()), drawn)
    result["alpha"] = _alphas(shared, weights)
    return result


def _alphas(tasks: Sequence[Comparison], weights: Floats) -> dict[str, Any]:
    """Alpha at each level; the interval of the ordinal one alone, the others are for comparison."""
    if not tasks:
        return dict.fromkeys(LEVELS) | {"ordinal": _interval(None, np.array([]))}
    values = np.unique(np.concatenate([task.places[~np.isnan(task.places)] for task in tasks]).round(9))
    total = np.zeros((len(values), len(values)))
    drawn = np.zeros((len(weights), values.size**2))
    step = max(1, 2_000_000 // max(1, values.size**2))  # 16 MB of matrices at once
    for start in range(0, len(tasks), step):
        block = np.stack([_task_coincidences(task.places, values) for task in tasks[start : start + step]])
        total += block.sum(axis=0)
        drawn += weights[:, start : start + step] @ block.reshape(len(block), -1)
    levels = {level: _number(float(alpha_of(total, values, level))) for level in LEVELS}
    resampled = alpha_of(drawn.reshape(len(drawn), len(values), len(values)), values, "ordinal")
    return {**levels, "ordinal": _interval(levels["ordinal"], resampled)}


def _task_coincidences(table: Floats, values: Floats) -> Floats:
    counts = np.zeros((table.shape[1], len(values)))
    given = ~np.isnan(table)
    np.add.at(counts, (np.nonzero(given)[1], np.searchsorted(values, table[given].round(9))), 1)
    return coincidences(counts)


def _by_annotator(
    rankings: Sequence[Ranking], flat: Sequence[tuple[Ranking, Floats]], gold: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, Any]]:
    sums: dict[str, Floats] = {}
    for ranking, row in flat:
        sums[ranking.annotator] = sums.get(ranking.annotator, 0) + row
    own: dict[str, list[Ranking]] = {}
    for ranking in rankings:
        own.setdefault(ranking.annotator, []).append(ranking)
    result = {}
    for name in sorted(own):
        row = sums.get(name, np.zeros(len(SUMS)))
        seconds = [ranking.seconds for ranking in own[name] if ranking.seconds is not None]
        judged = np.array([_against_gold(ranking, gold) for ranking in own[name]]).sum(axis=0)
        result[name] = {
            "kind": own[name][0].kind,
            "rankings": sum(ranking.skipped is None for ranking in own[name]),
            "skipped": sum(ranking.skipped is not None for ranking in own[name]),
            "all_bad": sum(ranking.all_bad for ranking in own[name]),
            "median_seconds": median(seconds) if seconds else None,
            "tie_share": _ratio(row[7], row[8]),
            **_shares(row),
            "tau_b": _ratio(row[5], row[6]),
            "gold": _gold_numbers(judged),
        }
    return result


def _shares(row: Floats) -> dict[str, Any]:
    return {
        "comparisons": int(row[4]),
        "agreement": _ratio(row[0], row[4]),
        "ties_half": _ratio(row[0] + row[1] / 2, row[4]),
        "strict": _ratio(row[2], row[3]),
    }


def _between_kinds(tasks: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Agreement between annotators of two kinds, with Cohen's kappa over better, tied and worse."""
    tables: dict[tuple[str, str], Floats] = {}
    for task in tasks:
        for kinds, table in task.confusion.items():
            tables[kinds] = tables.get(kinds, 0) + table
    result = []
    for kinds, table in sorted(tables.items()):
        number, same = table.sum(), np.trace(table)
        ties = table[1, [0, 2]].sum() + table[[0, 2], 1].sum()
        result.append(
            {
                "kinds": list(kinds),
                "comparisons": int(number / 2),
                "agreement": _ratio(same, number),
                "ties_half": _ratio(same + ties / 2, number),
                "kappa": _number(float(cohen_kappa(table))),
            }
        )
    return result


def _against_gold(ranking: Ranking, gold: Mapping[str, Sequence[int]]) -> tuple[float, float, float]:
    """(pairs, right, tied) over the pairs that gold orders and the annotator ranked; what gold ties is not judged."""
    right = gold.get(ranking.task) if ranking.task else None
    if right is None or ranking.skipped is not None:
        return 0.0, 0.0, 0.0
    if len(right) != len(ranking.tiers):
        raise ValueError(
            f"the gold order of task {ranking.task} has {len(right)} tiers for {len(ranking.tiers)} responses"
        )
    said, truth = np.array(ranking.tiers), np.array(right)
    first, second = _pairs(len(said))
    judged = (said[first] != UNRANKED) & (said[second] != UNRANKED)
    judged &= (truth[first] != UNRANKED) & (truth[second] != UNRANKED) & (truth[first] != truth[second])
    order = np.sign(said[second] - said[first])[judged] * np.sign(truth[second] - truth[first])[judged]
    return float(judged.sum()), float((order == 1).sum()), float((order == 0).sum())


def _gold_numbers(judged: Sequence[float] | Floats) -> dict[str, Any]:
    pairs, right, tied = judged
    return {"pairs": int(pairs), "right": int(right), "tied": int(tied), "accuracy": _ratio(right + tied / 2, pairs)}


def _gold_interval(rankings: Sequence[Ranking], gold: Mapping[str, Sequence[int]], seed: int) -> dict[str, Any]:
    """Accuracy against gold (ties half), with its interval over gold tasks."""
    tasks: dict[str, Floats] = {}
    for ranking in rankings:
        judged = np.array(_against_gold(ranking, gold))
        if judged[0]:
            tasks[ranking.task] = tasks.get(ranking.task, 0) + judged
    table = np.array(list(tasks.values())).reshape(-1, 3)
    numbers = _gold_numbers(table.sum(axis=0))
    weights = _resamples(len(table), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (weights @ (table[:, 1] + table[:, 2] / 2)) / (weights @ table[:, 0])
    bounds = _interval(numbers["accuracy"], drawn)
    return {"tasks": len(table), **numbers, "low": bounds["low"], "high": bounds["high"]}


def _by_day(flat: Sequence[tuple[Ranking, Floats]]) -> list[dict[str, Any]]:
    dated = [(ranking, row) for ranking, row in flat if ranking.time]
    return [{"day": day, **numbers} for day, numbers in _grouped(dated, lambda ranking: ranking.time[:10])]


def _by_nth(rankings: Sequence[Ranking], flat: Sequence[tuple[Ranking, Floats]]) -> list[dict[str, Any]]:
    """By how many rankings their annotators had given before: practice and fatigue show here."""
    counts: dict[str, int] = {}
    nth: dict[int, int] = {}
    order = sorted(rankings, key=lambda ranking: ranking.time) if all(r.time for r in rankings) else rankings
    for ranking in order:
        if ranking.skipped is None:
            nth[id(ranking)] = counts.get(ranking.annotator, 0)
            counts[ranking.annotator] = nth[id(ranking)] + 1
    blocks = _grouped(flat, lambda ranking: nth[id(ranking)] // BLOCK)
    return [{"from": block * BLOCK + 1, "to": (block + 1) * BLOCK, **numbers} for block, numbers in blocks]


def _grouped(flat: Sequence[tuple[Ranking, Floats]], key: Callable[[Ranking], Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Each ranking against the others of its task, summed by ``key``."""
    sums: dict[Any, Floats] = {}
    counts: dict[Any, int] = {}
    for ranking, row in flat:
        name = key(ranking)
        sums[name] = sums.get(name, 0) + row
        counts[name] = counts.get(name, 0) + 1
    return [(name, {"rankings": counts[name], **_shares(sums[name])}) for name in sorted(sums)]


def _resamples(number: int, seed: int) -> Floats:
    """[RESAMPLES, number]: how often each of ``number`` tasks is drawn, with replacement."""
    if number < 2:
        return np.zeros((0, number))
    drawn = generator(seed, "agreement", number).integers(0, number, size=(RESAMPLES, number))
    return np.stack([np.bincount(row, minlength=number) for row in drawn]).astype(np.float64)


def _interval(estimate: float | None, drawn: Floats) -> dict[str, float | None]:
    drawn = drawn[np.isfinite(drawn)]
    if estimate is None or not drawn.size:
        return {"estimate": estimate, "low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"estimate": estimate, "low": float(low), "high": float(high)}


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
