"""Intervals: how far a number measured on a few hundred items, or on a few seeds, can be trusted.

All functions take plain sequences of numbers and return an :class:`Interval` in the unit of their input. Wrong calls
(no items, impossible counts) raise ``ValueError``: they are a programmer's mistake, not a user's.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivium.streams import generator

RESAMPLES = 10_000
SINGLE = 1e-6  # what numbers that went through float32 may differ by, relative to their size
_CHUNK_CELLS = 4_000_000  # most numbers held at once while resampling (32 MB)


class Interval(NamedTuple):
    """An estimate between its two bounds."""

    estimate: float
    low: float
    high: float


class ConstantBaseline(NamedTuple):
    """What a model reaches that always gives the same answer."""

    accuracy: float
    answer: str


class Evidence(NamedTuple):
    """A mean over seeds, its interval, and the p-value of "it is 0"; None where the data say nothing of it."""

    estimate: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    items: int  # distinct ones; 0 where there was but a number for each seed


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The score interval of a proportion (Wilson, 1927), which stays inside [0, 1] and works at 0 and at n.

    >>> [round(bound, 3) for bound in wilson(0, 20)]
    [0.0, 0.0, 0.161]
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion: n must be at least 1 and 0 <= successes <= n")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and at n the bound equals the estimate exactly; rounding must not put it a hair beyond.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(share, low, high)


def bootstrap_mean(
    values: Sequence[float], seed: int, resamples: int = RESAMPLES, confidence: float = 0.95, name: str = "bootstrap"
) -> Interval:
    """Percentile bootstrap of the mean (Efron, 1979); ``name`` and ``seed`` choose the random stream.

    Items with equal values are interchangeable, so a resample of n items is drawn as one multinomial count over the
    distinct values. For right-or-wrong scores that is two or three cells instead of n, and the result does not depend
    on the order of the items.
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    items = np.asarray(values, dtype=np.float64)
    if items.ndim != 1 or items.size == 0:
        raise ValueError("a bootstrap needs a flat sequence of at least one value")
    if not np.isfinite(items).all():
        raise ValueError("a bootstrap needs finite values: leave out items that have no score before")
    means = _resampled_means(items, seed, name, resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(items.mean()), float(low), float(high))


