"""Prompts, responses and tasks: their names by content, storing them, and getting them back as they were."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings import tables as t
from trivium.feedback.rankings.record import UNRANKED, Response, dense_tiers
from trivium.feedback.rankings.work import StoreError, Task

CHUNK = 1000  # rows asked for by name at a time: SQLite admits so many parameters
SLICES = ("", "random", "active")


@dataclass(frozen=True)
class NewTask:
    """What ``Store.add_tasks`` takes; see ``Store.add_task``."""

    prompt: Prompt
    responses: Sequence[Response]
    criterion: str = "overall"
    wanted: int = 1
    priority: float = 0.0
    slice: str = ""
    gold: Sequence[int] | None = None
    gold_note: str = ""
    source: str = ""


@dataclass(frozen=True)
class Content:
    """What a ranking speaks of."""

    prompt: Prompt
    responses: tuple[Response, ...]
    criterion: str


def moment() -> str:
    return iso(datetime.now(UTC).timestamp())


def iso(seconds: float) -> str:
    """Seconds since 1970 as UTC in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def plain(value: str, what: str) -> str:
    """``value`` if every database can hold it as text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        value = "\0"
    if "\0" in value:
        raise StoreError("invalid", f"{what} holds characters that cannot be stored; use plain text")
    return value


def chunks(items: Sequence[Any], size: int = CHUNK) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert_new(connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows, leaving those that are there as they are."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    for part in chunks(list(rows)):
        connection.execute(insert(table).on_conflict_do_nothing(), part)


# ---- names by content ------------------------------------------------------------------------------------------------


def _digest(value: Any, what: str) -> str:
    try:
        text = json.dumps(value, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise StoreError("invalid", f"{what} cannot be stored: {error}; use plain JSON values") from None
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    row = {
        "id": prompt.id,
        "messages": [[message.role, message.content] for message in prompt.messages],
        "answer": prompt.answer,
        "task": prompt.task,
        "metadata": prompt.metadata,
    }
    return {"hash": _digest(row, f"the prompt {prompt.id!r}"), **row}


def response_row(response: Response) -> dict[str, Any]:
    row = {
        "text": response.text,
        "model": response.model,
        "checkpoint": response.checkpoint,
        "sampling": response.sampling,
        "finish_reason": response.finish_reason,
        "metadata": response.metadata,
    }
    return {"hash": _digest(row, "a response"), **row}


class Added:
    """Rows of prompts, responses and tasks, collected to be stored together."""

    def __init__(self) -> None:
        self.prompts: dict[str, dict[str, Any]] = {}
        self.responses: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.links: list[dict[str, Any]] = []
        self._created = moment()

    def task(
        self,
        prompt: Prompt,
        responses: Sequence[Response],
        criterion: str,
        *,
        wanted: int,
        priority: float = 0.0,
        slice: str = "",
        source: str = "",
    ) -> str:
        """The id of the task of this content."""
        asked = prompt_row(prompt)
        answers = [response_row(response) for response in responses]
        task = _digest([asked["hash"], [row["hash"] for row in answers], criterion], "the task")
        if task not in self.tasks:
            self.prompts[asked["hash"]] = asked
            self.responses.update((row["hash"], row) for row in answers)
            self.links += [{"task": task, "number": n, "response": row["hash"]} for n, row in enumerate(answers)]
            self.tasks[task] = {
                "id": task,
                "prompt": asked["hash"],
                "criterion": plain(criterion, "the criterion"),
                "wanted": wanted,
                "priority": float(priority),
                "slice": slice,
                "source": plain(source, "the source"),
                "closed": False,
                "done": 0,
                "status": "open" if wanted > 0 else "done",
                "created": self._created,
            }
        return task

    def store(self, connection: sa.Connection) -> None:
        insert_new(connection, t.prompts, self.prompts.values())
        insert_new(connection, t.responses, self.responses.values())
        insert_new(connection, t.tasks, self.tasks.values())
        insert_new(connection, t.task_responses, self.links)


def add_tasks(connection: sa.Connection, new: Sequence[NewTask]) -> list[str]:
    """Store tasks; of one that is there, ``wanted`` may grow, and one that came with a ranking alone becomes work."""
    added = Added()
    ids = []
    for item in new:
        _check(item)
        ids.append(
            added.task(
                item.prompt,
                item.responses,
                item.criterion,
                wanted=item.wanted,
                priority=item.priority,
                slice=item.slice,
                source=item.source,
            )
        )
    added.store(connection)
    for row in added.tasks.values():
        here = sa.and_(t.tasks.c.id == row["id"], t.tasks.c.wanted < row["wanted"])
        values = {key: row[key] for key in ("priority", "slice", "source")}
        connection.execute(sa.update(t.tasks).where(here, t.tasks.c.wanted == 0).values(values))
        connection.execute(sa.update(t.tasks).where(here).values(wanted=row["wanted"]))
    for task, item in zip(ids, new, strict=True):
        if item.gold is not None:
            set_gold(connection, task, item.gold, item.gold_note)
    refresh(connection, list(added.tasks))
    return ids


def _check(item: NewTask) -> None:
    count = len(item.responses)
    if count < 2:
        raise StoreError("invalid", f"a task needs at least 2 responses to rank, and this one has {count}")
    if item.wanted < 0:  # 0: nobody is asked, it is there for the rankings that come otherwise
        raise StoreError("invalid", f"a task is for 0 annotators or more, not for {item.wanted}")
    _check_slice(item.slice)
    if item.priority != item.priority:
        raise StoreError("invalid", "the priority of a task must be a number")


def _check_slice(name: str) -> None:
    if name not in SLICES:
        raise StoreError("invalid", f"the slice of a task is 'random', 'active' or empty, not {name!r}")


def set_slices(connection: sa.Connection, slices: Mapping[str, str]) -> int:
    """Set the slices of tasks that are in none; how many were set."""
    count = 0
    for task, name in sorted(slices.items()):
        _check_slice(name)
        here = t.tasks.c.id == task
        changed = connection.execute(sa.update(t.tasks).where(here, t.tasks.c.slice == "").values(slice=name)).rowcount
        if not changed and connection.execute(sa.select(t.tasks.c.id).where(here)).first() is None:
            raise unknown_task(task)
        count += changed
    return count


def set_gold(connection: sa.Connection, task: str, tiers: Sequence[int], note: str) -> None:
    count = connection.scalar(sa.select(sa.func.count()).where(t.task_responses.c.task == task))
    if not count:
        raise unknown_task(task)
    if len(tiers) != count:
        raise StoreError(
            "invalid", f"the gold ranking has {len(tiers)} tiers for {count} responses; give one a response"
        )
    tiers = dense_tiers(tiers)
    if len(set(tiers) - {UNRANKED}) < 2:
        raise StoreError("invalid", "the gold ranking prefers nothing; put at least one response above another")
    values = {"tiers": list(tiers), "note": note, "created": moment()}
    changed = connection.execute(sa.update(t.gold_tasks).where(t.gold_tasks.c.task == task).values(values))
    if not changed.rowcount:
        connection.execute(sa.insert(t.gold_tasks).values(task=task, **values))


def unknown_task(task: str) -> StoreError:
    return StoreError("unknown_task", f"the store has no task {task!r}")


# ---- what follows from rankings and flags ----------------------------------------------------------------------------


def refresh(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Count anew how often tasks were done, and their status."""
    later = t.rankings.alias()
    done = (
        sa.select(sa.func.count(sa.distinct(t.rankings.c.annotator)))
        .where(
            t.rankings.c.task == t.tasks.c.id,
            t.rankings.c.skipped.is_(None),
            sa.or_(t.rankings.c.assignment.is_not(None), t.rankings.c.kind == "human"),
            ~sa.exists().where(later.c.supersedes == t.rankings.c.id),
        )
        .scalar_subquery()
    )
    flagged = sa.exists().where(t.flags.c.task == t.tasks.c.id, t.flags.c.resolved.is_(False))
    status = sa.case(
        (t.tasks.c.closed.is_(True), "done"),
        (flagged, "flagged"),
        (t.tasks.c.done >= t.tasks.c.wanted, "done"),
        else_="open",
    )
    for part in chunks(sorted(ids)):
        here = t.tasks.c.id.in_(part)
        # The lock comes in a statement of its own, so that the count sees what the transaction before it stored.
        lock = sa.select(t.tasks.c.id).where(here).order_by(t.tasks.c.id).with_for_update(key_share=True)
        connection.execute(lock).all()
        connection.execute(sa.update(t.tasks).where(here).values(done=done))
        connection.execute(sa.update(t.tasks).where(here).values(status=status))


