"""PPO's critic: when a value is read, what it learns from, and that its gradient does not depend on the cut."""

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generation.tiny import BASE, decoder_of
from tests.training.tiny import (
    CPU,
    assert_equal_gradients,
    gradients,
    make_loop,
    make_update,
    rl_config,
    sampled_groups,
    settings_of,
)
from torch import Tensor

from trivium.config import RLConfig
from trivium.errors import UserError
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder, DecoderConfig
from trivium.model.huggingface import save_model
from trivium.model.layout import ragged_layout
from trivium.model.scalar import scalar_decoder
from trivium.objectives.advantages import gae, whiten
from trivium.text.tokenizer import Tokenizer
from trivium.training.critic import (
    Estimate,
    ValueUpdate,
    build_critic,
    completion_values,
    critic_advantages,
    score_values,
)
from trivium.training.loop import Loop
from trivium.training.policy import Group, PerToken, flatten, ragged_groups, rewards_of, score_groups
from trivium.training.statistics import KLCoefficient, RewardScale


def critic_of(seed: int = 4) -> Decoder:
    """With a head that is not zero, so that values differ."""
    return scalar_decoder(decoder_of(seed=2), init="normal", generator=torch.Generator().manual_seed(seed))


def writable(seed: int, **values: Any) -> Decoder:
    """Of a family that a model directory can hold."""
    decoder = Decoder(DecoderConfig(**{**BASE, "qk_norm": "head", **values}))
    decoder.initialise(torch.Generator().manual_seed(seed), std=0.4)
    return decoder


def ppo_config(**values: Any) -> RLConfig:
    return rl_config("ppo", **{"kl": "none", **values})


def estimated(critic: Decoder, groups: list[Group], config: RLConfig, reference: PerToken | None = None) -> Estimate:
    return critic_advantages(groups, reference, score_values(critic, groups, config, CPU), config)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_a_value_is_that_of_the_state_before_its_token() -> None:
    """Value t of a response is the scalar head after the prompt and the tokens before t, one forward pass each."""
    critic, config = critic_of(), ppo_config()
    groups = sampled_groups(decoder_of(), config, groups=3, size=2)
    with torch.no_grad():
        for group, pieces in zip(groups, score_values(critic, groups, config, CPU), strict=True):
            for rollout, values in zip(group, pieces, strict=True):
                assert values.shape == (rollout.length,)
                for place in range(rollout.length):
                    before = rollout.prompt_tokens + rollout.completion_tokens[:place]
                    layout = ragged_layout([len(before)])
                    alone = critic.logits(torch.tensor(before), layout.positions, GridAttention(layout))[-1, 0]
                    assert values[place].item() == pytest.approx(alone.item(), abs=1e-5)


def test_a_value_knows_nothing_of_its_own_token_or_later_ones() -> None:
    critic, config = critic_of(), ppo_config()
    groups = sampled_groups(decoder_of(), config, groups=1, size=1)
    rollout = groups[0][0]
    other = dataclasses.replace(rollout, completion_tokens=[*rollout.completion_tokens[:-1], 20])
    one, two = (score_values(critic, [[given]], config, CPU)[0][0] for given in (rollout, other))
    torch.testing.assert_close(one, two)


def test_a_new_critic_says_zero(tmp_path: Path) -> None:
    policy, config = writable(1), ppo_config()
    tokenizer = Tokenizer.train_character(["abcdefgh"])
    critic = build_critic(None, policy, tokenizer, "rl")
    groups = sampled_groups(policy, config)
    assert all((piece == 0).all() for group in score_values(critic, groups, config, CPU) for piece in group)
    assert critic.embedding.weight is not policy.embedding.weight
    assert torch.equal(critic.embedding.weight, policy.embedding.weight)
    save_model(scalar_decoder(writable(2)), tmp_path / "reward", tokenizer)  # a trained head is not taken over
    from_reward = build_critic(tmp_path / "reward", policy, tokenizer, "rl")
    assert from_reward.head_weight.shape == (1, 16) and not from_reward.head_weight.any()
    assert torch.equal(from_reward.embedding.weight, writable(2).embedding.weight)


def test_a_critic_of_other_tokens_is_refused(tmp_path: Path) -> None:
    policy, tokenizer = writable(1), Tokenizer.train_character(["abcdefgh"])
    save_model(scalar_decoder(writable(2)), tmp_path / "reward", Tokenizer.train_character(["hgfedcbaxy"]))
    with pytest.raises(UserError, match=r"rl.critic.init: .*another tokenizer than the policy"):
        build_critic(tmp_path / "reward", policy, tokenizer, "rl")
    save_model(scalar_decoder(writable(1, context_length=20)), tmp_path / "short", tokenizer)
    with pytest.raises(UserError, match="reads 20 tokens, the policy 48"):
        build_critic(tmp_path / "short", policy, tokenizer, "rl")


