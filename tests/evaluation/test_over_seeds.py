"""Means over seeds: against hand calculations and brute force, and how often their intervals hold the truth."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.evaluation.intervals import holm, mean_interval, over_seeds, student_t_p_value, student_t_quantile


def test_by_hand_without_items() -> None:
    # Mean 0.3; squared distances 0.01 + 0 + 0.01 = 0.02; error sqrt(0.02 / (3 * 2)) = 0.057735; t = 5.196152.
    # With 2 degrees of freedom p = 1 - t / sqrt(2 + t^2) = 1 - 5.196152 / sqrt(29) = 0.035098.
    found = over_seeds({0: 0.2, 1: 0.3, 2: 0.4})
    assert found.estimate == pytest.approx(0.3)
    assert found.p == pytest.approx(1 - 27**0.5 / 29**0.5)
    assert (found.seeds, found.items) == (3, 0)
    assert found[:3] == pytest.approx(mean_interval([0.2, 0.3, 0.4]))


def test_items_of_their_own_in_each_seed_add_nothing() -> None:
    """Their noise is in the spread between seeds already: the same as the means alone."""
    tables = {seed: {f"{seed}-{i}": float((i * 7 + seed) % 3) for i in range(8)} for seed in range(4)}
    means = {seed: sum(table.values()) / 8 for seed, table in tables.items()}
    assert over_seeds(tables)[:4] == pytest.approx(over_seeds(means)[:4])


def test_items_in_common_by_hand() -> None:
    # Both seeds have mean 0, and no spread, so the noise of the items stands in: each of the 4 cells is ±1 and counts
    # sqrt(2 / 1) / (2 * 2) = 0.353553, squared 0.125; cells = 0.5. Item sums are ±0.707107: 0.5 + 0.5 = 1, of which
    # 0.5 is counted already: 0.5 + 0.5 = 1. The error is 1.
    found = over_seeds({0: {"a": 1.0, "b": -1.0}, 1: {"a": 1.0, "b": -1.0}})
    assert found.high == pytest.approx(student_t_quantile(0.975, 1))
    # Items of other names: nothing in common, 0.5 alone.
    apart = over_seeds({0: {"a": 1.0, "b": -1.0}, 1: {"c": 1.0, "d": -1.0}})
    assert apart.high == pytest.approx(0.5**0.5 * student_t_quantile(0.975, 1))


def test_is_the_limit_of_resampling_seeds() -> None:
    means = [0.1, 0.4, 0.35, 0.8, 0.2]
    random = np.random.default_rng(0)
    spread = np.asarray(means)[random.integers(0, 5, (200_000, 5))].mean(axis=1).std()
    found = over_seeds(dict(enumerate(means)))
    assert found.high is not None
    error = (found.high - found.estimate) / student_t_quantile(0.975, 4)
    assert error == pytest.approx(spread * math.sqrt(5 / 4), rel=0.01)


def test_one_seed_tells_of_its_items_alone() -> None:
    found = over_seeds({3: {"a": 0.0, "b": 1.0, "c": 1.0, "d": 1.0}})
    assert found.p is None
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.75 < found.high
    assert over_seeds({3: 0.5})[1:4] == (None, None, None)


def test_no_spread_at_all() -> None:
    assert over_seeds({0: 0.0, 1: 0.0}).p == 1
    assert over_seeds({0: 0.5, 1: 0.5})[1:4] == (None, None, None)  # two coarse numbers agree by chance
    assert over_seeds({seed: 0.3 + 1e-9 * seed for seed in range(3)}).p is None  # a hair apart, as float32 leaves them
    # all of m items on one side: a sign test, 2 of the 2^m ways; and no interval, since nothing was seen to vary
    assert over_seeds({seed: {"a": 0.5, "b": 0.5} for seed in (0, 1)})[1:4] == (None, None, 0.5)
    four = dict.fromkeys("abcd", 1.0)
    assert over_seeds(dict.fromkeys((0, 1), four)).p == 0.125


def test_refuses_what_has_no_mean() -> None:
    for values in ({}, {0: {}}, {0: math.nan}):
        with pytest.raises(ValueError, match=r"no mean|at least one seed|finite"):
            over_seeds(values)


def covered(seeds: int, spread: float, common: float, noise: float, trials: int = 600) -> float:
    """How often the interval holds the truth, 0: seeds, items that all seeds share, and noise, of these deviations."""
    random = np.random.default_rng(seeds)
    hits = 0
    for _ in range(trials):
        of_seed, of_item = random.normal(0, 1, seeds) * spread, random.normal(0, 1, 15) * common
        table = of_seed[:, None] + of_item + random.normal(0, 1, (seeds, 15)) * noise
        values = {s: {f"{0 if common else s}-{i}": float(table[s, i]) for i in range(15)} for s in range(seeds)}
        found = over_seeds(values)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    return hits / trials


def percentiles(seeds: int, tail: float, trials: int = 2_000) -> float:
    """Coverage of the percentile bootstrap over seeds alone, cut at ``tail`` on either side."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(trials):
        means = random.normal(0, 1, seeds)[random.integers(0, seeds, (1_000, seeds))].mean(axis=1)
        low, high = np.quantile(means, [tail, 1 - tail])
        hits += low <= 0 <= high
    return hits / trials


