"""No acknowledged ranking is lost or stored twice, however often the server is killed."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.web.crowd import submit_under_fire


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "rankings.db")
        return
    server = os.environ.get("TRIVIUM_TEST_POSTGRESQL")
    if not server:
        pytest.skip("TRIVIUM_TEST_POSTGRESQL names no PostgreSQL server")
    url = sa.make_url(server)
    name = f"kill_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield url.set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        engine.dispose()


def test_a_killed_server_loses_nothing(place: str, tmp_path: Path) -> None:
    print(submit_under_fire(place, tmp_path, annotators=10, rankings=200, kills=1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_annotators_and_ten_thousand_rankings(place: str, tmp_path: Path) -> None:
    print(submit_under_fire(place, tmp_path, annotators=50, rankings=10_000, kills=6))
