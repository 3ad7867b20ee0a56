"""A connection to the store's database: SQLite or PostgreSQL, set up so that what was acknowledged is on the disk."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url

from trivium.feedback.rankings.work import StoreError

FILE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
NAME = "rankings.db"
CONTENT_LOCK = 7_236_481  # PostgreSQL advisory lock: one import of tasks and rankings, or one upgrade, at a time


class Database:
    """An engine with two ways in: ``reading()`` and ``writing()``, each one transaction.

    Errors of the database come out as ``StoreError``. Safe for threads: each block has a connection of its own, and
    with SQLite, which admits one writer, writers of this process wait in line rather than poll.
    """

    def __init__(self, place: str | Path, *, busy_seconds: float = 30.0) -> None:
        self.path, url = resolve(place)
        self.busy_seconds = busy_seconds
        self.read_only = self.path is not None and self.path.exists() and not _writable(self.path)
        self.url = str(self.path) if self.path else url.render_as_string(hide_password=True)
        self._turn = threading.Lock()
        try:
            self.engine = self._sqlite(self.path) if self.path else self._postgresql(url)
        except ModuleNotFoundError:
            raise StoreError(
                "unavailable", f"{self.url} needs psycopg, which is not installed: pip install 'trivium[postgresql]'"
            ) from None

    def _sqlite(self, path: Path) -> sa.Engine:
        query: dict[str, str] = {}
        if self.read_only:
            # A WAL database beside which no file can be made opens only as immutable; nobody can be writing it then.
            query = {"mode": "ro", "uri": "true"}
            if not path.with_name(path.name + "-wal").exists():
                query["immutable"] = "1"
        address = path.absolute().as_uri() if query else str(path.absolute())
        url = URL.create("sqlite", database=address, query=query)
        engine = sa.create_engine(
            url, connect_args={"timeout": self.busy_seconds}, pool_size=16, max_overflow=48, pool_timeout=60
        )

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _record: Any) -> None:
            # The driver's own transactions are switched off (it would begin them late, and deferred); see "begin".
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA synchronous = FULL")  # with WAL, NORMAL may lose the last commits with the power
            cursor.execute("PRAGMA recursive_triggers = ON")  # REPLACE then meets the triggers against deletion
            cursor.close()

        @event.listens_for(engine, "begin")
        def begun(connection: sa.Connection) -> None:
            # A deferred transaction that turns into a writer fails at once with "locked", whatever the timeout.
            immediate = connection.get_execution_options().get("immediate", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

        return engine

    def _postgresql(self, url: URL) -> sa.Engine:
        # Each statement sees what was committed before it, whatever the server's default: once a row is locked, what
        # stands there must be counted anew.
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            pool_size=8,
            max_overflow=24,
            pool_timeout=60,
            pool_pre_ping=True,
        )

    @property
    def is_sqlite(self) -> bool:
        return self.path is not None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self, *, contents: bool = False) -> Iterator[sa.Connection]:
        """A transaction that is on the disk when the block has ended. ``contents``: prompts, tasks or imported rankings
        are added, which PostgreSQL does one transaction at a time (two that add the same rows would deadlock)."""
        if self.read_only:
            raise StoreError("read_only", f"{self.url} cannot be written: change the rights of the file and its folder")
        with self._translated(), self._in_line(), self.engine.connect() as connection:
            connection = connection.execution_options(immediate=True)
            with connection.begin():
                if contents and not self.is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CONTENT_LOCK)))
                yield connection

    def keep_a_log(self) -> None:
        """Put a new SQLite file into WAL mode, which stays with it: readers never wait for the writer."""
        with self._translated(), self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection  # outside a transaction
            # Locked: another process makes the same store, and has just done this.
            with contextlib.suppress(sqlite3.OperationalError):
                raw.execute("PRAGMA journal_mode = WAL")

    @contextlib.contextmanager
    def upgrading(self) -> Iterator[sa.Connection]:
        """A transaction for migrations. SQLite rebuilds a table by dropping the old one, which foreign keys forbid;
        they can be switched off only outside a transaction."""
        with self._translated(), self._in_line(), self.engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            if self.is_sqlite:
                raw.execute("PRAGMA foreign_keys = OFF")
            connection = connection.execution_options(immediate=True)
            try:
                with connection.begin():
                    yield connection
            finally:
                if self.is_sqlite:
                    raw.execute("PRAGMA foreign_keys = ON")

    @contextlib.contextmanager
    def _in_line(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        if not self._turn.acquire(timeout=self.busy_seconds):
            raise self._locked()
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.TimeoutError:
            raise self._locked() from None
        except sa.exc.StatementError as error:
            raise self._explained(error) from error

    def _locked(self) -> StoreError:
        return StoreError(
            "locked",
            f"{self.url} is locked: another process has been writing to it for more than {self.busy_seconds:g} s; "
            "try again, or end that process",
        )

    def _explained(self, error: sa.exc.StatementError) -> Exception:
        """The sentence for an error of the database; what is no fault of the place comes back as it is."""
        reason = str(error.orig).strip().split("\n")[0]
        if isinstance(error.orig, TypeError | ValueError):
            return StoreError("invalid", f"a value cannot be stored in {self.url}: {reason}; use plain JSON values")
        if "append-only" in reason:
            return StoreError("invalid", f"{reason}: a ranking is corrected by another that supersedes it")
        if not self.is_sqlite:
            return self._explained_postgresql(error, reason)
        name = getattr(error.orig, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return self._locked()
        if name.startswith("SQLITE_READONLY"):
            return StoreError(
                "read_only", f"{self.url} cannot be written: change the rights of the file and its folder"
            )
        if name.startswith("SQLITE_CANTOPEN"):
            return StoreError("read_only", f"{self.url} cannot be opened: check the rights of the file and its folder")
        if name.startswith("SQLITE_FULL"):
            return StoreError("disk_full", f"the disk is full while writing {self.url}: make room and try again")
        if name.startswith("SQLITE_IOERR"):
            return StoreError("unavailable", f"{self.url} cannot be read or written ({reason}); check the disk")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) or _other_tables(reason):
            return StoreError(
                "not_a_store",
                f"{self.url} is no store of rankings or is damaged ({reason}); name another "
                "(`trivium rankings import` puts a file of rankings into one)",
            )
        return error

    def _explained_postgresql(self, error: sa.exc.StatementError, reason: str) -> Exception:
        state = getattr(error.orig, "sqlstate", None) or ""
        if state in ("40001", "40P01", "55P03"):  # serialization failure, deadlock, lock not available
            return StoreError("locked", f"{self.url} is busy ({reason}); try again")
        if state in ("25006", "42501"):  # read-only transaction, no privilege
            return StoreError("read_only", f"{self.url} cannot be written ({reason}); ask for the rights to write")
        if state in ("42P01", "42703", "42P07"):  # no such table, no such column, a table that is there already
            return StoreError("not_a_store", f"{self.url} is no store of rankings or is damaged ({reason})")
        if state.startswith("53"):
            return StoreError("disk_full" if state == "53100" else "locked", f"{self.url}: {reason}; try again later")
        if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
            return StoreError(
                "unavailable", f"{self.url} cannot be reached ({reason}); check the address and the server"
            )
        return error


def resolve(place: str | Path) -> tuple[Path | None, URL]:
    """The file of a place, or None, and its URL. A directory stands for the ``rankings.db`` in it.

    Raises:
        StoreError: the URL is none, or of another kind of database.
    """
    text = str(place)
    if "://" not in text:
        path = Path(place).expanduser()
        if path.is_dir() or (not path.exists() and path.suffix not in FILE_SUFFIXES):
            path = path / NAME
        return path, URL.create("sqlite", database=str(path))
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise StoreError(
            "not_a_store", "the URL of the store cannot be read; write postgresql://user@host/name"
        ) from None
    kind = url.drivername.split("+")[0]
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise StoreError("not_a_store", f"{text} names no file; write sqlite:///path/to/rankings.db")
        return Path(url.database), url
    if kind not in ("postgresql", "postgres"):
        raise StoreError("not_a_store", f"a store is in SQLite or PostgreSQL, not in {kind}; write postgresql://…")
    return None, url


def _other_tables(reason: str) -> bool:
    """Whether SQLite's sentence says that the tables are not ours: it has no code of its own for that."""
    return reason.startswith(("no such table", "no such column")) or reason.endswith("already exists")


def _writable(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return all(os.access(place, os.W_OK, effective_ids=effective) for place in (path, path.absolute().parent))
