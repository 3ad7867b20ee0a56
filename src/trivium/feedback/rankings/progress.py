"""How far the work is, and how well each annotator does it."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

import sqlalchemy as sa

from trivium.feedback.rankings import entries
from trivium.feedback.rankings import tables as t
from trivium.feedback.rankings.record import UNRANKED
from trivium.feedback.rankings.work import Progress, Work


def load(connection: sa.Connection, now: float) -> Progress:
    counts = dict.fromkeys(("open", "flagged", "done"), 0)
    for status, count in connection.execute(sa.select(t.tasks.c.status, sa.func.count()).group_by(t.tasks.c.status)):
        counts[status] = count
    leases = sa.select(sa.func.count()).where(t.assignments.c.submitted.is_(None), t.assignments.c.expires > now)
    work = _by_annotator(connection)
    return Progress(
        tasks=sum(counts.values()),
        done=counts["done"],
        open=counts["open"],
        flagged=counts["flagged"],
        rankings=sum(item.rankings for item in work.values()),
        live_leases=connection.scalar(leases) or 0,
        said=connection.scalar(sa.select(sa.func.count()).select_from(t.rankings)) or 0,
        by_annotator=work,
    )


@dataclass
class _Count:
    rankings: int = 0
    skipped: int = 0
    right: float = 0.0
    pairs: int = 0
    seconds: list[float] = field(default_factory=list)
    last: str = ""


def _by_annotator(connection: sa.Connection) -> dict[str, Work]:
    """Over the rankings that stand; a skip is counted as a skip and not as a ranking."""
    columns = (t.rankings.c.tiers, t.rankings.c.skipped, t.rankings.c.seconds, t.rankings.c.time)
    rows = connection.execute(
        sa.select(t.annotators.c.name, *columns, t.gold_tasks.c.tiers.label("gold"))
        .join(t.annotators, t.annotators.c.number == t.rankings.c.annotator)
        .join(t.gold_tasks, t.gold_tasks.c.task == t.rankings.c.task, isouter=True)
        .where(entries.stands())
    )
    found: defaultdict[str, _Count] = defaultdict(_Count)
    for row in rows:
        count = found[row.name]
        count.last = max(count.last, row.time)
        if row.skipped is not None:
            count.skipped += 1
            continue
        count.rankings += 1
        if row.seconds is not None:
            count.seconds.append(row.seconds)
        if row.gold is not None:
            right, pairs = gold_agreement(row.gold, row.tiers)
            count.right += right
            count.pairs += pairs
    names = connection.scalars(sa.select(t.annotators.c.name).order_by(t.annotators.c.number))
    return {name: _work(found[name]) for name in names}


def _work(count: _Count) -> Work:
    median = statistics.median(count.seconds) if count.seconds else None
    return Work(count.rankings, count.skipped, count.right, count.pairs, median, count.last)


def gold_agreement(gold: list[int], tiers: list[int]) -> tuple[float, int]:
    """Of the pairs that gold orders and the tiers rank: how many are ordered alike (a tie counts half), and how many.

    >>> gold_agreement([0, 1, 2], [0, 0, 1])
    (2.5, 3)
    """
    both = [number for number in range(len(gold)) if UNRANKED not in (gold[number], tiers[number])]
    pairs = [(i, j) for i in both for j in both if gold[i] < gold[j]]
    return sum(1.0 if tiers[i] < tiers[j] else 0.5 * (tiers[i] == tiers[j]) for i, j in pairs), len(pairs)
