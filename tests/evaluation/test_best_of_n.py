"""Best-of-n: exact numbers, and agreement with every subset counted by hand."""

import json
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.evaluation.best_of_n import curve, kl_bound, selection_weights, unbiased_best_of_n
from trivium.streams import generator


def test_exact_numbers() -> None:
    assert [round(kl_bound(n), 6) for n in (1, 2, 4, 16, 64)] == [0, 0.193147, 0.636294, 1.835089, 3.174508]
    expected = [3.75, 13 / 3, 5.75, 7]
    for n, value in enumerate(expected, 1):
        assert unbiased_best_of_n([1, 2, 3, 4], [5, 1, 2, 7], n) == pytest.approx(value, abs=1e-12)
    assert unbiased_best_of_n([3, 1, 4, 2], [2, 5, 7, 1], 2) == pytest.approx(13 / 3)  # the order does not matter


samples = st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=1, max_size=7)


@given(samples, st.data())
def test_equals_the_mean_over_all_subsets(pairs: list[tuple[int, float]], data: st.DataObject) -> None:
    """Few distinct proxy values, so that ties are common: a tie counts as the mean of the tied."""
    n = data.draw(st.integers(1, len(pairs)))
    total = 0.0
    for subset in combinations(pairs, n):
        best = max(proxy for proxy, _ in subset)
        tied = [gold for proxy, gold in subset if proxy == best]
        total += sum(tied) / len(tied)
    proxies, golds = zip(*pairs, strict=True)
    assert unbiased_best_of_n(proxies, golds, n) == pytest.approx(total / comb(len(pairs), n), abs=1e-9)


@given(st.integers(1, 4000), st.data())
@settings(max_examples=50, deadline=None)
def test_weights_are_chances_however_many_samples(size: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, size))
    weights = selection_weights(list(range(size)), n)
    assert weights.sum() == pytest.approx(1, abs=1e-9) and (weights >= 0).all()
    assert (np.diff(weights) >= 0).all() and weights[-1] == pytest.approx(n / size)
    rank = data.draw(st.integers(1, size))
    assert weights[rank - 1] == pytest.approx(comb(rank - 1, n - 1) / comb(size, n), rel=1e-9, abs=1e-300)


def test_wrong_calls() -> None:
    for n in (0, 3):
        with pytest.raises(ValueError, match="1 <= n"):
            selection_weights([1.0, 2.0], n)
    with pytest.raises(ValueError, match="finite"):
        selection_weights([1.0, float("nan")], 1)
    with pytest.raises(ValueError, match="same samples"):
        unbiased_best_of_n([1.0], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="n >= 1"):
        kl_bound(0)
    with pytest.raises(ValueError, match="at least one prompt"):
        curve([], [])
    with pytest.raises(ValueError, match="finite"):
        curve([[1.0]], [[float("nan")]])


def made_up(prompts: int = 60, samples: int = 32) -> tuple[list[list[float]], list[list[float]]]:
    """A proxy that is gold plus noise, over prompts of different difficulty."""
    random = generator(0, "test/best-of-n")
    difficulty = random.normal(size=(prompts, 1)) * 5
    gold = difficulty + random.normal(size=(prompts, samples))
    return (gold + random.normal(size=gold.shape)).tolist(), gold.tolist()


def test_the_curve() -> None:
    proxy, gold = made_up()
    found = curve(proxy, gold)
    assert found["n"] == [1, 2, 4, 8, 16, 32] and found["prompts"] == 60
    assert found["kl"] == [kl_bound(n) for n in found["n"]]
    assert found["gold"][0] == pytest.approx(np.mean(gold)) and found["gain"][0] == 0
    assert found["gold"] == sorted(found["gold"]) and found["proxy"] == sorted(found["proxy"])
    assert found["proxy"][-1] == pytest.approx(np.mean([max(scores) for scores in proxy]))
    for low, middle, high in zip(found["gain_low"], found["gain"], found["gain_high"], strict=True):
        assert low <= middle <= high
    # Prompts differ by far more than responses do: the gain is known much better than the level.
    assert found["gain_high"][-1] - found["gain_low"][-1] < 0.5 * (found["gold_high"][-1] - found["gold_low"][-1])
    assert found["fit"]["points"] == 5 and found["fit"]["resampled"] == "prompts"
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert curve(proxy, gold) == found and curve(proxy, gold, seed=1) != found


def test_prompts_with_fewer_samples_bound_the_curve() -> None:
    found = curve([[1.0, 2.0, 3.0], [1.0, 2.0]], [[1.0, 2.0, 3.0], [0.0, 1.0]])
    assert found["n"] == [1, 2] and found["fit"] is None
    assert curve([[2.0]], [[1.0]])["gold"] == [1.0]
