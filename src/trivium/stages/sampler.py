"""The first half of an RL step: which prompts, the policy's responses to them, and their rewards."""

import statistics
from collections.abc import Mapping, Sequence

import torch

from trivium.config import RLConfig, SamplingConfig, VerifierConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rewards import RewardFunction
from trivium.generation.engine import Engine
from trivium.generation.rollouts import sample_group_rollouts
from trivium.generation.sampling import SamplingSettings
from trivium.model.decoder import Decoder
from trivium.stages import monitor
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
        self.context, self.tokenizer, self.device = context, tokenizer, device
        self.config: RLConfig = context.config
        self.context_length = policy.config.context_length
        self.settings = sampling_settings(self.config.sampling, tokenizer)
        self.bill = monitor.Bill()
        self.reward = self.function(self.config.rewards)
        self.monitor = self.function(self.config.monitor, "monitor.")
        self.notes: list[monitor.Note] = []  # of the groups of the last step that was sampled
        precision = torch.bfloat16 if self.config.precision == "bfloat16" else None
        self.engine = Engine(policy, slots=self.config.slots, decode=tokenizer.decode, autocast=precision)
        self.prompts = [self.tokenise(part) for part in sources.prompts(self.config.prompts, context.recipe)]
        self.sizes = [len(part) for part in self.prompts]
        self.weights = [source.weight for source in self.config.prompts]

    def function(self, parts: Mapping[str, VerifierConfig], prefix: str = "") -> RewardFunction:
        """A reward function of this stage, on its bill under ``prefix`` and freed with the sampler."""
        made = RewardFunction(
            parts,
            {**self.context.models, **self.context.files},
            self.device,
            cache=self.context.directory.parent / "judge.db",
            seed=self.context.recipe.seed,
            note=self.context.progress.note,
        )
        self.bill.functions.append((prefix, made))
        return made

    def close(self) -> None:
        for _, function in self.bill.functions:
            function.close()

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
        notes: list[monitor.Note] = []
        for turn in range(1 + int(config.resample or 0)):
            stream = self.context.name if turn == 0 else f"{self.context.name}/resample-{turn}"
            seed = self.context.recipe.seed
            pairs = batch_indices(seed, stream, step, config.prompts_per_step, self.sizes, self.weights)
            asked = [self.prompts[source][example] for source, example in pairs]
            found, noted = self.rollouts(asked, f"{stream}/{step}", len(groups), config.group_size)
            groups, notes = groups + found, notes + noted
            if sum(spread(groups, config)) >= config.prompts_per_step:
                break
        self.notes = notes
        return groups

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """Of monitors, votes and judges, over the ``groups`` that ``sample`` has just returned."""
        return monitor.metrics(groups, self.notes, self.config)

    def rollouts(
        self, asked: Sequence[Asked], stream: str, first: int, size: int
    ) -> tuple[list[Group], list[monitor.Note]]:
        """Scored groups of ``size`` responses to the prompts ``asked``, numbered from ``first``, and a note on each;
        ranks share the work by whole groups, all get the whole."""
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
        notes = self.score([asked[index][0] for index in own], groups)
        return distributed.gather_in_order(groups, len(asked)), distributed.gather_in_order(notes, len(asked))

    def score(self, prompts: Sequence[Prompt], groups: Sequence[Group], votes: bool = True) -> list[monitor.Note]:
        """Write its reward on every rollout, and say of each group what was found beside it; all of this rank at once,
        as models like it. ``votes``: the groups are whole and may vote."""
        pairs = [(prompt, rollout) for prompt, group in zip(prompts, groups, strict=True) for rollout in group]
        if not pairs:
            return []  # a rank without any
        rewards = self.reward.score(pairs, groups=votes)
        for (_, rollout), reward in zip(pairs, rewards, strict=True):
            rollout.reward, rollout.reward_parts = reward.total, reward.parts
            rollout.status, rollout.extracted = reward.status, reward.extracted
        monitored, size = self.monitor.score(pairs), len(groups[0])
        return [
            monitor.note(rewards[first : first + size], monitored[first : first + size], self.config)
            for first in range(0, len(pairs), size)
        ]

    def check_judged(self, groups: Sequence[Group], when: str) -> None:
        """UserError if nothing could be judged ``when``; a few infrastructure errors are left out and counted."""
        if all(rollout.status == "infra_error" for group in groups for rollout in group):
            raise UserError(
                f"{self.context.name}: no rollout of {when} could be judged ({self.reward.failure}); "
                "mend the reward, or choose a verifier that suits the answers, and run again"
            )

    def validate(self, asked: Sequence[Asked]) -> dict[str, float]:
        """Reward and monitors of greedy answers to held-out prompts. Majority parts are left out, since a single answer
        always agrees with itself; where the reward is nothing else, there is none."""
        greedy = SamplingSettings(
            temperature=0.0,
            max_new_tokens=self.settings.max_new_tokens,
            stop_token_ids=self.settings.stop_token_ids,
            stop_strings=self.settings.stop_strings,
        )
        own = [asked[index] for index in range(distributed.rank(), len(asked), distributed.world_size())]
        numbers = list(range(len(own)))
        groups = sample_group_rollouts(self.engine, self.tokenizer, own, 1, greedy, 0, "validation", numbers)
        notes = distributed.gather_in_order(self.score([prompt for prompt, _ in own], groups, votes=False), len(asked))
        rollouts = [group[0] for group in distributed.gather_in_order(groups, len(asked))]
        valid = [rollout for rollout in rollouts if rollout.status != "infra_error"]
        reward = statistics.fmean(rollout.reward for rollout in valid) if valid else 0.0
        return {
            **({} if self.reward.only_votes else {"reward": reward}),
            **monitor.validation_metrics(notes, self.config),
            "response_length": statistics.fmean(rollout.length for rollout in rollouts),
            "truncated_share": statistics.fmean(rollout.finish_reason == "length" for rollout in rollouts),
        }