@pytest.mark.parametrize(("spread", "common", "noise"), [(1, 0, 0.1), (0, 0, 1), (0.3, 0, 1), (0.3, 0.5, 1)])
def test_covers_at_its_level_with_five_seeds(spread: float, common: float, noise: float) -> None:
    """600 trials have a standard error of 0.009; items in common make it a little wider than it need be."""
    assert 0.925 <= covered(5, spread, common, noise) <= (0.99 if common else 0.975)


def test_items_in_common_are_not_ignored() -> None:
    """Five seeds on the same problems agree on what is luck of the problems: means alone would miss it."""
    assert covered(5, 0.05, 1, 0.2) >= 0.925


def test_plain_and_expanded_percentiles_do_not_cover_with_few_seeds() -> None:
    assert percentiles(5, 0.025) < 0.88
    # Hesterberg's expanded percentiles repair five seeds in part, and three not at all: they end at the outermost seed.
    expanded = {n: NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_t_quantile(0.975, n - 1)) for n in (3, 5)}
    assert 0.88 < percentiles(5, expanded[5]) < 0.95
    assert percentiles(3, expanded[3]) < 0.8


def test_p_is_the_interval_inverted() -> None:
    values = dict(enumerate([0.1, 0.4, 0.35, 0.8, 0.2]))
    p = over_seeds(values).p
    assert p is not None
    edge = over_seeds(values, confidence=1 - p)
    assert edge.low == pytest.approx(0, abs=1e-9)


def test_p_value_of_student() -> None:
    # One degree is Cauchy: P(|T| >= 1) = 1/2. Tables: 2.776 with 4 degrees, 12.706 with 1, at 0.05.
    assert student_t_p_value(1, 1) == pytest.approx(0.5)
    assert student_t_p_value(-2.776445, 4) == pytest.approx(0.05, abs=1e-6)
    assert student_t_p_value(12.7062, 1) == pytest.approx(0.05, abs=1e-6)
    assert student_t_p_value(math.inf, 3) == pytest.approx(0, abs=1e-12)


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.randoms())
def test_holm_does_not_depend_on_the_order(p_values: list[float], random: object) -> None:
    order = list(range(len(p_values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = holm([p_values[i] for i in order])
    assert [shuffled[order.index(i)] for i in range(len(order))] == holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, holm(p_values), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=2, max_size=5),
    st.floats(-2, 2),
    st.floats(0.1, 5),
)
def test_moves_and_scales_with_its_values(rows: list[list[float]], shift: float, scale: float) -> None:
    def tables(scale: float, shift: float) -> dict[object, dict[str, float]]:
        return {s: {f"p{i}": scale * v + shift for i, v in enumerate(row)} for s, row in enumerate(rows)}

    plain, moved = over_seeds(tables(1, 0)), over_seeds(tables(scale, shift))
    assert moved.estimate == pytest.approx(scale * plain.estimate + shift, abs=1e-9)
    if plain.low is None or moved.low is None:  # no spread at all, but for rounding of the larger numbers
        spread = max(max(column) - min(column) for column in zip(*rows, strict=True))
        assert spread * scale < 1e-4 * (1 + abs(shift) + scale) or all(len(set(row)) == 1 for row in rows)
        return
    assert moved.estimate - moved.low == pytest.approx(scale * (plain.estimate - plain.low), rel=1e-4, abs=1e-6)


def test_seeds_that_agree_but_for_rounding_still_have_the_noise_of_their_items() -> None:
    """Sums of floats differ by a hair, which says nothing of how far seeds lie apart."""
    exact = over_seeds({0: {"a": 0.0, "b": 0.5, "c": 1.0}, 1: {"d": 0.0, "e": 0.5, "f": 1.0}})
    hair = over_seeds({0: {"a": 0.0, "b": 0.5, "c": 1.0}, 1: {"d": 0.0, "e": 0.5, "f": 1.0 + 1e-15}})
    assert hair[:4] == pytest.approx(exact[:4])
    assert hair.p is not None and hair.p > 0.05
