import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trivium.objectives.advantages import group_advantages, groups_without_spread, returns_to_go, whiten

KINDS = ("group_mean", "group_zscore", "leave_one_out", "batch_zscore")
REWARDS = torch.tensor([1.0, 0.0, 0.0, 2.0, 2.0, 5.0])
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])


def advantages(kind: str, rewards: Tensor = REWARDS, valid: Tensor | None = None) -> list[float]:
    return group_advantages(rewards, GROUPS[: len(rewards)], kind, valid, epsilon=0.0).tolist()


def test_group_mean() -> None:
    assert advantages("group_mean") == pytest.approx([2 / 3, -1 / 3, -1 / 3, -1.0, -1.0, 2.0])


def test_group_zscore_has_the_unbiased_deviation() -> None:
    one, two = (1 / 3) ** 0.5, 3**0.5  # of (1, 0, 0): sum of squares 2/3 over 2; of (2, 2, 5): 6 over 2
    expected = [2 / 3 / one, -1 / 3 / one, -1 / 3 / one, -1 / two, -1 / two, 2 / two]
    assert advantages("group_zscore") == pytest.approx(expected)


def test_leave_one_out_compares_with_the_others() -> None:
    assert advantages("leave_one_out") == pytest.approx([1.0, -0.5, -0.5, -1.5, -1.5, 3.0])


def test_batch_zscore_ignores_the_groups() -> None:
    mean, deviation = 10 / 6, ((1 + 4 + 4 + 25 - 6 * (10 / 6) ** 2) / 5) ** 0.5
    assert advantages("batch_zscore") == pytest.approx([(r - mean) / deviation for r in REWARDS.tolist()])


def test_epsilon_keeps_a_small_spread_small() -> None:
    tight = torch.tensor([0.0, 1e-6])
    found = group_advantages(tight, torch.zeros(2, dtype=torch.long), "group_zscore", epsilon=1.0)
    assert found.tolist() == pytest.approx([-5e-7, 5e-7], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@given(reward=st.floats(-1e3, 1e3, width=32), size=st.integers(1, 9))
def test_equal_rewards_give_exactly_zero(kind: str, reward: float, size: int) -> None:
    """0.1 nine times has a mean that is not 0.1: rounding must not become an advantage (least of all over epsilon)."""
    rewards = torch.full((size,), reward)
    assert group_advantages(rewards, torch.zeros(size, dtype=torch.long), kind).tolist() == [0.0] * size


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_valid_counts_nowhere(kind: str) -> None:
    """An infrastructure error has no reward: not a zero, and a NaN in its place spreads nowhere."""
    valid = torch.tensor([True, True, False, True, True, True])
    dirty = torch.where(valid, REWARDS, torch.nan)
    found = group_advantages(dirty, GROUPS, kind, valid, epsilon=0.0)
    without = group_advantages(REWARDS[valid], GROUPS[valid], kind, epsilon=0.0)
    assert found[2] == 0.0
    torch.testing.assert_close(found[valid], without)


def test_spread_is_judged_on_the_valid_members_of_the_full_group() -> None:
    rewards = torch.tensor([1.0, 1.0, 0.0, 3.0, 4.0, 9.0, 1.0])
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    valid = torch.tensor([True, True, False, True, True, False, True])
    assert groups_without_spread(rewards, groups, valid).tolist() == [True, False, True, True]


@given(
    rewards=st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0]), min_size=2, max_size=12),
    seed=st.integers(0, 5),
    kind=st.sampled_from(KINDS),
)
def test_the_order_of_rollouts_does_not_matter(rewards: list[float], seed: int, kind: str) -> None:
    values, groups = torch.tensor(rewards, dtype=torch.float64), torch.arange(len(rewards)) % 3
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    found = group_advantages(values, groups, kind)
    torch.testing.assert_close(group_advantages(values[order], groups[order], kind), found[order])


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="leave_one_out"):
        advantages("median")


def test_whiten_over_the_valid_entries() -> None:
    found = whiten(torch.tensor([1.0, 3.0, torch.nan]), torch.tensor([True, True, False]), epsilon=0.0)
    assert found.tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5, 0.0])


def test_returns_to_go_end_with_their_sequence() -> None:
    """k1 costs 1, 2, 4 in one response and 8, 16 in the next."""
    found = returns_to_go(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]), torch.tensor([0, 0, 0, 1, 1]))
    assert found.tolist() == [7.0, 6.0, 4.0, 24.0, 16.0]
    assert returns_to_go(torch.zeros(0), torch.zeros(0, dtype=torch.long)).tolist() == []


def test_returns_to_go_of_a_long_batch_keep_their_small_digits() -> None:
    """A running sum over the batch loses the digits of the late sequences in float32."""
    rewards = torch.cat([torch.full((100_000,), 1000.0), torch.tensor([1e-3, 1e-3])])
    sequences = torch.cat([torch.zeros(100_000, dtype=torch.long), torch.ones(2, dtype=torch.long)])
    assert returns_to_go(rewards, sequences)[-2:].tolist() == pytest.approx([2e-3, 1e-3], rel=1e-4)
