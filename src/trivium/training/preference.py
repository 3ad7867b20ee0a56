"""Rankings as direct preference optimisation learns from them: pairs of answers with their tokens, and their loss.

What counts is the sum of the log-probabilities of an answer's tokens, its stop token included where the answer is
finished, at temperature 1 and over the whole vocabulary, whatever settings it was sampled with: the policy that is
trained is the one without them. An answer that does not fit into the context is left out with its pairs, of policy and
reference alike, since half an answer has another probability.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from trivium.config import DPOConfig
from trivium.data.ragged import batch_groups
from trivium.feedback.rankings.record import Ranking
from trivium.generation.sampling import SamplingSettings
from trivium.model.decoder import Decoder
from trivium.objectives.preference import dpo_loss
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.policy import completion_log_probs
from trivium.training.reward import RankedTask, group_tasks, split_tasks, tokenise
from trivium.training.shares import own_micro_batches

AS_TRAINED = SamplingSettings(temperature=1.0)
LogProbs = Sequence[float]  # of a task's answers, in their order


@dataclass(frozen=True)
class PairedTask:
    """A prompt and the distinct answers to it that are in a pair, as tokens.

    ``pairs``: for each (chosen, rejected), numbers of ``answers``, what it counts. The pairs of one ranking add up to
    1, so ``weight`` is the number of rankings.
    """

    task: RankedTask
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    pairs: Mapping[tuple[int, int], float]

    @property
    def size(self) -> int:
        """Tokens in a forward pass, which holds the prompt once."""
        return len(self.prompt) + sum(map(len, self.answers))

    @property
    def weight(self) -> float:
        return sum(self.pairs.values())


def paired_tasks(rankings: Iterable[Ranking], tokenizer: Tokenizer, limit: int) -> tuple[list[PairedTask], int]:
    """Tasks that hold a strict pair, and how many responses are longer than ``limit`` tokens with their prompt.

    Tasks are made as for a reward model (``group_tasks``). Tied and unranked responses give no pair. A ranking counts
    1, shared out evenly among its pairs: one of nine responses has 36 pairs, and would else count as much as 36 of two.
    A judge's ranking counts by its tiers, whatever its probabilities are.
    """
    tasks, too_long = tokenise(group_tasks(rankings), tokenizer, limit, "ignore", soft=False)
    found = [_paired(task) for task in tasks]
    return [task for task in found if task.pairs], too_long


def held_out(task: PairedTask, share: float) -> bool:
    """Whether the task is for validation: ``share`` of the conversations by a hash of their opening (``split_tasks``),
    which lie among those that a reward model of a ``test_share`` at least as large is tested with."""
    return bool(split_tasks([task.task], share, 0.0)[1])


def _paired(task: RankedTask) -> PairedTask:
    """The pairs of a task. Two responses of equal tokens are one answer, and an answer is no pair with itself."""
    weights: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for ranking in task.rankings:
        told = [(task.tokens[i][task.prompt_length :], task.tokens[j][task.prompt_length :]) for i, j in ranking.pairs]
        pairs = [(chosen, rejected) for chosen, rejected in told if chosen != rejected]
        for pair in pairs:
            weights[pair] = weights.get(pair, 0.0) + 1 / len(pairs)
    compared = {answer for pair in weights for answer in pair}
    own = (ids[task.prompt_length :] for ids in task.tokens if ids)
    answers = tuple(dict.fromkeys(answer for answer in own if answer in compared))  # in the order of the responses
    number = {answer: place for place, answer in enumerate(answers)}
    pairs_of = {(number[chosen], number[rejected]): weight for (chosen, rejected), weight in weights.items()}
    prompt = next((ids[: task.prompt_length] for ids in task.tokens if ids), ())
    return PairedTask(task, prompt, answers, pairs_of)


def answer_log_probs(decoder: Decoder, tasks: Sequence[PairedTask], device: torch.device, share: bool = True) -> Tensor:
    """Summed log-probabilities (A,) float64 with gradient of all answers of ``tasks``, in order.

    A prompt stands in the batch once for all its answers (``share``), and each answer once, however many pairs it is
    in. Without tasks, as on a rank whose share is empty, a token is read whose log-probability is in no sum, since
    every rank takes part in every forward pass.
    """
    groups, rows, number = [], [], 0
    for task in tasks:
        groups.append((task.prompt, [answer for answer in task.answers if answer]))
        rows += [number + place for place, answer in enumerate(task.answers) if answer]
        number += len(task.answers)  # an empty answer that was cut off has no token: its sum is 0
    batch = batch_groups(groups or [([0], [[0]])], share).to(device)
    log_probs, _ = completion_log_probs(decoder, batch, AS_TRAINED)
    # sums of hundreds of tokens, of which small differences count
    of = torch.tensor(rows or [0], device=device)[batch.sequences]
    sums = torch.zeros(max(number, 1), dtype=torch.float64, device=device).index_add(0, of, log_probs.double())
    return sums[:number]


@torch.no_grad()
def fixed_log_probs(
    decoder: Decoder, tasks: Sequence[PairedTask], budget: int, device: torch.device
) -> list[list[float]]:
    """``answer_log_probs`` of each task without gradient, at most ``budget`` tokens at a time: the reference's, which
    stay what they are. Ranks share the work and all get the whole."""
    own: list[list[float]] = []
    for part in own_micro_batches([task.size for task in tasks], budget):
        chosen = [tasks[item] for item in part]
        flat = answer_log_probs(decoder, chosen, device).tolist()
        ends = list(accumulate(len(task.answers) for task in chosen))
        own += [flat[end - len(task.answers) : end] for task, end in zip(chosen, ends, strict=True)]
    return distributed.gather_in_order(own, len(tasks))


class Update:
    """The tasks of one update with their ``reference`` log-probabilities: losses of its micro-batches are sums over
    the weight of all of them, so cuts do not matter."""

    def __init__(
        self, tasks: Sequence[PairedTask], reference: Sequence[LogProbs], config: DPOConfig, device: torch.device
    ) -> None:
        self.tasks, self.reference, self.config, self.device = tasks, reference, config, device
        self.total = sum(task.weight for task in tasks)
        self.tokens = sum(task.size for task in tasks)

    def micro_batches(self) -> list[list[int]]:
        return own_micro_batches([task.size for task in self.tasks], self.config.micro_batch_tokens)

    def loss(self, decoder: Decoder, part: Sequence[int], share: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """The share of the tasks ``part``; beside the loss's metrics the mean log-probabilities of both answers."""
        tasks = [self.tasks[item] for item in part]
        sums = answer_log_probs(decoder, tasks, self.device, share)
        fixed = [value for item in part for value in self.reference[item]]
        reference = torch.tensor(fixed, dtype=sums.dtype, device=self.device)
        starts = [0, *accumulate(len(task.answers) for task in tasks)]
        flat = [
            (start + i, start + j, weight)
            for task, start in zip(tasks, starts, strict=False)
            for (i, j), weight in task.pairs.items()
        ]
        chosen, rejected = (torch.tensor([pair[side] for pair in flat], dtype=torch.long) for side in (0, 1))
        weights = torch.tensor([pair[2] for pair in flat], dtype=sums.dtype, device=self.device)
        chosen, rejected = chosen.to(self.device), rejected.to(self.device)
        loss, metrics = dpo_loss(
            sums[chosen],
            sums[rejected],
            reference[chosen],
            reference[rejected],
            beta=self.config.beta,
            label_smoothing=self.config.label_smoothing,
            weights=weights,
            total=self.total,
        )
        with torch.no_grad():
            metrics["chosen_log_prob"] = (weights * sums[chosen]).sum() / self.total
            metrics["rejected_log_prob"] = (weights * sums[rejected]).sum() / self.total
        return loss, metrics
