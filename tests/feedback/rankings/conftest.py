"""Stores to test on: an SQLite file, and a schema of its own on the PostgreSQL server that the environment names."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from trivium.feedback.rankings.store import Store

SERVER = os.environ.get("TRIVIUM_TEST_POSTGRESQL", "")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a store may be made; nothing is there yet."""
    if request.param == "sqlite":
        yield str(tmp_path / "rankings.db")
        return
    if not SERVER:
        pytest.skip("no PostgreSQL server: TRIVIUM_TEST_POSTGRESQL holds no URL (see .ci/postgresql)")
    schema = f"test_{uuid.uuid4().hex}"
    url = sa.make_url(SERVER).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    yield sa.make_url(SERVER).update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(False)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture
def open_store(place: str) -> Iterator[Callable[..., Store]]:
    """Opens the store at ``place``, as often as asked; all are closed at the end."""
    opened: list[Store] = []

    def open_one(**options: object) -> Store:
        opened.append(Store.open(place, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()
