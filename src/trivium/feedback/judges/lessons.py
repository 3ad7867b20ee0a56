"""Rankings as lessons for a judge: the questions it will be asked, answered as people answered them.

A model that has never judged says nothing but where an answer stands. Lessons from some rankings teach it the form and
the taste of those who ranked; how well it learned is measured on others (``trivium judge audit``). This is the
evaluation half of the data with which self-rewarding models begin (Yuan et al., 2024, section 2.1).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from trivium.errors import UserError
from trivium.feedback.judges.constitution import Constitution, Principle
from trivium.feedback.rankings.record import UNRANKED, Ranking


@dataclass(frozen=True)
class Lesson:
    """A conversation (``row``: messages and task, as a source of sft reads it) under one principle."""

    principle: str
    row: dict[str, Any]


def lessons_of(rankings: Iterable[Ranking], laws: Constitution) -> Iterator[Lesson]:
    """Every pair of differing answers of every ranking, in both orders.

    A pair of different tiers names the better answer in both orders, so that a place is worth nothing. A tie is asked
    twice in either order, and each answer is named once: whoever learns from that says half. A ranking's criterion is
    asked by the principle of that name; a criterion without one, by every principle.

    Raises:
        UserError: no ranking compares two different answers.
    """
    found = False
    for ranking in rankings:
        for first, second in combinations(range(len(ranking.responses)), 2):
            for lesson in _of_pair(ranking, first, second, laws):
                found = True
                yield lesson
    if not found:
        raise UserError("the rankings compare no two different answers, so there is nothing to learn; check the source")


def _of_pair(ranking: Ranking, first: int, second: int, laws: Constitution) -> Iterator[Lesson]:
    tiers, texts = ranking.tiers, [response.text for response in ranking.responses]
    if ranking.skipped is not None or UNRANKED in (tiers[first], tiers[second]) or texts[first] == texts[second]:
        return
    for principle in _principles(ranking.criterion, laws):
        for one, other in ((first, second), (second, first)):
            asked = laws.ask("compare", principle, ranking.prompt, first=texts[one], second=texts[other])
            messages = [{"role": said.role, "content": said.content} for said in asked]
            tied = tiers[one] == tiers[other]
            for label in laws.labels if tied else (laws.labels[int(tiers[one] > tiers[other])],):
                row = {"messages": [*messages, {"role": "assistant", "content": label}], "task": principle.name}
                yield Lesson(principle.name, row)


def _principles(criterion: str, laws: Constitution) -> list[Principle]:
    return [principle for principle in laws.principles if principle.name == criterion] or list(laws.principles)