# ---- getting them back -----------------------------------------------------------------------------------------------


def load_contents(connection: sa.Connection, ids: Iterable[str]) -> dict[str, Content]:
    """What the tasks of these ids are about. Equal prompts and responses come back as one object."""
    found: dict[str, Content] = {}
    for part in chunks(list(ids)):
        here = t.tasks.c.id.in_(part)
        linked = sa.select(t.tasks.c.prompt).where(here)
        prompts = {
            row.hash: Prompt(row.id, tuple(Message(*m) for m in row.messages), row.answer, row.task, row.metadata)
            for row in connection.execute(sa.select(t.prompts).where(t.prompts.c.hash.in_(linked)))
        }
        named = sa.select(t.task_responses.c.response).where(t.task_responses.c.task.in_(part))
        responses = {
            row[0]: Response(*row[1:])
            for row in connection.execute(sa.select(t.responses).where(t.responses.c.hash.in_(named)))
        }
        answers: dict[str, list[Response]] = {}
        links = sa.select(t.task_responses).where(t.task_responses.c.task.in_(part))
        for row in connection.execute(links.order_by(t.task_responses.c.task, t.task_responses.c.number)):
            answers.setdefault(row.task, []).append(responses[row.response])
        for row in connection.execute(sa.select(t.tasks.c.id, t.tasks.c.prompt, t.tasks.c.criterion).where(here)):
            found[row.id] = Content(prompts[row.prompt], tuple(answers[row.id]), row.criterion)
    return found


def load_tasks(connection: sa.Connection, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[Task]:
    """Tasks in the order of adding."""
    query = (
        sa.select(t.tasks, t.gold_tasks.c.tiers.label("gold"), t.gold_tasks.c.note.label("gold_note"))
        .join(t.gold_tasks, t.gold_tasks.c.task == t.tasks.c.id, isouter=True)
        .where(*conditions)
        .order_by(t.tasks.c.number)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    contents = load_contents(connection, [row.id for row in rows])
    return [
        Task(
            id=row.id,
            prompt=contents[row.id].prompt,
            responses=contents[row.id].responses,
            criterion=row.criterion,
            wanted=row.wanted,
            priority=row.priority,
            slice=row.slice,
            gold=None if row.gold is None else tuple(row.gold),
            gold_note=row.gold_note or "",
            source=row.source,
            status=row.status,
            done=row.done,
            created=row.created,
            closed=row.closed,
        )
        for row in rows
    ]


def load_task(connection: sa.Connection, task: str) -> Task:
    found = load_tasks(connection, t.tasks.c.id == task)
    if not found:
        raise unknown_task(task)
    return found[0]
