"""The update of reinforcement learning: what it trains on, and that it does not depend on how it is cut."""

import copy
import dataclasses
import random

import pytest
import torch
from tests.generation.tiny import decoder_of
from tests.training.tiny import (
    CPU,
    assert_equal_gradients,
    gradients,
    make_update,
    rl_config,
    sampled_groups,
    settings_of,
)
from torch import Tensor

from trivium.feedback.rewards import overlong_penalty
from trivium.model.decoder import Decoder
from trivium.objectives.advantages import group_advantages, whiten
from trivium.objectives.presets import PRESETS
from trivium.training.policy import (
    Group,
    completion_log_probs,
    ragged_groups,
    score_groups,
    spread,
    token_advantages,
    used_lengths,
)

SETTINGS = [{}, {"temperature": 0.7}, {"top_k": 6, "top_p": 0.8}]


def moved(decoder: Decoder, scale: float = 0.02, seed: int = 5) -> Decoder:
    """A copy with other weights: the policy some updates ago."""
    other = copy.deepcopy(decoder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * scale)
    return other


# ---- ratio -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("share", [True, False])
def test_the_first_update_has_ratio_one(sampling: dict[str, float], share: bool) -> None:
    """Exactly, as its own pass is the behaviour policy; one in other micro-batches agrees up to rounding."""
    decoder = decoder_of()
    config = rl_config("dr_grpo", sampling=sampling, shared_prompts=share, micro_batch_tokens=70)
    groups = sampled_groups(decoder, config)
    old = score_groups(decoder, groups, settings_of(config), config, CPU)
    for chosen in ([0, 1, 2, 3, 4], [3, 0], [4, 2]):  # of a minibatch too
        update = make_update(decoder, [groups[index] for index in chosen], config)
        metrics = gradients(decoder, update)[1]
        assert metrics["max/ratio_deviation"] == 0.0 and metrics["clip_share"] == 0.0
        assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-6)
        update.old = [old[index] for index in chosen if index != 1]
        assert gradients(decoder, update)[1]["max/ratio_deviation"] <= 1e-5


@pytest.mark.parametrize("sampling", SETTINGS)
def test_the_trainer_agrees_with_the_sampler(sampling: dict[str, float]) -> None:
    decoder, config = decoder_of(), rl_config("dr_grpo", sampling=sampling)
    groups = sampled_groups(decoder, config)
    assert gradients(decoder, make_update(decoder, groups, config))[1]["max/sampler_difference"] < 1e-5
    groups[0][0].log_probs[0] -= 0.5
    assert gradients(decoder, make_update(decoder, groups, config))[1]["max/sampler_difference"] > 0.4


def test_on_policy_the_gradient_is_that_of_the_log_probability() -> None:
    """Without a second pass for old log-probabilities the ratio is 1, and its gradient is there all the same."""
    decoder, config = decoder_of(), rl_config("dr_grpo")
    groups = sampled_groups(decoder, config)
    one, _ = gradients(decoder, make_update(decoder, groups, config))
    two, _ = gradients(decoder, make_update(decoder, groups, config, old=decoder))
    assert_equal_gradients(one, two)


# ---- the same gradient however it is cut -----------------------------------------------------------------------------


def shuffled(groups: list[Group], seed: int) -> list[Group]:
    draw = random.Random(seed)
    return [draw.sample(group, len(group)) for group in draw.sample(groups, len(groups))]


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_do_not_depend_on_the_cut(preset: str) -> None:
    """Micro-batches of one group, of about three and of all; any order; prompts shared or written out."""
    decoder = decoder_of()
    groups = sampled_groups(decoder, rl_config(preset))
    groups[2][1].status, groups[2][1].reward = "infra_error", float("nan")
    old, reference = moved(decoder), moved(decoder, 0.1, 6)
    whole = rl_config(preset, micro_batch_tokens=10**6)
    expected, numbers = gradients(decoder, make_update(decoder, groups, whole, old, reference))
    for budget, share, order in ((1, True, 0), (100, True, 0), (10**6, False, 0), (100, False, 1), (1, True, 2)):
        config = rl_config(preset, micro_batch_tokens=budget, shared_prompts=share)
        chosen = shuffled(groups, order) if order else groups
        update = make_update(decoder, chosen, config, old, reference)
        assert budget > 1 or len(update.micro_batches()) == len(update.groups)
        found, metrics = gradients(decoder, update)
        assert_equal_gradients(found, expected)
        assert metrics == pytest.approx(numbers, abs=1e-5)


