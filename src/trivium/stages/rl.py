"""Reinforcement learning: sample, score, compare, update. ``main`` keeps the order of a step."""

import copy
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch

from trivium.config import RLConfig
from trivium.data import sources
from trivium.feedback.rewards import REWARD_MODEL, reward_model_options, status_shares
from trivium.generation.rollouts import Rollout, write_rollouts
from trivium.generation.sampling import SamplingSettings
from trivium.model.decoder import Decoder
from trivium.model.lora import WithoutAdapters
from trivium.objectives.kl import kl_estimate
from trivium.preflight import check_rl, watched
from trivium.stages.context import StageContext, load_start, save_result
from trivium.stages.monitor import main_metric
from trivium.stages.observer import Observer
from trivium.stages.sampler import Sampler, was_cut_short
from trivium.stages.watchman import Watchman
from trivium.streams import generator
from trivium.training import distributed
from trivium.training.critic import (
    Estimate,
    ValueUpdate,
    build_critic,
    critic_advantages,
    critic_settings,
    score_values,
)
from trivium.training.device import choose_device
from trivium.training.loop import Loop, Stateful
from trivium.training.policy import (
    Group,
    PerToken,
    Update,
    own_length,
    own_log_probs,
    score_groups,
    spread,
    token_advantages,
)
from trivium.training.statistics import KLCoefficient, RewardScale, Scale


@dataclass
class Models:
    """The policy that learns, the reference it is compared with (with adapters, the policy without them), and PPO's
    critic, which has none and learns as a whole."""

    policy: Decoder
    reference: Decoder | WithoutAdapters | None
    critic: Decoder | None
    device: torch.device


@dataclass
class Scored:
    """A step's groups with all that is fixed before its first update. ``config`` holds the present kl_coefficient."""

    groups: list[Group]
    config: RLConfig
    at_reference: PerToken | None
    old: PerToken | None  # None: one update a step, whose own forward pass is the behaviour policy
    advantages: PerToken
    estimate: Estimate | None  # the critic's
    metrics: dict[str, float]


def main(context: StageContext) -> dict[str, object]:
    """Run the stage; resumes from STAGE/checkpoints. Returns its summary (see ``trivium.run``)."""
    config: RLConfig = context.config
    check_rl(config, context.name)
    device = choose_device(context.recipe)
    policy, tokenizer = load_start(context, config.init, device)
    gae = config.advantage == "gae"
    critic = build_critic(critic_place(context), policy, tokenizer, context.name) if gae else None
    models = Models(policy, reference_of(policy, config), critic, device)
    with closing(Sampler(context, policy, tokenizer, device)) as sampler:
        return train(context, models, sampler)


def reference_of(policy: Decoder, config: RLConfig) -> Decoder | WithoutAdapters | None:
    """A copy of the policy that was passed in; one that learns by adapters is its own reference when they are off."""
    if config.reference == "none":
        return None
    return WithoutAdapters(policy) if config.lora else copy.deepcopy(policy).requires_grad_(False).eval()


