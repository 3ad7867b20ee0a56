"""Coefficients of agreement, as pure functions over numbers.

One that is undefined (nothing to compare, or no variation) is ``nan``, never 0 or 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVELS = ("nominal", "ordinal", "interval")


def tau_b(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's rank correlation with its correction for ties (Kendall, 1945), of two lists over the same items.

    Concordant less discordant pairs, over the geometric mean of the numbers of pairs that each list does not tie:
    1 for the same order, -1 for the opposite one. ``nan`` if a list is constant. Items with ``nan`` in either list
    are left out.

    >>> round(tau_b([1, 2, 2, 3], [1, 2, 3, 4]), 6)
    0.912871
    """
    if len(a) != len(b):
        raise ValueError(f"two lists over the same items are of one length, not {len(a)} and {len(b)}")
    table = np.array([a, b], dtype=np.float64)
    table = table[:, ~np.isnan(table).any(axis=0)]
    first, second = np.triu_indices(table.shape[1], 1)
    signs = np.sign(table[:, second] - table[:, first])  # [2, pairs]
    untied = np.abs(signs).sum(axis=1).prod()
    return float((signs[0] * signs[1]).sum() / math.sqrt(untied)) if untied else math.nan


def tied_ranks(values: Sequence[float]) -> Floats:
    """Ranks from 1 for the smallest; equal values share the mean of the ranks they take up.

    >>> tied_ranks([0, 1, 0]).tolist()
    [1.5, 3.0, 1.5]
    """
    array = np.asarray(values, dtype=np.float64)
    below, equal = _below_and_equal(array)
    return below + (equal + 1) / 2


def _below_and_equal(array: Floats) -> tuple[Floats, Floats]:
    """For each of ``array`` [..., items], how many items of its row are below it, and how many equal it."""
    one, other = array[..., :, None], array[..., None, :]
    return (other < one).sum(axis=-1).astype(np.float64), (other == one).sum(axis=-1).astype(np.float64)


def kendall_w(table: Sequence[Sequence[float]] | NDArray[Any]) -> float:
    """Kendall's coefficient of concordance with correction for ties (Kendall and Babington Smith, 1939).

    ``table``: one row an annotator, one number an item; only the order within a row counts. 0: the annotators' ranks
    cancel; 1: all give the same order. ``nan`` with fewer than two rows or items, or if every row is constant.

    >>> round(kendall_w([(1, 2, 3, 4), (1, 3, 2, 4), (2, 1, 3, 4)]), 6)
    0.777778
    """
    if len(table) < 2 or len(table[0]) < 2:
        return math.nan
    below, equal = _below_and_equal(np.asarray(table, dtype=np.float64))  # [annotators, items]
    annotators, items = below.shape
    sums = (below + (equal + 1) / 2).sum(axis=0)
    spread = ((sums - sums.mean()) ** 2).sum()
    ties = float((equal**2 - 1).sum())  # the sum of t^3 - t over groups of t tied items
    largest = annotators**2 * (items**3 - items) - annotators * ties
    return float(12 * spread / largest) if largest else math.nan


def krippendorff_alpha(table: Sequence[Sequence[float | None]], level: str = "ordinal") -> float:
    """Krippendorff's alpha (Krippendorff, 2004, Content Analysis, chapter 11): 1 - observed / expected disagreement.

    ``table``: one row an annotator, one value a unit, ``None`` or ``nan`` where there is none; units with a single
    value are left out, as there is nothing to pair. ``level``: how far two values lie apart. ``nominal``: apart or
    not; ``ordinal``: by how many values of the sample lie between; ``interval``: by their difference.
    1: no disagreement; 0: as much as by chance; below 0: more than that. ``nan`` if all values are equal.
    """
    array = np.array([[math.nan if value is None else value for value in row] for row in table], dtype=np.float64)
    given = ~np.isnan(array)
    values, codes = np.unique(array[given], return_inverse=True)
    counts = np.zeros((array.shape[1], len(values)))  # [units, values]
    np.add.at(counts, (np.nonzero(given)[1], codes), 1)
    return float(alpha_of(coincidences(counts), values, level))


def coincidences(counts: Floats) -> Floats:
    """[values, values] how often two values meet in a unit, from ``counts`` [units, values].

    Each of the m values of a unit is paired with the m - 1 others, and each pair counts 1 / (m - 1), so that a unit
    weighs as much as it has values.
    """
    sizes = counts.sum(axis=1)
    counts, sizes = counts[sizes > 1], sizes[sizes > 1]
    weighted = counts / (sizes - 1)[:, None]
    return counts.T @ weighted - np.diag(weighted.sum(axis=0))


def alpha_of(matrices: Floats, values: Floats, level: str) -> Floats:
    """Alpha of coincidence matrices [..., values, values]; ``values`` ascend."""
    if level not in LEVELS:
        raise ValueError(f"a level is one of {', '.join(LEVELS)}, not {level!r}")
    totals = matrices.sum(axis=-1)  # [..., values]
    if level == "nominal":
        distance = 1 - np.eye(len(values))
    elif level == "interval":
        distance = (values[:, None] - values[None, :]) ** 2
    else:  # the values from one to the other, those at the ends by half
        middle = np.cumsum(totals, axis=-1) - totals / 2
        distance = (middle[..., :, None] - middle[..., None, :]) ** 2
    number = totals.sum(axis=-1)
    observed = (matrices * distance).sum(axis=(-1, -2)) * (number - 1)
    expected = (totals[..., :, None] * totals[..., None, :] * distance).sum(axis=(-1, -2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def cohen_kappa(tables: Floats) -> Floats:
    """Cohen's kappa (1960) of tables [..., categories, categories]: how often the one said this and the other that.

    (observed - chance) / (1 - chance), where chance is how often two who say each category as often as these would say
    the same. ``nan`` where that is always: both said one category throughout, or nothing at all.

    >>> round(float(cohen_kappa(np.array([[20.0, 5.0], [10.0, 15.0]]))), 6)
    0.4
    """
    number = tables.sum(axis=(-1, -2))
    same = np.trace(tables, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / number
        left = number - chance
        return np.where(left > 1e-9 * number, (same - chance) / left, np.nan)
