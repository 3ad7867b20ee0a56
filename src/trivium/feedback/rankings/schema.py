"""The version of a store's tables: made, checked and upgraded by the migrations that are shipped with the package."""

import sqlite3
import threading
from pathlib import Path

import sqlalchemy as sa

from trivium.feedback.rankings.database import CONTENT_LOCK, Database
from trivium.feedback.rankings.tables import metadata
from trivium.feedback.rankings.work import StoreError

REVISIONS = ("0001", "0002")  # oldest first; a test holds that these are the migrations
MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "trivium_rankings_version"
_ALEMBIC = threading.Lock()  # its context is one for the whole process


def prepare(database: Database, *, create: bool, upgrade: bool) -> None:
    """Make the tables where there are none, upgrade older ones, and refuse what this version cannot use.

    Raises:
        StoreError: ``not_a_store``, ``older_schema`` (with ``upgrade`` False), ``newer_schema``, ``read_only``,
            ``locked``.
    """
    if database.path is not None and not database.path.exists():
        if not create:
            raise StoreError("not_a_store", f"there is no store of rankings at {database.url}; check the place")
        try:
            database.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError("read_only", f"{database.path.parent} cannot be made ({error.strerror})") from None
    with database.reading() as connection:
        found = _revision(connection, database)
    if found == REVISIONS[-1]:
        return
    if found is None and not create:
        raise StoreError("not_a_store", f"there is no store of rankings in {database.url}; check the place")
    if found is not None and not upgrade:
        raise StoreError(
            "older_schema",
            f"{database.url} was made by an older Trivium (schema {found or 'none'}, this one has {REVISIONS[-1]}); "
            "open it with upgrade=True, which keeps a copy of a file",
        )
    if database.is_sqlite and found is None and not database.read_only:
        database.keep_a_log()
    _upgrade(database)


def _revision(connection: sa.Connection, database: Database) -> str | None:
    """The revision of the tables, "" before the first, None where there are no tables at all."""
    names = set(sa.inspect(connection).get_table_names())
    if VERSION_TABLE in names:
        row = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).first()
        revision = str(row[0]) if row else ""
        if revision and revision not in REVISIONS:
            raise StoreError(
                "newer_schema",
                f"{database.url} was written by a newer Trivium (schema {revision}, this one knows {REVISIONS[-1]}); "
                "install a newer Trivium",
            )
        return revision
    # A team may keep other tables in its PostgreSQL; a file of something else is left alone.
    others = names if database.is_sqlite else names & set(metadata.tables)
    if others:
        raise StoreError(
            "not_a_store",
            f"{database.url} holds tables of something else ({', '.join(sorted(others)[:3])}); name another place",
        )
    return None


def _upgrade(database: Database) -> None:
    """Run the missing migrations in one transaction; an SQLite file is copied beside first."""
    if database.read_only:
        raise StoreError("read_only", f"{database.url} cannot be upgraded or made: it cannot be written")
    with database.upgrading() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CONTENT_LOCK)))
        found = _revision(connection, database)
        if found == REVISIONS[-1]:  # another process was faster
            return
        if database.path is not None and found is not None:
            copy_beside(database.path, REVISIONS[-1])
        _migrate(connection)
        if database.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise StoreError(
                "not_a_store", f"{database.url} cannot be upgraded: rows in it name others that are not there"
            )


def _migrate(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    with _ALEMBIC:
        command.upgrade(config, REVISIONS[-1])


def copy_beside(path: Path, revision: str) -> Path:
    """A whole copy of an SQLite file, its write-ahead log included, as ``NAME.before-REVISION.db``; one that is there
    already is kept, and the new one numbered."""
    copy, number = path.with_name(f"{path.stem}.before-{revision}.db"), 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.stem}.before-{revision}-{number}.db")
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    return copy