# ---- advantages ------------------------------------------------------------------------------------------------------


def test_the_score_stands_on_the_last_token_and_each_token_pays_its_kl() -> None:
    policy, config = decoder_of(), ppo_config(kl="reward", kl_coefficient=0.3, missing_stop_penalty=0.4)
    groups = sampled_groups(policy, config)
    critic = critic_of()
    reference = score_groups(decoder_of(seed=8), groups, settings_of(config), config, CPU)
    estimate = estimated(critic, groups, config, reference)
    raw = []
    for group, pieces, values, returns in zip(groups, reference, estimate.values, estimate.returns, strict=True):
        for rollout, piece, value, found in zip(group, pieces, values, returns, strict=True):
            rewards = -0.3 * (torch.tensor(rollout.log_probs) - piece)
            rewards[-1] += rollout.reward - 0.4 * (rollout.finish_reason == "length")
            advantages, expected = gae(rewards, value, torch.zeros(rollout.length, dtype=torch.long), 1.0, 0.95)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            raw.append(advantages)
    flat = torch.cat(raw)
    everything = torch.ones_like(flat, dtype=torch.bool)
    torch.testing.assert_close(flatten(estimate.advantages), whiten(flat, everything), rtol=1e-4, atol=1e-4)
    assert estimate.metrics["advantage_std"] == pytest.approx(flat.std(correction=0).item(), rel=1e-4)


def test_returns_are_taken_before_whitening() -> None:
    critic = critic_of()
    plain, white = (ppo_config(critic={"whiten_advantages": choice}) for choice in (False, True))
    groups = sampled_groups(decoder_of(), plain)
    one, two = (estimated(critic, groups, config) for config in (plain, white))
    assert torch.equal(flatten(one.returns), flatten(two.returns))
    torch.testing.assert_close(flatten(one.returns), flatten(one.advantages) + flatten(one.values))
    assert flatten(two.advantages).mean().abs() < 1e-6


@pytest.mark.parametrize("whiten_rewards", [False, True])
def test_an_infrastructure_error_is_in_no_mean(whiten_rewards: bool) -> None:
    config = ppo_config(critic={"whiten_rewards": whiten_rewards})
    groups, critic = sampled_groups(decoder_of(), config), critic_of()
    without = [list(group) for group in groups]
    groups[3].insert(1, dataclasses.replace(groups[3][2], status="infra_error", reward=float("nan")))
    one, two = estimated(critic, without, config), estimated(critic, groups, config)
    assert two.metrics == pytest.approx(one.metrics, abs=1e-6)
    assert (two.advantages[3][1] == 0).all()
    del two.advantages[3][1]
    torch.testing.assert_close(flatten(two.advantages), flatten(one.advantages))
    found, expected = (gradients(critic, values_update(part, config, critic))[0] for part in (groups, without))
    assert_equal_gradients(found, expected)


def test_all_broken_is_zero_and_not_nan() -> None:
    config, critic = ppo_config(), critic_of()
    groups = sampled_groups(decoder_of(), config)
    for rollout in (rollout for group in groups for rollout in group):
        rollout.status, rollout.reward = "infra_error", float("nan")
    estimate = estimated(critic, groups, config)
    assert estimate.metrics == {"returns": 0.0, "advantage_std": 0.0, "explained_variance": 0.0}
    assert not flatten(estimate.advantages).any()
    found, metrics = gradients(critic, values_update(groups, config, critic))
    assert all((value == 0).all() for value in found) and metrics["value_loss"] == 0.0


# ---- the loss --------------------------------------------------------------------------------------------------------


class Cut(ValueUpdate):
    """A value update that cuts itself, as the policy's does in the loop."""

    def micro_batches(self) -> list[list[int]]:
        return make_update(decoder_of(), list(self.groups), self.config).micro_batches()


def values_update(groups: list[Group], config: RLConfig, critic: Decoder, offset: float = 0.5) -> Any:
    """Old values well away from the present ones, so that some tokens are clipped."""
    estimate = estimated(critic, groups, config)
    old = [[piece + offset for piece in group] for group in estimate.values]
    return Cut(groups, old, estimate.returns, config, CPU)


