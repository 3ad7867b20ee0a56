"""What several annotators say together, as a view: computed when asked for, never stored over what they said.

Method: Borda's count over pairs. A response's score is the share of its comparisons that it wins, a tie counting one
half, over all annotators and all other responses they ranked with it, by their weights. The highest score is tier 0 and
equal scores are tied. Where everybody ranks everything, that is the order of the mean ranks, ties sharing theirs.

Why not the order nearest to all rankings (Kemeny): when opinions go round in a circle (A over B, B over C, C over A)
several orders are nearest, and choosing one would state what nobody agrees on. Borda's count ties the three. What it
gives up: a response that wins every vote against each other one need not come first.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trivium.feedback.rankings.grouping import by_task
from trivium.feedback.rankings.record import UNRANKED, Ranking, tiers_from_scores


@dataclass(frozen=True)
class Consensus:
    """``tiers`` may hold ties and unranked responses; ``scores`` are shares in [0, 1], None where unranked.

    ``all_bad``: the share, by weight, of the annotators who called all bad.
    """

    tiers: tuple[int, ...]
    scores: tuple[float | None, ...]
    annotators: int
    all_bad: float


def consensus(rankings: Sequence[Ranking], weights: Mapping[str, float] | None = None) -> Consensus:
    """The consensus of rankings of one task.

    ``weights``: of annotators by name, 1 where none is given; 0 leaves one out. A response that nobody compared is
    unranked. If the comparisons fall apart into groups that nobody compared with each other, the group with the most
    weight of comparisons is ranked (among equals the one of the lowest number) and the others stay unranked.

    Raises:
        ValueError: there are no rankings, they are about different numbers of responses, or a weight is negative.

    >>> from trivium.data.records import Prompt, Message
    >>> from trivium.feedback.rankings.record import Response
    >>> prompt, three = Prompt("p", (Message("user", "?"),)), (Response("a"), Response("b"), Response("c"))
    >>> consensus([Ranking(prompt, three, tiers, "x") for tiers in ((0, 1, 2), (1, 0, 2))]).tiers
    (0, 0, 1)
    """
    if not rankings or len({len(ranking.responses) for ranking in rankings}) > 1:
        raise ValueError("a consensus is of one ranking or more, all about the same responses")
    number = len(rankings[0].responses)
    wins = np.zeros((number, number))  # [a, b]: weight of those who put a above b, ties by half
    together = np.zeros((number, number))  # [a, b]: weight of those who ranked both
    weight_of = {ranking.annotator: float((weights or {}).get(ranking.annotator, 1.0)) for ranking in rankings}
    if min(weight_of.values()) < 0:
        raise ValueError(f"weights of annotators are not negative: {weight_of}")
    bad = total = 0.0
    for ranking in rankings:
        if ranking.skipped is not None:
            continue
        weight = weight_of[ranking.annotator]
        tiers = np.array(ranking.tiers)
        both = np.outer(tiers != UNRANKED, tiers != UNRANKED) & ~np.eye(number, dtype=bool)
        together += weight * both
        wins += weight * both * (1 + np.sign(tiers[None, :] - tiers[:, None])) / 2
        bad, total = bad + weight * ranking.all_bad, total + weight
    group = _largest_group(together)
    scores = [float(wins[a].sum() / together[a].sum()) if a in group else None for a in range(number)]
    # Sums of weights in another order differ by rounding, which must not break a tie.
    ranked = iter(tiers_from_scores([round(score, 9) for score in scores if score is not None]))
    tiers_out = tuple(UNRANKED if score is None else next(ranked) for score in scores)
    return Consensus(tiers_out, tuple(scores), len(weight_of), bad / total if total else 0.0)


def _largest_group(together: np.ndarray) -> set[int]:
    """The responses linked by comparisons, of the group with the most weight; empty if nothing was compared."""
    left = {number for number in range(len(together)) if together[number].sum() > 0}
    best: set[int] = set()
    most = 0.0
    while left:
        group, new = set(), {min(left)}
        while new:
            group |= new
            new = {b for a, b in itertools.product(new, left - group) if together[a, b] > 0}
        weight = sum(together[a].sum() for a in group)
        if weight > most * (1 + 1e-9):
            best, most = group, weight
        left -= group
    return best


def consensus_by_task(
    rankings: Iterable[Ranking], weights: Mapping[str, float] | None = None
) -> list[tuple[Sequence[Ranking], Consensus]]:
    """The rankings of each task (see ``grouping.by_task``) with their consensus, by the task's first ranking."""
    return [(group, consensus(group, weights)) for group in by_task(rankings).values()]
