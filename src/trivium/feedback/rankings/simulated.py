"""Simulated annotators: programs with a taste, noise and biases, who rank as people do and into the same store.

With them the whole way from rankings to a policy runs unattended, and what a reward model learns from a panel that
errs can be compared with what the panel would say if it did not.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from trivium.config import AnnotatorConfig, PanelConfig
from trivium.data.records import Prompt
from trivium.feedback.rankings.record import Ranking, Response, dense_tiers
from trivium.feedback.verifiers import build
from trivium.streams import generator


class Panel:
    """The annotators of a ``PanelConfig``. Every draw depends on (seed, annotator, task) alone."""

    def __init__(self, config: PanelConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.parts = {name: build(part) for name, part in config.parts.items()}

    @property
    def names(self) -> list[str]:
        return list(self.config.annotators)

    def rank(
        self, name: str, task: str, prompt: Prompt, responses: Sequence[Response], criterion: str = "overall"
    ) -> Ranking:
        """The ranking of ``responses`` by the annotator ``name``; skipped, with the reason, where a part fails."""
        config = self.config.annotators[name]
        draws = generator(self.seed, f"panel/{name}", task)
        displayed = tuple(draws.permutation(len(responses)).tolist())
        utilities, failure = self._utilities(config, prompt, responses, displayed)
        tiers = (-1,) * len(responses) if failure else noisy_tiers(utilities, config.noise, config.tie_margin, draws)
        return Ranking(
            prompt=prompt,
            responses=tuple(responses),
            tiers=tiers,
            annotator=name,
            kind="simulated",
            criterion=criterion,
            displayed=displayed,
            skipped=failure or None,
            task=task,
        )

    def close(self) -> None:
        for part in self.parts.values():
            part.close()

    def _utilities(
        self, config: AnnotatorConfig, prompt: Prompt, responses: Sequence[Response], displayed: Sequence[int]
    ) -> tuple[list[float], str]:
        """What each response is worth to the annotator, biases included; or why it cannot tell."""
        weights = {name: config.weights.get(name, part.weight) for name, part in self.config.parts.items()}
        parts = {name: part for name, part in self.parts.items() if weights[name]}  # what is left out cannot fail
        values = []
        for number, response in enumerate(responses):
            verdicts = {name: part(prompt, response.text) for name, part in parts.items()}
            for name, verdict in verdicts.items():
                if verdict.status == "infra_error":
                    return [], f"{name}: {verdict.detail}"
            taste = sum(weights[name] * verdict.score for name, verdict in verdicts.items())
            shown = 1 - displayed.index(number) / max(len(responses) - 1, 1)
            values.append(taste + config.position_bias * shown + config.length_bias * len(response.text) / 100)
        return values, ""


def noisy_tiers(
    utilities: Sequence[float], noise: float, tie_margin: float, draws: np.random.Generator
) -> tuple[int, ...]:
    """Tiers by ``utilities`` in which the share ``noise`` of all pairs is the wrong way round, in expectation.

    The order is drawn from the Mallows model around the true one (1957; sampled by repeated insertion, Doignon et al.,
    2004), whose dispersion is chosen so that the expected share of flipped pairs is ``noise``, whatever the number of
    responses. Neighbours in the drawn order that are closer than ``tie_margin`` (or equal) are tied.
    """
    number = len(utilities)
    shuffled = draws.permutation(number).tolist()  # equal utilities have no order of their own
    true_order = sorted(shuffled, key=lambda item: -utilities[item])
    dispersion = mallows_dispersion(number, noise)
    order: list[int] = []
    for item in true_order:
        weights = dispersion ** np.arange(len(order), -1, -1, dtype=np.float64)  # place 0 … the end
        place = int(np.searchsorted(np.cumsum(weights / weights.sum()), draws.random(), side="right"))
        order.insert(min(place, len(order)), item)
    tiers = [0] * number
    for before, item in pairwise(order):
        tied = abs(utilities[before] - utilities[item]) <= tie_margin
        tiers[item] = tiers[before] + (0 if tied else 1)
    return dense_tiers(tiers)


@lru_cache(maxsize=64)
def mallows_dispersion(number: int, share: float) -> float:
    """The dispersion at which a Mallows order of ``number`` items has this ``share`` (0 to 0.5) of its pairs flipped,
    in expectation.

    >>> round(mallows_dispersion(2, 0.25), 6)  # of two: odds of 1 to 3
    0.333333
    """
    if share <= 0 or number < 2:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _flipped(number, middle) < share * number * (number - 1) / 2 else (low, middle)
    return (low + high) / 2


def _flipped(number: int, dispersion: float) -> float:
    """Expected number of flipped pairs: the sum over insertions of the mean displacement."""
    total = 0.0
    for size in range(1, number + 1):
        weights = dispersion ** np.arange(size, dtype=np.float64)
        total += float((weights * np.arange(size)).sum() / weights.sum())
    return total