def test_gradients_of_the_critic_do_not_depend_on_the_cut() -> None:
    critic = critic_of()
    groups = sampled_groups(decoder_of(), ppo_config())
    groups[2][1].status = "infra_error"
    whole = ppo_config(micro_batch_tokens=10**6)
    expected, numbers = gradients(critic, values_update(groups, whole, critic))
    assert 0 < numbers["value_clip_share"] < 1
    for budget, share, order in ((1, True, 0), (100, True, 0), (10**6, False, 0), (100, False, 1)):
        config = ppo_config(micro_batch_tokens=budget, shared_prompts=share)
        chosen = random.Random(order).sample(groups, len(groups)) if order else groups
        found, metrics = gradients(critic, values_update(chosen, config, critic))
        assert_equal_gradients(found, expected)
        assert metrics == pytest.approx(numbers, abs=1e-5)


def test_the_coefficient_weighs_the_loss_and_not_its_metric() -> None:
    critic, groups = critic_of(), sampled_groups(decoder_of(), ppo_config())
    pairs = [gradients(critic, values_update(groups, ppo_config(critic={"coefficient": c}), critic)) for c in (1, 0.1)]
    assert pairs[0][1]["value_loss"] == pytest.approx(pairs[1][1]["value_loss"], abs=1e-6) == pairs[0][1]["loss"]
    assert_equal_gradients([value * 10 for value in pairs[1][0]], pairs[0][0])


def test_values_are_read_in_float32_under_autocast() -> None:
    critic, config = critic_of(), ppo_config()
    batch = ragged_groups(sampled_groups(decoder_of(), config), True, CPU)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert completion_values(critic, batch).dtype == torch.float32


# ---- beside the policy in the loop -----------------------------------------------------------------------------------


def squares(model: Decoder, factor: float = 1.0) -> Any:
    return lambda _: (sum((p**2).sum() for p in model.parameters()) * factor, {})


def train(loop: Loop, **losses: Any) -> list[dict[str, float]]:
    results = []
    for step in loop.steps():
        policy = losses.get("policy", squares(loop.decoder))
        critic = squares(loop.critic, losses.get("bad", {}).get(step, 1.0))
        results.append(loop.update([[0]], policy, tokens=1, critic_loss=critic))
    return results


def weights(model: Decoder) -> list[Tensor]:
    """All but biases, which begin at zero and stay there under a loss of squares."""
    return [parameter.detach().clone() for name, parameter in model.named_parameters() if "bias" not in name]


