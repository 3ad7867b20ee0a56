"""Who ranks what next, and taking in what they say."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from trivium.feedback.rankings import entries
from trivium.feedback.rankings import tables as t
from trivium.feedback.rankings.contents import chunks, iso, load_task, plain, refresh
from trivium.feedback.rankings.record import UNRANKED, Ranking, dense_tiers
from trivium.feedback.rankings.work import Assignment, StoreError
from trivium.streams import generator


@dataclass(frozen=True)
class Draw:
    """How the next task is drawn: shares of gold tasks and of the random slice, and the seed of the draws."""

    lease_seconds: float = 1800
    gold_share: float = 0.0
    random_share: float = 0.2
    seed: int = 0


def seconds_now(now: datetime | float | None) -> float:
    if now is None:
        return datetime.now(UTC).timestamp()
    return now.timestamp() if isinstance(now, datetime) else float(now)


def find_annotator(connection: sa.Connection, name: str, *, lock: bool = False) -> Any:
    """The row of an active annotator.

    Raises:
        StoreError: ``unknown_annotator``.
    """
    query = sa.select(t.annotators).where(t.annotators.c.name == name)
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).first()
    if row is None:
        raise StoreError("unknown_annotator", f"the store has no annotator {name!r}; add one first")
    if not row.active:
        raise StoreError("unknown_annotator", f"the access of {name!r} was revoked; ask for a new link")
    return row


# ---- assigning -------------------------------------------------------------------------------------------------------


def assign(connection: sa.Connection, annotator: str, draw: Draw, now: float) -> Assignment | None:
    """The annotator's open assignment with its lease renewed, or one of a task drawn for them; None: nothing is left.

    The row of the annotator is locked first (as in ``submit``), so that two tabs of one person get one assignment.
    """
    person = find_annotator(connection, annotator, lock=True)
    row = _open_assignment(connection, person.number, draw, now)
    if row is None:
        task = _draw_task(connection, person, draw, now)
        if task is None:
            return None
        row = _hand_out(connection, task, person, draw, now)
    expires = now + draw.lease_seconds
    connection.execute(sa.update(t.assignments).where(t.assignments.c.id == row.id).values(expires=expires))
    return replace(_view(connection, row, annotator, now), expires=iso(expires), expired=False)


def _open_assignment(connection: sa.Connection, person: int, draw: Draw, now: float) -> Any:
    """What the annotator has in hand: a lease that runs, else one that ran out while the task still wants rankings.
    Leases of tasks that are flagged or done meanwhile end; what is submitted to them is late."""
    rows = connection.execute(
        sa.select(t.assignments, t.tasks.c.closed, t.tasks.c.status, t.gold_tasks.c.task.label("gold"))
        .join(t.tasks, t.tasks.c.id == t.assignments.c.task)
        .join(t.gold_tasks, t.gold_tasks.c.task == t.tasks.c.id, isouter=True)
        .where(t.assignments.c.annotator == person, t.assignments.c.submitted.is_(None))
        .order_by(t.assignments.c.created)
    ).all()
    running = [row for row in rows if row.expires > now]
    ended = [row.id for row in running if not _is_of_use(row, draw)]
    for part in chunks(ended):
        connection.execute(sa.update(t.assignments).where(t.assignments.c.id.in_(part)).values(expires=now))
    for row in running:
        if row.id not in ended:
            return row
    for row in rows:
        if row.status == "open" and _is_wanted(connection, row.task, person, now):
            return row
    return None


def _is_of_use(row: Any, draw: Draw) -> bool:
    """Whether a ranking of the task is still asked for. A gold task that is mixed in goes to everybody."""
    mixed_in = row.gold is not None and draw.gold_share > 0
    return row.status == "open" or (row.status == "done" and not row.closed and mixed_in)


def _leases(task: Any, person: int, now: float) -> Any:
    """How many others hold the task."""
    held = sa.and_(t.assignments.c.task == task, t.assignments.c.annotator != person)
    running = sa.and_(t.assignments.c.submitted.is_(None), t.assignments.c.expires > now)
    return sa.select(sa.func.count()).where(held, running).correlate(t.tasks).scalar_subquery()


def _is_wanted(connection: sa.Connection, task: str, person: int, now: float) -> bool:
    """Whether the task, once its row is locked, still has room for one annotator more."""
    here = t.tasks.c.id == task
    connection.execute(sa.select(t.tasks.c.id).where(here).with_for_update(key_share=True)).all()
    wanted = t.tasks.c.done + _leases(t.tasks.c.id, person, now) < t.tasks.c.wanted
    return (
        connection.execute(sa.select(t.tasks.c.id).where(here, t.tasks.c.status == "open", wanted)).first() is not None
    )


def _draw_task(connection: sa.Connection, person: Any, draw: Draw, now: float) -> str | None:
    count = connection.scalar(sa.select(sa.func.count()).where(t.assignments.c.annotator == person.number))
    chance = generator(draw.seed, "assign", person.name, int(count or 0))
    gold, uniform = chance.random(2)
    if gold < draw.gold_share:
        waiting = _gold_left(connection, person.number)
        if waiting:
            return waiting[int(chance.integers(len(waiting)))]
    is_gold = sa.exists().where(t.gold_tasks.c.task == t.tasks.c.id)
    # Gold tasks are no ordinary work while they are mixed in; what is left of them comes at the end.
    kept_apart = [~is_gold] if draw.gold_share > 0 else []
    slices = [True, False] if uniform < draw.random_share else [False, True]
    for conditions in [kept_apart, []] if kept_apart else [[]]:
        for from_random in slices:
            task = _first(connection, person.number, now, from_random, conditions)
            if task is not None:
                return task
    return None


def _not_done_by(person: int) -> sa.ColumnElement[bool]:
    return ~sa.exists().where(t.rankings.c.task == t.tasks.c.id, t.rankings.c.annotator == person)


def _gold_left(connection: sa.Connection, person: int) -> list[str]:
    query = sa.select(t.tasks.c.id).join(t.gold_tasks, t.gold_tasks.c.task == t.tasks.c.id)
    waiting = query.where(t.tasks.c.closed.is_(False), t.tasks.c.status != "flagged", _not_done_by(person))
    return list(connection.scalars(waiting.order_by(t.tasks.c.id)))


def _first(
    connection: sa.Connection, person: int, now: float, from_random: bool, conditions: Sequence[Any]
) -> str | None:
    """The first task in line that wants the annotator; its row is locked. Rows that another transaction has locked are
    passed over, and waited for only when there is nothing else."""
    line = [
        t.tasks.c.status == "open",
        t.tasks.c.slice == "random" if from_random else t.tasks.c.slice.in_(("", "active")),
        _not_done_by(person),
        t.tasks.c.done + _leases(t.tasks.c.id, person, now) < t.tasks.c.wanted,
        *conditions,
    ]
    # The id is a hash: its order is a random one that does not change when tasks are added.
    order = [t.tasks.c.id] if from_random else [t.tasks.c.priority.desc(), t.tasks.c.number]
    query = sa.select(t.tasks.c.id).where(*line).order_by(*order).limit(1)
    refused: list[str] = []
    for skip_locked in (True, False):
        while True:
            asked = query.where(t.tasks.c.id.not_in(refused)) if refused else query
            lock = asked.with_for_update(key_share=True, skip_locked=skip_locked, of=t.tasks)
            task = connection.scalar(lock)
            if task is None:
                break
            if _is_wanted(connection, task, person, now):
                return str(task)
            refused.append(str(task))  # it was taken between the search and the lock
        if connection.dialect.name == "sqlite":  # one writer: nothing can be locked by another
            break
    return None


def _hand_out(connection: sa.Connection, task: str, person: Any, draw: Draw, now: float) -> Any:
    """The row of the assignment; one of this annotator that ran out before is taken up again."""
    here = sa.and_(t.assignments.c.task == task, t.assignments.c.annotator == person.number)
    query = sa.select(t.assignments).where(here)
    found = connection.execute(query).first()
    if found is not None:
        return found
    count = connection.scalar(sa.select(sa.func.count()).where(t.task_responses.c.task == task)) or 0
    displayed = generator(draw.seed, "displayed", task, person.name).permutation(count)
    values = {"displayed": displayed.tolist(), "created": now, "expires": now, "submitted": None}
    values |= {"id": secrets.token_hex(16), "task": task, "annotator": person.number}
    connection.execute(sa.insert(t.assignments).values(values))
    return connection.execute(query).one()


def _view(connection: sa.Connection, row: Any, annotator: str, now: float) -> Assignment:
    latest = sa.select(t.rankings.c.id).where(t.rankings.c.assignment == row.id, entries.stands())
    return Assignment(
        id=row.id,
        task=load_task(connection, row.task),
        annotator=annotator,
        displayed=tuple(row.displayed),
        created=iso(row.created),
        expires=iso(row.expires),
        expired=row.expires <= now,
        ranking_id=connection.scalar(latest.order_by(t.rankings.c.number.desc()).limit(1)),
    )


def find(connection: sa.Connection, assignment: str, annotator: str, now: float) -> Assignment:
    """Raises StoreError ``unknown_assignment``, ``unknown_annotator``, or ``conflict`` for another's."""
    person = find_annotator(connection, annotator)
    return _view(connection, _find_row(connection, assignment, person), annotator, now)


