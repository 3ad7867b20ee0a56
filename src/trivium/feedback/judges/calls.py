"""Every call of a judge goes through here: asked once, written down as soon as it is finished, kept within a budget.

One SQLite file is cache and log at once: a row a finished call. A call is known by what was asked and of whom, so that
equal questions are equal calls, in this process, the next one, or one beside it. Calls that gave no verdict are logged
too, but they are asked again in another process: a server that was down may be up.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from trivium import files
from trivium.errors import UserError
from trivium.feedback.judges.base import Backend, Question, Reply
from trivium.feedback.judges.usage import Budget, Usage

VERSION = 1
KEYS_AT_ONCE = 500  # below SQLite's oldest limit of 999 variables a statement
PATIENCE = 60  # seconds to wait for another process that is writing
BATCH = 256  # calls handed to a backend under a budget, at most

_TABLE = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, time REAL NOT NULL, judge TEXT NOT NULL, request TEXT NOT NULL,
    reply TEXT NOT NULL, missing TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
)"""
_REPLY = "key, reply, prompt_tokens, completion_tokens"
_INSERT = (
    "INSERT INTO calls (key, time, judge, request, reply, missing, prompt_tokens, completion_tokens) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


@runtime_checkable
class Batched(Protocol):
    """A backend that answers several questions in one forward pass says which, and they are written down together."""

    def batches(self, questions: Sequence[Question]) -> list[list[int]]: ...


class Calls:
    """The calls to one ``backend``, kept in the file ``path`` (None: for the life of this object only).

    ``usage`` counts what they cost. Raises UserError where the file is no call log, was written by another version, or
    cannot be written.
    """

    def __init__(self, backend: Backend, path: str | Path | None = None, budget: Budget | None = None) -> None:
        self.backend, self.budget = backend, budget or Budget()
        self.path = None if path is None else Path(path).expanduser()
        self.usage = Usage()
        self._failed: dict[bytes, Reply] = {}  # no verdict: served within this process alone
        self._dearest = Reply()
        self._lock = threading.Lock()
        self._connection = self._open()

    def go_on_from(self, other: "Calls") -> None:
        """Count on from what ``other`` has spent: a budget is that of a process, whatever judges it asks in turn."""
        self.usage, self._dearest = other.usage, other._dearest

    # -- asking --------------------------------------------------------------------------------------------------

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply each, in the order asked; equal questions are one call.

        Raises BudgetSpent before a call that would go beyond the budget, and UserError where the backend gives up;
        replies that came before are kept.
        """
        keys = [self.key(question) for question in questions]
        asked = dict(zip(keys, questions, strict=True))
        found = self._find(list(asked))
        waiting = [key for key in asked if key not in found]
        self.usage.cached += len(keys) - len(waiting)
        if waiting:
            self._call(waiting, [asked[key] for key in waiting], found)
        return [found[key] for key in keys]

    def key(self, question: Question) -> bytes:
        """What a call is known by: who is asked, what, and how."""
        whole = [self.backend.identity, *_request(question).values()]
        return hashlib.blake2b(json.dumps(whole, ensure_ascii=False).encode("utf-8", "surrogatepass")).digest()[:32]

    def _call(self, keys: Sequence[bytes], questions: Sequence[Question], found: dict[bytes, Reply]) -> None:
        together = isinstance(self.backend, Batched)
        batches = self.backend.batches(questions) if isinstance(self.backend, Batched) else [list(range(len(keys)))]
        done = 0
        for batch in batches:
            left = batch
            while left:
                size = self._affordable(len(left), len(keys) - done)
                now, left = left[:size], left[size:]
                self._ask_now([keys[i] for i in now], [questions[i] for i in now], found, together)
                done += len(now)

    def _affordable(self, wanted: int, waiting: int) -> int:
        """How many of the next calls may be handed over together."""
        if not self.budget.limited:
            return wanted
        room = self.budget.room(self.usage, self._dearest)
        if room < 1:
            raise self.budget.spent(self.usage, waiting)
        # What a call costs is known once one has cost something, so until then they go alone, or as a quarter of those
        # before where a server bills nothing. Later ones may be dearer than all before, so half of what fits goes.
        known = self.budget.measures(self._dearest)
        return min(wanted, BATCH, max(1, (room // 2) if known else self.usage.calls // 4))

    def _ask_now(
        self, keys: Sequence[bytes], questions: Sequence[Question], found: dict[bytes, Reply], together: bool
    ) -> None:
        rows: list[tuple[Any, ...]] = []

        def on_reply(index: int, reply: Reply) -> None:
            found[keys[index]] = reply
            self._count(keys[index], reply)
            rows.append(self._row(keys[index], questions[index], reply))
            if not together:
                self._write(rows)
                rows.clear()

        start = time.perf_counter()
        try:
            self.backend.ask(questions, on_reply)
        finally:
            self.usage.seconds += time.perf_counter() - start
            self._write(rows)
        unanswered = sum(key not in found for key in keys)
        if unanswered:
            raise RuntimeError(f"the backend {self.backend.name} left {unanswered} questions without a reply")

    def _count(self, key: bytes, reply: Reply) -> None:
        usage = self.usage
        usage.calls += 1
        usage.prompt_tokens += reply.prompt_tokens
        usage.completion_tokens += reply.completion_tokens
        usage.cost += self.budget.price(reply)
        if reply.missing:
            usage.missing += 1
            self._failed[key] = reply
        self._dearest = Reply(
            prompt_tokens=max(self._dearest.prompt_tokens, reply.prompt_tokens),
            completion_tokens=max(self._dearest.completion_tokens, reply.completion_tokens),
        )

    # -- the file ------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Finished calls in the file, those without a verdict among them."""
        with self._guarded():
            return int(self._connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    def rows(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The log, oldest first (with ``limit``: the newest that many): when, of whom, what was asked and answered.

        Read page by page: a log may be larger than the memory.
        """
        names = ("id", "time", "judge", "request", "reply", "missing", "prompt_tokens", "completion_tokens")
        page = f"SELECT {', '.join(names)} FROM calls WHERE id > ? ORDER BY id LIMIT {KEYS_AT_ONCE}"
        after = -1
        if limit is not None:
            newest = "SELECT min(id) FROM (SELECT id FROM calls ORDER BY id DESC LIMIT ?)"
            with self._guarded():
                first = self._connection.execute(newest, (limit,)).fetchone()[0]
            if first is None:
                return
            after = first - 1
        while True:
            with self._guarded():
                found = self._connection.execute(page, (after,)).fetchall()
            if not found:
                return
            for row in found:
                yield dict(zip(names, row, strict=True)) | {"request": json.loads(row[3]), "reply": json.loads(row[4])}
            after = found[-1][0]

    def close(self) -> None:
        self._connection.close()

    def _find(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        found = {key: self._failed[key] for key in keys if key in self._failed}
        for start in range(0, len(keys), KEYS_AT_ONCE):
            part = keys[start : start + KEYS_AT_ONCE]
            marks = ",".join("?" * len(part))
            # Two processes may have asked the same at the same time: the first answer is the answer.
            query = f"SELECT {_REPLY} FROM calls WHERE key IN ({marks}) AND missing = '' ORDER BY id DESC"
            with self._guarded():
                rows = self._connection.execute(query, part).fetchall()
            found |= {row[0]: self._read(*row[1:]) for row in rows}
        return found

    def _read(self, text: str, prompt_tokens: int, completion_tokens: int) -> Reply:
        try:
            value = json.loads(text)
            probabilities = tuple(map(float, value["probabilities"]))
            return Reply(probabilities, str(value["text"]), "", prompt_tokens, completion_tokens, bool(value["cut"]))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.path} holds a call that cannot be read; move the file away") from None

    def _row(self, key: bytes, question: Question, reply: Reply) -> tuple[Any, ...]:
        return (
            key,
            time.time(),  # for people who read the log; nothing depends on it
            self.backend.name,
            json.dumps(_request(question)),
            json.dumps({"probabilities": reply.probabilities, "text": reply.text, "cut": reply.cut}),
            reply.missing.encode("utf-8", "replace").decode(),
            reply.prompt_tokens,
            reply.completion_tokens,
        )

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            with self._guarded(), self._connection:
                self._connection.executemany(_INSERT, rows)

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{self.path} cannot be made ({error.strerror}); give cache another place") from None
        with _explained(self.path):
            connection = sqlite3.connect(self.path or ":memory:", timeout=PATIENCE, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with connection:
            # Two processes may open a new file at the same moment; and a file that cannot be written is found out now.
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if version == 0 and not tables:
                connection.execute(_TABLE)
                connection.execute("CREATE INDEX calls_by_key ON calls (key)")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            elif ("calls",) not in tables or version == 0:
                raise UserError(f"{self.path} is a database of something else, not a judge's calls; give cache another")
            elif version != VERSION:
                raise UserError(
                    f"{self.path} was written by another version of Trivium (layout {version}, this one reads "
                    f"{VERSION}); move it away, or give cache another file"
                )
        # A commit reaches the system, so a killed process loses nothing; only a power cut may take the last calls.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Writing ahead lets others read meanwhile. Where another process is just changing the mode, it is done for us.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One statement at a time, for a backend may answer from a thread of its own; its errors as a sentence."""
        with self._lock, _explained(self.path):
            yield


@contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if "full" in str(error):
            raise files.disk_full(path) from error
        if "locked" in str(error) or "busy" in str(error):
            raise UserError(f"{path} is held by another process; wait for it, or give cache another file") from None
        if "not a database" in str(error) or "malformed" in str(error):
            raise UserError(f"{path} is no SQLite file, or is damaged; move it away, or give cache another") from None
        raise UserError(f"{path} cannot be used as the file of a judge's calls ({error}); give cache another") from None


def _request(question: Question) -> dict[str, Any]:
    return {
        "messages": [[message.role, message.content] for message in question.messages],
        "choices": list(question.choices),
        "temperature": question.temperature,
        "max_new_tokens": question.max_new_tokens,
        "stream": question.stream,
    }