def test_the_critic_has_its_own_rate_and_its_own_norm(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": {"name": "muon", "lr": 0.01}, "schedule": {"kind": "linear", "warmup": 1}}
    loop = make_loop(tmp_path, decoder_of(), critic=critic_of(), critic_lr=0.5, clip=0.01, steps=2, **settings)
    seen: list[float] = []
    (adamw,) = loop.critic_optimizers
    adamw.register_step_pre_hook(
        lambda optimizer, *_: seen.append(
            torch.stack([p.grad.norm() for group in optimizer.param_groups for p in group["params"]]).norm().item()
        )
    )
    result = train(loop)[0]
    assert result["critic_gradient_norm"] > 1 and result["gradient_norm"] != result["critic_gradient_norm"]
    assert seen[-1] == pytest.approx(0.01, rel=1e-3)
    assert adamw.param_groups[0]["peak_lr"] == 0.5 and loop.optimizers[-1].param_groups[0]["peak_lr"] == 0.01
    ratio = adamw.param_groups[0]["lr"] / loop.optimizers[-1].param_groups[0]["lr"]
    assert ratio == pytest.approx(50.0)  # one schedule for both
    assert {"loss", "value_loss"} <= result.keys()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_gradient_of_the_critic_skips_both(tmp_path: Path, bad: float) -> None:
    policy, critic = decoder_of(), critic_of()
    loop = make_loop(tmp_path, policy, critic=critic, critic_lr=0.1, steps=2)
    before = weights(policy) + weights(critic)
    results = []
    for step in loop.steps():
        results.append(loop.update([[0]], squares(policy), tokens=1, critic_loss=squares(critic, 1.0 if step else bad)))
        if step == 0:
            assert all(map(torch.equal, before, weights(policy) + weights(critic)))
    assert loop.skipped == 1 and math.isfinite(results[0]["gradient_norm"])
    assert not any(map(torch.equal, before, weights(policy) + weights(critic)))


def test_without_a_loss_the_policy_stays(tmp_path: Path) -> None:
    """While the critic warms up; not even weight decay moves the policy."""
    policy, critic = decoder_of(), critic_of()
    before, other = weights(policy), weights(critic)
    loop = make_loop(tmp_path, policy, critic=critic, critic_lr=0.1, steps=2, optimizer={"weight_decay": 0.5})
    results = train(loop, policy=None)
    assert all(map(torch.equal, before, weights(policy)))
    assert not any(map(torch.equal, other, weights(critic)))
    assert results[0]["gradient_norm"] == 0.0 and "loss" not in results[0]


def test_critic_and_running_numbers_are_in_the_checkpoint(tmp_path: Path) -> None:
    def made(folder: str) -> tuple[Any, RewardScale, KLCoefficient]:
        scale, kl = RewardScale("running"), KLCoefficient(ppo_config(kl="reward", kl_target=3.0))
        stateful = {"rewards": scale, "kl": kl}
        options = {"critic": critic_of(), "critic_lr": 0.1, "steps": 6, "checkpoint_every": 2, "stateful": stateful}
        return make_loop(tmp_path / folder, decoder_of(), **options), scale, kl

    def go(folder: str, end: int) -> None:
        loop, scale, kl = made(folder)
        for step in loop.steps():
            factor = scale.of([float(step), 2.0 * step + 1])[1] * kl.value
            loop.update([[0]], squares(loop.decoder, factor), tokens=1, critic_loss=squares(loop.critic, factor))
            kl.observe(10.0, 50)
            if step == end:
                return

    go("cut", 4)
    go("cut", 6)
    go("whole", 6)
    one, two = (tmp_path / name / "checkpoints/step-00000006" for name in ("cut", "whole"))
    assert (one / "tensors.safetensors").read_bytes() == (two / "tensors.safetensors").read_bytes()
    assert (
        json.loads((one / "state.json").read_text())["stage"] == json.loads((two / "state.json").read_text())["stage"]
    )


# ---- running numbers -------------------------------------------------------------------------------------------------


def test_the_running_scale_is_that_of_all_rewards_so_far() -> None:
    draw = random.Random(0)
    scale, seen = RewardScale("running"), []
    for _ in range(20):
        rewards = [1e6 + draw.random() for _ in range(draw.randint(0, 5))]
        seen += rewards
        mean, deviation = scale.of(rewards)
        if len(seen) > 1:
            wide = torch.tensor(seen, dtype=torch.float64)
            assert mean == pytest.approx(wide.mean().item(), rel=1e-15)
            assert deviation == pytest.approx(wide.std().item(), rel=1e-6)
    again = RewardScale("running")
    again.restore(json.loads(json.dumps(scale.state())))
    assert again.of([3.0, 4.0]) == scale.of([3.0, 4.0])


def test_a_batch_is_scaled_by_itself_and_equal_rewards_are_only_centred() -> None:
    scale = RewardScale("batch")
    scale.of([100.0, -100.0])
    assert scale.of([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert scale.of([5.0, 5.0]) == (5.0, 1.0) and scale.of([]) == (0.0, 1.0)
    assert RewardScale("none").of([5.0, 9.0]) == (0.0, 1.0)


def test_penalties_keep_their_size_under_a_scale() -> None:
    config = ppo_config(missing_stop_penalty=0.5)
    group = sampled_groups(decoder_of(), config, groups=1)[0]
    group[0].finish_reason, group[1].finish_reason = "length", "stop"
    group[0].reward = group[1].reward = 3.0
    found = rewards_of(group[:2], config, (1.0, 4.0))
    assert found == [0.0, 0.5]


def test_the_coefficient_adapts_only_towards_a_target() -> None:
    fixed, adaptive = (KLCoefficient(ppo_config(kl="reward", kl_target=target)) for target in (None, 2.0))
    for controller in (fixed, adaptive):
        controller.observe(100.0, 1000)
    assert fixed.value == 0.05 and adaptive.value == pytest.approx(0.05 * (1 + 0.2 * 1000 / 10000))


# ---- an early end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["step", "validation"])
def test_a_stage_may_end_early(tmp_path: Path, where: str) -> None:
    """It is logged, validated and saved as at its last step, and a resumed one does not go on."""
    decoder = decoder_of()

    def validate() -> dict[str, float]:
        if where == "validation" and loop.done == 4:
            loop.finish("enough")
        return {"reward": float(loop.done)}

    options: dict[str, Any] = {"steps": 9, "log_every": 3, "evaluate_every": 2, "checkpoint_every": 0}
    loop = make_loop(tmp_path, decoder, validate=validate, validate_first=True, **options)
    for step in loop.steps():
        loop.update([[0]], squares(decoder), tokens=1)
        if where == "step" and step == 3:
            loop.finish("enough")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    seen = {split: [line["step"] for line in lines if line["split"] == split] for split in ("train", "validation")}
    assert seen == {"train": [3, 4], "validation": [0, 2, 4]}
    assert loop.done == 4 and loop.stopped == "enough" and loop.summary("reward", {})["steps"] == 4
    again = make_loop(tmp_path, decoder_of(), validate=validate, validate_first=True, **options)
    assert list(again.steps()) == [] and again.done == 4 and again.stopped == "enough"
    assert all(map(torch.equal, weights(again.decoder), weights(decoder)))
