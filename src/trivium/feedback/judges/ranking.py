"""A judge as an annotator: all pairs of a task's answers compared, and what it said as a ranking.

The probabilities are kept as they are (``Ranking.preferences``); the tiers are their summary, for whoever wants an
order: agreement with people, exports, evaluations.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from math import fsum
from typing import TYPE_CHECKING, Protocol

from trivium.data.records import Prompt
from trivium.feedback.judges.base import Comparison, Pair
from trivium.feedback.rankings.record import UNRANKED, Ranking, Response

if TYPE_CHECKING:
    from trivium.feedback.judges.judge import Judge

Preferences = Sequence[tuple[int, int, float]]
DIGITS = 9  # 1 - 0.55 and 0.45 differ by rounding, which must neither make a tie nor break one


class Ranked(Protocol):
    """What a judge can rank, such as a task of the store."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def responses(self) -> tuple[Response, ...]: ...
    @property
    def criterion(self) -> str: ...


def rank(judge: "Judge", tasks: Sequence[Ranked], tie_margin: float = 0.05) -> list[Ranking]:
    """The judge's ranking of each task, from all pairs of its responses. All tasks are asked about in one call.

    A pair without a verdict is left out, and so is a response that has none (it is unranked). A task without any is
    skipped, with the reason of the first; so is one whose verdicts fall apart into equal groups, see ``summary_tiers``.

    Raises:
        UserError: the judge cannot go on; calls that were finished are in its cache.
    """
    pairs = [
        Pair(task.prompt, task.responses[first].text, task.responses[second].text)
        for task in tasks
        for first, second in combinations(range(len(task.responses)), 2)
    ]
    said = iter(judge.compare(pairs))
    return [_ranking(judge, task, _of_task(task, said), tie_margin) for task in tasks]


def _of_task(task: Ranked, said: Iterator[Comparison]) -> dict[tuple[int, int], Comparison]:
    return {pair: next(said) for pair in combinations(range(len(task.responses)), 2)}


def _ranking(
    judge: "Judge", task: Ranked, comparisons: Mapping[tuple[int, int], Comparison], tie_margin: float
) -> Ranking:
    found = [
        (first, second, comparison.probability)
        for (first, second), comparison in comparisons.items()
        if comparison.probability is not None
    ]
    number = len(task.responses)
    tiers = summary_tiers(found, number, tie_margin)
    kept = tuple(said for said in found if UNRANKED not in (tiers[said[0]], tiers[said[1]]))
    skipped = None
    if not kept:
        missing = [comparison.missing for comparison in comparisons.values() if comparison.missing]
        skipped = (missing or ["no verdict"])[0] if not found else "the verdicts do not connect the responses"
    return Ranking(
        prompt=task.prompt,
        responses=tuple(task.responses),
        tiers=tiers,
        annotator=judge.name,
        kind="ai",
        criterion=task.criterion,
        # where each pair was shown in both orders there is none that it was shown in
        displayed=() if judge.both_orders or skipped is not None else tuple(range(number)),
        skipped=skipped,
        task=task.id,
        metadata={"judge": judge.identity, "constitution": judge.constitution.name},
        preferences=kept,
    )


def summary_tiers(preferences: Preferences, number: int, tie_margin: float = 0.0) -> tuple[int, ...]:
    """Tiers of ``number`` responses from the probabilities (i, j, P(i better than j)) of pairs.

    Responses are ordered by their mean probability of winning over those they were compared with; equal means share a
    tier. Going down, one shares the tier of the one before it where the probability of that pair is at most
    ``tie_margin`` away from 0.5 (for several of equal means: the mean over the pairs between the two groups). Chains
    are followed: A near B and B near C put the three into one tier even where A is clearly above C, because tiers
    cannot say that; the probabilities still do. Neighbours that were not compared do not share a tier.

    A response without a pair is unranked. Where pairs were left out so that the responses fall apart into groups that
    nothing compares, the largest is ranked and the others are not; none is where two are equally large. The order of
    the responses does not matter.

    >>> summary_tiers([(0, 1, 0.9), (0, 2, 0.7), (1, 2, 0.48)], 3, tie_margin=0.05)
    (0, 1, 1)
    """
    beats = {pair: p for i, j, p in preferences for pair, p in (((i, j), p), ((j, i), 1 - p))}
    groups = sorted(_groups(beats), key=len)
    tiers = [UNRANKED] * number
    if not groups or (len(groups) > 1 and len(groups[-1]) == len(groups[-2])):
        return tuple(tiers)
    levels: dict[float, list[int]] = {}
    for item in groups[-1]:
        won = [beats[item, other] for other in range(number) if (item, other) in beats]
        levels.setdefault(round(fsum(won) / len(won), DIGITS), []).append(item)
    order = [levels[mean] for mean in sorted(levels, reverse=True)]
    tier = 0
    for level, before in zip(order, [[], *order], strict=False):
        tier += bool(before) and not _near(
            [beats[pair] for pair in product(before, level) if pair in beats], tie_margin
        )
        for item in level:
            tiers[item] = tier
    return tuple(tiers)


def _near(probabilities: Sequence[float], tie_margin: float) -> bool:
    if not probabilities:
        return False
    return round(abs(fsum(probabilities) / len(probabilities) - 0.5), DIGITS) <= tie_margin


def _groups(beats: Mapping[tuple[int, int], float]) -> list[set[int]]:
    """The responses that comparisons link, directly or through others."""
    groups: list[set[int]] = []
    for first, second in beats:
        linked = [group for group in groups if first in group or second in group]
        groups = [group for group in groups if group not in linked] + [{first, second}.union(*linked)]
    return groups
