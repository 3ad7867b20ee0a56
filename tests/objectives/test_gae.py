"""Advantages of PPO against a slow loop written from the papers' formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trivium.objectives.advantages import gae, returns_to_go, whiten
from trivium.objectives.kl import adapted_coefficient

LENGTHS = [3, 1, 5, 2]


def sequences(lengths: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def draws(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), generator=made), torch.randn(sum(lengths), generator=made)


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> tuple[list[float], list[float]]:
    """One response. Schulman et al., 2016: delta_t = r_t + gamma V(s_t+1) - V(s_t); A_t = sum of (gamma lam)^l
    delta_t+l over the tokens that follow. The state after the last token is terminal: its value is 0."""
    deltas = []
    for t, reward in enumerate(rewards):
        after = values[t + 1] if t + 1 < len(values) else 0.0
        deltas.append(reward + gamma * after - values[t])
    advantages = [
        sum((gamma * lam) ** step * delta for step, delta in enumerate(deltas[t:])) for t in range(len(deltas))
    ]
    return advantages, [advantage + value for advantage, value in zip(advantages, values, strict=True)]


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    seed=st.integers(0, 9),
)
def test_equal_to_the_formula_token_by_token(lengths: list[int], gamma: float, lam: float, seed: int) -> None:
    rewards, values = draws(lengths, seed)
    advantages, returns = gae(rewards, values, sequences(lengths), gamma, lam)
    expected: list[float] = []
    expected_returns: list[float] = []
    pairs = zip(rewards.split(lengths), values.split(lengths), strict=True)
    for of_one, value_of_one in pairs:
        slow, slow_returns = slow_gae(of_one.tolist(), value_of_one.tolist(), gamma, lam)
        expected += slow
        expected_returns += slow_returns
    assert advantages.tolist() == pytest.approx(expected, abs=1e-6)
    assert returns.tolist() == pytest.approx(expected_returns, abs=1e-6)


def test_the_recursion_of_the_ppo_paper_gives_the_same() -> None:
    """Schulman et al., 2017, equation 11, from the end: A_t = delta_t + gamma lam A_t+1."""
    rewards, values = draws(LENGTHS)
    found = gae(rewards, values, sequences(LENGTHS), 0.99, 0.9)[0]
    expected = []
    for of_one, value in zip(rewards.split(LENGTHS), values.split(LENGTHS), strict=True):
        running, after, backwards = 0.0, 0.0, []
        for t in range(len(of_one) - 1, -1, -1):
            running = of_one[t].item() + 0.99 * after - value[t].item() + 0.99 * 0.9 * running
            after = value[t].item()
            backwards.append(running)
        expected += backwards[::-1]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_by_hand() -> None:
    """Rewards 0 0 1, values 0.5 0.25 0.75, gamma 0.5, lambda 0.5: deltas -0.375, 0.125, 0.25."""
    rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.25, 0.75])
    advantages, returns = gae(rewards, values, torch.zeros(3, dtype=torch.long), 0.5, 0.5)
    assert advantages.tolist() == [-0.375 + 0.25 * (0.125 + 0.25 * 0.25), 0.125 + 0.25 * 0.25, 0.25]
    assert returns.tolist() == [0.171875, 0.4375, 1.0]


def test_lambda_one_is_the_sum_of_rewards_to_come_less_the_value() -> None:
    """Nothing of the critic is left in the return; lambda 0 is the error of one step (the two ends of the paper)."""
    rewards, values = draws(LENGTHS)
    advantages, returns = gae(rewards, values, sequences(LENGTHS), 1.0, 1.0)
    to_go = returns_to_go(rewards, sequences(LENGTHS))
    torch.testing.assert_close(returns, to_go)
    torch.testing.assert_close(advantages, to_go - values)
    short = gae(rewards, values, sequences(LENGTHS), 1.0, 0.0)[0]
    ends = torch.tensor(LENGTHS).cumsum(0) - 1
    torch.testing.assert_close(short[ends], (rewards - values)[ends])


def test_a_perfect_critic_leaves_no_advantage() -> None:
    rewards, _ = draws(LENGTHS)
    values = returns_to_go(rewards, sequences(LENGTHS))
    assert gae(rewards, values, sequences(LENGTHS), 1.0, 0.95)[0].abs().max() < 1e-6


def test_nothing_crosses_from_one_response_to_the_next() -> None:
    rewards, values = draws(LENGTHS)
    other = rewards.clone()
    other[3:4] += 100.0  # the second response
    one, two = (gae(given, values, sequences(LENGTHS))[0] for given in (rewards, other))
    changed = (one != two).tolist()
    assert changed == [False] * 3 + [True] + [False] * 7


def test_late_responses_of_a_long_batch_keep_their_digits() -> None:
    lengths = [50_000, 2]
    rewards = torch.cat([torch.full((50_000,), 1000.0), torch.tensor([1e-3, 1e-3])])
    _, returns = gae(rewards, torch.zeros(50_002), sequences(lengths), 1.0, 1.0)
    assert returns[-2:].tolist() == pytest.approx([2e-3, 1e-3], rel=1e-6)
    assert returns[0] == 5e7


def test_nothing_in_nothing_out() -> None:
    advantages, returns = gae(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert advantages.numel() == returns.numel() == 0


def test_whitening_rewards_keeps_their_mean() -> None:
    """Scale without shift: a response that all do well on stays good. Entries that do not count come back as 0."""
    values, valid = torch.tensor([1.0, 3.0, torch.nan, 8.0]), torch.tensor([True, True, False, True])
    found = whiten(values, valid, epsilon=0.0, keep_mean=True)
    kept = values[valid]
    expected = (kept - kept.mean()) / kept.std() + kept.mean()
    torch.testing.assert_close(found[valid], expected)
    assert found[2] == 0.0 and found[valid].mean().item() == pytest.approx(4.0)
    assert found[valid].std().item() == pytest.approx(1.0)
    same = torch.full((3,), 0.1)
    assert torch.equal(whiten(same, torch.ones(3, dtype=torch.bool), keep_mean=True), same)


def test_the_coefficient_of_an_adaptive_kl() -> None:
    """Ziegler et al., 2019: the relative error is held within a fifth; on target nothing changes."""
    assert adapted_coefficient(0.1, 6.0, 6.0, 100, 1000) == 0.1
    assert adapted_coefficient(0.1, 6.6, 6.0, 100, 1000) == pytest.approx(0.1 * 1.01)
    assert adapted_coefficient(0.1, 60.0, 6.0, 100, 1000) == pytest.approx(0.1 * 1.02)
    assert adapted_coefficient(0.1, -5.0, 6.0, 100, 1000) == pytest.approx(0.1 * 0.98)
