"""Rankings in the tables and back, as they were given."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from trivium.feedback.rankings import tables as t
from trivium.feedback.rankings.contents import CHUNK, Added, Content, chunks, load_contents, moment, plain, refresh
from trivium.feedback.rankings.database import Database
from trivium.feedback.rankings.record import Ranking, preference_rows, problem_of, to_row
from trivium.feedback.rankings.work import Flag, StoreError

_LATER = t.rankings.alias("later")


def stands() -> sa.ColumnElement[bool]:
    """No other ranking supersedes it."""
    return ~sa.exists().where(_LATER.c.supersedes == t.rankings.c.id)


def check(ranking: Ranking) -> None:
    """Raises StoreError ``invalid`` with what is wrong."""
    name = f"the ranking {ranking.id}" if ranking.id else "the ranking"
    if problem := problem_of(ranking):
        raise StoreError("invalid", f"{name} is not valid: {problem}")
    if ranking.seconds is not None and not (math.isfinite(ranking.seconds) and ranking.seconds >= 0):
        raise StoreError("invalid", f"{name} took {ranking.seconds} seconds; give a number from 0, or leave it out")
    if ranking.supersedes is not None and ranking.supersedes == ranking.id:
        raise StoreError("invalid", f"{name} supersedes itself; name the one it corrects")
    for what in ("id", "annotator", "criterion", "time", "task", "supersedes"):
        plain(getattr(ranking, what) or "", f"the {what} of {name}")


def named(ranking: Ranking) -> Ranking:
    """The ranking with an id. Raises StoreError ``invalid`` where its content cannot be written as JSON."""
    try:
        return ranking.with_id()
    except (TypeError, ValueError) as error:
        raise StoreError("invalid", f"a ranking cannot be stored: {error}; use plain JSON values") from None


def row_of(ranking: Ranking, task: str, annotator: int, assignment: str | None = None, key: str | None = None) -> dict:
    return {
        "id": ranking.id,
        "task": task,
        "task_name": ranking.task,
        "annotator": annotator,
        "assignment": assignment,
        "key": key,
        "kind": ranking.kind,
        "tiers": [int(tier) for tier in ranking.tiers],
        "displayed": [int(number) for number in ranking.displayed],
        "all_bad": ranking.all_bad,
        "skipped": ranking.skipped,
        "flags": list(ranking.flags),
        "strength": ranking.strength,
        "note": ranking.note,
        "edited": ranking.edited,
        "edited_from": ranking.edited_from,
        "supersedes": ranking.supersedes,
        "time": ranking.time,
        "seconds": ranking.seconds,
        "metadata": ranking.metadata,
        "preferences": preference_rows(ranking.preferences) or None,
    }


def ranking_of(row: Any, content: Content) -> Ranking:
    return Ranking(
        prompt=content.prompt,
        responses=content.responses,
        tiers=tuple(row.tiers),
        annotator=row.name,
        kind=row.kind,
        criterion=content.criterion,
        displayed=tuple(row.displayed),
        time=row.time,
        id=row.id,
        all_bad=row.all_bad,
        skipped=row.skipped,
        flags=tuple(row.flags),
        strength=row.strength,
        note=row.note,
        edited=row.edited,
        edited_from=row.edited_from,
        supersedes=row.supersedes,
        task=row.task_name,
        seconds=row.seconds,
        metadata=row.metadata,
        preferences=tuple((first, second, probability) for first, second, probability in row.preferences or ()),
    )


def query() -> sa.Select[Any]:
    return sa.select(t.rankings, t.annotators.c.name).join(
        t.annotators, t.annotators.c.number == t.rankings.c.annotator
    )


def load(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Ranking]:
    """The rankings for which the conditions hold, in the order of storing."""
    rows = connection.execute(query().where(*conditions).order_by(t.rankings.c.number)).all()
    contents = load_contents(connection, {row.task for row in rows})
    return [ranking_of(row, contents[row.task]) for row in rows]


def stream(database: Database, conditions: Sequence[sa.ColumnElement[bool]], superseded: bool) -> Iterator[Ranking]:
    """Rankings page by page, as they stood when reading began, so that a slow reader holds no transaction open."""
    with database.reading() as connection:
        top = connection.scalar(sa.select(sa.func.max(t.rankings.c.number))) or 0
    later = sa.exists().where(_LATER.c.supersedes == t.rankings.c.id, _LATER.c.number <= top)
    shown = [*conditions, t.rankings.c.number <= top, *([] if superseded else [~later])]
    last = 0
    contents: dict[str, Content] = {}
    while True:
        page = query().where(*shown, t.rankings.c.number > last).order_by(t.rankings.c.number).limit(CHUNK)
        with database.reading() as connection:
            rows = connection.execute(page).all()
            contents |= load_contents(connection, {row.task for row in rows} - contents.keys())
        for row in rows:
            yield ranking_of(row, contents[row.task])
        if len(rows) < CHUNK:
            return
        last = rows[-1].number


# ---- adding ----------------------------------------------------------------------------------------------------------


def add(connection: sa.Connection, rankings: Sequence[Ranking]) -> int:
    """Store what is new by id, with tasks and annotators as needed; returns how many were new."""
    unique: dict[str, Ranking] = {}
    for ranking in rankings:
        if _differ(unique.setdefault(ranking.id, ranking), ranking):
            raise _conflict(ranking)
    stored: dict[str, Ranking] = {}
    for part in chunks(list(unique)):
        stored |= {ranking.id: ranking for ranking in load(connection, t.rankings.c.id.in_(part))}
    for name, ranking in stored.items():
        if _differ(ranking, unique[name]):
            raise _conflict(ranking)
    new = [ranking for name, ranking in unique.items() if name not in stored]
    if not new:
        return 0
    _check_corrections(connection, new)
    numbers = annotator_numbers(connection, {ranking.annotator: ranking.kind for ranking in new})
    added = Added()
    # wanted 0: a task that came with its ranking is nobody's work until it is added as such
    tasks = [added.task(item.prompt, item.responses, item.criterion, wanted=0, source="rankings") for item in new]
    added.store(connection)
    rows = [row_of(item, task, numbers[item.annotator]) for item, task in zip(new, tasks, strict=True)]
    for part in chunks(rows):
        connection.execute(sa.insert(t.rankings), part)
    store_flags(connection, rows)
    refresh(connection, list(added.tasks))
    return len(new)


def _check_corrections(connection: sa.Connection, new: Sequence[Ranking]) -> None:
    """Raises StoreError ``invalid`` where a ranking supersedes another annotator's, or rankings supersede each other:
    none of them would stand. What a ranking supersedes need not be in the store."""
    links = {ranking.id: (ranking.annotator, ranking.supersedes) for ranking in new}
    columns = sa.select(t.rankings.c.id, t.annotators.c.name, t.rankings.c.supersedes)
    stored = columns.join(t.annotators, t.annotators.c.number == t.rankings.c.annotator)

    def find(condition: Callable[[Sequence[str]], sa.ColumnElement[bool]], ids: Sequence[str]) -> None:
        for part in chunks(ids):
            for row in connection.execute(stored.where(condition(part))):
                links[row.id] = (row.name, row.supersedes)

    find(t.rankings.c.supersedes.in_, list(links))
    asked: set[str] = set()
    while missing := {old for _, old in links.values() if old and old not in links} - asked:
        asked |= missing
        find(t.rankings.c.id.in_, sorted(missing))
    fresh = {ranking.id for ranking in new}
    for name, (annotator, old) in links.items():
        if old in links and links[old][0] != annotator and (name in fresh or old in fresh):
            raise StoreError(
                "invalid",
                f"the ranking {name!r} of {annotator!r} supersedes {old!r}, which {links[old][0]!r} gave; annotators "
                "correct rankings of their own alone, so leave out what it supersedes",
            )
    passed: set[str] = set()
    for ranking in new:
        path: dict[str, None] = {}  # in the order of going back
        at: str | None = ranking.id
        while at in links and at not in passed and at not in path:
            path[at] = None
            at = links[at][1]
        ring = list(path)[list(path).index(at) :] if at in path else []
        if not fresh.isdisjoint(ring):
            raise StoreError(
                "invalid",
                f"the rankings {', '.join(map(repr, ring[:3]))}{' …' * (len(ring) > 3)} supersede each other, so that "
                "none of them would stand; leave out what one of them supersedes",
            )
        passed |= path.keys()


def _differ(one: Ranking, other: Ranking) -> bool:
    """Whether they are stored differently: a tuple in the metadata comes back as a list, and NaN does not equal NaN."""
    return one != other and _text(one) != _text(other)


def _text(ranking: Ranking) -> str:
    return json.dumps(to_row(ranking), sort_keys=True)


def _conflict(ranking: Ranking) -> StoreError:
    return StoreError(
        "conflict", f"two different rankings have the id {ranking.id!r}; leave out the id of one to get a new one"
    )


def store_flags(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """The flags of new rankings, to be looked at; those of the rankings that they supersede are settled."""
    superseded = [row["supersedes"] for row in rows if row["supersedes"]]
    new = [
        {"ranking": row["id"], "task": row["task"], "reason": reason, "resolved": False}
        for row in rows
        for reason in row["flags"]
    ]
    for part in chunks(new):
        connection.execute(sa.insert(t.flags), part)
    for part in chunks(superseded):
        connection.execute(sa.update(t.flags).where(t.flags.c.ranking.in_(part)).values(resolved=True))


def annotator_numbers(connection: sa.Connection, kinds: Mapping[str, str]) -> dict[str, int]:
    """Numbers of annotators by name; those that are new are stored, without access to the page.

    Raises:
        StoreError: ``conflict``: one is stored with another kind.
    """
    numbers: dict[str, int] = {}
    for part in chunks(list(kinds)):
        found = sa.select(t.annotators).where(t.annotators.c.name.in_(part))
        here = {row.name: row for row in connection.execute(found)}
        for name in part:
            if name in here and here[name].kind != kinds[name]:
                raise StoreError(
                    "conflict",
                    f"the annotator {name!r} is {here[name].kind} in the store and {kinds[name]} in the rankings; "
                    "give one of the two another name",
                )
        rows = [
            {"name": name, "kind": kinds[name], "role": "annotator", "active": True, "created": moment()}
            for name in part
            if name not in here
        ]
        if rows:
            connection.execute(sa.insert(t.annotators), rows)
        numbers |= {row.name: row.number for row in connection.execute(found)}
    return numbers


def load_flags(connection: sa.Connection) -> list[Flag]:
    """Flags of rankings that stand, in the order of storing."""
    rows = connection.execute(
        sa.select(t.flags, t.annotators.c.name, t.rankings.c.time)
        .join(t.rankings, t.rankings.c.id == t.flags.c.ranking)
        .join(t.annotators, t.annotators.c.number == t.rankings.c.annotator)
        .where(stands())
        .order_by(t.flags.c.number)
    )
    return [Flag(row.ranking, row.task, row.name, row.reason, row.resolved, row.time) for row in rows]
