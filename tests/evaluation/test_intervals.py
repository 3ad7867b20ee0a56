"""Intervals against known values and against brute force."""

import itertools
import math

import numpy as np
import pytest

from trivium.evaluation.intervals import (
    best_constant_baseline,
    bootstrap_mean,
    mean_interval,
    paired_bootstrap,
    student_t_quantile,
    wilson,
)


def test_wilson_of_none_right() -> None:
    interval = wilson(0, 20)
    assert interval.estimate == 0 and interval.low == 0
    assert interval.high == pytest.approx(0.161, abs=5e-4)


def test_wilson_is_symmetric_and_known() -> None:
    assert wilson(20, 20).high == 1
    assert wilson(20, 20).low == pytest.approx(1 - wilson(0, 20).high)
    # Newcombe, 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 gives 0.0624 to 0.1605.
    assert wilson(81, 263)[1:] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148)[1:] == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(50, 100, 0.99).low < wilson(50, 100, 0.9).low


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError):
        wilson(successes, n)


def test_wilson_covers_at_about_its_level() -> None:
    n, share = 60, 0.3
    chance = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    covered = sum(chance[k] for k in range(n + 1) if wilson(k, n).low <= share <= wilson(k, n).high)
    assert 0.93 < covered < 0.97


def test_paired_bootstrap_is_deterministic_and_signed_b_minus_a() -> None:
    a = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0] * 30
    b = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0] * 30
    first = paired_bootstrap(a, b, seed=3)
    assert first == paired_bootstrap(a, b, seed=3)
    uneven = [value * i for i, value in enumerate(b)]
    assert paired_bootstrap(a, uneven, seed=3) != paired_bootstrap(a, uneven, seed=4)
    assert first.estimate == pytest.approx(0.5)
    assert 0 < first.low < 0.5 < first.high
    back = paired_bootstrap(b, a, seed=3)
    assert back.estimate == pytest.approx(-0.5)


def test_paired_bootstrap_equals_enumeration() -> None:
    a, b = [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]
    every = np.array([np.mean(draw) for draw in itertools.product(np.subtract(b, a), repeat=4)])
    interval = paired_bootstrap(a, b, seed=0, resamples=40_000, confidence=0.8)
    assert interval[1:] == pytest.approx(np.quantile(every, [0.1, 0.9]), abs=1e-9)


def test_paired_bootstrap_is_narrower_than_unpaired_when_items_share_their_difficulty() -> None:
    hard = np.random.default_rng(0).uniform(size=400)
    a, b = hard, hard + 0.01
    interval = paired_bootstrap(a.tolist(), b.tolist(), seed=0)
    assert interval.high - interval.low < 1e-9
    assert interval.estimate == pytest.approx(0.01)


def test_bootstrap_of_many_distinct_values_matches_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=500)
    interval = bootstrap_mean(values.tolist(), seed=0)
    assert interval.estimate == pytest.approx(values.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(500), rel=0.06)


def test_bootstrap_does_not_depend_on_the_order_of_items() -> None:
    values = [0.0, 1.0, 1.0, 0.5, 0.25]
    assert bootstrap_mean(values, seed=0)[1:] == bootstrap_mean(values[::-1], seed=0)[1:]


@pytest.mark.parametrize("values", [[], [math.nan, 1.0]])
def test_bootstrap_refuses(values: list[float]) -> None:
    with pytest.raises(ValueError):
        bootstrap_mean(values, seed=0)
    with pytest.raises(ValueError):
        paired_bootstrap([1.0], [1.0, 2.0], seed=0)


@pytest.mark.parametrize(
    ("degrees", "value"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (9, 2.262157), (30, 2.042272)]
)
def test_student_t_table(degrees: int, value: float) -> None:
    assert student_t_quantile(0.975, degrees) == pytest.approx(value, abs=1e-6)
    assert student_t_quantile(0.025, degrees) == pytest.approx(-value, abs=1e-6)


def test_mean_interval_over_seeds() -> None:
    interval = mean_interval([0.95, 0.97, 0.96, 0.98, 0.94])
    half = 2.776445 * math.sqrt(0.00025) / math.sqrt(5)
    assert interval == pytest.approx((0.96, 0.96 - half, 0.96 + half), abs=1e-6)
    with pytest.raises(ValueError):
        mean_interval([0.9])


def test_best_constant_baseline() -> None:
    assert best_constant_baseline(["a", "b", "b", "a"]) == (0.5, "a")
    judged = best_constant_baseline([5, "5.0", 7], right=lambda answer, i: float(answer) == float([5, 5, 7][i]))
    assert judged.accuracy == pytest.approx(2 / 3)
    with pytest.raises(ValueError):
        best_constant_baseline([])


def test_a_judged_constant_is_tried_on_every_problem() -> None:
    # "any" is the answer of one problem only, but right on all: it must win although it is seen last.
    answers = ["x", "y", "any"]
    best = best_constant_baseline(answers, right=lambda answer, i: answer == "any" or answer == answers[i])
    assert best == (1.0, "any")
