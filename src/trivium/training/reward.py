"""Rankings as a reward model learns from them: tasks and their tokens, the split by prompt, the loss of an update.

A task is a prompt with its responses and everything that was said about them: each response is scored once an update,
and all rankings of the task use that score.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.config import RewardConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.grouping import effective, prompt_share
from trivium.feedback.rankings.record import UNRANKED, Ranking, Response
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder
from trivium.model.layout import ragged_layout
from trivium.objectives.ranking import Preferences, pairwise_loss, plackett_luce_loss, total_weight
from trivium.streams import generator, stream_key
from trivium.text.chat import prompt_ids, response_ids
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.shares import own_micro_batches


@dataclass(frozen=True)
class RankedTask:
    """``tokens``: what the model reads of each response, () where that is longer than its context; such a response is
    unranked in every one of the ``rankings``. The first ``prompt_length`` of them are the prompt's, alike in all."""

    prompt: Prompt
    responses: tuple[Response, ...]
    rankings: tuple[Ranking, ...]
    tokens: tuple[tuple[int, ...], ...] = ()
    prompt_length: int = 0

    @property
    def read(self) -> list[tuple[int, ...]]:
        """The tokens of the responses that fit."""
        return [ids for ids in self.tokens if ids]

    @property
    def size(self) -> int:
        """Tokens in a forward pass, which holds the prompt once."""
        return self.prompt_length + sum(len(ids) - self.prompt_length for ids in self.read)


def group_tasks(rankings: Iterable[Ranking]) -> list[RankedTask]:
    """Tasks in the order of their first ranking: the same messages, and the same responses under the same numbers.

    Corrected and skipped rankings are left out; one that comes from two sources counts once. What an annotator says
    twice without correcting it (a judge asked in both orders, a rater asked again) is two rankings.
    """
    groups: dict[tuple[object, ...], dict[str, Ranking]] = {}
    for ranking in effective(rankings):
        if ranking.skipped is None:
            answers = tuple((response.text, response.finish_reason) for response in ranking.responses)
            ranking = ranking.with_id()
            groups.setdefault((ranking.prompt.messages, answers), {})[ranking.id] = ranking
    tasks = []
    for group in groups.values():
        of_task = tuple(group.values())
        tasks.append(RankedTask(of_task[0].prompt, of_task[0].responses, of_task))
    return tasks


def by_probabilities(config: RewardConfig) -> bool:
    """Whether rankings that carry probabilities are learned from by them, and not by their tiers."""
    return config.preferences == "soft" and config.loss == "pairwise"


def tokenise(
    tasks: Sequence[RankedTask], tokenizer: Tokenizer, limit: int, ties: str, soft: bool = True, alone: bool = False
) -> tuple[list[RankedTask], int]:
    """Tasks with their tokens, without those that leave nothing to compare; how many responses were too long.

    ``soft``: see ``by_probabilities``. A ranking with probabilities that lost all their pairs then leaves nothing: what
    its tiers say of the others was never compared. ``alone``: one response that is left says something by itself.
    """

    def left(ranking: Ranking, whole: Ranking) -> bool:
        if soft and whole.preferences:
            return bool(ranking.preferences)
        return any(tier != UNRANKED for tier in ranking.tiers) if alone else total_weight(ranking.tiers, ties=ties) > 0

    kept, dropped = [], 0
    for task in tasks:
        messages, tokens = task.prompt.messages, []
        for response in task.responses:
            ids = response_ids(tokenizer, messages, response.text, response.finish_reason == "stop")
            tokens.append(tuple(ids) if len(ids) <= limit else ())
        dropped += sum(not ids for ids in tokens)
        rankings = tuple(_only(ranking, tokens) for ranking in task.rankings)
        compared = tuple(
            ranking for ranking, whole in zip(rankings, task.rankings, strict=True) if left(ranking, whole)
        )
        if compared:
            length = len(prompt_ids(tokenizer, messages))
            kept.append(replace(task, rankings=compared, tokens=tuple(tokens), prompt_length=length))
    return kept, dropped


def _only(ranking: Ranking, tokens: Sequence[tuple[int, ...]]) -> Ranking:
    tiers = tuple(tier if ids else UNRANKED for tier, ids in zip(ranking.tiers, tokens, strict=True))
    preferences = tuple(said for said in ranking.preferences if tokens[said[0]] and tokens[said[1]])
    return ranking if tiers == ranking.tiers else replace(ranking, tiers=tiers, preferences=preferences)


