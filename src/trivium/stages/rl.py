"""Reinforcement learning: sample, score, compare, update. ``main`` keeps the order of a step."""

import copy
import statistics
from collections.abc import Sequence

import torch

from trivium.config import RLConfig, SamplingConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rewards import RewardFunction, status_shares
from trivium.generation.engine import Engine
from trivium.generation.rollouts import Rollout, sample_group_rollouts, write_rollouts
from trivium.generation.sampling import SamplingSettings
from trivium.model.decoder import Decoder
from trivium.objectives.kl import kl_estimate
from trivium.preflight import check_rl
from trivium.stages.context import StageContext, load_start, save_result
from trivium.streams import generator
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.device import choose_device
from trivium.training.loop import Loop
from trivium.training.policy import Group, PerToken, Update, score_groups, spread, token_advantages

Asked = tuple[Prompt, list[int]]  # a prompt and its tokens


def main(context: StageContext) -> dict[str, object]:
    """Run the stage; resumes from STAGE/checkpoints. Returns its summary (see ``trivium.run``)."""
    config: RLConfig = context.config
    check_rl(config, context.name)
    device = choose_device(context.recipe)
    policy, tokenizer = load_start(context, config.init, device)
    # the reference is a copy of the policy that was passed in
    reference = None if config.reference == "none" else copy.deepcopy(policy).requires_grad_(False).eval()
    sampler = Sampler(context, policy, tokenizer)
    held_out = [item for part in sources.prompts(config.validation, context.recipe) for item in sampler.tokenise(part)]

    def validate() -> dict[str, float]:
        sampler.use(policy, loop.updates)  # the weights have moved since the step was sampled
        return sampler.validate(held_out)

    loop = Loop(
        context.directory,
        policy,
        config,
        progress=context.progress,
        updates_per_step=config.epochs * config.minibatches,
        validate=validate if held_out else None,
        reference=reference,
    )
    strictly_on_policy = config.epochs * config.minibatches == 1
    for step in loop.steps():
        with loop.phase("sample"):
            sampler.use(policy, loop.updates)
            sampled = sampler.sample(step)
            if all(rollout.status == "infra_error" for group in sampled for rollout in group):
                raise UserError(
                    f"{context.name}: no rollout of step {step + 1} could be judged ({sampler.reward.failure}); "
                    "mend the reward, or choose a verifier that suits the answers, and run again"
                )
            groups = select(sampled, config)
        with loop.phase("score"), loop.autocast():
            monitored = reference is not None and (config.kl != "none" or (step + 1) % config.log_every == 0)
            at_reference = (
                score_groups(reference, groups, sampler.settings, config, device) if monitored and reference else None
            )
            old = None if strictly_on_policy else score_groups(policy, groups, sampler.settings, config, device)
            advantages = token_advantages(groups, at_reference, config)
        with loop.phase("update"):
            metrics = sample_metrics(sampled, config) | kl_metric(groups, at_reference)
            for number, chosen in enumerate(minibatches(len(groups), context, step)):
                update = Update(
                    [groups[index] for index in chosen],
                    [advantages[index] for index in chosen],
                    # the first update still has the policy that sampled: its own forward pass is the behaviour policy
                    [old[index] for index in chosen] if old and number else None,
                    at_reference and [at_reference[index] for index in chosen],
                    config,
                    sampler.settings,
                    device,
                )
                loop.update(
                    update.micro_batches(),
                    lambda part: update.loss(policy, part),
                    tokens=update.tokens,
                    metrics=metrics,
                )
            if config.reference == "moving" and reference is not None:
                follow(reference, policy, config.reference_decay)
        keep_rollouts(context, step, groups, advantages)
    save_result(context, policy, tokenizer)
    return loop.summary("reward", {"rollouts": config.steps * config.prompts_per_step * config.group_size})


def sampling_settings(config: SamplingConfig, tokenizer: Tokenizer) -> SamplingSettings:
    return SamplingSettings(
        config.temperature,
        config.top_k,
        config.top_p,
        config.max_new_tokens,
        tuple(tokenizer.stop_token_ids),
        tuple(config.stop),
    )


