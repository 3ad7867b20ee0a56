"""Broken, old, new, locked and read-only databases, and a process that is killed while it writes."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from trivium.data.records import Message, Prompt
from trivium.feedback.rankings import schema
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.store import Store, StoreError
from trivium.feedback.rankings.tables import metadata

RANKING = Ranking(Prompt("p", (Message("user", "?"),)), (Response("a"), Response("b")), (0, 1), "ada").with_id()


def refused(code: str, action: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        action()
    assert caught.value.code == code, caught.value
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store in a file with one ranking."""
    with Store.open(tmp_path / "rankings.db") as store:
        store.add_rankings([RANKING])
    return tmp_path / "rankings.db"


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_place_is_a_file_a_directory_or_a_url(tmp_path: Path) -> None:
    for place, file in [
        (tmp_path / "a.db", "a.db"),
        (tmp_path, "rankings.db"),
        (tmp_path / "runs/new", "runs/new/rankings.db"),
        (f"sqlite:///{tmp_path}/b%20c.sqlite", "b%20c.sqlite"),
    ]:
        with Store.open(place) as store:
            assert store.path is not None and store.path.is_file()
            assert store.path == tmp_path / file or file.startswith("b")
            assert store.url == str(store.path)


@pytest.mark.parametrize("place", ["mysql://host/x", "sqlite://", "sqlite:///:memory:", "http://x y:z", "://"])
def test_a_place_that_is_none(place: str) -> None:
    refused("not_a_store", lambda: Store.open(place))


def test_a_password_is_told_to_nobody() -> None:
    place = "postgresql://ada:secret@127.0.0.1:1/none?connect_timeout=2"
    said = refused("unavailable", lambda: Store.open(place))
    assert "secret" not in said and "127.0.0.1" in said


def test_nothing_is_made_where_only_reading_was_asked(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    refused("not_a_store", lambda: Store.open(tmp_path / "new.db", create=False))
    assert not (tmp_path / "new.db").exists()
    refused("not_a_store", lambda: open_store(create=False))
    open_store().close()
    assert list(open_store(create=False).rankings()) == []


def test_settings_that_keep_what_was_acknowledged(file: Path) -> None:
    with Store.open(file) as store, store._database.writing() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # BEGIN IMMEDIATE holds it from the start
            sqlite3.connect(file, timeout=0).execute("BEGIN IMMEDIATE")


# ---- files that are something else -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)
    assert "x.db" in refused("not_a_store", lambda: Store.open(tmp_path / "x.db"))
    assert (tmp_path / "x.db").read_bytes() == content


def test_a_database_of_something_else(tmp_path: Path, place: str, open_store: Callable[..., Store]) -> None:
    url = sa.make_url(place) if "://" in place else sa.URL.create("sqlite", database=place)
    driver = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}[url.drivername]
    engine = sa.create_engine(url.set(drivername=driver))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE tasks (what TEXT)"))
    engine.dispose()
    assert "tasks" in refused("not_a_store", open_store)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE trivium_rankings_version (version_num TEXT)", "CREATE TABLE prompts (what TEXT)"],
        ["CREATE TABLE trivium_rankings_version (what TEXT)"],
    ],
)
def test_tables_that_are_half_there(place: str, open_store: Callable[..., Store], statements: list[str]) -> None:
    url = sa.make_url(place) if "://" in place else sa.URL.create("sqlite", database=place)
    driver = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}[url.drivername]
    engine = sa.create_engine(url.set(drivername=driver))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()
    assert "damaged" in refused("not_a_store", open_store)


def test_the_servers_default_isolation_does_not_matter(place: str) -> None:
    """A transaction that saw one moment throughout would count too few leases after waiting for a row."""
    if "://" not in place:
        pytest.skip("SQLite has one writer at a time")
    url = sa.make_url(place)
    options = f"{url.query['options']} -cdefault_transaction_isolation=serializable"
    other = url.update_query_dict({"options": options}).render_as_string(False)
    with Store.open(other) as store, store._database.reading() as connection:
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "read committed"


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    with Store.open(tmp_path / "x.db") as store:
        assert store.add_rankings([RANKING]) == 1


# ---- older and newer tables ------------------------------------------------------------------------------------------