def last_assignment(connection: sa.Connection, annotator: str, now: float) -> Assignment | None:
    person = find_annotator(connection, annotator)
    query = sa.select(t.assignments).where(
        t.assignments.c.annotator == person.number, t.assignments.c.submitted.is_not(None)
    )
    row = connection.execute(query.order_by(t.assignments.c.submitted.desc()).limit(1)).first()
    return None if row is None else _view(connection, row, annotator, now)


def progress_of(connection: sa.Connection, annotator: str) -> tuple[int, int, int]:
    person = find_annotator(connection, annotator)
    by_them = t.rankings.c.annotator == person.number
    done = sa.select(sa.func.count(sa.distinct(t.rankings.c.task))).where(by_them)
    is_open = t.tasks.c.status == "open"
    waiting = connection.scalar(sa.select(sa.func.count()).select_from(t.tasks).where(is_open)) or 0
    done_there = connection.scalar(done.join(t.tasks, t.tasks.c.id == t.rankings.c.task).where(is_open)) or 0
    count, remaining = connection.scalar(done) or 0, waiting - done_there
    return count, remaining, count + remaining


def _find_row(connection: sa.Connection, assignment: str, person: Any) -> Any:
    plain(assignment, "the assignment")
    row = connection.execute(sa.select(t.assignments).where(t.assignments.c.id == assignment)).first()
    if row is None:
        raise StoreError("unknown_assignment", "there is no such assignment; reload the page to get another task")
    if row.annotator != person.number:
        raise StoreError("conflict", "this assignment belongs to another annotator; reload the page to get your own")
    return row


