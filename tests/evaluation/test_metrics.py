"""pass@k and majority@k against enumeration of every draw; bits per byte against ln 2."""

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.evaluation.metrics import (
    bits_per_byte,
    majority_at_k,
    mean_majority_at_k,
    mean_pass_at_k,
    pass_at_k,
)


def test_pass_at_k_of_the_design() -> None:
    assert pass_at_k(10, 3, 5) == pytest.approx(0.916667, abs=5e-7)


@given(st.integers(1, 40), st.data())
def test_pass_at_k_is_the_ratio_of_binomials(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)


def test_pass_at_k_is_stable_for_many_samples() -> None:
    assert pass_at_k(1_000_000, 1, 500_000) == 0.5
    assert pass_at_k(100_000, 5, 1) == pytest.approx(5e-5)


def test_pass_at_1_is_the_mean() -> None:
    assert mean_pass_at_k([[True, False], [False, False], [True, True]], 1) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)


def enumerated_majority(answers: list[str | None], right: list[bool], k: int) -> float:
    total = 0.0
    draws = list(itertools.combinations(range(len(answers)), k))
    for draw in draws:
        votes = Counter(answers[i] for i in draw if answers[i] is not None)
        top = [answer for answer in votes if votes[answer] == max(votes.values())]
        for answer in top:
            judged = [right[i] for i in range(len(answers)) if answers[i] == answer]
            total += sum(judged) / len(judged) / len(top)
    return total / len(draws)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=8), st.data())
def test_majority_equals_enumeration(answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    right = [answer in ("a", "c") for answer in answers]
    assert majority_at_k(answers, right, k) == pytest.approx(enumerated_majority(answers, right, k), abs=1e-12)


def test_majority_worked_cases() -> None:
    assert majority_at_k(["5", "6"], [True, False], 2) == 0.5  # a tie is shared, whichever came first
    assert majority_at_k(["6", "5"], [False, True], 2) == 0.5
    assert majority_at_k([None, None, "5"], [False, False, True], 3) == 1.0  # silence does not outvote
    assert majority_at_k([None, None], [False, False], 2) == 0.0
    assert majority_at_k(["5"] * 5 + ["6"] * 3, [True] * 5 + [False] * 3, 8) == 1.0
    assert mean_majority_at_k([["5"], ["6"]], [[True], [False]], 1) == 0.5


def test_majority_of_one_is_the_mean_and_scales() -> None:
    answers = [str(i % 9) for i in range(64)]
    right = [answer == "0" for answer in answers]
    assert majority_at_k(answers, right, 1) == pytest.approx(sum(right) / 64)
    assert 0 < majority_at_k(answers, right, 32) < 1


def test_bits_per_byte() -> None:
    assert bits_per_byte(math.log(2) * 10, 5) == pytest.approx(2.0)
    with pytest.raises(ValueError):
        bits_per_byte(1.0, 0)
