"""The reward of a rollout: a weighted sum of named parts, with the word of each kept beside the number.

A part is a verifier, or a trained reward model (kind ``reward_model``).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import Field, ValidationError

from trivium.config import Strict, VerifierConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.verdict import STATUSES, Verdict
from trivium.feedback.verifiers import build

if TYPE_CHECKING:
    import torch

REWARD_MODEL = "reward_model"


class Response(Protocol):
    """What is judged: a rollout, or anything that has its text and why it ended (``stop`` or ``length``)."""

    @property
    def text(self) -> str: ...
    @property
    def finish_reason(self) -> str: ...


Judge = Callable[[Sequence[tuple[Prompt, Response]]], list[Verdict]]


@dataclass(frozen=True)
class Reward:
    """``total``: the weighted sum of ``parts``; ``status``: the worst of the parts' verdicts. An ``infra_error`` has no
    total that means anything: the rollout is left out of baseline and loss."""

    total: float
    parts: dict[str, float]
    status: str
    extracted: str | None = None

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

    ``models`` are the directories of earlier stages by name, ``device`` is where reward models run. UserError for a
    part that cannot be made.
    """

    def __init__(
        self,
        parts: Mapping[str, VerifierConfig],
        models: Mapping[str, Path] | None = None,
        device: "str | torch.device" = "cpu",
    ) -> None:
        self.judges = {name: (_judge(part, models or {}, device), part.weight) for name, part in parts.items()}
        self.failure = ""  # the first infrastructure error, for whoever has to mend it

    def __call__(self, prompt: Prompt, response: str) -> Reward:
        """The reward of one finished response."""
        return self.score([(prompt, _Finished(response))])[0]

    def score(self, items: Sequence[tuple[Prompt, Response]]) -> list[Reward]:
        """The reward of each item; a reward model works on all of them at once."""
        verdicts = {name: judge(items) for name, (judge, _) in self.judges.items()}
        return [self._sum({name: of_part[index] for name, of_part in verdicts.items()}) for index in range(len(items))]

    def _sum(self, verdicts: Mapping[str, Verdict]) -> Reward:
        if not self.failure:
            failed = ((name, verdict) for name, verdict in verdicts.items() if verdict.status == "infra_error")
            self.failure = next((f"{name}: {verdict.detail}" for name, verdict in failed), "")
        total = sum(weight * verdicts[name].score for name, (_, weight) in self.judges.items())
        status = max((verdict.status for verdict in verdicts.values()), key=STATUSES.index)
        extracted = next((verdict.extracted for verdict in verdicts.values() if verdict.extracted is not None), None)
        return Reward(total, {name: verdict.score for name, verdict in verdicts.items()}, status, extracted)


@dataclass(frozen=True)
class _Finished:
    text: str
    finish_reason: str = "stop"


def reward_model_options(config: VerifierConfig) -> RewardModelOptions:
    """The checked options of a part of kind ``reward_model``; UserError names a wrong one."""
    try:
        return RewardModelOptions.model_validate(config.options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{REWARD_MODEL}: option {name!r}: {first['msg']}; it takes model (a stage or directory) and normalise"
        ) from None


def _judge(config: VerifierConfig, models: Mapping[str, Path], device: "str | torch.device") -> Judge:
    if config.kind != REWARD_MODEL:
        verify = build(config)
        return lambda items: [verify(prompt, response.text) for prompt, response in items]
    from trivium.feedback.reward_model import RewardModel

    options = reward_model_options(config)
    model = RewardModel.load(models.get(options.model, options.model), device)
    return lambda items: model.verdicts(
        [(prompt.messages, response.text, response.finish_reason == "stop") for prompt, response in items],
        options.normalise,
    )


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