def split_tasks(
    tasks: Sequence[RankedTask], validation_share: float, test_share: float, fold: int = 0
) -> tuple[list[RankedTask], list[RankedTask], list[RankedTask]]:
    """Tasks to train on, to validate and to test with. No prompt is in two parts, nor two branches of a conversation.

    A hash of the conversation's opening decides: the same parts in every run and for every seed, so that models are
    compared on prompts that none has seen. It is another hash than that of the ``portion`` of a source. ``fold`` turns
    the parts round by as many test shares.
    """
    parts: tuple[list[RankedTask], list[RankedTask], list[RankedTask]] = ([], [], [])
    for task in tasks:
        place = (stream_key(0, "reward/split", repr(prompt_share(task.prompt))) / 2**63 - fold * test_share) % 1
        parts[2 if place < test_share else 1 if place < test_share + validation_share else 0].append(task)
    return parts


def head_weights(tasks: Sequence[RankedTask], config: RewardConfig, seed: int, stage: str) -> list[list[list[float]]]:
    """Task, head, ranking: how much each ranking counts for each head, by annotator.

    Several heads see a bootstrap sample of the rankings each (Efron, 1979): what they do not agree on is what the data
    leave open. One head sees all of them once.
    """
    number = sum(len(task.rankings) for task in tasks)
    counts = np.ones((config.heads, number))
    if config.heads > 1:
        for head in range(config.heads):
            random = generator(seed, f"{stage}/bootstrap", head)
            counts[head] = random.multinomial(number, np.full(number, 1 / number))
    weights, first = [], 0
    for task in tasks:
        own = [config.annotator_weights.get(ranking.annotator, 1.0) for ranking in task.rankings]
        weights.append((counts[:, first : first + len(own)] * own).tolist())
        first += len(own)
    return weights


def check_rankings(tasks: Sequence[RankedTask], config: RewardConfig, stage: str) -> None:
    """Settings that name what the rankings do not have are a UserError, as is a weight below 0."""
    rankings = [ranking for task in tasks for ranking in task.rankings]
    names = {ranking.annotator for ranking in rankings}
    for name, weight in config.annotator_weights.items():
        if name not in names:
            known = ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
            raise UserError(f"{stage}.annotator_weights names {name!r}, who ranked nothing here; there are {known}")
        if weight < 0:
            raise UserError(f"{stage}.annotator_weights.{name} is {weight}; a weight is 0 or more")
    if config.margin and not any(ranking.strength for ranking in rankings):
        raise UserError(
            f"{stage}.margin is {config.margin}, but no ranking says how strong its preference is; set it to 0, or "
            "take rankings with a strength"
        )
    with_probabilities = sum(bool(ranking.preferences) for ranking in rankings)
    if with_probabilities and config.preferences == "soft" and not by_probabilities(config):
        raise UserError(
            f"{stage}.loss is {config.loss}, which learns from tiers alone, but {with_probabilities} of "
            f"{len(rankings)} rankings carry probabilities; set {stage}.preferences to tiers, or the loss to pairwise"
        )


def task_scores(decoder: Decoder, tasks: Sequence[RankedTask], device: torch.device) -> Tensor:
    """Raw scores (N, heads) float32 with gradient of all responses that fit, each read at its last token, by length.

    A prompt stands in the batch once, whatever the number of its responses. Without tasks, as on a rank whose share is
    empty, one token is scored, since every rank takes part in every forward pass.
    """
    tokens: list[int] = []
    lengths: list[int] = []
    prefixes: list[tuple[int, int]] = []
    last: list[int] = []
    for prompt, responses in [(task.read[0][: task.prompt_length], task.read) for task in tasks] or [((0,), [(0,)])]:
        tokens.extend(prompt)
        prefixes.append((len(prompt), len(responses)))
        end = len(tokens) - 1
        for ids in responses:
            own = ids[len(prompt) :]
            tokens.extend(own)
            lengths.append(len(own))
            last.append(len(tokens) - 1 if own else end)  # an empty answer that was cut off ends with its prompt
    layout = ragged_layout(lengths, prefixes).to(device)
    flat, rows = torch.tensor(tokens, device=device), torch.tensor(last, device=device)

    def head(hidden: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):  # differences of scores need the digits
            return F.linear(hidden[rows].float(), weight.float())

    return decoder(flat, layout.positions, GridAttention(layout), head)  # type: ignore[no-any-return]


