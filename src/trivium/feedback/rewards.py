"""The reward of a rollout: a weighted sum of named parts, with the verifiers' word kept beside the number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivium.config import VerifierConfig
from trivium.data.records import Prompt
from trivium.feedback.verdict import Verdict
from trivium.feedback.verifiers import build

STATUSES = ("ok", "unparseable", "timeout", "infra_error")


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


class RewardFunction:
    """The named verifiers of a recipe, called on (prompt, response)."""

    def __init__(self, parts: Mapping[str, VerifierConfig]) -> None:
        self.verifiers = {name: (build(part), part.weight) for name, part in parts.items()}
        self.failure = ""  # the first infrastructure error, for whoever has to mend it

    def __call__(self, prompt: Prompt, response: str) -> Reward:
        verdicts: dict[str, Verdict] = {name: verify(prompt, response) for name, (verify, _) in self.verifiers.items()}
        if not self.failure:
            failed = ((name, verdict) for name, verdict in verdicts.items() if verdict.status == "infra_error")
            self.failure = next((f"{name}: {verdict.detail}" for name, verdict in failed), "")
        total = sum(weight * verdicts[name].score for name, (_, weight) in self.verifiers.items())
        status = max((verdict.status for verdict in verdicts.values()), key=STATUSES.index)
        extracted = next((verdict.extracted for verdict in verdicts.values() if verdict.extracted is not None), None)
        return Reward(total, {name: verdict.score for name, verdict in verdicts.items()}, status, extracted)


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