def train(context: StageContext, models: Models, sampler: Sampler) -> dict[str, object]:
    """The steps of the stage; returns its summary."""
    config: RLConfig = context.config
    policy, reference, device = models.policy, models.reference, models.device
    held_out = [item for part in sources.prompts(config.validation, context.recipe) for item in sampler.tokenise(part)]
    observer = Observer(context, sampler, reference, held_out, device) if watched(config) else None
    scale, kl_coefficient = RewardScale(config.reward_normalisation or "none"), KLCoefficient(config)
    watchman = Watchman(context) if config.alarm.enabled else None
    stateful: dict[str, Stateful] = {"rewards": scale, "kl": kl_coefficient}
    if watchman is not None:
        stateful["alarm"] = watchman
    if sampler.curriculum is not None:
        stateful["curriculum"] = sampler.curriculum
    if sampler.bill.of_judges:
        stateful["judges"] = sampler.bill
    if observer is not None:
        stateful["watch"] = observer

    def validate() -> dict[str, float]:
        sampler.use(policy, loop.updates)  # the weights have moved since the step was sampled
        metrics = sampler.validate(held_out)
        if observer is None:
            return metrics
        metrics |= observer.observe(loop.done, metrics)
        if observer.watch.reason:
            loop.finish(observer.watch.reason)
        return metrics

    loop = Loop(
        context.directory,
        policy,
        config,
        progress=context.progress,
        updates_per_step=config.epochs * config.minibatches,
        validate=validate if held_out else None,
        validate_first=observer is not None,
        reference=reference if isinstance(reference, Decoder) else None,
        critic=models.critic,
        critic_lr=critic_settings(config).lr,
        stateful=stateful,
    )
    for step in loop.steps():
        with loop.phase("sample"):
            sampler.use(policy, loop.updates)
            sampled = sampler.sample(step)
            sampler.check_judged(sampled, f"step {step + 1}")
            loop.generated += sum(own_length(rollout) for group in sampled for rollout in group)
            groups = select(sampled, config)
        with loop.phase("score"), loop.autocast():
            now = config.model_copy(update={"kl_coefficient": kl_coefficient.value})
            rewards = [rollout.reward for group in groups for rollout in group if rollout.status != "infra_error"]
            scored = score(models, groups, now, scale.of(rewards), sampler.settings, step)
        with loop.phase("update"):
            metrics = sample_metrics(sampled, config) | sampler.metrics(step, sampled) | scored.metrics
            if watchman is not None:
                metrics |= watchman.observe(step + 1, metrics, loop)
            for number, chosen in enumerate(minibatches(len(groups), context, step)):
                learn(loop, models, scored, chosen, number, sampler.settings, step, metrics)
            if config.reference == "moving" and isinstance(reference, Decoder):
                follow(reference, policy, config.reference_decay)
            if "kl_response" in metrics:
                kl_coefficient.observe(metrics["kl_response"], sum(map(len, groups)))
        keep_rollouts(context, step, groups, scored.advantages)
    if observer is None or not observer.install(loop.done):
        save_result(context, policy, sampler.tokenizer)
    numbers = loop.summary(
        main_metric(config), {"rollouts": loop.done * config.prompts_per_step * config.group_size}, better="higher"
    )
    if usage := sampler.bill.total():
        numbers["usage"] = usage
    if sampler.curriculum is not None:
        numbers["curriculum"] = sampler.curriculum.summary(loop.done - 1)
    if observer is not None:
        numbers |= observer.summary(numbers["metric"])
    if watchman is not None:
        numbers["alarms"] = watchman.alarm.sentences
    if loop.stopped:  # by the budget too, of which the watch knows nothing
        numbers["stopped"] = loop.stopped
    return numbers


def score(
    models: Models, groups: list[Group], config: RLConfig, scale: Scale, settings: SamplingSettings, step: int
) -> Scored:
    """Reference, old log-probabilities and values, then advantages: all before the first update of the step."""
    reference, device = models.reference, models.device
    monitored = config.kl != "none" or (step + 1) % config.log_every == 0 or step + 1 == config.steps
    at_reference = score_groups(reference, groups, settings, config, device) if reference and monitored else None
    several = config.epochs * config.minibatches > 1
    old = score_groups(models.policy, groups, settings, config, device) if several else None
    estimate = None
    if models.critic is None:
        advantages = token_advantages(groups, at_reference, config, scale)
    else:
        values = score_values(models.critic, groups, config, device)
        estimate = critic_advantages(groups, at_reference, values, config, scale)
        advantages = estimate.advantages
    metrics = kl_metrics(groups, at_reference, config) | (estimate.metrics if estimate else {})
    return Scored(groups, config, at_reference, old, advantages, estimate, metrics)


def learn(
    loop: Loop,
    models: Models,
    scored: Scored,
    chosen: Sequence[int],
    number: int,
    settings: SamplingSettings,
    step: int,
    metrics: dict[str, float],
) -> None:
    """The step's update ``number``, on the groups ``chosen``: of the policy, and of the critic where there is one."""

    def of(values: PerToken) -> PerToken:
        return [values[index] for index in chosen]

    config, critic, estimate = scored.config, models.critic, scored.estimate
    update = Update(
        [scored.groups[index] for index in chosen],
        of(scored.advantages),
        # the first update still has the policy that sampled: its own forward pass is the behaviour policy
        of(scored.old) if scored.old and number else None,
        of(scored.at_reference) if scored.at_reference else None,
        config,
        settings,
        models.device,
    )
    policy_loss = partial(update.loss, models.policy)
    if critic is None or estimate is None:
        loop.update(update.micro_batches(), policy_loss, tokens=update.tokens, metrics=metrics)
        return
    values = ValueUpdate(update.groups, of(estimate.values), of(estimate.returns), config, models.device)
    loop.update(
        update.micro_batches(),
        policy_loss if step >= critic_settings(config).warmup else None,
        tokens=update.tokens,
        metrics=metrics,
        critic_loss=partial(values.loss, critic),
    )


def critic_place(context: StageContext) -> str | None:
    """Where the critic's body comes from: what the recipe names, else the first reward model; None: the policy."""
    config: RLConfig = context.config
    named = critic_settings(config).init
    models = [reward_model_options(part).model for part in config.rewards.values() if part.kind == REWARD_MODEL]
    name = named or next(iter(models), None)
    return None if name is None else context.place(name)