def test_groups_without_spread_are_not_computed_but_counted() -> None:
    """Dr. GRPO divides by all rollouts of the step; leaving out a flat group must not raise the others' weight."""
    decoder, config = decoder_of(), rl_config("dr_grpo")
    groups = sampled_groups(decoder, config)
    assert spread(groups, config) == [True, False, True, True, True]
    update = make_update(decoder, groups, config)
    assert len(update.groups) == 4
    reference = rl_config("dr_grpo", kl="k3", kl_coefficient=0.0)  # computes every group
    all_of_them = make_update(decoder, groups, reference, reference=decoder)
    assert len(all_of_them.groups) == 5
    assert_equal_gradients(gradients(decoder, update)[0], gradients(decoder, all_of_them)[0])


@pytest.mark.parametrize("preset", ["grpo", "dapo", "dr_grpo", "rloo", "reinforce++"])
def test_an_infrastructure_error_is_as_if_it_had_not_been_sampled(preset: str) -> None:
    """Neither in the baseline nor in the loss nor in a denominator; never a zero."""
    decoder, config = decoder_of(), rl_config(preset)
    groups = sampled_groups(decoder, config)
    reference = moved(decoder)
    without = [list(group) for group in groups]
    broken = dataclasses.replace(groups[3][2], status="infra_error", reward=-1000.0)
    groups[3].insert(1, broken)
    expected, _ = gradients(decoder, make_update(decoder, without, config, reference=reference))
    found, _ = gradients(decoder, make_update(decoder, groups, config, reference=reference))
    assert_equal_gradients(found, expected)


def test_nothing_to_learn_gives_a_zero_gradient() -> None:
    """All groups flat, or all rollouts broken: zero, not NaN."""
    decoder, config = decoder_of(), rl_config("dr_grpo")
    for status in ("ok", "infra_error"):
        groups = sampled_groups(decoder, config)
        for rollout in (rollout for group in groups for rollout in group):
            rollout.reward, rollout.status = 0.1, status
        for chosen in (config, rl_config("grpo"), rl_config("reinforce++", kl="none")):
            update = make_update(decoder, groups, chosen, reference=decoder)
            found, metrics = gradients(decoder, update)
            assert all((value == 0).all() for value in found)
            assert metrics["loss"] == 0.0
            # with the KL in the loss flat groups are computed too, and then there is a ratio; else none is told
            assert ("ratio_mean" in metrics) == ("clip_share" in metrics) == bool(update.total_weight)
            assert metrics.get("ratio_mean", 1.0) == pytest.approx(1.0)


# ---- which tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [True, False])
def test_the_stop_token_is_trained_and_nothing_after_it(share: bool) -> None:
    decoder, config = decoder_of(), rl_config()
    groups = sampled_groups(decoder, config)
    batch = ragged_groups(groups, share, CPU)
    completions = [rollout.completion_tokens for group in groups for rollout in group]
    assert any(rollout.finish_reason == "stop" for group in groups for rollout in group)
    assert batch.targets.tolist() == [token for tokens in completions for token in tokens]
    # no input that no loss token looks back to: the last token of a response is never one
    prompts = sum(len(group[0].prompt_tokens) * (1 if share else len(group)) for group in groups)
    assert len(batch.tokens) == prompts + sum(len(tokens) - 1 for tokens in completions)


def test_scores_are_those_of_each_completion() -> None:
    decoder, config = decoder_of(), rl_config(micro_batch_tokens=60)
    groups = sampled_groups(decoder, config)
    scored = score_groups(decoder, groups, settings_of(config), config, CPU)
    for group, pieces in zip(groups, scored, strict=True):
        for rollout, piece in zip(group, pieces, strict=True):
            torch.testing.assert_close(piece, torch.tensor(rollout.log_probs), rtol=0, atol=1e-5)


