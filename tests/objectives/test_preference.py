"""dpo_loss against numbers worked out by hand, and what must hold for any pairs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trivium.objectives.preference import dpo_loss

# Two pairs. Log ratios of the first: +1 and -2, of the second: -0.5 and +0.25.
CHOSEN, REFERENCE_CHOSEN = torch.tensor([-3.0, -8.5]), torch.tensor([-4.0, -8.0])
REJECTED, REFERENCE_REJECTED = torch.tensor([-7.0, -1.75]), torch.tensor([-5.0, -2.0])
PAIRS = (CHOSEN, REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_two_pairs_by_hand() -> None:
    """At beta 0.5 the margins are 0.5 * 3 = 1.5 and 0.5 * -0.75 = -0.375."""
    loss, metrics = dpo_loss(*PAIRS, beta=0.5)
    assert float(loss) == pytest.approx((0.201413 + 0.898123) / 2, abs=1e-6)
    found = {name: float(value) for name, value in metrics.items()}
    assert found == pytest.approx(
        {"accuracy": 0.5, "margin": 0.5625, "chosen_reward": 0.125, "rejected_reward": -0.4375}, abs=1e-6
    )


def test_the_numbers_of_the_design() -> None:
    """d = 1: 0.313262; smoothing 0.1: 0.413262. d is the margin, so beta 0.1 needs log ratios ten times as large."""
    one = torch.tensor([10.0]), torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([0.0])
    assert float(dpo_loss(*one)[0]) == pytest.approx(0.313262, abs=1e-6)
    assert float(dpo_loss(*one, label_smoothing=0.1)[0]) == pytest.approx(0.413262, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_policy_that_is_the_reference_costs_ln_2(smoothing: float) -> None:
    loss, metrics = dpo_loss(CHOSEN, REJECTED, CHOSEN, REJECTED, label_smoothing=smoothing)
    assert float(loss) == pytest.approx(math.log(2))
    assert {name: float(value) for name, value in metrics.items()} == {
        "accuracy": 0.5,
        "margin": 0.0,
        "chosen_reward": 0.0,
        "rejected_reward": 0.0,
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_by_hand(smoothing: float) -> None:
    """d loss / d chosen = -beta * ((1 - s) sigma(-m) - s sigma(m)), weighted; the rejected answer's is its opposite."""
    beta, weights, total = 0.5, [3.0, 1.0], 8.0
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    references = REFERENCE_CHOSEN.clone().requires_grad_(), REFERENCE_REJECTED.clone().requires_grad_()
    loss, metrics = dpo_loss(
        chosen, rejected, *references, beta=beta, label_smoothing=smoothing, weights=weights, total=total
    )
    loss.backward()
    expected = [
        -weight / total * beta * ((1 - smoothing) * sigmoid(-margin) - smoothing * sigmoid(margin))
        for weight, margin in zip(weights, [1.5, -0.375], strict=True)
    ]
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx(expected, abs=1e-6)
    assert rejected.grad.tolist() == pytest.approx([-value for value in expected], abs=1e-6)
    assert all(reference.grad is None for reference in references)
    assert not any(value.requires_grad for value in metrics.values())


def test_label_smoothing_is_least_at_its_margin() -> None:
    """At ln((1 - s) / s), and dearer on both sides of it."""
    best = math.log(0.9 / 0.1)
    chosen = torch.tensor([best - 0.1, best, best + 0.1])
    costs = [float(dpo_loss(value[None], *[torch.zeros(1)] * 3, beta=1.0, label_smoothing=0.1)[0]) for value in chosen]
    assert costs[1] < costs[0] and costs[1] < costs[2]


def test_a_weight_of_0_leaves_a_pair_out_even_if_it_is_nan() -> None:
    chosen = torch.tensor([-3.0, math.nan]).requires_grad_()
    loss, metrics = dpo_loss(chosen, *PAIRS[1:], beta=0.5, weights=[2.0, 0.0])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.201413, abs=1e-6)
    assert chosen.grad is not None and chosen.grad.tolist() == pytest.approx([-0.5 * sigmoid(-1.5), 0.0])
    assert all(math.isfinite(float(value)) for value in metrics.values())


def test_nothing_gives_zero_and_stays_in_the_graph() -> None:
    empty = torch.zeros(0, requires_grad=True)
    loss, metrics = dpo_loss(empty, *[torch.zeros(0)] * 3)
    loss.backward()
    assert float(loss.detach()) == 0.0 and all(float(value) == 0.0 for value in metrics.values())


def test_half_precision_differences_are_taken_in_float32() -> None:
    """In bfloat16, -1000 and -1002 are one number apart of 8: the log ratios would vanish."""
    log_probs = [torch.tensor([value], dtype=torch.float64) for value in (-1000.3, -1002.6, -1000.9, -1001.4)]
    assert dpo_loss(*log_probs)[0].dtype == torch.float64
    assert dpo_loss(*[value.bfloat16() for value in log_probs])[0].dtype == torch.float32
    margin = float(dpo_loss(*log_probs, beta=1.0)[1]["margin"])
    assert margin == pytest.approx(0.6 + 1.2, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"beta": 0.0}, "beta"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"weights": [1.0, -1.0]}, "0 or more"),
        ({"weights": [1.0]}, "pairs need"),
    ],
)
def test_nonsense_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        dpo_loss(*PAIRS, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        dpo_loss(CHOSEN[None], *PAIRS[1:])


numbers = st.floats(-50, 50)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(numbers, numbers, numbers, numbers, st.floats(0, 5)), min_size=1, max_size=8),
    st.data(),
    st.floats(0, 0.49),
)
def test_parts_add_up_in_any_order(pairs: list[tuple[float, ...]], data: st.DataObject, smoothing: float) -> None:
    def of(chosen: list[tuple[float, ...]], total: float | None) -> dict[str, Tensor]:
        *log_probs, weights = (torch.tensor(column, dtype=torch.float64) for column in zip(*chosen, strict=True))
        loss, metrics = dpo_loss(*log_probs, label_smoothing=smoothing, weights=weights, total=total)
        return {"loss": loss, **metrics}

    total = sum(pair[4] for pair in pairs)
    whole = of(pairs, None)
    order = data.draw(st.permutations(pairs))
    cut = data.draw(st.integers(0, len(order)))
    parts = [of(list(part), total) for part in (order[:cut], order[cut:]) if part]
    for name, value in whole.items():
        assert sum(float(part[name]) for part in parts) == pytest.approx(float(value), abs=1e-9)