# ---- submitting ------------------------------------------------------------------------------------------------------


def submit(
    connection: sa.Connection, assignment: str, annotator: str, key: str, said: Mapping[str, Any], now: float
) -> Ranking:
    """Store what the annotator said; see ``Store.submit``. Their row is locked, so that their submits queue."""
    if not key:
        raise StoreError("invalid", "a submit needs a key, so that a repeated one is known")
    plain(key, "the key")
    person = find_annotator(connection, annotator, lock=True)
    row = _find_row(connection, assignment, person)
    known = entries.load(connection, t.rankings.c.annotator == person.number, t.rankings.c.key == key)
    if known:
        of = connection.scalar(sa.select(t.rankings.c.assignment).where(t.rankings.c.id == known[0].id))
        if of != assignment:
            raise StoreError("conflict", "this key was used for another assignment; reload the page and submit again")
        return known[0]
    view = _view(connection, row, annotator, now)
    ranking = _ranking(view, person.kind, key, said, now)
    entries.check(ranking)
    stored = entries.row_of(ranking, view.task.id, person.number, assignment, key)
    connection.execute(sa.insert(t.rankings), stored)
    entries.store_flags(connection, [stored])
    connection.execute(sa.update(t.assignments).where(t.assignments.c.id == assignment).values(submitted=now))
    refresh(connection, [view.task.id])
    return ranking


def _ranking(view: Assignment, kind: str, key: str, said: Mapping[str, Any], now: float) -> Ranking:
    count = len(view.task.responses)
    text = "\x1f".join((view.annotator, view.id, key))
    strength, seconds = said["strength"], said["seconds"]
    # A correction of what was handed in on time is not late.
    late = view.expired and view.ranking_id is None
    edited_from = said["edited_from"]
    if edited_from is not None and not 0 <= edited_from < count:
        raise StoreError("unknown_response", f"response {edited_from} was edited, but they are 0 to {count - 1}")
    return Ranking(
        prompt=view.task.prompt,
        responses=view.task.responses,
        tiers=_tiers(said["tiers"], count),
        annotator=view.annotator,
        kind=kind,
        criterion=view.task.criterion,
        displayed=view.displayed,
        time=iso(now),
        id=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        all_bad=bool(said["all_bad"]),
        skipped=said["skipped"],
        flags=tuple(said["flags"]),
        strength=None if strength is None else float(strength),
        note=said["note"],
        edited=said["edited"],
        edited_from=edited_from,
        supersedes=view.ranking_id,
        task=view.task.id,
        seconds=None if seconds is None else float(seconds),
        metadata={"late": True} if late else {},
    )


def _tiers(given: Sequence[int] | Mapping[int, int], count: int) -> tuple[int, ...]:
    """Dense tiers of all responses, from a tier for each or from {number: tier}."""
    if isinstance(given, Mapping):
        unknown = [number for number in given if number not in range(count)]
        given = [given.get(number, UNRANKED) for number in range(count)]
    else:
        unknown = list(range(count, len(given)))
    if unknown:
        raise StoreError("unknown_response", f"response {unknown[0]} was ranked, but they are 0 to {count - 1}")
    if not all(type(tier) is int for tier in given):
        raise StoreError("invalid", f"tiers are whole numbers from 0, or -1 for unranked, not {list(given)!r}")
    if len(given) != count:
        raise StoreError("invalid", f"there are {len(given)} tiers for {count} responses; give one a response")
    return dense_tiers(given)
