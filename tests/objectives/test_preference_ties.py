"""Tied pairs and pairs with a probability, in dpo_loss: numbers worked out by hand, and the ranking loss beside."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.objectives.preference import dpo_loss
from trivium.objectives.ranking import pairwise_loss


@pytest.mark.parametrize(
    ("ties", "parameter", "costs"),
    [
        # theta 2, d = 1: win 0.576117, tie 0.268521; d = 0: 1/3
        ("rao_kupper", 2.0, [-math.log(0.576117), -math.log(0.268521), math.log(3)]),
        ("davidson", 1.0, [-math.log(0.506480), -math.log(0.307196), math.log(3)]),
        ("soft", 1.5, [0.313262, (0.313262 + 1.313262) / 2, math.log(2)]),
        ("ignore", 1.5, [0.313262, 0.0, 0.0]),
    ],
)
def test_ties_by_hand(ties: str, parameter: float, costs: list[float]) -> None:
    """Margins 1, 1 and 0, of which the second and third are tied."""
    if ties == "davidson":  # nu 1: e^0.5, e^-0.5 and 1 over their sum 3.255252: 0.506480, 0.186324, 0.307196
        costs[1] = -math.log(0.307196)
    chosen = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    told = {"beta": 1.0, "tied": [False, True, True], "ties": ties, "tie_parameter": parameter}
    loss, metrics = dpo_loss(chosen, torch.zeros(3), None, None, total=1.0, **told)
    assert float(loss) == pytest.approx(sum(costs), abs=1e-5)
    counted = 1.0 if ties == "ignore" else 3.0
    found = {name: float(value) for name, value in metrics.items()}
    assert found["margin"] == 1.0  # a tied pair has none
    assert found["accuracy"] == (1.0 if ties == "ignore" else 2.0)
    assert found["chosen_reward"] == (1.0 if ties == "ignore" else 1.5)  # the mean of both: (1 + 0) / 2
    # unless told, an ignored tie is no part of the denominator
    own, _ = dpo_loss(chosen, torch.zeros(3), None, None, **told)
    assert float(own) == pytest.approx(sum(costs) / counted, abs=1e-5)


@pytest.mark.parametrize(("ties", "parameter"), [("soft", 1.5), ("rao_kupper", 2.0), ("davidson", 0.7)])
def test_ties_are_those_of_the_ranking_loss(ties: str, parameter: float) -> None:
    """One ranking A > B = C is the pairs AB, AC and BC (tied), a third each."""
    scores = torch.tensor([0.3, -1.1, 0.9], dtype=torch.float64)
    expected, _ = pairwise_loss(scores, [0, 1, 1], ties=ties, tie_parameter=parameter, label_smoothing=0.1)
    told = {"beta": 1.0, "ties": ties, "tie_parameter": parameter, "label_smoothing": 0.1}
    found, _ = dpo_loss(scores[[0, 0, 1]], scores[[1, 2, 2]], None, None, tied=[False, False, True], **told)
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


def test_a_probability_is_the_target() -> None:
    """d = 1 and 0.8: 0.8 * 0.313262 + 0.2 * 1.313262 = 0.513262. Least where s(d) = 0.8: d = ln 4, entropy 0.500402."""
    one = torch.tensor([1.0])
    loss, metrics = dpo_loss(one, torch.zeros(1), None, None, beta=1.0, targets=[0.8])
    assert float(loss) == pytest.approx(0.513262, abs=1e-6)
    assert float(metrics["margin"]) == 1.0 and float(metrics["accuracy"]) == 1.0
    best = torch.tensor([math.log(4)], requires_grad=True)
    least, _ = dpo_loss(best, torch.zeros(1), None, None, beta=1.0, targets=[0.8])
    least.backward()
    assert float(least.detach()) == pytest.approx(0.500402, abs=1e-6)
    assert best.grad is not None and float(best.grad) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("ties", "parameter"), [("soft", 1.5), ("rao_kupper", 2.0), ("davidson", 0.7)])
def test_probabilities_are_those_of_the_ranking_loss(ties: str, parameter: float) -> None:
    scores = torch.tensor([0.3, -1.1, 0.9], dtype=torch.float64)
    pairs, said = [(0, 1), (0, 2), (1, 2)], [0.9, 0.4, 0.5]
    expected, of_ranking = pairwise_loss(
        scores, [0, 1, 1], ties=ties, tie_parameter=parameter, label_smoothing=0.1, preferences=(pairs, said)
    )
    told = {"beta": 1.0, "ties": ties, "tie_parameter": parameter, "label_smoothing": 0.1}
    found, metrics = dpo_loss(scores[[0, 0, 1]], scores[[1, 2, 2]], None, None, targets=said, **told)
    assert float(found) == pytest.approx(float(expected), abs=1e-12)
    assert float(metrics["margin"]) == pytest.approx(float(of_ranking["score_gap"]))
    assert float(metrics["accuracy"]) == pytest.approx(float(of_ranking["pair_accuracy"]))


def test_pairs_with_and_without_a_probability() -> None:
    """NaN is none: the first goes by its probability, though it is also tied, the second is strict, the third tied."""
    chosen = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    told = {"beta": 1.0, "targets": [0.8, math.nan, math.nan], "tied": [True, False, True]}
    for ties, third, counted in (("ignore", 0.0, 2), ("soft", (0.313262 + 1.313262) / 2, 3)):
        loss, _ = dpo_loss(chosen, torch.zeros(3), None, None, ties=ties, **told)
        assert float(loss.detach()) == pytest.approx((0.513262 + 0.313262 + third) / counted, abs=1e-6)
    loss.backward()
    assert chosen.grad is not None and bool(torch.isfinite(chosen.grad).all())


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-20, 20),
    st.floats(-20, 20),
    st.floats(0, 1),
    st.sampled_from([("soft", 1.5), ("rao_kupper", 2.0), ("davidson", 0.7)]),
    st.booleans(),
)
def test_the_names_of_two_answers_do_not_matter(
    first: float, second: float, said: float, model: tuple[str, float], tied: bool
) -> None:
    """A tied pair, or one with a probability, costs and counts the same the other way round (with 1 - p)."""
    one, two = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    told = {"ties": model[0], "tie_parameter": model[1], "beta": 0.5}
    if tied:
        ways = [dpo_loss(*pair, None, None, tied=[True], **told) for pair in ((one, two), (two, one))]
    else:
        ways = [
            dpo_loss(*pair, None, None, targets=torch.tensor([p], dtype=torch.float64), **told)
            for pair, p in (((one, two), said), ((two, one), 1 - said))
        ]
    for left, right in zip(*[[loss, *metrics.values()] for loss, metrics in ways], strict=True):
        assert float(left) == pytest.approx(float(right), abs=1e-9)
