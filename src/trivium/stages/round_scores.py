"""Who scores the answers of a round of iterated DPO, a judge or a reward, and what the scores prefer."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from trivium.config import DPOConfig
from trivium.data.records import Prompt
from trivium.feedback.judges.base import Answer
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.calls import Calls
from trivium.feedback.judges.judge import Judge
from trivium.feedback.rewards import RewardFunction
from trivium.generation.rollouts import Rollout
from trivium.model.decoder import Decoder
from trivium.stages.context import StageContext
from trivium.stages.sampler import Asked
from trivium.text.tokenizer import Tokenizer
from trivium.training.policy import Group

EQUAL = 1e-6  # scores that differ by no more are the same


@dataclass(frozen=True)
class Scored:
    """The distinct answers to each prompt with the score of each, None where there is none.

    ``annotator``, ``kind`` and ``about`` (metadata) go into the rankings, ``row`` into the row of the round.
    ``failure``: the first reason for which an answer has no score.
    """

    candidates: list[list[Rollout]]
    scores: list[list[float | None]]
    annotator: str
    kind: str
    about: dict[str, Any]
    row: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


class ByJudge:
    """A judge scores each distinct answer. It is built for each round: one that is the policy changes with it, and
    another would hold memory meanwhile. A budget is for all rounds of a process."""

    def __init__(self, context: StageContext, tokenizer: Tokenizer, device: torch.device) -> None:
        self.context, self.tokenizer, self.device = context, tokenizer, device
        self.calls: Calls | None = None  # those of the round before

    def score(self, whole: Decoder, identity: str, asked: Sequence[Asked], groups: Sequence[Group]) -> Scored:
        candidates = [distinct(group) for group in groups]
        # of the prompt only what was asked: a judge is not told what would be right
        shown = [Prompt(prompt.id, prompt.messages) for prompt, _ in asked]
        answers = [
            Answer(prompt, rollout.text) for prompt, own in zip(shown, candidates, strict=True) for rollout in own
        ]
        with self._judge(whole, identity) as judge:
            if self.calls is not None:
                judge.calls.go_on_from(self.calls)
            before, self.calls = judge.usage.as_dict(), judge.calls
            found = judge.score(answers)
        given = iter(found)
        scores = [[next(given).value for _ in own] for own in candidates]
        failure = next((score.missing for score in found if score.value is None), "")
        row = {"usage": _difference(judge.usage.as_dict(), before)}
        return Scored(candidates, scores, judge.name, "ai", {"judge": judge.identity}, row, failure)

    def _judge(self, whole: Decoder, identity: str) -> Judge:
        config: DPOConfig = self.context.config
        assert config.judge is not None
        return build_judge(
            config.judge,
            place=self.context.place,
            cache=self.context.directory.parent / "judge.db",
            seed=self.context.recipe.seed,
            device=self.device,
            policy=(whole, self.tokenizer, identity),
        )

    def close(self) -> None:
        """Nothing to free."""


class ByReward:
    """The parts of a reward score each answer, and the sum by weight is its score. Whole groups are scored, so that
    one of the parts may be their vote."""

    def __init__(self, context: StageContext, device: torch.device) -> None:
        config: DPOConfig = context.config
        self.function = RewardFunction(
            config.rewards,
            {**context.models, **context.files},
            device,
            cache=context.directory.parent / "judge.db",
            seed=context.recipe.seed,
            note=context.progress.note,
        )

    def score(self, whole: Decoder, identity: str, asked: Sequence[Asked], groups: Sequence[Group]) -> Scored:
        before = self.function.usage()
        pairs = [(prompt, rollout) for (prompt, _), group in zip(asked, groups, strict=True) for rollout in group]
        rewards = self.function.score(pairs)
        given = {id(rollout): reward for (_, rollout), reward in zip(pairs, rewards, strict=True)}
        candidates = [distinct(group) for group in groups]
        scores = [
            [given[id(rollout)].total if given[id(rollout)].valid else None for rollout in own] for own in candidates
        ]
        row: dict[str, Any] = {
            "rewards": {
                name: statistics.fmean(reward.parts[name] for reward in rewards if reward.valid)
                for name in self.function.weights
                if any(reward.valid for reward in rewards)
            }
        }
        if usage := self.function.usage():
            row["usage"] = {name: _difference(spent, before[name]) for name, spent in usage.items()}
        about = {"rewards": dict(self.function.weights)}
        name = "reward:" + "+".join(self.function.weights)
        return Scored(candidates, scores, name, "simulated", about, row, self.function.failure)

    def close(self) -> None:
        self.function.close()


@dataclass(frozen=True)
class Preferred:
    """Some answers to a prompt with their scores, and of these the best and the worst."""

    rollouts: list[Rollout]
    scores: list[float]
    chosen: Rollout
    rejected: Rollout

    @property
    def gap(self) -> float:
        return max(self.scores) - min(self.scores)

    @property
    def tiers(self) -> tuple[int, ...]:
        """By score, the highest first; scores that are the same but for rounding are tied.

        >>> Preferred([], [0.5, 2.0, 0.5 + 1e-9], None, None).tiers
        (1, 0, 1)
        """
        first: list[float] = []  # the highest score of each tier
        for score in sorted(self.scores, reverse=True):
            if not first or first[-1] - score > EQUAL:
                first.append(score)
        return tuple(max(n for n, top in enumerate(first) if score <= top) for score in self.scores)

    @property
    def pairs(self) -> int:
        tiers = self.tiers
        return sum(one < other for one in tiers for other in tiers)


def distinct(group: Group) -> list[Rollout]:
    """The first rollout of each text, in their order."""
    found: dict[str, Rollout] = {}
    for rollout in group:
        found.setdefault(rollout.text, rollout)
    return list(found.values())


def preferred(
    rollouts: Sequence[Rollout], scores: Sequence[float | None], pairs: Literal["best_worst", "all"]
) -> Preferred | None:
    """The first of the highest score against the first of the lowest, or all that have one; None where fewer than two
    answers have a score.

    A prompt whose answers are all alike, and scored, has a gap of 0: there is nothing to choose.
    """
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    if not known or len(known) < 2 <= len(rollouts):
        return None
    best, worst = max(known), min(known, key=lambda item: (item[0], -item[1]))
    chosen, rejected = rollouts[-best[1]], rollouts[-worst[1]]
    if pairs == "best_worst":
        return Preferred([chosen, rejected], [best[0], worst[0]], chosen, rejected)
    return Preferred([rollouts[-place] for _, place in known], [score for score, _ in known], chosen, rejected)


def _difference(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {name: now[name] - before[name] for name in now}