def select(groups: list[Group], config: RLConfig) -> list[Group]:
    """The groups to train on: ``prompts_per_step`` of them, those whose rewards differ first (dynamic sampling)."""
    if not config.resample:
        return groups
    differ = spread(groups, config)
    judged = [any(rollout.status != "infra_error" for rollout in group) for group in groups]
    order = sorted(range(len(groups)), key=lambda index: (not differ[index], not judged[index], index))
    return [groups[index] for index in order[: config.prompts_per_step]]


def minibatches(groups: int, context: StageContext, step: int) -> list[list[int]]:
    """Group numbers of each update: ``epochs`` passes, each in an order of its own, cut into ``minibatches`` parts."""
    config: RLConfig = context.config
    parts = []
    for epoch in range(config.epochs):
        order = list(range(groups))
        if config.minibatches > 1:
            order = (
                generator(context.recipe.seed, f"{context.name}/minibatches", step, epoch).permutation(groups).tolist()
            )
        parts += [order[part :: config.minibatches] for part in range(config.minibatches)]
    return parts


def follow(reference: Decoder, policy: Decoder, decay: float) -> None:
    """Moving average of the policy: reference = decay * reference + (1 - decay) * policy."""
    with torch.no_grad():
        for target, source in zip(reference.parameters(), policy.parameters(), strict=True):
            target.lerp_(source, 1 - decay)


def sample_metrics(groups: Sequence[Group], config: RLConfig) -> dict[str, float]:
    """What was sampled in this step, before any group was replaced. Rewards leave out infrastructure errors."""
    rollouts = [rollout for group in groups for rollout in group]
    valid = [rollout for rollout in rollouts if rollout.status != "infra_error"]
    rewards = [rollout.reward for rollout in valid]
    mean = statistics.fmean
    tokens = sum(own_length(rollout) for rollout in rollouts)
    parts = {name: mean(rollout.reward_parts[name] for rollout in valid) for name in config.rewards} if valid else {}
    return {
        "reward": mean(rewards) if rewards else 0.0,
        "reward_std": statistics.pstdev(rewards) if rewards else 0.0,
        **{f"reward/{name}": value for name, value in parts.items()},
        "groups_without_spread": 1 - mean(spread(groups, config)),
        "entropy": -sum(sum(own_log_probs(rollout)) for rollout in rollouts) / max(tokens, 1),
        "response_length": tokens / len(rollouts),
        **(environment_metrics(rollouts) if config.environment is not None else {}),
        "truncated_share": mean(rollout.finish_reason == "length" for rollout in rollouts),
        **status_shares([rollout.status for rollout in rollouts]),
    }


def environment_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What an environment had to say in a rollout, in tokens, and how many turns the policy took."""
    return {
        "environment_tokens": statistics.fmean(rollout.length - own_length(rollout) for rollout in rollouts),
        "turns": statistics.fmean(rollout.turns for rollout in rollouts),
    }


def kl_metrics(groups: Sequence[Group], reference: PerToken | None, config: RLConfig) -> dict[str, float]:
    """The KL of the behaviour policy to the reference in nats: mean k3 an own token, and mean sum of k1 a response.

    Rollouts whose environment failed are left out, since they broke off early; so nothing may be left to tell."""
    if reference is None:
        return {}
    pairs = [pair for group, pieces in zip(groups, reference, strict=True) for pair in zip(group, pieces, strict=True)]
    pairs = [(rollout, piece) for rollout, piece in pairs if not was_cut_short(rollout)]
    rollouts = [rollout for rollout, _ in pairs]
    sampled = torch.tensor([value for rollout in rollouts for value in own_log_probs(rollout)])
    if not len(sampled):
        return {}
    scored = torch.cat([piece for _, piece in pairs])
    found = {
        "kl": float(kl_estimate(sampled, scored, "k3").mean()),
        "kl_response": float(kl_estimate(sampled, scored, "k1").double().sum()) / len(rollouts),
    }
    return found if config.kl == "none" else {**found, "kl_coefficient": float(config.kl_coefficient or 0.0)}


def keep_rollouts(context: StageContext, step: int, groups: Sequence[Group], advantages: PerToken) -> None:
    """Write STAGE/rollouts/step-N.parquet: what was trained on, with the mean advantage of each rollout."""
    config: RLConfig = context.config
    if not distributed.is_main() or not config.rollouts_every or (step + 1) % config.rollouts_every:
        return
    rollouts: list[Rollout] = []
    for group, pieces in zip(groups, advantages, strict=True):
        for rollout, piece in zip(group, pieces, strict=True):
            rollout.advantage = float(piece.mean()) if len(piece) else 0.0
            rollouts.append(rollout)
    write_rollouts(context.directory / "rollouts" / f"step-{step + 1:08d}.parquet", rollouts)
