"""Between a judge and a store: it ranks the store's tasks, and what it cannot decide goes to people as tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trivium.errors import UserError
from trivium.feedback.judges.audit import Contradiction
from trivium.feedback.judges.ranking import rank
from trivium.feedback.rankings.contents import NewTask
from trivium.feedback.rankings.store import Store
from trivium.progress import Progress

if TYPE_CHECKING:
    from trivium.feedback.judges.judge import Judge

AT_ONCE = 20  # tasks ranked before their rankings are stored


@dataclass
class Ranked:
    """What ``rank_store`` did: tasks ranked now, of which ``again`` since the judge was asked otherwise when it ranked
    them before; tasks it had ranked ``before`` as it is asked now; tasks ``without`` a verdict, and why the first."""

    ranked: int = 0
    again: int = 0
    before: int = 0
    without: int = 0
    reason: str = ""


def rank_store(
    judge: "Judge",
    store: Store,
    tie_margin: float,
    criterion: str | None = None,
    progress: Progress | None = None,
) -> Ranked:
    """Have ``judge`` rank every task that it has not ranked yet (under ``criterion``), into the same store.

    Rankings are stored as they come, so a run that was cut goes on from there. One that the judge gave when it was
    asked otherwise (another constitution, other weights under the same name) is superseded. A task without a verdict
    is not stored: it is asked about again next time.

    Raises:
        UserError: there is no such task, or the judge cannot go on.
    """
    tasks = [task for task in store.tasks() if criterion in (None, task.criterion)]
    if not tasks:
        under = f" under the criterion {criterion!r}" if criterion is not None else ""
        raise UserError(f"{store.url} holds no tasks{under}; add some first, or check the store and the criterion")
    earlier = {ranking.task: ranking for ranking in store.rankings(annotators=[judge.name])}
    same = {name for name, ranking in earlier.items() if ranking.metadata.get("judge") == judge.identity}
    waiting = [task for task in tasks if task.id not in same]
    result = Ranked(before=len(tasks) - len(waiting))
    shown = progress or Progress()
    shown.stage("judging", len(waiting))
    for start in range(0, len(waiting), AT_ONCE):
        rankings = rank(judge, waiting[start : start + AT_ONCE], tie_margin)
        given = [
            replace(ranking, supersedes=earlier[ranking.task].id if ranking.task in earlier else None)
            for ranking in rankings
            if ranking.skipped is None
        ]
        store.add_rankings(given)
        result.ranked += len(given)
        result.again += sum(ranking.supersedes is not None for ranking in given)
        result.without += len(rankings) - len(given)
        result.reason = result.reason or next((r.skipped for r in rankings if r.skipped is not None), "")
        shown.advance(start + len(rankings))
    return result


def send_to_people(store: Store, found: Sequence[Contradiction]) -> int:
    """Put pairs on which a judge contradicts itself into ``store`` as tasks for one person each, those first on which
    the two orders are furthest apart. How many are new; one that is there already stays as it is."""
    known = {task.id for task in store.tasks()}
    tasks = [
        NewTask(
            pair.item.prompt,
            pair.item.responses,
            pair.item.criterion,
            wanted=1,
            priority=pair.size,
            slice="active",
            source="judge",
        )
        for pair in found
    ]
    return len(set(store.add_tasks(tasks)) - known)