def test_the_migrations_make_the_tables(store: Store) -> None:
    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    scripts = ScriptDirectory(str(schema.MIGRATIONS))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == schema.REVISIONS


NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade() -> None:
    with op.batch_alter_table("annotators") as table:
        table.add_column(sa.Column("language", sa.Text))
    with op.batch_alter_table("gold_tasks", recreate="always") as table:
        table.alter_column("note", nullable=True)
    {more}
"""


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes this Trivium one with one more migration, which may fail; ``newer(False)`` makes it the older one again."""
    original, revisions = schema.MIGRATIONS, schema.REVISIONS
    folder = tmp_path / "100% migrations"  # a percent sign in a path is no interpolation

    def change(to: bool = True, more: str = "") -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / "0003_more.py").write_text(NEXT.format(more=more))
        monkeypatch.setattr(schema, "MIGRATIONS", folder if to else original)
        monkeypatch.setattr(schema, "REVISIONS", (*revisions, "0003") if to else revisions)

    return change


def test_an_older_store_is_upgraded_and_an_sqlite_file_copied_first(
    place: str, tmp_path: Path, open_store: Callable[..., Store], newer: Callable[..., None]
) -> None:
    old = open_store()
    old.add_rankings([RANKING])
    old.add_annotator("eve")
    newer()
    assert "older" in refused("older_schema", lambda: open_store(upgrade=False))
    store = open_store()
    assert list(store.rankings()) == [RANKING] and len(store.annotators()) == 2
    with store._database.reading() as connection:
        assert "language" in {column["name"] for column in sa.inspect(connection).get_columns("annotators")}
    copies = sorted(tmp_path.glob("*.before-*"))
    assert [copy.name for copy in copies] == (["rankings.before-0003.db"] if store.path else [])
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), store._database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM rankings"))
    open_store(upgrade=False)
    newer(False)
    assert "install a newer Trivium" in refused("newer_schema", open_store)
    for copy in copies:
        with Store.open(copy) as before:
            assert list(before.rankings()) == [RANKING]


def first_store(place: str, rankings: list[Ranking], folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A store with these rankings at ``place`` as the first Trivium that had stores made it."""
    with Store.open(folder / "now.db") as now:
        now.add_rankings(rankings)
        with now._database.reading() as connection:
            rows = {
                table: [dict(row._mapping) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
                for table in metadata.sorted_tables
            }
    with patch.context() as first:
        first.setattr(schema, "REVISIONS", ("0001",))
        with Store.open(place) as store, store._database.writing() as connection:
            for table, of_table in rows.items():
                known = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
                # the database counts numbers itself, and has to go on from there
                counted = {"number"} if table.name != "task_responses" else set()
                columns = [column for column in table.columns if column.name in known - counted]
                into = sa.table(table.name, *(sa.column(column.name, column.type) for column in columns))
                for row in of_table:
                    connection.execute(sa.insert(into).values({column.name: row[column.name] for column in columns}))


def test_a_store_of_the_first_schema_reads_the_same(
    place: str, tmp_path: Path, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rankings without probabilities keep their ids; new ones may have some."""
    answers = (Response("a"), Response("b"), Response("c", finish_reason="length"))
    old = [
        RANKING,
        Ranking(RANKING.prompt, answers, (1, 0, -1), "eve", strength=2.0, flags=("rude",), note="\ud800").with_id(),
        Ranking(RANKING.prompt, answers, (-1, -1, -1), "panel", "simulated", skipped="unclear").with_id(),
    ]
    first_store(place, old, tmp_path, monkeypatch)
    refused("older_schema", lambda: open_store(upgrade=False))
    store = open_store()
    assert list(store.rankings()) == old and [flag.reason for flag in store.flags()] == ["rude"]
    assert store.add_rankings(old) == 0
    judged = replace(old[1], id="", kind="ai", annotator="judge", preferences=((0, 1, 0.3),))
    assert store.add_rankings([judged]) == 1
    assert list(store.rankings()) == [*old, judged.with_id()]
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), store._database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE rankings SET preferences = '[[0, 1, 0.9]]'"))
    if store.path is not None:
        assert (tmp_path / "rankings.before-0002.db").is_file()