class Update:
    """The tasks of one update and what they add up to: losses of its micro-batches are sums over global totals."""

    def __init__(
        self,
        tasks: Sequence[RankedTask],
        weights: Sequence[Sequence[Sequence[float]]],
        config: RewardConfig,
        device: torch.device,
    ) -> None:
        self.tasks, self.weights, self.config, self.device = tasks, weights, config, device
        self.soft = by_probabilities(config)
        entries = _entries(tasks, self.soft)
        self.totals = [
            total_weight(
                entries.tiers,
                entries.numbers,
                ties=config.ties,
                reduction=config.reduction,
                weights=of_head,
                preferences=entries.preferences,
            )
            for of_head in self._weights(range(len(tasks)))
        ]
        self.tokens = sum(task.size for task in tasks)

    def micro_batches(self) -> list[list[int]]:
        return own_micro_batches([task.size for task in self.tasks], self.config.micro_batch_tokens)

    def loss(self, decoder: Decoder, part: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The share of the tasks ``part``: the mean over heads, each with its own loss and its own total."""
        chosen = [self.tasks[item] for item in part]
        entries = _entries(chosen, self.soft)
        scores = task_scores(decoder, chosen, self.device)
        flat = scores[torch.tensor(entries.rows, dtype=torch.long, device=self.device)]
        losses, metrics = [], []
        for head, (weights, total) in enumerate(zip(self._weights(part), self.totals, strict=True)):
            loss, told = self._of_head(flat[:, head], entries, weights, total)
            losses.append(loss)
            metrics.append(told)
        means = {name: torch.stack([told[name] for told in metrics]).mean() for name in metrics[0]}
        return torch.stack(losses).mean(), means

    def _of_head(
        self, scores: Tensor, entries: "_Entries", weights: list[float], total: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, tiers, numbers = self.config, entries.tiers, entries.numbers
        if config.loss == "plackett_luce":
            return plackett_luce_loss(
                scores, tiers, numbers, ties=config.ties, centering=config.centering, weights=weights, total=total
            )
        return pairwise_loss(
            scores,
            tiers,
            numbers,
            ties=config.ties,
            tie_parameter=config.tie_parameter,
            margin=torch.tensor(entries.strengths, device=self.device) * config.margin,
            label_smoothing=config.label_smoothing,
            centering=config.centering,
            reduction=config.reduction,
            weights=weights,
            total=total,
            preferences=entries.preferences,
        )

    def _weights(self, part: Sequence[int]) -> list[list[float]]:
        """Head, ranking: the weights of the tasks ``part``."""
        return [[weight for item in part for weight in self.weights[item][head]] for head in range(self.config.heads)]


@dataclass
class _Entries:
    """For each response in each ranking: its row among the scores, its tier, its ranking. For each ranking: its
    strength. Of rankings that are learned from by their probabilities: pairs of entries, and the probabilities."""

    rows: list[int] = field(default_factory=list)
    tiers: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    strengths: list[float] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)

    @property
    def preferences(self) -> Preferences | None:
        return (self.pairs, self.probabilities) if self.pairs else None


def _entries(tasks: Sequence[RankedTask], soft: bool) -> _Entries:
    found, start = _Entries(), 0
    for task in tasks:
        row_of = {number: start + row for row, number in enumerate(n for n, ids in enumerate(task.tokens) if ids)}
        for ranking in task.rankings:
            entry_of = {number: len(found.rows) + place for place, number in enumerate(row_of)}
            for number, row in row_of.items():
                found.rows.append(row)
                found.tiers.append(ranking.tiers[number])
                found.numbers.append(len(found.strengths))
            found.strengths.append(float(ranking.strength or 0.0))
            for first, second, probability in ranking.preferences if soft else ():
                found.pairs.append((entry_of[first], entry_of[second]))
                found.probabilities.append(probability)
        start += len(row_of)
    return found


class Measured(Protocol):
    """What an update of any stage shows of itself: its parts, and what each adds to the loss and the metrics."""

    def micro_batches(self) -> list[list[int]]: ...
    def loss(self, decoder: Decoder, part: Sequence[int], /) -> tuple[Tensor, dict[str, Tensor]]: ...


@torch.no_grad()
def held_out_metrics(decoder: Decoder, update: Measured) -> dict[str, float]:
    """Loss and metrics of ``update`` without an update, over all ranks."""
    sums: dict[str, Tensor] = {}
    for part in update.micro_batches():
        loss, metrics = update.loss(decoder, part)
        for name, value in {"loss": loss, **metrics}.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value
    return {name: float(distributed.sum_over_ranks(value)) for name, value in sums.items()}
