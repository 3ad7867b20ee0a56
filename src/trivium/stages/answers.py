"""Where stages that let a model answer begin: which prompts, what it says to them, and what verifiers say of that."""

import statistics
from collections.abc import Mapping, Sequence

import torch

from trivium.config import SamplingConfig, SourceConfig, VerifierConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.errors import UserError
from trivium.feedback.rewards import RewardFunction
from trivium.feedback.verdict import Items
from trivium.generation.engine import Engine
from trivium.generation.rollouts import sample_group_rollouts
from trivium.model.decoder import Decoder
from trivium.stages.context import StageContext
from trivium.stages.sampler import Asked, sampling_settings
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.policy import Group


class Answers:
    """The prompts of a stage, and the responses of a model to some of them."""

    def __init__(
        self,
        context: StageContext,
        prompts: Sequence[SourceConfig],
        sampling: SamplingConfig,
        slots: int,
        tokenizer: Tokenizer,
        precision: torch.dtype | None = None,
    ) -> None:
        self.context, self.tokenizer, self.slots, self.precision = context, tokenizer, slots, precision
        self.settings = sampling_settings(sampling, tokenizer)
        self.prompts = sources.prompts(prompts, context.recipe)
        self.sizes, self.weights = [len(part) for part in self.prompts], [source.weight for source in prompts]

    def asked(self, turn: int, number: int, context_length: int) -> list[Asked]:
        """The ``number`` prompts of ``turn`` (from 0) with their tokens, each conversation once: all are asked before
        one is asked again. UserError for one that leaves no room for an answer."""
        seed, size = self.context.recipe.seed, min(number, sum(self.sizes))
        pairs = batch_indices(seed, self.context.name, turn, size, self.sizes, self.weights)
        drawn = {prompt.messages: prompt for prompt in (self.prompts[part][place] for part, place in pairs)}
        asked = [(prompt, prompt_ids(self.tokenizer, prompt.messages)) for prompt in drawn.values()]
        for prompt, tokens in asked:
            if len(tokens) >= context_length:
                raise UserError(
                    f"{self.context.name}.prompts: the prompt {prompt.id} has {len(tokens)} tokens, the model's "
                    f"context is {context_length}; shorten or drop it, or use a model with a longer context"
                )
        return asked

    def sampled(self, policy: Decoder, asked: Sequence[Asked], size: int, stream: str) -> list[Group]:
        """``size`` responses to each prompt; ranks share the work, all get the whole. ``policy`` is whole on each."""
        engine = Engine(policy, slots=self.slots, decode=self.tokenizer.decode, autocast=self.precision)
        own = list(range(distributed.rank(), len(asked), distributed.world_size()))
        chosen = [asked[index] for index in own]
        seed = self.context.recipe.seed
        groups = sample_group_rollouts(engine, self.tokenizer, chosen, size, self.settings, seed, stream, own)
        return distributed.gather_in_order(groups, len(asked))


def monitored(
    context: StageContext, parts: Mapping[str, VerifierConfig], asked: Sequence[Asked], groups: Sequence[Group]
) -> dict[str, float]:
    """The mean score of all responses by each verifier, without those that it could not judge."""
    items = [(prompt, rollout) for (prompt, _), group in zip(asked, groups, strict=True) for rollout in group]
    scores = {name: verified(context, f"monitor.{name}", part, items) for name, part in parts.items()}
    return {name: statistics.fmean(score for score in found if score is not None) for name, found in scores.items()}


def verified(context: StageContext, key: str, part: VerifierConfig, items: Items) -> list[float | None]:
    """The score of each item by the verifier that the stage has at ``key``; None where it could not judge
    (``infra_error``). UserError if it could judge none."""
    function = RewardFunction({key: part})
    try:
        rewards = function.score(items)
    finally:
        function.close()
    found = [reward.parts[key] if reward.valid else None for reward in rewards]
    if all(score is None for score in found):
        raise UserError(
            f"{context.name}.{key} could judge none of {len(items)} answers ({function.failure}); mend it, or choose a "
            "verifier that suits the prompts"
        )
    return found