def test_an_upgrade_that_fails_changes_nothing(
    open_store: Callable[..., Store], newer: Callable[..., None], tmp_path: Path
) -> None:
    store = open_store()
    store.add_rankings([RANKING])
    newer(more="raise RuntimeError('the second half')")
    with pytest.raises(RuntimeError, match="the second half"):
        open_store()
    newer(False)
    again = open_store(upgrade=False)
    assert list(again.rankings()) == [RANKING]
    with again._database.reading() as connection:
        assert "language" not in {column["name"] for column in sa.inspect(connection).get_columns("annotators")}
    newer()
    open_store()
    if store.path is not None:  # the copy of the first try is kept
        names = ["rankings.before-0003-2.db", "rankings.before-0003.db"]
        assert sorted(copy.name for copy in tmp_path.glob("*.before-*")) == names


def test_many_open_a_new_store_at_once(open_store: Callable[..., Store]) -> None:
    with ThreadPoolExecutor(6) as threads:
        stores = list(threads.map(lambda _: open_store(), range(6)))
    stores[0].add_rankings([RANKING])
    assert all(list(store.rankings()) == [RANKING] for store in stores)


# ---- locked, read-only -----------------------------------------------------------------------------------------------


def test_a_locked_file(file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    with Store.open(file, busy_seconds=0.2) as store:
        other.execute("BEGIN IMMEDIATE")
        assert "locked" in refused("locked", lambda: store.add_annotator("eve"))
        assert list(store.rankings()) == [RANKING]  # readers are not held up
        other.execute("ROLLBACK")
        store.add_annotator("eve")


@pytest.fixture
def as_somebody(file: Path) -> Iterator[Path]:
    """A copy of the store in a folder that all may enter, seen by a user whom file rights hold back (root's do not)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copy(file, folder / "rankings.db")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    else:
        folder.chmod(0o555)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="file rights of POSIX")
def test_a_store_that_can_only_be_read(as_somebody: Path) -> None:
    with Store.open(as_somebody) as store:
        assert list(store.rankings()) == [RANKING] and store.progress().rankings == 1
        for action in (
            lambda: store.add_annotator("eve"),
            lambda: store.add_rankings([RANKING]),
            lambda: store.assign("ada"),
        ):
            assert str(as_somebody) in refused("read_only", action)
    assert [path.name for path in as_somebody.iterdir()] == ["rankings.db"]
    refused("read_only", lambda: Store.open(as_somebody / "new.db"))
    refused("read_only", lambda: Store.open(as_somebody / "deep" / "er" / "new.db"))


def test_a_table_that_was_damaged_is_told(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    for start in range(4096, len(raw), 4096):
        raw[start : start + 512] = b"\xaa" * 512
    file.write_bytes(raw)
    refused("not_a_store", lambda: list(Store.open(file).rankings()))


# ---- a process that is killed ----------------------------------------------------------------------------------------

WRITER = """
import sys
from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.record import Response
from trivium.feedback.rankings.store import Store

place, name = sys.argv[1:]
with Store.open(place) as store:
    for number in range(10**6):
        store.add_task(Prompt(f"{name} {number}", (Message("user", "?"),)), (Response("a"), Response("b")))
        work = store.assign(name)
        print(store.submit(work.id, name, f"k{number}", tiers=[0, 1]).id, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(place: str, open_store: Callable[..., Store]) -> None:
    """Two processes write until they are killed in the middle of it."""
    store = open_store()
    acknowledged: list[str] = []
    writers: list[subprocess.Popen[str]] = []
    for name in ("ada", "eve"):
        store.add_annotator(name)
        command: list[Any] = [sys.executable, "-c", WRITER, place, name]
        writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    for writer in writers:
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(4)]
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        assert writer.stdout is not None
        rest = writer.stdout.read().splitlines(keepends=True)
        acknowledged += [line.strip() for line in rest if line.endswith("\n")]
        writer.wait()
    stored = [item.id for item in open_store().rankings()]
    assert len(stored) == len(set(stored)) and set(acknowledged) <= set(stored) and "" not in acknowledged
    assert len(stored) <= len(acknowledged) + 2  # at most one on its way in each process