class Sampler:
    """Prompts, engine and reward of the stage: rollouts of a step, and validation."""

    def __init__(self, context: StageContext, policy: Decoder, tokenizer: Tokenizer) -> None:
        self.context, self.tokenizer = context, tokenizer
        self.config: RLConfig = context.config
        self.context_length = policy.config.context_length
        self.settings = sampling_settings(self.config.sampling, tokenizer)
        self.reward = RewardFunction(self.config.rewards)
        precision = torch.bfloat16 if self.config.precision == "bfloat16" else None
        self.engine = Engine(policy, slots=self.config.slots, decode=tokenizer.decode, autocast=precision)
        self.prompts = [self.tokenise(part) for part in sources.prompts(self.config.prompts, context.recipe)]
        self.sizes = [len(part) for part in self.prompts]
        self.weights = [source.weight for source in self.config.prompts]

    def tokenise(self, prompts: Sequence[Prompt]) -> list[Asked]:
        """Prompts with their tokens. One that leaves no room for an answer is a UserError."""
        asked = [(prompt, prompt_ids(self.tokenizer, prompt.messages)) for prompt in prompts]
        for prompt, tokens in asked:
            if len(tokens) >= self.context_length:
                raise UserError(
                    f"{self.context.name}: the prompt {prompt.id} has {len(tokens)} tokens, the model's context is "
                    f"{self.context_length}; shorten or drop it, or use a model with a longer context"
                )
        return asked

    def use(self, policy: Decoder, version: int) -> None:
        """Sample from the present weights of ``policy`` (all ranks must call), known as ``version``."""
        self.engine.decoder, self.engine.version = distributed.full_copy(policy), version

    def sample(self, step: int) -> list[Group]:
        """Scored rollouts of the step's prompts, and of up to ``resample`` more rounds while too few groups differ."""
        config = self.config
        groups: list[Group] = []
        for turn in range(1 + int(config.resample or 0)):
            stream = self.context.name if turn == 0 else f"{self.context.name}/resample-{turn}"
            seed = self.context.recipe.seed
            pairs = batch_indices(seed, stream, step, config.prompts_per_step, self.sizes, self.weights)
            asked = [self.prompts[source][example] for source, example in pairs]
            groups += self.rollouts(asked, f"{stream}/{step}", len(groups))
            if sum(spread(groups, config)) >= config.prompts_per_step:
                break
        return groups

    def rollouts(self, asked: Sequence[Asked], stream: str, first: int) -> list[Group]:
        """Scored groups of the prompts ``asked``, numbered from ``first``; ranks share the work, all get the whole."""
        world, rank = distributed.world_size(), distributed.rank()
        own = range(rank, len(asked), world)
        groups = sample_group_rollouts(
            self.engine,
            self.tokenizer,
            [asked[index] for index in own],
            self.config.group_size,
            self.settings,
            self.context.recipe.seed,
            stream,
            [first + index for index in own],
        )
        for index, group in zip(own, groups, strict=True):
            self.score(asked[index][0], group)
        return distributed.gather_in_order(groups, len(asked))

    def score(self, prompt: Prompt, group: Group) -> None:
        for rollout in group:
            reward = self.reward(prompt, rollout.text)
            rollout.reward, rollout.reward_parts = reward.total, reward.parts
            rollout.status, rollout.extracted = reward.status, reward.extracted

    def validate(self, asked: Sequence[Asked]) -> dict[str, float]:
        """Reward of greedy answers to held-out prompts."""
        greedy = SamplingSettings(
            temperature=0.0,
            max_new_tokens=self.settings.max_new_tokens,
            stop_token_ids=self.settings.stop_token_ids,
            stop_strings=self.settings.stop_strings,
        )
        world, rank = distributed.world_size(), distributed.rank()
        own = [asked[index] for index in range(rank, len(asked), world)]
        numbers = list(range(len(own)))
        groups = sample_group_rollouts(self.engine, self.tokenizer, own, 1, greedy, 0, "validation", numbers)
        for (prompt, _), group in zip(own, groups, strict=True):
            self.score(prompt, group)
        rollouts = [group[0] for group in distributed.gather_in_order(groups, len(asked))]
        valid = [rollout for rollout in rollouts if rollout.status != "infra_error"]
        return {
            "reward": statistics.fmean(rollout.reward for rollout in valid) if valid else 0.0,
            "response_length": statistics.fmean(rollout.length for rollout in rollouts),
            "truncated_share": statistics.fmean(rollout.finish_reason == "length" for rollout in rollouts),
        }


def select(groups: list[Group], config: RLConfig) -> list[Group]:
    """The groups to train on: ``prompts_per_step`` of them, those whose rewards differ first (dynamic sampling)."""
    if not config.resample:
        return groups
    order = sorted(
        zip(spread(groups, config), range(len(groups)), strict=True), key=lambda item: (not item[0], item[1])
    )
    return [groups[index] for _, index in order[: config.prompts_per_step]]


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
    tokens = sum(rollout.length for rollout in rollouts)
    parts = {name: mean(rollout.reward_parts[name] for rollout in valid) for name in config.rewards} if valid else {}
    return {
        "reward": mean(rewards) if rewards else 0.0,
        "reward_std": statistics.pstdev(rewards) if rewards else 0.0,
        **{f"reward/{name}": value for name, value in parts.items()},
        "groups_without_spread": 1 - mean(spread(groups, config)),
        "entropy": -sum(sum(rollout.log_probs) for rollout in rollouts) / tokens,
        "response_length": tokens / len(rollouts),
        "truncated_share": mean(rollout.finish_reason == "length" for rollout in rollouts),
        **status_shares([rollout.status for rollout in rollouts]),
    }


def kl_metric(groups: Sequence[Group], reference: PerToken | None) -> dict[str, float]:
    """Mean k3 per token between the behaviour policy and the reference, in nats."""
    if reference is None:
        return {}
    sampled = torch.tensor([value for group in groups for rollout in group for value in rollout.log_probs])
    scored = torch.cat([piece for group in reference for piece in group])
    return {"kl": float(kl_estimate(sampled, scored, "k3").mean())}


def keep_rollouts(context: StageContext, step: int, groups: Sequence[Group], advantages: PerToken) -> None:
    """Write STAGE/rollouts/step-N.parquet: what was trained on, with the mean advantage of each rollout."""
    config: RLConfig = context.config
    if not distributed.is_main() or not config.rollouts_every or (step + 1) % config.rollouts_every:
        return
    rollouts: list[Rollout] = []
    for group, pieces in zip(groups, advantages, strict=True):
        for rollout, piece in zip(group, pieces, strict=True):
            rollout.advantage = float(piece.mean())
            rollouts.append(rollout)
    write_rollouts(context.directory / "rollouts" / f"step-{step + 1:08d}.parquet", rollouts)
