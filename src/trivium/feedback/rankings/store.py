"""The store of rankings: prompts, responses, tasks, annotators and what they said, in SQLite or PostgreSQL."""

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from trivium.data.records import Prompt
from trivium.feedback.rankings import assignment as work_flow
from trivium.feedback.rankings import contents, entries, progress, schema
from trivium.feedback.rankings import tables as t
from trivium.feedback.rankings.assignment import Draw, seconds_now
from trivium.feedback.rankings.contents import NewTask
from trivium.feedback.rankings.database import Database
from trivium.feedback.rankings.record import KINDS, Ranking, Response
from trivium.feedback.rankings.work import Annotator, Assignment, Flag, Progress, StoreError, Task, Work

__all__ = ["Annotator", "Assignment", "Flag", "NewTask", "Progress", "Store", "StoreError", "Task", "Work"]

ROLES = ("annotator", "admin")


class Store:
    """One store, for any number of threads and processes. Open it with ``Store.open``.

    Every method that writes is one transaction, which is on the disk when the method returns: what was acknowledged
    survives a killed process and a lost power supply. Rankings are appended and never changed; a correction
    supersedes. All methods raise ``StoreError``.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(
        cls, place: str | Path, *, create: bool = True, upgrade: bool = True, busy_seconds: float = 30.0
    ) -> "Store":
        """The store at ``place``: the path of a ``.db`` file, a directory (its ``rankings.db``), or a URL
        (``sqlite:///…``, ``postgresql://…``). ``create`` makes one where there is none; ``upgrade`` brings an older
        one up to date, keeping a copy of an SQLite file. A writer waits ``busy_seconds`` for another process.

        Raises:
            StoreError: ``not_a_store``, ``older_schema``, ``newer_schema``, ``read_only``, ``locked``, ``unavailable``.
        """
        database = Database(place, busy_seconds=busy_seconds)
        try:
            schema.prepare(database, create=create, upgrade=upgrade)
        except BaseException:
            database.engine.dispose()
            raise
        return cls(database)

    def close(self) -> None:
        self._database.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The path or URL, with the password hidden."""
        return self._database.url

    @property
    def path(self) -> Path | None:
        """The SQLite file; None with PostgreSQL."""
        return self._database.path

    # ---- people ------------------------------------------------------------------------------------------------------

    def add_annotator(self, name: str, *, kind: str = "human", role: str = "annotator") -> str:
        """Add an annotator and return their access token, which is shown this once (the store keeps its SHA-256).
        Those of kind ``ai`` and ``simulated`` get none: "". A person whose rankings were imported gets access."""
        if not name.strip():
            raise StoreError("invalid", "an annotator needs a name")
        contents.plain(name, "the name of the annotator")
        if kind not in KINDS:
            raise StoreError("invalid", f"the kind of an annotator is one of {', '.join(KINDS)}, not {kind!r}")
        if role not in ROLES:
            raise StoreError("invalid", f"the role of an annotator is one of {', '.join(ROLES)}, not {role!r}")
        token = secrets.token_urlsafe(32) if kind == "human" else ""
        with self._database.writing(contents=True) as connection:
            row = connection.execute(sa.select(t.annotators).where(t.annotators.c.name == name)).first()
            if row is not None and row.kind != kind:
                raise StoreError("conflict", f"{name!r} is stored with the kind {row.kind}; choose another name")
            if row is not None and row.token_hash is not None:
                raise StoreError("conflict", f"there is an annotator {name!r} already; choose another name")
            number = entries.annotator_numbers(connection, {name: kind})[name]
            values = {"role": role, "token_hash": _hash(token) if token else None, "active": True}
            connection.execute(sa.update(t.annotators).where(t.annotators.c.number == number).values(values))
        return token

    def new_token(self, name: str) -> str:
        """A new access token in place of the old one, which ends to work; one who was revoked is let in again."""
        token = secrets.token_urlsafe(32)
        self._set_annotator(name, t.annotators.c.kind == "human", token_hash=_hash(token), active=True)
        return token

    def revoke(self, name: str) -> None:
        """End the access of an annotator; what they said stays."""
        self._set_annotator(name, sa.true(), active=False)

    def _set_annotator(self, name: str, condition: sa.ColumnElement[bool], **values: Any) -> None:
        with self._database.writing() as connection:
            here = sa.and_(t.annotators.c.name == name, condition)
            if not connection.execute(sa.update(t.annotators).where(here).values(values)).rowcount:
                raise StoreError("unknown_annotator", f"the store has no person {name!r} to rank; add one first")

    def annotator_by_token(self, token: str) -> Annotator | None:
        """Whose token this is; None where it is nobody's or was revoked."""
        found = self._annotators(t.annotators.c.token_hash == _hash(token), t.annotators.c.active.is_(True))
        return found[0] if found else None

    def annotators(self) -> list[Annotator]:
        return self._annotators()

    def _annotators(self, *conditions: sa.ColumnElement[bool]) -> list[Annotator]:
        query = sa.select(t.annotators).where(*conditions).order_by(t.annotators.c.number)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [Annotator(row.name, row.kind, row.role, row.active, row.created) for row in rows]

    # ---- tasks -------------------------------------------------------------------------------------------------------

    def add_task(
        self,
        prompt: Prompt,
        responses: Sequence[Response],
        *,
        criterion: str = "overall",
        wanted: int = 1,
        priority: float = 0.0,
        slice: str = "",
        gold: Sequence[int] | None = None,
        gold_note: str = "",
        source: str = "",
    ) -> str:
        """Add a task and return its id, a hash of prompt, responses and criterion: adding it twice adds it once (a
        larger ``wanted`` counts). ``gold``: the known tiers. ``slice``: ``random`` marks the uniform sample that
        measures without bias, ``active`` what was chosen by ``priority``."""
        new = NewTask(prompt, responses, criterion, wanted, priority, slice, gold, gold_note, source)
        return self.add_tasks([new])[0]

    def add_tasks(self, new: Iterable[NewTask]) -> list[str]:
        """``add_task`` for many in one transaction."""
        items = list(new)
        with self._database.writing(contents=True) as connection:
            return contents.add_tasks(connection, items)

    def tasks(self) -> Iterator[Task]:
        """All tasks in the order of adding."""
        with self._database.reading() as connection:
            ids = list(connection.scalars(sa.select(t.tasks.c.id).order_by(t.tasks.c.number)))
        for part in contents.chunks(ids):
            with self._database.reading() as connection:
                found = contents.load_tasks(connection, t.tasks.c.id.in_(part))
            yield from found

    def task(self, task_id: str) -> Task:
        with self._database.reading() as connection:
            return contents.load_task(connection, task_id)

    def set_priorities(self, priorities: Mapping[str, float]) -> None:
        with self._database.writing() as connection:
            for task, priority in sorted(priorities.items()):
                if priority != priority:
                    raise StoreError("invalid", f"the priority of the task {task!r} is not a number")
                self._update_task(connection, task, priority=float(priority))

    def set_slices(self, slices: Mapping[str, str]) -> int:
        """Put tasks that are in no slice into these, in one transaction; how many were. A slice once set is kept."""
        with self._database.writing() as connection:
            return contents.set_slices(connection, slices)

    def close_task(self, task_id: str) -> None:
        """Nobody is given the task any more; who has it in hand may still submit. Its flags are settled."""
        with self._database.writing() as connection:
            self._update_task(connection, task_id, closed=True)
            self._settle_flags(connection, task_id)
            contents.refresh(connection, [task_id])

    def reopen_task(self, task_id: str) -> None:
        """Undo ``close_task``, and settle the flags that held the task back."""
        with self._database.writing() as connection:
            self._update_task(connection, task_id, closed=False)
            self._settle_flags(connection, task_id)
            contents.refresh(connection, [task_id])

    def _settle_flags(self, connection: sa.Connection, task: str) -> None:
        connection.execute(sa.update(t.flags).where(t.flags.c.task == task).values(resolved=True))

    def _update_task(self, connection: sa.Connection, task: str, **values: Any) -> None:
        if not connection.execute(sa.update(t.tasks).where(t.tasks.c.id == task).values(values)).rowcount:
            raise contents.unknown_task(task)

    def gold_tasks(self) -> list[Task]:
        with self._database.reading() as connection:
            return contents.load_tasks(connection, t.gold_tasks.c.task.is_not(None))

    def set_gold(self, task_id: str, tiers: Sequence[int], note: str = "") -> None:
        """Make a task a gold task with these tiers, one a response (-1: unranked), or give it others."""
        with self._database.writing() as connection:
            contents.set_gold(connection, task_id, tiers, note)

    # ---- work --------------------------------------------------------------------------------------------------------

    def assign(
        self,
        annotator: str,
        *,
        lease_seconds: float = 1800,
        gold_share: float = 0.0,
        random_share: float = 0.2,
        seed: int = 0,
        now: datetime | float | None = None,
    ) -> Assignment | None:
        """What the annotator ranks next; None: nothing is left for them.

        An assignment that is open comes back unchanged, its lease renewed; one of a task that was flagged or needs
        nobody any more ends (a submit to it is kept, as late). Else a task they have not done, with fewer than
        ``wanted`` rankings and running leases: with probability ``gold_share`` a gold task, with ``random_share`` one
        of the random slice in the order of hashes, else by priority, then age. ``now``: seconds since 1970.
        """
        draw = Draw(lease_seconds, gold_share, random_share, seed)
        with self._database.writing() as connection:
            return work_flow.assign(connection, annotator, draw, seconds_now(now))

    def assignment(self, assignment_id: str, annotator: str, *, now: datetime | float | None = None) -> Assignment:
        """An assignment of the annotator, also one that has expired or was submitted."""
        with self._database.reading() as connection:
            return work_flow.find(connection, assignment_id, annotator, seconds_now(now))

    def last_assignment(self, annotator: str, *, now: datetime | float | None = None) -> Assignment | None:
        """The assignment that the annotator submitted last, to be looked at again."""
        with self._database.reading() as connection:
            return work_flow.last_assignment(connection, annotator, seconds_now(now))

    def progress_of(self, annotator: str) -> tuple[int, int, int]:
        """Tasks that the annotator has done (skips too), open tasks that they have not, and the sum of both."""
        with self._database.reading() as connection:
            return work_flow.progress_of(connection, annotator)

    def submit(
        self,
        assignment_id: str,
        annotator: str,
        key: str,
        *,
        tiers: Sequence[int] | Mapping[int, int],
        all_bad: bool = False,
        skipped: str | None = None,
        flags: Sequence[str] = (),
        strength: float | None = None,
        note: str = "",
        edited: str | None = None,
        edited_from: int | None = None,
        seconds: float | None = None,
        now: datetime | float | None = None,
    ) -> Ranking:
        """Store what the annotator says of an assignment. ``tiers``: one a response by its number, or {number: tier};
        gaps are closed, negative is unranked.

        The same ``key`` returns the ranking that it stored. Another key supersedes what was submitted before. After
        the lease has run out it is stored too, with ``late`` in its metadata.

        Raises:
            StoreError: ``invalid``, ``unknown_response``, ``unknown_assignment``, ``unknown_annotator``, ``conflict``
                (the assignment is another's, or the key of another assignment).
        """
        said = {"tiers": tiers, "all_bad": all_bad, "skipped": skipped, "flags": flags, "strength": strength}
        said |= {"note": note, "edited": edited, "edited_from": edited_from, "seconds": seconds}
        with self._database.writing() as connection:
            return work_flow.submit(connection, assignment_id, annotator, key, said, seconds_now(now))

    # ---- rankings ----------------------------------------------------------------------------------------------------

    def add_rankings(self, rankings: Iterable[Ranking]) -> int:
        """Store rankings made elsewhere, with the tasks and annotators they need, all or none; returns how many were
        new by their id (one is made from the content where there is none). One that supersedes another annotator's
        is refused, and so are rankings that supersede each other."""
        given = [entries.named(ranking) for ranking in rankings]
        for ranking in given:
            entries.check(ranking)
        with self._database.writing(contents=True) as connection:
            return entries.add(connection, given)

    def rankings(
        self,
        *,
        superseded: bool = False,
        criterion: str | None = None,
        kinds: Iterable[str] | None = None,
        annotators: Iterable[str] | None = None,
        task: str | None = None,
    ) -> Iterator[Ranking]:
        """Rankings in the order of storing, as they stand when reading begins."""
        conditions: list[sa.ColumnElement[bool]] = []
        if criterion is not None:
            of = sa.select(t.tasks.c.id).where(t.tasks.c.criterion == criterion)
            conditions.append(t.rankings.c.task.in_(of))
        if kinds is not None:
            conditions.append(t.rankings.c.kind.in_(list(kinds)))
        if annotators is not None:
            conditions.append(t.annotators.c.name.in_(list(annotators)))
        if task is not None:
            conditions.append(t.rankings.c.task == task)
        return entries.stream(self._database, conditions, superseded)

    def ranking(self, ranking_id: str) -> Ranking | None:
        with self._database.reading() as connection:
            found = entries.load(connection, t.rankings.c.id == ranking_id)
        return found[0] if found else None

    def flags(self) -> list[Flag]:
        """Flags of rankings that stand, in the order of storing."""
        with self._database.reading() as connection:
            return entries.load_flags(connection)

    def progress(self, *, now: datetime | float | None = None) -> Progress:
        with self._database.reading() as connection:
            return progress.load(connection, seconds_now(now))


def _hash(token: str) -> str:
    """Tokens hold 256 random bits, so that a plain hash keeps them."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
