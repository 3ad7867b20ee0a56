"""What a judge's verdicts are worth beside gold scores or people's: pure measurement.

Verdicts and references are 1 (the first answer is better), -1 (the second) or 0 (a tie). A judge says a tie where its
probability is nearer to 0.5 than ``tie_margin``, and by scores where both are equal.

- ``agreement``: of what the reference orders, the share that the judge orders alike; the judge's ties count half, and
  what the reference ties is left out, since nothing could be right about it. Chance is 0.5.
- ``kappa``: Cohen's, over the three categories. Which answer stands first is arbitrary, so both ways of naming a pair
  are counted, as in ``rankings.agreement``. With several annotators, the mean of kappa(judge, annotator) by the number
  of pairs; annotators against each other are measured by the mean of kappa over pairs of annotators, weighted likewise.
- ``position``: what the place does, whatever stands there. With the probabilities p (given order) and p' (the other),
  both of the first answer, the place shown first is given (p - p') / 2 more than one half.
- ``consistency``: the share of pairs of which both orders prefer the same answer.
- ``length``: how often the longer answer (in characters) is preferred, by the judge, by the reference, and the one less
  the other, over pairs of unequal length; ties count half.
- ``calibration``: of the probability that the judge gives to the answer which the reference prefers.

Intervals are percentile bootstraps over prompts (95%). All of an audit use the same resamples.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.evaluation.calibration import calibration_error, log_loss, reliability_bins
from trivium.evaluation.intervals import cluster_draws
from trivium.feedback.judges.base import Comparison, Score
from trivium.feedback.judges.pairs import Item
from trivium.feedback.rankings.coefficients import cohen_kappa
from trivium.feedback.rankings.grouping import prompt_share

Floats = NDArray[np.float64]
Interval = dict[str, float | None]
Judged = tuple[int, int, int]  # number of the item, what the judge says, what the reference says
LEAST = 1e-6  # sampled verdicts give probabilities of 0, whose logarithm says only how few were drawn


class Resamples:
    """Resamples of the prompts of some items, the same for every number, so that differences are paired."""

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        shares = [prompt_share(item.prompt) for item in items]
        self.cluster = np.unique(shares, return_inverse=True)[1].astype(np.intp)
        self.number = int(self.cluster.max()) + 1 if items else 0
        # one prompt is no sample: it has estimates, and no interval
        blocks = list(cluster_draws(self.number, seed, "judge-audit")) if self.number > 1 else []
        self.draws: Floats = np.concatenate(blocks).astype(np.float64) if blocks else np.zeros((0, self.number))

    def sums(self, numbers: Sequence[int], values: Sequence[Any] | NDArray[Any]) -> Floats:
        """[prompts, …]: sums of ``values`` [n, …], of which each belongs to the item of that number."""
        given = np.asarray(values, dtype=np.float64)
        total = np.zeros((self.number, *given.shape[1:]))
        np.add.at(total, self.cluster[np.asarray(numbers, dtype=np.intp)], given)
        return total

    def mean(self, numbers: Sequence[int], values: Sequence[float]) -> Interval | None:
        """The mean of ``values``; None where there are none."""
        if not len(values):
            return None
        above, below = self.sums(numbers, values), self.sums(numbers, np.ones(len(values)))
        with np.errstate(invalid="ignore"):
            return _interval(float(np.mean(values)), (self.draws @ above) / (self.draws @ below))

    def kappa(self, tables: Sequence[Floats]) -> Interval | None:
        """The mean of the kappas of ``tables`` [prompts, 3, 3] by their sizes, without undefined ones."""
        if not tables:
            return None
        estimate = _mean_kappa(np.stack([table.sum(axis=0) for table in tables]))
        flat = [(self.draws @ table.reshape(self.number, 9)).reshape(-1, 3, 3) for table in tables]
        drawn = _mean_kappa(np.stack(flat, axis=1))
        return None if math.isnan(estimate) else _interval(float(estimate), drawn)


def _mean_kappa(tables: Floats) -> Any:
    """[…]: over [..., tables, 3, 3]."""
    kappas = cohen_kappa(tables)
    known = ~np.isnan(kappas)
    weights = tables.sum(axis=(-1, -2)) * known
    with np.errstate(invalid="ignore"):
        return (np.where(known, kappas, 0.0) * weights).sum(axis=-1) / weights.sum(axis=-1)


def _interval(estimate: float, drawn: Floats) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return {"estimate": estimate, "low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"estimate": estimate, "low": float(low), "high": float(high)}


# ---- a judge against its reference -----------------------------------------------------------------------------------


def comparison_measures(
    items: Sequence[Item], comparisons: Sequence[Comparison], *, tie_margin: float = 0.05, seed: int = 0
) -> dict[str, Any]:
    """Everything about a judge that was asked to compare: one comparison an item, missing ones left out and counted.

    Keys: ``n``, ``missing``, ``agreement``, ``kappa``, ``position``, ``consistency``, ``length``, ``calibration`` and
    ``principles`` (the agreement of each alone). An interval is ``{"estimate", "low", "high"}``, or None where nothing
    is behind it: a judge that is asked in one order has no consistency.
    """
    kept = [number for number, comparison in enumerate(comparisons) if comparison.probability is not None]
    given, answers = [items[number] for number in kept], [comparisons[number] for number in kept]
    resamples = Resamples(given, seed)
    probability = [float(answer.probability or 0.0) for answer in answers]
    said = [verdict(value, tie_margin) for value in probability]
    return {
        "n": len(kept),
        "missing": len(items) - len(kept),
        **against_reference(given, said, resamples),
        "position": _position(answers, resamples),
        "consistency": _consistency(answers, resamples),
        "calibration": _calibration(given, probability),
        "principles": _by_principle(given, answers, tie_margin, resamples),
    }


def score_measures(items: Sequence[Item], scores: Sequence[tuple[Score, Score]], *, seed: int = 0) -> dict[str, Any]:
    """The same of a judge that scores answers one by one, which shows neither place nor probability: ``position``,
    ``consistency`` and ``calibration`` are None."""
    verdicts = [score_verdict(one, other) for one, other in scores]
    given = [item for item, own in zip(items, verdicts, strict=True) if own is not None]
    said = [own for own in verdicts if own is not None]
    measured = against_reference(given, said, Resamples(given, seed))
    nothing = dict.fromkeys(("position", "consistency", "calibration"))
    return {"n": len(said), "missing": len(items) - len(said), **measured, **nothing}


def verdict(probability: float, tie_margin: float) -> int:
    """1 where the first answer is better, -1 where the second is, 0 for a tie.

    >>> [verdict(probability, 0.05) for probability in (0.4, 0.45, 0.5, 0.55, 0.56)]
    [-1, 0, 0, 0, 1]
    """
    distance = round(probability - 0.5, 9)  # else 0.45 and 0.55 are not equally far from the middle
    return 0 if abs(distance) <= tie_margin else int(np.sign(distance))


def score_verdict(one: Score, other: Score) -> int | None:
    """The same by the scores of the two answers; None where one of them is missing."""
    return None if one.value is None or other.value is None else int(np.sign(round(one.value - other.value, 9)))


def against_reference(items: Sequence[Item], said: Sequence[int], resamples: Resamples) -> dict[str, Any]:
    """Agreement, kappa and length of verdicts ``said``, one an item, against the reference of the items."""
    by_rater: dict[str, list[Judged]] = {}
    for number, item in enumerate(items):
        for rater, vote in item.reference.items():
            by_rater.setdefault(rater, []).append((number, said[number], vote))
    everything = [judged for group in by_rater.values() for judged in group]
    return {
        "agreement": _agreement(everything, resamples),
        "kappa": resamples.kappa([_table(group, resamples) for group in by_rater.values()]),
        "length": _length(items, everything, resamples),
    }


def _agreement(judged: Sequence[Judged], resamples: Resamples) -> Interval | None:
    ordered = [(number, _half(own * truth)) for number, own, truth in judged if truth]
    return resamples.mean([number for number, _ in ordered], [right for _, right in ordered])


def _half(sign: float) -> float:
    return 0.5 if sign == 0 else float(sign > 0)


def _table(judged: Sequence[Judged], resamples: Resamples) -> Floats:
    """[prompts, 3, 3]: how often the one said this and the other that, each pair named in both ways."""
    cells = np.zeros((len(judged), 3, 3))
    for row, (_, own, truth) in enumerate(judged):
        cells[row, 1 - own, 1 - truth] += 1
        cells[row, 1 + own, 1 + truth] += 1
    return resamples.sums([number for number, _, _ in judged], cells)


def _length(items: Sequence[Item], judged: Sequence[Judged], resamples: Resamples) -> dict[str, Interval | None]:
    rows = []
    for number, own, truth in judged:
        first, second = (len(response.text) for response in items[number].responses)
        if first != second:
            longer = int(np.sign(first - second))
            rows.append((number, _half(own * longer), _half(truth * longer)))
    numbers = [number for number, _, _ in rows]
    return {
        "judge": resamples.mean(numbers, [own for _, own, _ in rows]),
        "reference": resamples.mean(numbers, [truth for _, _, truth in rows]),
        "bias": resamples.mean(numbers, [own - truth for _, own, truth in rows]),
    }


def _position(answers: Sequence[Comparison], resamples: Resamples) -> dict[str, Interval | None]:
    """The share of verdicts for the place shown first, and how much probability it is given beyond one half.

    Asked in one order alone, the place is told from the answer only by the random order of the pairs.
    """
    verdicts, biases, numbers = [], [], []
    for number, answer in enumerate(answers):
        shown = [] if answer.forward is None else [answer.forward]
        shown += [] if answer.backward is None else [1 - answer.backward]
        if shown:
            numbers.append(number)
            verdicts.append(float(np.mean([_half(round(place - 0.5, 9)) for place in shown])))
            biases.append(float(np.mean(shown)) - 0.5)
    return {"first": resamples.mean(numbers, verdicts), "bias": resamples.mean(numbers, biases)}


def _consistency(answers: Sequence[Comparison], resamples: Resamples) -> Interval | None:
    """Both orders prefer the same answer; half where one of them prefers neither."""
    numbers, same = [], []
    for number, answer in enumerate(answers):
        if answer.forward is not None and answer.backward is not None:
            one, other = (verdict(value, 0.0) for value in (answer.forward, answer.backward))
            numbers.append(number)
            same.append(1.0 if one == other else 0.5 if one * other == 0 else 0.0)
    return resamples.mean(numbers, same)


def _calibration(items: Sequence[Item], probability: Sequence[float]) -> dict[str, Any]:
    given = [
        chance if vote > 0 else 1 - chance
        for item, chance in zip(items, probability, strict=True)
        for vote in item.reference.values()
        if vote
    ]
    bins = reliability_bins(given)
    return {"ece": calibration_error(bins), "log_loss": log_loss(given, LEAST), "bins": bins}


def _by_principle(
    items: Sequence[Item], answers: Sequence[Comparison], tie_margin: float, resamples: Resamples
) -> dict[str, Interval | None]:
    """The agreement of each principle alone, over the pairs on which it was asked."""
    judged: dict[str, list[Judged]] = {}
    for number, (item, answer) in enumerate(zip(items, answers, strict=True)):
        for name, probability in answer.principles.items():
            own = verdict(probability, tie_margin)
            judged.setdefault(name, []).extend((number, own, vote) for vote in item.reference.values())
    return {name: _agreement(group, resamples) for name, group in judged.items()}


# ---- people against each other ---------------------------------------------------------------------------------------


def people_measures(items: Sequence[Item], said: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """How far annotators agree on the pairs that two or more of them ranked, and the judge with them on the same pairs.

    ``kappa`` and ``agreement`` are between annotators (each once the reference of the other), ``judge`` the same two
    between the judge and each of them: equal categories, equal pairs, so that the two may be compared. ``n`` counts
    pairs; None where there are no such pairs.
    """
    shared = [number for number, item in enumerate(items) if len(item.votes) > 1]
    given = [items[number] for number in shared]
    resamples = Resamples(given, seed)
    between: dict[tuple[str, str], list[Judged]] = {}
    judge: dict[str, list[Judged]] = {}
    for number, item in enumerate(given):
        for one, other in combinations(sorted(item.votes), 2):
            between.setdefault((one, other), []).append((number, item.votes[one], item.votes[other]))
        for rater, vote in item.votes.items():
            judge.setdefault(rater, []).append((number, said[shared[number]], vote))
    couples = [judged for group in between.values() for judged in group]
    couples += [(number, other, one) for number, one, other in couples]
    return {
        "n": len(given),
        "annotators": len(judge),
        "kappa": resamples.kappa([_table(group, resamples) for group in between.values()]),
        "agreement": _agreement(couples, resamples),
        "judge": {
            "kappa": resamples.kappa([_table(group, resamples) for group in judge.values()]),
            "agreement": _agreement([judged for group in judge.values() for judged in group], resamples),
        },
    }
