"""Intervals: how far a number measured on a few hundred items, or on a few seeds, can be trusted.

All functions take plain sequences of numbers and return an :class:`Interval` in the unit of their input. Wrong calls
(no items, impossible counts) raise ``ValueError``: they are a programmer's mistake, not a user's.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivium.streams import generator

RESAMPLES = 10_000
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