def _resampled_means(items: NDArray[np.float64], seed: int, name: str, resamples: int) -> NDArray[np.float64]:
    """[resamples] means of resamples with replacement of ``items`` [n]."""
    distinct, counts = np.unique(items, return_counts=True)
    random = generator(seed, name, items.size)
    rows = max(1, _CHUNK_CELLS // distinct.size)
    means = [
        random.multinomial(items.size, counts / items.size, size=min(rows, resamples - start)) @ distinct / items.size
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(means)


def cluster_draws(number: int, seed: int, name: str, resamples: int = 2_000) -> Iterator[NDArray[np.int64]]:
    """Blocks of [rows, number]: how often each of ``number`` clusters is drawn, with replacement, in each resample.

    Items that hang together (the pairs of one prompt) are resampled together. Sums over the items of each cluster,
    times these counts, are the sums of the resamples. Equal arguments give equal draws, so differences are paired.
    """
    random = generator(seed, name, number)
    chances = np.full(number, 1 / number)
    rows = max(1, _CHUNK_CELLS // number)
    for start in range(0, resamples, rows):
        yield random.multinomial(number, chances, size=min(rows, resamples - start))


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], seed: int, resamples: int = RESAMPLES, confidence: float = 0.95
) -> Interval:
    """The difference mean(b) - mean(a) over the same items, with its percentile bootstrap interval.

    ``a[i]`` and ``b[i]`` are the scores of two models on item i. Items are resampled in pairs, so what makes an item
    hard for both models cancels. The percentile method is used as it stands (no BCa): with right-or-wrong scores
    and hundreds of items they agree, and it needs no jackknife, which is undefined when all differences are equal.
    In that case, such as two models that answer everything alike, the interval has no width.
    """
    if len(a) != len(b):
        raise ValueError(f"paired scores must be over the same items, not {len(a)} and {len(b)}")
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    return bootstrap_mean(differences.tolist(), seed, resamples, confidence, name="paired-bootstrap")


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean over seeds with its Student t interval: few independent runs, unknown spread.

    Needs two values or more: one run says nothing about the spread.

    >>> [round(bound, 4) for bound in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.4841, 4.4841]
    """
    if len(values) < 2:
        raise ValueError("an interval over seeds needs at least two values")
    items = np.asarray(values, dtype=np.float64)
    mean = float(items.mean())
    half = student_t_quantile(0.5 + confidence / 2, items.size - 1) * float(items.std(ddof=1)) / math.sqrt(items.size)
    return Interval(mean, mean - half, mean + half)


def student_t_quantile(probability: float, degrees: int) -> float:
    """The t with P(T <= t) = ``probability`` for whole degrees of freedom; accurate to about 1e-12.

    Whole degrees have a closed distribution function (Abramowitz and Stegun, 26.7.3 and 26.7.4), here inverted by
    bisection over the angle atan(t / sqrt(degrees)), which is bounded.
    """
    if degrees < 1 or not 0 < probability < 1:
        raise ValueError("Student's t needs degrees >= 1 and a probability between 0 and 1")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees)
    target = 2 * probability - 1  # P(|T| <= t)
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_probability(middle, degrees) < target else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def student_t_p_value(t: float, degrees: int) -> float:
    """The two-sided p-value P(|T| >= |t|) for whole degrees of freedom.

    >>> round(student_t_p_value(2.776445, 4), 6)
    0.05
    """
    if degrees < 1 or math.isnan(t):
        raise ValueError("Student's t needs degrees >= 1 and a number")
    return min(1.0, max(0.0, 1 - _central_probability(math.atan(abs(t) / math.sqrt(degrees)), degrees)))


def over_seeds(values: Mapping[Hashable, float | Mapping[str, float]], confidence: float = 0.95) -> Evidence:
    """The mean over seeds of a number, or of the mean over its items (the prompts), and how far it can be trusted.

    ``values`` maps each seed to its number, or to the numbers of its items. For a difference of two models, these are
    their differences item by item, which makes it paired. The interval is Student's t with n - 1 degrees of freedom
    around the bootstrap's standard error, corrected for its narrowness by sqrt(n / (n - 1)) (Hesterberg, 2015). Two
    things are resampled: seeds, and items where seeds share them, since then their luck does not
    average out over seeds; what both count is subtracted (Cameron, Gelbach and Miller, 2011). For a mean all of this
    has a closed form, the limit of infinitely many resamples. Seeds that agree, but for rounding, still have the noise
    of their items. Where all values are the same, nothing says how far others would lie, and there is no interval; the
    p-value is then that of a sign test of the distinct items (1 for a mean of 0, None of no items).

    One seed tells of its items alone: a percentile bootstrap, and no p-value.

    >>> found = over_seeds({0: 1.0, 1: 2.0, 2: 3.0})
    >>> [round(number, 4) for number in found[:4]]  # as mean_interval; t = 2 / (1 / sqrt(3)) = 3.4641
    [2.0, -0.4841, 4.4841, 0.0742]
    """
    _check_confidence(confidence)
    if not values:
        raise ValueError("a mean over seeds needs at least one seed")
    means: list[float] = []
    tables: list[Mapping[str, float]] = []
    for value in values.values():
        table = value if isinstance(value, Mapping) else {}
        if isinstance(value, Mapping) and not value:
            raise ValueError("a seed without items has no mean")
        tables.append(table)
        means.append(math.fsum(table.values()) / len(table) if isinstance(value, Mapping) else float(value))
    n, items = len(means), len({item for table in tables for item in table})
    estimate = math.fsum(means) / n
    if not math.isfinite(estimate):
        raise ValueError("a mean over seeds needs finite values")
    if n == 1:
        if not items:
            return Evidence(estimate, None, None, None, 1, 0)
        _, low, high = bootstrap_mean(list(tables[0].values()), 0, confidence=confidence, name="over-seeds")
        told = low < high
        return Evidence(estimate, low if told else None, high if told else None, None, 1, items)
    cells, shared = _item_variances(means, tables)
    between = math.fsum((mean - estimate) ** 2 for mean in means) / (n * (n - 1))
    rounding = (SINGLE * max(map(abs, means))) ** 2
    variance = (between if between > rounding else cells) + shared
    if variance <= rounding:
        sign_test = min(1.0, 2.0 ** (1 - items)) if items else None
        return Evidence(estimate, None, None, 1.0 if estimate == 0 else sign_test, n, items)
    error = math.sqrt(variance)
    half = student_t_quantile(0.5 + confidence / 2, n - 1) * error
    p = student_t_p_value(estimate / error, n - 1)
    return Evidence(estimate, estimate - half, estimate + half, p, n, items)


def _item_variances(means: Sequence[float], tables: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Of the mean over seeds: the variance that the items of each seed explain, and what items in common add to it."""
    n, cells = len(means), 0.0
    sums: dict[str, float] = {}
    for mean, table in zip(means, tables, strict=True):
        if len(table) < 2:
            continue
        size = math.sqrt(len(table) / (len(table) - 1)) / (n * len(table))  # unbiased, and weighted as in the mean
        for item, value in table.items():
            part = size * (value - mean)
            cells += part * part
            sums[item] = sums.get(item, 0.0) + part
    return cells, max(0.0, math.fsum(part * part for part in sums.values()) - cells)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm, 1979): any below 0.05 may be called certain together at 95%.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]  # 3 * 0.01; 2 * 0.03; 1 * 0.04, but no less than the one before
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _central_probability(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) * tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2 == 1
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 if odd else 0, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def best_constant_baseline(
    answers: Sequence[Hashable], right: Callable[[str, int], bool] | None = None
) -> ConstantBaseline:
    """The best accuracy of one answer given to every problem, and that answer (the first seen among equals).

    Candidates are the distinct answers of the problems themselves, written with ``str``. ``right(candidate, i)`` judges
    a candidate on problem i; without it, equality of the written answers does. The constant is chosen on the very
    problems it is judged on, so it is an upper bound for what a constant can do: the fair line to be above.

    >>> best_constant_baseline([4, 7, 7, 9])
    ConstantBaseline(accuracy=0.5, answer='7')
    """
    if not answers:
        raise ValueError("a constant baseline needs at least one answer")
    written = [str(answer) for answer in answers]
    counts: dict[str, int] = dict.fromkeys(written, 0)
    for position, answer in enumerate(written):
        if right is None:
            counts[answer] += 1
        else:
            for candidate in counts:
                counts[candidate] += bool(right(candidate, position))
    best = max(counts, key=lambda candidate: counts[candidate])
    return ConstantBaseline(counts[best] / len(written), best)
