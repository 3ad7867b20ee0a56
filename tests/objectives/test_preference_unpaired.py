"""kto_loss, its baseline and listwise_loss against numbers worked out by hand, and what must hold for any answers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trivium.objectives.preference import dpo_loss, kto_loss, kto_means, listwise_loss, mismatched_kl
from trivium.objectives.ranking import total_weight


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# A good answer with the log ratio 1, a bad one with -2, a bad one with 2.
ANSWERS, REFERENCE, GOOD = tensor(-3.0, -7.0, -4.0), tensor(-4.0, -5.0, -6.0), [True, False, False]


def test_kto_by_hand() -> None:
    """beta 0.5, baseline 0.5: 1.5 s(-0.5 * 0.5) = 1.5 * 0.437823, 0.5 s(-0.5 * 2.5) = 0.5 * 0.222700 and
    0.5 s(0.5 * 1.5) = 0.5 * 0.679179, over 3 = 0.369225."""
    loss, metrics = kto_loss(
        ANSWERS, REFERENCE, GOOD, beta=0.5, baseline=0.5, desirable_weight=1.5, undesirable_weight=0.5
    )
    assert float(loss) == pytest.approx(0.369225, abs=1e-6)
    found = {name: float(value) for name, value in metrics.items()}
    # rewards 0.5, -1 and 1; the third is above the baseline, though it is bad
    expected = {
        "accuracy": 2 / 3,
        "baseline": 0.5,
        "desirable_reward": 0.5 / 3,
        "undesirable_reward": 0.0,
        "desirable_share": 1 / 3,
        "undesirable_share": 2 / 3,
    }
    assert found == pytest.approx(expected)
    assert kto_means(metrics) == pytest.approx({"desirable_reward": 0.5, "undesirable_reward": 0.0, "margin": 0.5})


def test_the_gradient_of_kto_by_hand() -> None:
    """-beta w s(x) s(-x) / N of a good answer, with x = beta (d - z); the opposite sign of a bad one; none of z."""
    answers, reference = ANSWERS.clone().requires_grad_(), REFERENCE.clone().requires_grad_()
    baseline = tensor(0.5)[0].requires_grad_()
    loss, metrics = kto_loss(answers, reference, GOOD, beta=0.5, baseline=baseline, undesirable_weight=0.5)
    loss.backward()
    slopes = [logistic(x) * logistic(-x) for x in (0.25, 1.25, -0.75)]
    expected = [-0.5 * slopes[0] / 3, 0.25 * slopes[1] / 3, 0.25 * slopes[2] / 3]
    assert answers.grad is not None and answers.grad.tolist() == pytest.approx(expected)
    assert reference.grad is None and baseline.grad is None
    assert not any(value.requires_grad for value in metrics.values())
    assert torch.autograd.gradcheck(
        lambda given: kto_loss(given, REFERENCE, GOOD, beta=0.5, baseline=0.5, weights=[1.0, 2.0, 0.5])[0],
        [ANSWERS.clone().requires_grad_()],
    )


def test_a_policy_that_is_the_reference() -> None:
    """Half of each weight: (2 + 0.5 + 0.5) / 2 / 3."""
    loss, metrics = kto_loss(
        ANSWERS, ANSWERS, GOOD, beta=0.1, baseline=0.0, desirable_weight=2.0, undesirable_weight=0.5
    )
    assert float(loss) == pytest.approx(0.5) and float(metrics["accuracy"]) == 0.5


def test_without_a_baseline_a_pair_costs_what_apo_zero_costs() -> None:
    """1 - s(c) + s(r): two answers, each over its half of the total."""
    pairs = tensor(-3.0, -8.5), tensor(-7.0, -1.75), tensor(-4.0, -8.0), tensor(-5.0, -2.0)
    expected, of_pairs = dpo_loss(*pairs, loss="apo_zero", beta=0.5)
    loss, metrics = kto_loss(
        torch.cat(pairs[:2]), torch.cat(pairs[2:]), [True, True, False, False], beta=0.5, baseline=0.0, total=2.0
    )
    assert float(loss) == pytest.approx(float(expected), abs=1e-12)
    means = kto_means(metrics)
    assert means["margin"] == pytest.approx(float(of_pairs["margin"]))
    assert means["desirable_reward"] == pytest.approx(float(of_pairs["chosen_reward"]))


def test_a_kind_that_is_missing_has_no_mean() -> None:
    _, metrics = kto_loss(ANSWERS[:1], REFERENCE[:1], [True], beta=0.5, baseline=0.0)
    assert kto_means(metrics) == {"desirable_reward": 0.5}
    empty = torch.zeros(0, requires_grad=True)
    loss, metrics = kto_loss(empty, torch.zeros(0), [], beta=0.5, baseline=1.0)
    loss.backward()
    assert float(loss.detach()) == 0.0 and kto_means(metrics) == {}


def test_a_weight_of_0_leaves_an_answer_out_even_if_it_is_nan() -> None:
    answers = tensor(-3.0, math.nan, -4.0).requires_grad_()
    loss, metrics = kto_loss(answers, REFERENCE, GOOD, beta=0.5, baseline=0.5, weights=[1.0, 0.0, 1.0])
    loss.backward()
    assert float(loss.detach()) == pytest.approx((0.437823 + 0.679179) / 2, abs=1e-6)
    assert answers.grad is not None and float(answers.grad[1]) == 0.0 and bool(torch.isfinite(answers.grad).all())
    assert all(math.isfinite(float(value)) for value in metrics.values())


def test_the_baseline_by_hand() -> None:
    """The mean of 2, 1 and -1.5 is 0.5; weighted 1, 0, 1 it is 0.25; one below 0 is no KL."""
    ratios = tensor(2.0, 1.0, -1.5).requires_grad_()
    found = mismatched_kl(ratios)
    assert float(found) == 0.5 and not found.requires_grad
    assert float(mismatched_kl(tensor(2.0, math.nan, -1.5), [1.0, 0.0, 1.0])) == 0.25
    assert float(mismatched_kl(tensor(-1.0))) == 0.0 and float(mismatched_kl(tensor())) == 0.0
    assert mismatched_kl(torch.tensor([1.0]).bfloat16()).dtype == torch.float32


log_prob = st.floats(-50, 0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(log_prob, log_prob, st.booleans(), st.floats(0, 4)), min_size=1, max_size=8),
    st.floats(0, 5),
    st.data(),
)
def test_cuts_and_order_of_kto_do_not_matter(
    rows: list[tuple[float, float, bool, float]], baseline: float, data: st.DataObject
) -> None:
    def run(places: list[int], total: float | None) -> list[Tensor]:
        answers = tensor(*[rows[at][0] for at in places]).requires_grad_()
        loss, metrics = kto_loss(
            answers,
            tensor(*[rows[at][1] for at in places]),
            [rows[at][2] for at in places],
            beta=0.3,
            baseline=baseline,
            desirable_weight=1.7,
            weights=[rows[at][3] for at in places],
            total=total,
        )
        loss.backward()
        assert answers.grad is not None
        return [loss.detach(), *metrics.values(), answers.grad]

    whole = run(list(range(len(rows))), None)
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    total = sum(row[3] for row in rows)
    parts = [run(list(part), total) for part in (order[:cut], order[cut:]) if part]
    for at, value in enumerate(whole[:-1]):
        assert sum(float(part[at]) for part in parts) == pytest.approx(float(value), abs=1e-9)
    assert torch.cat([part[-1] for part in parts]).tolist() == pytest.approx(whole[-1][order].tolist(), abs=1e-9)


# ---- whole rankings -------------------------------------------------------------------------------------------------


def test_a_ranking_of_three_by_hand() -> None:
    """Log ratios 4, 2 and 0 at beta 0.5 are the rewards 2, 1 and 0. First of three: ln(e^2 + e + 1) - 2 = 0.407606;
    first of the two left: ln(e + 1) - 1 = 0.313262. Pairs: gaps 1, 2 and 1."""
    answers, reference = tensor(-1.0, -5.0, -9.0), tensor(-5.0, -7.0, -9.0)
    loss, metrics = listwise_loss(answers, reference, [0, 1, 2], beta=0.5)
    assert float(loss) == pytest.approx(0.407606 + 0.313262, abs=1e-6)
    found = {name: float(value) for name, value in metrics.items()}
    # better of the three pairs: 2, 2 and 1; worse: 1, 0 and 0
    expected = {"accuracy": 1.0, "margin": 4 / 3, "chosen_reward": 5 / 3, "rejected_reward": 1 / 3}
    assert found == pytest.approx(expected)
    turned, _ = listwise_loss(answers, reference, [2, 1, 0], beta=0.5)
    assert float(turned) == pytest.approx(3.720868, abs=1e-6)


@pytest.mark.parametrize(("ties", "expected"), [("ignore", math.log(4) + 2 * math.log(2)), ("soft", math.log(24))])
def test_equal_answers_and_a_tie(ties: str, expected: float) -> None:
    """A > B = C > D, all rewards equal: A from 4; ignored, B and C each from themselves and D, so 1/4, 1/2, 1/2.
    Softly, four equal rewards cost ln 4! as ever."""
    loss, metrics = listwise_loss(torch.zeros(5), None, [0, 1, 1, 2, -1], beta=0.5, ties=ties)
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    assert float(metrics["accuracy"]) == 0.5


def test_the_metrics_of_a_tie() -> None:
    """A > B = C with rewards 2, 1 and 0: pairs AB, AC; under soft also BC, whose answers have the mean 0.5."""
    scores = tensor(2.0, 1.0, 0.0)
    _, ignored = listwise_loss(scores, None, [0, 1, 1], beta=1.0)
    _, soft = listwise_loss(scores, None, [0, 1, 1], beta=1.0, ties="soft")
    assert [float(value) for value in ignored.values()] == pytest.approx([1.0, 1.5, 2.0, 0.5])
    assert [float(value) for value in soft.values()] == pytest.approx([2.5 / 3, 1.0, 4.5 / 3, 1.5 / 3])


def test_the_gradient_of_a_ranking_by_hand() -> None:
    """At equal rewards, K 3: beta times (-2/3, -1/6, 5/6). An unranked answer has none, whatever its value."""
    answers, reference = tensor(0.0, 0.0, 0.0, math.nan).requires_grad_(), tensor(0.0, 0.0, 0.0, 0.0).requires_grad_()
    loss, _ = listwise_loss(answers, reference, [0, 1, 2, -1], beta=0.5)
    loss.backward()
    assert answers.grad is not None and reference.grad is None
    assert answers.grad.tolist() == pytest.approx([-1 / 3, -1 / 12, 5 / 12, 0.0])
    assert torch.autograd.gradcheck(
        lambda given: listwise_loss(given, None, [1, 0, 1], beta=0.5, ties="soft")[0],
        [tensor(-0.4, -2.0, -1.0).requires_grad_()],
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(log_prob, log_prob, log_prob, log_prob, st.floats(0.1, 5)), min_size=1, max_size=5))
def test_rankings_of_two_are_pairs(rows: list[tuple[float, float, float, float, float]]) -> None:
    chosen, rejected, of_chosen, of_rejected, weights = (tensor(*column) for column in zip(*rows, strict=True))
    expected, of_pairs = dpo_loss(chosen, rejected, of_chosen, of_rejected, weights=weights)
    numbers = list(range(len(rows)))
    loss, metrics = listwise_loss(
        torch.cat([rejected, chosen]),
        torch.cat([of_rejected, of_chosen]),
        [1] * len(rows) + [0] * len(rows),
        numbers * 2,
        beta=0.1,
        weights=weights,
    )
    assert float(loss) == pytest.approx(float(expected), abs=1e-9)
    assert list(metrics) == list(of_pairs)
    for name, value in of_pairs.items():
        assert float(metrics[name]) == pytest.approx(float(value), abs=1e-6), name


ranked = st.lists(st.tuples(log_prob, log_prob, st.integers(-1, 3)), min_size=2, max_size=5)


@settings(deadline=None, max_examples=40)
@given(st.lists(ranked, min_size=1, max_size=4), st.sampled_from(["ignore", "soft"]), st.data())
def test_cuts_between_rankings_do_not_matter(
    lists: list[list[tuple[float, float, int]]], ties: str, data: st.DataObject
) -> None:
    def flat(places: list[int]) -> tuple[Tensor, Tensor, list[int], list[int]]:
        rows = [(*row, number) for number, at in enumerate(places) for row in lists[at]]
        answers, reference, tiers, numbers = zip(*rows, strict=True)
        return tensor(*answers), tensor(*reference), list(tiers), list(numbers)

    def run(places: list[int], total: float) -> list[Tensor]:
        answers, *others = flat(places)
        answers.requires_grad_()
        loss, metrics = listwise_loss(answers, *others, beta=0.3, ties=ties, total=total)
        loss.backward()
        assert answers.grad is not None
        return [loss.detach(), *metrics.values(), answers.grad]

    everything = list(range(len(lists)))
    *_, tiers, numbers = flat(everything)
    total = total_weight(tiers, numbers, ties=ties)
    whole = run(everything, total)
    cut = data.draw(st.integers(0, len(lists)))
    parts = [run(part, total) for part in (everything[:cut], everything[cut:]) if part]
    for at, value in enumerate(whole[:-1]):
        assert sum(float(part[at]) for part in parts) == pytest.approx(float(value), abs=1e-9)
    assert torch.cat([part[-1] for part in parts]).tolist() == pytest.approx(whole[-1].tolist(), abs=1e-9)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"beta": 0.0}, "beta"),
        ({"baseline": -0.1}, "baseline"),
        ({"desirable_weight": -1.0}, "weights"),
        ({"weights": [1.0]}, "need"),
        ({"weights": [1.0, -1.0, 1.0]}, "0 or more"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kto_loss(ANSWERS, REFERENCE, GOOD, **{"beta": 0.1, "baseline": 0.0, **options})


def test_the_baseline_of_a_policy_that_has_diverged_is_no_error_but_a_loss_that_is_no_number() -> None:
    """The loop leaves such an update out and counts it, as that of any other loss."""
    baseline = mismatched_kl(tensor(math.nan, 1.0))
    assert math.isnan(float(kto_loss(ANSWERS, REFERENCE, GOOD, beta=0.1, baseline=baseline)[0]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a mark each"):
        kto_loss(ANSWERS, REFERENCE, GOOD[:2], beta=0.1, baseline=0.0)
    with pytest.raises(ValueError, match="a mark each"):
        kto_loss(ANSWERS, REFERENCE[:2], GOOD, beta=0.1, baseline=0.0)
    with pytest.raises(ValueError, match="reference"):
        listwise_loss(ANSWERS, REFERENCE[:2], [0, 1, 2], beta=0.1)
    with pytest.raises(ValueError, match="beta"):
        listwise_loss(ANSWERS, REFERENCE, [0, 1, 2], beta=0.0)
    with pytest.raises(ValueError, match="soft and ignore"):
        listwise_loss(ANSWERS, REFERENCE, [0, 1, 2], beta=0.1, ties="davidson")
