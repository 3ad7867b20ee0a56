"""A round of iterated DPO: the policy answers, a judge or a reward scores, and what it prefers is learned from.

Yuan et al., *Self-Rewarding Language Models*, 2024, arXiv 2401.10020, where the judge is the policy itself. With as
many rounds as steps it is online DPO: Guo et al., *Direct Language Model Alignment from Online AI Feedback*, 2024,
arXiv 2402.04792.

A round is two files. ``iterations.jsonl`` has a row for each, and ``iterations/001.jsonl`` its answers as rankings,
with their log-probabilities under the policy as it was: the reference of the round, which a resumed stage thus knows
to the last bit although the policy has moved on. The rankings are written last, and where they are there nothing is
sampled or scored again.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trivium import files
from trivium.config import DPOConfig, RankingSourceConfig
from trivium.errors import UserError
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.sources import read_rankings
from trivium.model.decoder import Decoder
from trivium.stages.answers import Answers, monitored
from trivium.stages.context import StageContext
from trivium.stages.lesson import Known, Lesson, mismatched, read_reference, shared, weights_hash
from trivium.stages.round_scores import EQUAL, ByJudge, ByReward, Preferred, Scored, preferred
from trivium.stages.sampler import Asked
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.policy import Group
from trivium.training.preference import LogProbs, PairedTask, paired_tasks, with_others

REFERENCE = "reference_log_probs"  # in a ranking's metadata: one an answer, under the policy that answered
ELSEWHERE = "mismatched_log_probs"  # the same under a prompt that is not theirs


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
        if config.tasks > (there := sum(self.answers.sizes)):
            asks = f"{context.name}.tasks is {config.tasks}, but there are {there} prompts"
            context.progress.note(f"{asks}: each round asks all")
        self.scorer: ByJudge | ByReward | None = None  # the first rank asks, and all go on from what it was told
        if distributed.is_main():
            self.scorer = ByReward(context, device) if config.judge is None else ByJudge(context, tokenizer, device)
        self.table = context.directory / "iterations.jsonl"

    def close(self) -> None:
        if self.scorer is not None:
            self.scorer.close()

    def begin(self, number: int, policy: Decoder, first_step: bool) -> Lesson:
        """What round ``number`` (from 0) teaches, made from ``policy`` unless it is there (all ranks must call).

        Nothing, where a later round than the first has no pair: a policy whose answers are all alike good, or alike
        bad, may have others further on. UserError where the first has none, and where a round is gone although the
        policy has learned from it already.
        """
        path = self.context.directory / "iterations" / f"{number + 1:03d}.jsonl"
        if not shared(path.is_file()):
            if not first_step:
                raise UserError(
                    f"{path} is gone, and the policy has moved on since it was written; put it back, or run the stage "
                    "again from its beginning in another directory"
                )
            self._make(number, policy, path)
        rankings = read_rankings([RankingSourceConfig(source=str(path))]) if path.stat().st_size else []
        tasks, too_long = self._tasks(rankings, policy.config.context_length)
        reference, elsewhere = (
            [_kept(task, name, path, self.config) for task in tasks] for name in (REFERENCE, ELSEWHERE)
        )
        lesson = Lesson.of(Known(tasks, reference, elsewhere), self.config.validation_share)
        if not lesson.train.tasks:
            why = (
                f"{self.context.name}: iteration {number + 1} leaves no pair to learn from: of {len(rankings)}, "
                f"{len(lesson.held_out.tasks)} are held out for validation and {too_long} answers are longer than the "
                "model's context"
            )
            if number == 0:
                raise UserError(f"{why}; ask more prompts with {self.context.name}.tasks")
            self.context.progress.note(f"{why}; its steps are left out")
        return lesson

    def rows(self) -> list[dict[str, Any]]:
        lines = self.table.read_text(encoding="utf-8").splitlines() if self.table.is_file() else []
        return [json.loads(line) for line in lines]

    def generated(self, number: int) -> int:
        """Tokens generated in a round, on all ranks the same."""
        return int(shared(self.rows()[number].get("generated", 0) if distributed.is_main() else 0))

    def after(self, policy: Decoder) -> dict[str, Any] | None:
        """What the monitors say of the policy after its last round, which a budget may have brought forward, on the
        prompts that would come next."""
        if not self.config.monitor:
            return None
        rounds = shared(len(self.rows()) if distributed.is_main() else 0)
        asked, groups = self._answered(rounds, distributed.full_copy(policy))
        return {"tasks": len(asked), **self._told(asked, groups)} if distributed.is_main() else None

    # ---- making a round ---------------------------------------------------------------------------------------------

    def _tasks(self, rankings: Sequence[Ranking], limit: int) -> tuple[list[PairedTask], int]:
        tasks, too_long = paired_tasks(rankings, self.tokenizer, limit, self.config)
        return with_others(tasks, limit) if mismatched(self.config) else tasks, too_long

    def _make(self, number: int, policy: Decoder, path: Path) -> None:
        whole = distributed.full_copy(policy)
        asked, groups = self._answered(number, whole)
        made = shared(self._scored(number, whole, asked, groups) if distributed.is_main() else ([], {}))
        rankings, row = made
        tasks, too_long = self._tasks(rankings, policy.config.context_length)
        with self.autocast():
            found = read_reference(policy, tasks, self.config, self.device) if tasks else ([], [])
        known = {
            task.task.rankings[0].id: dict(zip((REFERENCE, ELSEWHERE), both, strict=True))
            for task, *both in zip(tasks, *found, strict=True)
        }
        whole_rankings = [
            replace(ranking, metadata={**ranking.metadata, **_filled(known.get(ranking.id, {}))})
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
            "generated": sum(lengths),
            "monitor": monitored(self.context, self.config.monitor, asked, groups),
        }

    def _scored(
        self, number: int, whole: Decoder, asked: Sequence[Asked], groups: Sequence[Group]
    ) -> tuple[list[Ranking], dict[str, Any]]:
        """A ranking for each prompt whose answers differ in score, and the row of the round."""
        assert self.scorer is not None
        told = self._told(asked, groups)
        identity = weights_hash(whole, self.tokenizer)
        scored = self.scorer.score(whole, identity, asked, groups)
        known = [score for own in scored.scores for score in own if score is not None]
        answers = sum(map(len, scored.candidates))
        found = [
            preferred(own, of_own, self.config.pairs)
            for own, of_own in zip(scored.candidates, scored.scores, strict=True)
        ]
        used = [
            (prompt, one) for (prompt, _), one in zip(asked, found, strict=True) if one is not None and one.gap > EQUAL
        ]
        row = {
            "iteration": number + 1,
            "tasks": len(asked),
            "pairs": sum(one.pairs for _, one in used),
            "equal": sum(one is not None and one.gap <= EQUAL for one in found),
            "missing": answers - len(known),
            "score": statistics.fmean(known) if known else None,
            **told,
            **scored.row,
        }
        if not used and (number == 0 or not known):
            raise self._no_pairs(row, answers, scored.failure)
        if not used:
            return [], row
        row["gap"] = statistics.fmean(one.gap for _, one in used)
        row["chosen_length"] = statistics.fmean(one.chosen.length for _, one in used)
        row["rejected_length"] = statistics.fmean(one.rejected.length for _, one in used)
        return [self._ranking(prompt, one, scored, identity, number) for prompt, one in used], row

    def _no_pairs(self, row: dict[str, Any], answers: int, failure: str) -> UserError:
        name = self.context.name
        why = f" ({failure})" if failure else ""
        instead = "another reward" if self.config.judge is None else "another judge or constitution"
        return UserError(
            f"{name}: iteration {row['iteration']} gave no pair to learn from: of {row['tasks']} prompts, "
            f"{row['equal']} have answers of equal score, and {row['missing']} of {answers} answers have no "
            f"score{why}; raise {name}.sampling.temperature or responses, or take {instead}"
        )

    def _ranking(self, prompt: Any, one: Preferred, scored: Scored, identity: str, number: int) -> Ranking:
        sampling = self.config.sampling.model_dump(mode="json")
        responses = tuple(
            Response(rollout.text, self.context.name, identity, sampling, rollout.finish_reason, {"score": score})
            for rollout, score in zip(one.rollouts, one.scores, strict=True)
        )
        about = {**scored.about, "iteration": number + 1}
        return Ranking(prompt, responses, one.tiers, scored.annotator, scored.kind, metadata=about).with_id()


def _filled(values: dict[str, LogProbs]) -> dict[str, LogProbs]:
    """Without what the loss does not ask for."""
    return {name: given for name, given in values.items() if given}


def _kept(task: PairedTask, name: str, path: Path, config: DPOConfig) -> LogProbs:
    """What the ranking of a task says of its answers under the reference; UserError where it was taken away."""
    if not (config.compared if name == REFERENCE else task.other):
        return ()
    found = task.task.rankings[0].metadata.get(name)
    if not isinstance(found, list) or len(found) != len(task.answers):
        raise UserError(
            f"{path}: the ranking {task.task.rankings[0].id} has no {name} of its {len(task.answers)} answers; put "
            "back the file that the stage wrote"
        )
    return [float(value) for value in found]
