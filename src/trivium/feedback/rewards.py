"""The reward of a rollout: a weighted sum of named parts, with the word of each kept beside the number.

A part is a verifier, a trained reward model (kind ``reward_model``), a judge that scores (``judge``), the vote of the
group that the rollout belongs to (``majority``), or the score of the environment that it was in (``environment``).
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from trivium.config import Strict, VerifierConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.judge_reward import JUDGE, JudgeReward, judge_options
from trivium.feedback.majority import MAJORITY, Majority, Vote, majority_options
from trivium.feedback.verdict import STATUSES, Items, Response, Verdict
from trivium.feedback.verifiers import build
from trivium.options import checked

if TYPE_CHECKING:
    import torch

REWARD_MODEL = "reward_model"
ENVIRONMENT = "environment"


class Part(Protocol):
    """What scores on its own. ``close`` frees what it holds."""

    def verdicts(self, items: Items) -> list[Verdict]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Reward:
    """``total``: the weighted sum of ``parts``; ``status``: the worst of the parts' ``statuses``. An ``infra_error``
    has no total that means anything: the rollout is left out of baseline and loss. ``vote``: that of the group, where
    a part is ``majority``."""

    total: float
    parts: dict[str, float]
    status: str
    extracted: str | None = None
    statuses: dict[str, str] = field(default_factory=dict)
    vote: Vote | None = None

    @property
    def valid(self) -> bool:
        return self.status != "infra_error"


class RewardModelOptions(Strict):
    """Options of the kind ``reward_model``."""

    model: str = Field(min_length=1, description="a stage of kind reward, a directory or a hub name")
    normalise: bool = Field(
        True, description="by the statistics kept with the model: mean 0, deviation 1 on its prompts"
    )


class RewardFunction:
    """The named parts of a recipe's reward.

    ``models`` are what earlier stages made, by name; ``device`` is where models run. For judges: ``cache`` is the file
    of finished calls, ``seed`` that of their random draws, and ``note`` takes a sentence on one that nobody has
    measured. UserError for a part that cannot be made, and for a judge that is no better than chance.
    """

    def __init__(
        self,
        parts: Mapping[str, VerifierConfig],
        models: Mapping[str, Path] | None = None,
        device: "str | torch.device" = "cpu",
        *,
        cache: Path | None = None,
        seed: int = 0,
        note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        def place(name: str) -> str:
            return str((models or {}).get(name, name))

        def make(name: str, part: VerifierConfig) -> "Part | Majority":
            if part.kind == MAJORITY:
                return majority_options(part)
            if part.kind == JUDGE:
                return JudgeReward(name, judge_options(part), place, cache, seed, device, note)
            if part.kind == ENVIRONMENT:
                return _Lived(part)
            return _Scored(part, place, device) if part.kind == REWARD_MODEL else _Verified(part)

        self.weights = {name: part.weight for name, part in parts.items()}
        self.parts: dict[str, Part | Majority] = {}
        for name, part in parts.items():
            self.parts[name] = make(name, part)
        self.failure = ""  # the first infrastructure error, for whoever has to mend it

    def __call__(self, prompt: Prompt, response: str) -> Reward:
        """The reward of one finished response, which has no group to vote with."""
        return self.score([(prompt, _Finished(response))], groups=False)[0]

    def score(self, items: Items, groups: bool = True) -> list[Reward]:
        """The reward of each item; models and judges work on all of them at once.

        ``groups``: the items are whole groups (those of a rollout's ``group``, else of equal prompts), which majority
        parts have vote; without, these parts are left out.
        """
        verdicts: dict[str, list[Verdict]] = {}
        votes: Sequence[Vote | None] = [None] * len(items)
        for name, part in self.parts.items():
            if not isinstance(part, Majority):
                verdicts[name] = part.verdicts(items)
            elif groups:
                # texts alone go in: reference answers cannot leak into a vote
                texts = [response.text for _, response in items]
                verdicts[name], votes = part.verdicts(texts, [_group(prompt, response) for prompt, response in items])
        return [
            self._sum({name: of_part[index] for name, of_part in verdicts.items()}, votes[index])
            for index in range(len(items))
        ]

    def _sum(self, verdicts: Mapping[str, Verdict], vote: Vote | None) -> Reward:
        if not self.failure:
            failed = ((name, verdict) for name, verdict in verdicts.items() if verdict.status == "infra_error")
            self.failure = next((f"{name}: {verdict.detail}" for name, verdict in failed), "")
        statuses: dict[str, str] = {name: verdict.status for name, verdict in verdicts.items()}
        return Reward(
            total=sum(self.weights[name] * verdict.score for name, verdict in verdicts.items()),
            parts={name: verdict.score for name, verdict in verdicts.items()},
            status=max((verdict.status for verdict in verdicts.values()), key=STATUSES.index, default="ok"),
            extracted=next((found.extracted for found in verdicts.values() if found.extracted is not None), None),
            statuses=statuses,
            vote=vote,
        )

    @property
    def only_votes(self) -> bool:
        """Whether a single answer, without a group, has no reward at all."""
        return all(isinstance(part, Majority) for part in self.parts.values())

    def usage(self) -> dict[str, dict[str, Any]]:
        """What the judges among the parts have cost in this process, by part."""
        return {name: part.usage() for name, part in self.parts.items() if isinstance(part, JudgeReward)}

    def close(self) -> None:
        """Free what the parts hold (a verifier's process, a judge's cache); harmless when repeated."""
        for part in self.parts.values():
            if not isinstance(part, Majority):
                part.close()


def _group(prompt: Prompt, response: Response) -> Hashable:
    return prompt.id, getattr(response, "group", None)


@dataclass(frozen=True)
class _Finished:
    text: str
    finish_reason: str = "stop"


def reward_model_options(config: VerifierConfig) -> RewardModelOptions:
    """The checked options of a part of kind ``reward_model``; UserError names a wrong one."""
    return checked(RewardModelOptions, config.options, REWARD_MODEL)


class _Verified:
    """A part that is a verifier."""

    def __init__(self, config: VerifierConfig) -> None:
        self.verifier = build(config)

    def verdicts(self, items: Items) -> list[Verdict]:
        return self.verifier.verdicts([(prompt, response.text) for prompt, response in items])

    def close(self) -> None:
        self.verifier.close()


class _Scored:
    """A part that is a trained reward model."""

    def __init__(self, config: VerifierConfig, place: Callable[[str], str], device: "str | torch.device") -> None:
        from trivium.feedback.reward_model import RewardModel

        self.options = reward_model_options(config)
        self.model = RewardModel.load(place(self.options.model), device)

    def verdicts(self, items: Items) -> list[Verdict]:
        return self.model.verdicts(
            [(prompt.messages, response.text, response.finish_reason == "stop") for prompt, response in items],
            self.options.normalise,
        )

    def close(self) -> None:
        """Nothing to free."""


class _Lived:
    """A part that is the environment's own score.

    Where it gave none, a response that was cut off never came to its end: that is the policy's doing, and a 0. An
    episode that did come to its end without a score has none for us either.
    """

    def __init__(self, config: VerifierConfig) -> None:
        if config.options:
            raise UserError(f"{ENVIRONMENT}: it takes no options, not {', '.join(config.options)}; leave them out")

    def verdicts(self, items: Items) -> list[Verdict]:
        return [self._verdict(response) for _, response in items]

    def _verdict(self, response: Response) -> Verdict:
        outcome: float | None = getattr(response, "outcome", None)
        if outcome is not None and math.isfinite(outcome):
            return Verdict(float(outcome))
        if outcome is None and response.finish_reason == "length":
            return Verdict(0.0, "unparseable", detail="it was cut off before the environment gave a score")
        return Verdict(0.0, "infra_error", detail=f"the environment gave {outcome} as its score")

    def close(self) -> None:
        """Nothing to free."""


def overlong_penalty(length: int, limit: int, window: int) -> float:
    """DAPO's soft penalty: 0 up to ``limit - window`` tokens, then falling linearly to -1 at ``limit``.

    >>> [overlong_penalty(length, limit=10, window=4) for length in (6, 8, 10)]
    [0.0, -0.5, -1.0]
    """
    over = length - (limit - window)
    return -over / window if over > 0 else 0.0


def status_shares(statuses: Sequence[str]) -> dict[str, float]:
    counts = Counter(statuses)
    return {f"status/{status}": counts[status] / max(len(statuses), 1) for status in STATUSES}