def test_truncated_rollouts_by_choice() -> None:
    """keep: as any other. mask: no loss, still in the baseline. penalty: a lower reward near the limit."""
    decoder, config = decoder_of(), rl_config("dr_grpo")
    groups = sampled_groups(decoder, config)
    lengths = [rollout.length for group in groups for rollout in group]
    cut = [rollout.finish_reason == "length" for group in groups for rollout in group]
    assert any(cut) and not all(cut)
    assert used_lengths(groups, config) == lengths
    masked = rl_config("dr_grpo", overlong="mask")
    assert used_lengths(groups, masked) == [0 if one else length for one, length in zip(cut, lengths, strict=True)]
    same = zip(token_advantages(groups, None, masked), token_advantages(groups, None, config), strict=True)
    assert all(torch.equal(a, b) for one, other in same for a, b in zip(one, other, strict=True))
    penalty = rl_config("dr_grpo", overlong="penalty", overlong_window=4)
    rewards = torch.tensor([r.reward + overlong_penalty(r.length, 12, 4) for group in groups for r in group])
    numbers = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    expected = group_advantages(rewards, numbers, "group_mean").tolist()
    found = [piece[0].item() for group in token_advantages(groups, None, penalty) for piece in group]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_masked_truncated_rollout_gets_no_gradient() -> None:
    """Whatever its advantage; the others' denominators do not count it."""
    decoder, config = decoder_of(), rl_config("dapo", overlong="mask")
    groups = sampled_groups(decoder, config)
    update = make_update(decoder, groups, config)
    kept = [rollout for group in groups for rollout in group if rollout.finish_reason == "stop"]
    total = sum(rollout.length for rollout in kept)
    for group, weights in zip(update.groups, update.weights, strict=True):
        for rollout, weight in zip(group, weights, strict=True):
            assert weight == pytest.approx(1 / total if rollout.finish_reason == "stop" else 0.0)


# ---- KL --------------------------------------------------------------------------------------------------------------


def k1(groups: list[Group], scored: list[list[Tensor]]) -> list[list[Tensor]]:
    pairs = zip(groups, scored, strict=True)
    return [[torch.tensor(r.log_probs) - piece for r, piece in zip(*pair, strict=True)] for pair in pairs]


def test_kl_in_the_reward_of_a_group() -> None:
    """RLOO: each reward loses coefficient times the sum of its tokens' k1, then the others' mean."""
    decoder, config = decoder_of(), rl_config("rloo", kl_coefficient=0.5)
    groups = sampled_groups(decoder, config)
    reference = score_groups(moved(decoder), groups, settings_of(config), config, CPU)
    for group, costs, found in zip(
        groups, k1(groups, reference), token_advantages(groups, reference, config), strict=True
    ):
        rewards = [rollout.reward - 0.5 * cost.sum().item() for rollout, cost in zip(group, costs, strict=True)]
        for number, piece in enumerate(found):
            others = [value for index, value in enumerate(rewards) if index != number]
            expected = rewards[number] - sum(others) / len(others)
            torch.testing.assert_close(piece, torch.full_like(piece, expected), rtol=1e-4, atol=1e-5)


def test_kl_in_the_reward_of_a_token() -> None:
    """REINFORCE++: the reward minus the KL from each token on, normalised over all tokens of the batch."""
    decoder, config = decoder_of(), rl_config("reinforce++", kl_coefficient=0.5)
    groups = sampled_groups(decoder, config)
    reference = score_groups(moved(decoder), groups, settings_of(config), config, CPU)
    returns = [
        rollout.reward - 0.5 * cost.flip(0).cumsum(0).flip(0)
        for group, costs in zip(groups, k1(groups, reference), strict=True)
        for rollout, cost in zip(group, costs, strict=True)
    ]
    flat = torch.cat(returns)
    found = torch.cat([piece for group in token_advantages(groups, reference, config) for piece in group])
    torch.testing.assert_close(found, whiten(flat, torch.ones_like(flat, dtype=torch.bool)), rtol=1e-4, atol=1e-4)


def test_kl_in_the_loss_pulls_to_the_reference() -> None:
    """With no advantage left, a small step against the gradient lowers the KL."""
    decoder = decoder_of()
    reference = moved(decoder, 0.1)
    config = rl_config("grpo", kl_coefficient=1.0)
    groups = sampled_groups(decoder, config, size=30)
    for rollout in (rollout for group in groups for rollout in group):
        rollout.reward = 1.0
    update = make_update(decoder, groups, config, reference=reference)
    found, before = gradients(decoder, update)
    assert before["loss"] > 0.01
    with torch.no_grad():
        for parameter, gradient in zip(decoder.parameters(), found, strict=True):
            parameter -= 0.01 * gradient
    assert gradients(decoder, update)[1]["loss"] < before["loss"]


def test_entropy_and_log_probs_have_the_shape_of_the_targets() -> None:
    decoder, config = decoder_of(), rl_config()
    batch = ragged_groups(sampled_groups(decoder, config), True, CPU)
    log_probs, entropy = completion_log_probs(decoder, batch, settings_of(config))
    assert log_probs.shape == entropy.shape == batch.targets.shape
