"""How far a policy has moved from where its stage began: the KL by sampling, and the length of its answers."""

import copy
import statistics
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from trivium.config import DPOConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.generation.engine import Engine
from trivium.generation.rollouts import sample_group_rollouts
from trivium.generation.sampling import SamplingSettings
from trivium.model.decoder import Decoder
from trivium.model.lora import adapters_off, settings_of
from trivium.stages.context import StageContext
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.preference import PairedTask, held_out
from trivium.training.preference_update import fixed_log_probs
from trivium.training.reward import RankedTask


class Divergence:
    """Answers of the policy to some held-out prompts, and how likely it and the model it began as find them.

    Held whole on every rank: a frozen copy of ``policy`` as it is now, which must be before it is sharded or resumed.
    With adapters there is no copy: the policy without them is what it began as.
    """

    def __init__(
        self,
        context: StageContext,
        policy: Decoder,
        tokenizer: Tokenizer,
        device: torch.device,
        prompts: Sequence[Prompt],
    ) -> None:
        self.context, self.tokenizer, self.device = context, tokenizer, device
        self.config: DPOConfig = context.config
        sampling, limit = self.config.sampling, policy.config.context_length
        # at temperature 1 and over the whole vocabulary: the policy that is trained, and no other
        self.settings = SamplingSettings(
            temperature=1.0,
            max_new_tokens=sampling.max_new_tokens,
            stop_token_ids=tuple(tokenizer.stop_token_ids),
            stop_strings=tuple(sampling.stop),
        )
        distinct = {prompt.messages: prompt for prompt in prompts if _is_held_out(prompt, self.config)}
        asked = [(prompt, prompt_ids(tokenizer, prompt.messages)) for prompt in distinct.values()]
        self.asked = [(prompt, ids) for prompt, ids in asked if len(ids) < limit][: self.config.kl_prompts]
        if not self.asked:
            raise UserError(
                f"{context.name}.kl_prompts is {self.config.kl_prompts}, but no prompt is held out that leaves room "
                f"for an answer; raise {context.name}.validation_share, or set kl_prompts to 0"
            )
        adapted = settings_of(policy) is not None
        self.reference = None if adapted else copy.deepcopy(policy).eval().requires_grad_(False)

    def metrics(self, policy: Decoder) -> dict[str, float]:
        """``kl``: nats a response, the mean over responses of the log-probability under the policy less that under the
        model it began as; ``response_length``: tokens (all ranks must call).

        Draws are those of every other validation, so that the numbers differ by the policy alone.
        """
        whole = distributed.full_copy(policy)
        precision = torch.bfloat16 if self.config.precision == "bfloat16" else None
        engine = Engine(whole, slots=self.config.slots, decode=self.tokenizer.decode, autocast=precision)
        own = list(range(distributed.rank(), len(self.asked), distributed.world_size()))
        chosen, seed = [self.asked[index] for index in own], self.context.recipe.seed
        stream = f"{self.context.name}/divergence"
        groups = sample_group_rollouts(engine, self.tokenizer, chosen, 1, self.settings, seed, stream, own)
        rollouts = [group[0] for group in distributed.gather_in_order(groups, len(self.asked))]
        tasks = [
            PairedTask(RankedTask(prompt, (), ()), tuple(ids), (tuple(rollout.completion_tokens),))
            for (prompt, ids), rollout in zip(self.asked, rollouts, strict=True)
        ]
        budget = self.config.micro_batch_tokens
        now = fixed_log_probs(whole, tasks, budget, self.device)
        with adapters_off(whole) if self.reference is None else nullcontext(self.reference) as reference:
            before = fixed_log_probs(reference, tasks, budget, self.device)
        ratios = [a - b for (a,), (b,) in zip(now, before, strict=True)]
        lengths = [rollout.length for rollout in rollouts]
        return {"kl": statistics.fmean(ratios), "response_length": statistics.fmean(lengths)}


def _is_held_out(prompt: Prompt, config: DPOConfig) -> bool:
    return held_out(PairedTask(RankedTask(prompt, (), ()), (), ()), config.validation_share)
