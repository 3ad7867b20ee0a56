"""The losses of PPO against calculations by hand (Schulman et al., 2017)."""

import math

import pytest
import torch

from trivium.objectives.policy import policy_loss
from trivium.objectives.value import explained_variance, value_loss

QUARTERS = torch.full((4,), 0.25)


def test_by_hand() -> None:
    """Old values 1, clip 0.5, returns 2. Values 1.25: within the clip, error 0.75; 4: held at 1.5, errors 2 and 0.5,
    the larger counts; 2.1: held at 1.5, errors 0.1 and 0.5, the held one counts; 0: held at 0.5, 2 and 1.5."""
    values = torch.tensor([1.25, 4.0, 2.1, 0.0], requires_grad=True)
    loss, metrics = value_loss(values, torch.ones(4), torch.full((4,), 2.0), QUARTERS, clip=0.5)
    assert loss.item() == pytest.approx(0.5 * 0.25 * (0.75**2 + 2.0**2 + 0.5**2 + 2.0**2), rel=1e-6)
    assert metrics["value_clip_share"].item() == 0.25
    loss.backward()
    # d/dv of half the square is w (v - R); none where the held value's error is the larger one
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.25 * -0.75, 0.25 * 2.0, 0.0, 0.25 * -2.0])


def test_without_a_clip_it_is_half_the_mean_square() -> None:
    values = torch.tensor([1.25, 4.0, 2.1, 0.0])
    loss, metrics = value_loss(values, torch.ones(4), torch.full((4,), 2.0), QUARTERS, clip=0.0)
    assert loss.item() == pytest.approx(0.5 * ((values - 2.0) ** 2).mean().item())
    assert metrics["value_clip_share"] == 0.0


def test_at_the_old_values_nothing_is_clipped() -> None:
    values = torch.tensor([0.5, -2.0])
    loss, metrics = value_loss(values, values.clone(), torch.tensor([9.0, 1.0]), torch.full((2,), 0.5), clip=0.1)
    assert loss.item() == pytest.approx(0.25 * (8.5**2 + 3.0**2)) and metrics["value_clip_share"] == 0.0


def test_what_has_no_weight_is_nowhere() -> None:
    values = torch.tensor([1.0, torch.nan], requires_grad=True)
    weights = torch.tensor([1.0, 0.0])
    loss, _ = value_loss(values, torch.tensor([1.0, torch.nan]), torch.tensor([3.0, torch.nan]), weights, clip=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert values.grad is not None and values.grad.tolist() == [-2.0, 0.0]


def test_micro_batches_add_up() -> None:
    values, old, returns = (torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    whole = value_loss(values, old, returns, QUARTERS, 0.2)[0]
    parts = [value_loss(values[p], old[p], returns[p], QUARTERS[p], 0.2)[0] for p in (slice(0, 1), slice(1, 4))]
    assert sum(parts).item() == pytest.approx(whole.item())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 2.0, -2.2),  # within the clip
        (1.5, 2.0, -2.4),  # above it with a good token: held at 1.2
        (1.5, -2.0, 3.0),  # above it with a bad token: not held, so that it can come back
        (0.5, 2.0, -1.0),
        (0.5, -2.0, 1.6),  # below it with a bad token: held at 0.8
    ],
)
def test_the_clipped_surrogate_by_hand(ratio: float, advantage: float, expected: float) -> None:
    """L = -min(w A, clip(w, 0.8, 1.2) A), equation 7 of Schulman et al., 2017; no gradient where it is held."""
    log_probs = torch.tensor([math.log(ratio)], requires_grad=True)
    loss, metrics = policy_loss(
        log_probs,
        torch.zeros(1),
        torch.tensor([advantage]),
        torch.zeros(1, dtype=torch.long),
        torch.ones(1),
        ratio="token",
        clipping="symmetric",
        clip_low=0.2,
        clip_high=0.2,
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    held = expected != pytest.approx(-ratio * advantage)
    assert log_probs.grad is not None and log_probs.grad.item() == pytest.approx(0.0 if held else -ratio * advantage)
    assert metrics["clip_share"].item() == float(held)


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((3,), 7.0), returns) == 0.0  # a constant explains nothing
    assert explained_variance(returns + 5.0, returns) == 1.0  # nor is a constant error counted against it
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(3)) == explained_variance(torch.ones(1), torch.ones(1)) == 0.0
