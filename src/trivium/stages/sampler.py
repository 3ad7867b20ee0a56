"""The first half of an RL step: which prompts, the policy's responses to them, and their rewards."""

import statistics
from collections.abc import Sequence

import torch

from trivium.config import RLConfig, SamplingConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rewards import RewardFunction
from trivium.generation.engine import Engine
from trivium.generation.rollouts import sample_group_rollouts
from trivium.generation.sampling import SamplingSettings
from trivium.model.decoder import Decoder
from trivium.stages.context import StageContext
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.policy import Group, spread

Asked = tuple[Prompt, list[int]]  # a prompt and its tokens


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

    def __init__(self, context: StageContext, policy: Decoder, tokenizer: Tokenizer, device: torch.device) -> None:
        self.context, self.tokenizer = context, tokenizer
        self.config: RLConfig = context.config
        self.context_length = policy.config.context_length
        self.settings = sampling_settings(self.config.sampling, tokenizer)
        self.reward = RewardFunction(self.config.rewards, context.models, device)
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
            groups += self.rollouts(asked, f"{stream}/{step}", len(groups), config.group_size)
            if sum(spread(groups, config)) >= config.prompts_per_step:
                break
        return groups

    def rollouts(self, asked: Sequence[Asked], stream: str, first: int, size: int) -> list[Group]:
        """Scored groups of ``size`` responses to the prompts ``asked``, numbered from ``first``; ranks share the work,
        all get the whole."""
        own = range(distributed.rank(), len(asked), distributed.world_size())
        groups = sample_group_rollouts(
            self.engine,
            self.tokenizer,
            [asked[index] for index in own],
            size,
            self.settings,
            self.context.recipe.seed,
            stream,
            [first + index for index in own],
        )
        self.score([asked[index][0] for index in own], groups)
        return distributed.gather_in_order(groups, len(asked))

    def score(self, prompts: Sequence[Prompt], groups: Sequence[Group]) -> None:
        """Write its reward on every rollout; all of this rank at once, as reward models like it."""
        pairs = [(prompt, rollout) for prompt, group in zip(prompts, groups, strict=True) for rollout in group]
        for (_, rollout), reward in zip(pairs, self.reward.score(pairs), strict=True):
            rollout.reward, rollout.reward_parts = reward.total, reward.parts
            rollout.status, rollout.extracted = reward.status, reward.extracted

    def check_judged(self, groups: Sequence[Group], when: str) -> None:
        """UserError if nothing could be judged ``when``; a few infrastructure errors are left out and counted."""
        if all(rollout.status == "infra_error" for group in groups for rollout in group):
            raise UserError(
                f"{self.context.name}: no rollout of {when} could be judged ({self.reward.failure}); "
                "mend the reward, or choose a verifier that suits the answers, and run again"
            )

    def validate(self, asked: Sequence[Asked]) -> dict[str, float]:
        """Reward of greedy answers to held-out prompts."""
        greedy = SamplingSettings(
            temperature=0.0,
            max_new_tokens=self.settings.max_new_tokens,
            stop_token_ids=self.settings.stop_token_ids,
            stop_strings=self.settings.stop_strings,
        )
        own = [asked[index] for index in range(distributed.rank(), len(asked), distributed.world_size())]
        numbers = list(range(len(own)))
        groups = sample_group_rollouts(self.engine, self.tokenizer, own, 1, greedy, 0, "validation", numbers)
        self.score([prompt for prompt, _ in own], groups)
        rollouts = [group[0] for group in distributed.gather_in_order(groups, len(asked))]
        valid = [rollout for rollout in rollouts if rollout.status != "infra_error"]
        return {
            "reward": statistics.fmean(rollout.reward for rollout in valid) if valid else 0.0,
            "response_length": statistics.fmean(rollout.length for rollout in rollouts),
            "truncated_share": statistics.fmean(rollout.finish_reason == "length" for rollout in rollouts),
        }
