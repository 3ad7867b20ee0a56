"""A round of iterated DPO: the policy answers, a judge scores the answers, the best against the worst is a pair.

Yuan et al., *Self-Rewarding Language Models*, 2024, arXiv 2401.10020, where the judge is the policy itself.

A round is two files. ``iterations.jsonl`` has a row for each, and ``iterations/001.jsonl`` its pairs as rankings, with
the log-probabilities of both answers under the policy as it was: the reference of the round, which a resumed stage
thus knows to the last bit although the policy has moved on. The pairs are written last, and where they are there
nothing is sampled or judged again.
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trivium import files
from trivium.config import DPOConfig, RankingSourceConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.judges.base import Answer
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.calls import Calls
from trivium.feedback.judges.judge import Judge
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.record import Ranking, Response, tiers_from_scores
from trivium.feedback.rankings.sources import read_rankings
from trivium.generation.rollouts import Rollout
from trivium.model.decoder import Decoder
from trivium.stages.answers import Answers, monitored
from trivium.stages.context import StageContext
from trivium.stages.sampler import Asked
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.policy import Group
from trivium.training.preference import LogProbs, PairedTask, fixed_log_probs, held_out, paired_tasks

EQUAL = 1e-6  # scores that differ by no more are the same
REFERENCE = "reference_log_probs"  # in a ranking's metadata: one a response, under the policy that answered


@dataclass(frozen=True)
class Lesson:
    """What is learned from until the next round: tasks and their reference log-probabilities, some held out."""

    train: list[PairedTask]
    reference: list[LogProbs]
    held_out: list[PairedTask]
    held_out_reference: list[LogProbs]

    @classmethod
    def of(cls, tasks: Sequence[PairedTask], reference: Sequence[LogProbs], share: float) -> "Lesson":
        both = list(zip(tasks, reference, strict=True))
        train = [item for item in both if not held_out(item[0], share)]
        rest = [item for item in both if held_out(item[0], share)]
        return cls([a for a, _ in train], [b for _, b in train], [a for a, _ in rest], [b for _, b in rest])


def round_of(step: int, steps: int, rounds: int) -> int:
    """The round, from 0, that ``step`` belongs to: round n begins with step floor(n * steps / rounds).

    >>> [round_of(step, 7, 3) for step in range(7)]
    [0, 0, 1, 1, 2, 2, 2]
    """
    return ((step + 1) * rounds - 1) // steps


class Rounds:
    """The rounds of a stage. ``rows``: what is told of each so far; ``autocast``: the compute type of the loop."""

    def __init__(
        self,
        context: StageContext,
        tokenizer: Tokenizer,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.context, self.tokenizer, self.device, self.autocast = context, tokenizer, device, autocast
        self.config: DPOConfig = context.config
        config = self.config
        precision = torch.bfloat16 if config.precision == "bfloat16" else None
        self.answers = Answers(context, config.prompts, config.sampling, config.slots, tokenizer, precision)
        self.calls: Calls | None = None  # those of the round before: a budget is for all rounds of a process
        self.table = context.directory / "iterations.jsonl"

    def begin(self, number: int, policy: Decoder, first_step: bool) -> Lesson:
        """The pairs of round ``number`` (from 0), made from ``policy`` unless they are there (all ranks must call).

        UserError where they are gone although the policy has learned from them already.
        """
        path = self.context.directory / "iterations" / f"{number + 1:03d}.jsonl"
        if not _shared(path.is_file()):
            if not first_step:
                raise UserError(
                    f"{path} is gone, and the policy has moved on since it was written; put it back, or run the stage "
                    "again from its beginning in another directory"
                )
            self._make(number, policy, path)
        rankings = read_rankings([RankingSourceConfig(source=str(path))])
        tasks, too_long = paired_tasks(rankings, self.tokenizer, policy.config.context_length)
        lesson = Lesson.of(tasks, [_reference(task, path) for task in tasks], self.config.validation_share)
        if not lesson.train:
            raise UserError(
                f"{self.context.name}: iteration {number + 1} leaves no pair to learn from: of {len(rankings)}, "
                f"{len(lesson.held_out)} are held out for validation and {too_long} answers are longer than the "
                f"model's context; ask more prompts with {self.context.name}.tasks"
            )
        return lesson

    def rows(self) -> list[dict[str, Any]]:
        lines = self.table.read_text(encoding="utf-8").splitlines() if self.table.is_file() else []
        return [json.loads(line) for line in lines]

    def after(self, policy: Decoder) -> dict[str, Any] | None:
        """What the monitors say of the policy after its last round, on the prompts that would come next."""
        if not self.config.monitor:
            return None
        asked, groups = self._answered(self.config.iterations, distributed.full_copy(policy))
        return {"tasks": len(asked), **self._told(asked, groups)} if distributed.is_main() else None

    # ---- making a round ---------------------------------------------------------------------------------------------

    def _make(self, number: int, policy: Decoder, path: Path) -> None:
        whole = distributed.full_copy(policy)
        asked, groups = self._answered(number, whole)
        # the first rank asks the judge, and all go on from what it said
        made = _shared(self._judged(number, whole, asked, groups) if distributed.is_main() else ([], {}))
        rankings, row = made
        tasks, too_long = paired_tasks(rankings, self.tokenizer, policy.config.context_length)
        with self.autocast():
            found = fixed_log_probs(policy, tasks, self.config.micro_batch_tokens, self.device)
        known = {task.task.rankings[0].id: values for task, values in zip(tasks, found, strict=True)}
        whole_rankings = [
            replace(ranking, metadata={**ranking.metadata, REFERENCE: known[ranking.id]})
            if ranking.id in known
            else ranking
            for ranking in rankings
        ]
        if distributed.is_main():
            rows = [*self.rows()[:number], {**row, "too_long": too_long}]
            files.write_text(self.table, "".join(f"{json.dumps(entry)}\n" for entry in rows))
            write_rankings(path, whole_rankings)
        distributed.barrier()

    def _answered(self, number: int, whole: Decoder) -> tuple[list[Asked], list[Group]]:
        asked = self.answers.asked(number, self.config.tasks, whole.config.context_length)
        stream = f"{self.context.name}/iteration-{number + 1}"
        return asked, self.answers.sampled(whole, asked, self.config.responses, stream)

    def _told(self, asked: Sequence[Asked], groups: Sequence[Group]) -> dict[str, Any]:
        lengths = [rollout.length for group in groups for rollout in group]
        return {
            "response_length": statistics.fmean(lengths),
            "monitor": monitored(self.context, self.config.monitor, asked, groups),
        }

    def _judged(
        self, number: int, whole: Decoder, asked: Sequence[Asked], groups: Sequence[Group]
    ) -> tuple[list[Ranking], dict[str, Any]]:
        """A ranking of two answers for each prompt that gives one, and the row of the round."""
        told = self._told(asked, groups)
        identity = weights_hash(whole, self.tokenizer)
        with self._judge(whole, identity) as judge:
            if self.calls is not None:
                judge.calls.go_on_from(self.calls)
            before, self.calls = judge.usage.as_dict(), judge.calls
            candidates = [_distinct(group) for group in groups]
            # of the prompt only what was asked: a judge is not told what would be right
            shown = [Prompt(prompt.id, prompt.messages) for prompt, _ in asked]
            answers = [
                Answer(prompt, rollout.text) for prompt, own in zip(shown, candidates, strict=True) for rollout in own
            ]
            given = iter(judge.score(answers))
        scores = [[next(given).value for _ in own] for own in candidates]
        known = [score for own in scores for score in own if score is not None]
        best = [_best_and_worst(own, of_own) for own, of_own in zip(candidates, scores, strict=True)]
        pairs = [pair for pair in best if pair is not None and pair.gap > EQUAL]
        row = {
            "iteration": number + 1,
            "tasks": len(asked),
            "pairs": len(pairs),
            "equal": sum(pair is not None and pair.gap <= EQUAL for pair in best),
            "missing": len(answers) - len(known),
            "score": statistics.fmean(known) if known else None,
            **told,
            "usage": _difference(judge.usage.as_dict(), before),
        }
        if not pairs:
            raise self._no_pairs(row, len(answers))
        row["gap"] = statistics.fmean(pair.gap for pair in pairs)
        row["chosen_length"] = statistics.fmean(pair.chosen.length for pair in pairs)
        row["rejected_length"] = statistics.fmean(pair.rejected.length for pair in pairs)
        rankings = [
            self._ranking(prompt, pair, judge, identity, number)
            for (prompt, _), pair in zip(asked, best, strict=True)
            if pair is not None and pair.gap > EQUAL
        ]
        return rankings, row

    def _judge(self, whole: Decoder, identity: str) -> Judge:
        """A judge for this round: one that is the policy changes with it, and another would hold memory meanwhile."""
        assert self.config.judge is not None
        return build_judge(
            self.config.judge,
            place=self.context.place,
            cache=self.context.directory.parent / "judge.db",
            seed=self.context.recipe.seed,
            device=self.device,
            policy=(whole, self.tokenizer, identity),
        )

    def _no_pairs(self, row: dict[str, Any], answers: int) -> UserError:
        name = self.context.name
        return UserError(
            f"{name}: iteration {row['iteration']} gave no pair to learn from: of {row['tasks']} prompts, "
            f"{row['equal']} have answers of equal score, and {row['missing']} of {answers} answers have no score; "
            f"raise {name}.sampling.temperature or responses, or take another judge or constitution"
        )

    def _ranking(self, prompt: Prompt, pair: "_Pair", judge: Judge, identity: str, number: int) -> Ranking:
        sampling = self.config.sampling.model_dump(mode="json")
        responses = tuple(
            Response(rollout.text, self.context.name, identity, sampling, rollout.finish_reason, {"score": score})
            for rollout, score in ((pair.chosen, pair.best), (pair.rejected, pair.worst))
        )
        about = {"judge": judge.identity, "iteration": number + 1}
        tiers = tiers_from_scores([pair.best, pair.worst])
        return Ranking(prompt, responses, tiers, judge.name, "ai", metadata=about).with_id()


@dataclass(frozen=True)
class _Pair:
    chosen: Rollout
    rejected: Rollout
    best: float
    worst: float

    @property
    def gap(self) -> float:
        return self.best - self.worst


def _distinct(group: Group) -> list[Rollout]:
    """The first rollout of each text, in their order."""
    found: dict[str, Rollout] = {}
    for rollout in group:
        found.setdefault(rollout.text, rollout)
    return list(found.values())


def _best_and_worst(rollouts: Sequence[Rollout], scores: Sequence[float | None]) -> _Pair | None:
    """The first of the highest score against the first of the lowest; None where fewer than two answers have one.

    A prompt whose answers are all alike, and scored, has a gap of 0: there is nothing to choose.
    """
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    if not known or len(known) < 2 <= len(rollouts):
        return None
    best, worst = max(known), min(known, key=lambda item: (item[0], -item[1]))
    return _Pair(rollouts[-best[1]], rollouts[-worst[1]], best[0], worst[0])


def _difference(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {name: now[name] - before[name] for name in now}


def _reference(task: PairedTask, path: Path) -> LogProbs:
    found = task.task.rankings[0].metadata.get(REFERENCE)
    if not isinstance(found, list) or len(found) != len(task.answers):
        raise UserError(
            f"{path}: the ranking {task.task.rankings[0].id} has no {REFERENCE} of its two answers; put back the file "
            "that the stage wrote"
        )
    return [float(value) for value in found]


def _shared(value: Any) -> Any:
    """What the first rank holds, on all of them (all must call)."""
    return distributed.gather_in_order([value], distributed.world_size())[0]


def weights_hash(decoder: Decoder, tokenizer: Tokenizer) -> str:
    """A hash of all weights and the tokenizer: what a policy that judges itself is known by."""
    digest = hashlib.sha256(tokenizer.fingerprint.encode())
    for name, parameter in decoder.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()
