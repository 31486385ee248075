"""The databases that tests run over: marked tests run once on each of them.

A test marked `both_databases` (a module marks itself with `pytestmark`) is run twice, on SQLite and on PostgreSQL. A
single test of such a module that is about SQLite alone is marked `sqlite`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.database_pool import DatabasePool
from tests.helpers.postgres_server import FAST, PostgresServer

NAMES = ("sqlite", "postgresql")
_CURRENT: list[str | None] = [None]


def current_url() -> str | None:
    """Return the URL that `open_harness` uses when it is given none; None for a SQLite file in the test's folder.

    No context variable: the tests' event loop has a context of its own, which began before any fixture.
    """
    return _CURRENT[0]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the marked tests over every database."""
    marked = metafunc.definition.get_closest_marker
    if marked("both_databases") is not None and marked("sqlite") is None:
        metafunc.parametrize("each_database", NAMES, indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL for all tests, not durable and therefore fast."""
    server = PostgresServer(*FAST)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def database_pool(postgres: PostgresServer) -> DatabasePool:
    """Lend the emptied databases of tests that have ended."""
    return DatabasePool(postgres)


@pytest.fixture
def postgres_url(postgres: PostgresServer, database_pool: DatabasePool) -> Iterator[str]:
    """Lend a database with the schema at head to one test."""
    name = database_pool.lend()
    yield postgres.url(name)
    database_pool.take_back(name)


@pytest.fixture(autouse=True)
def each_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name the database that the test runs over, and make `open_harness` use it."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield "sqlite"
        return
    _CURRENT[0] = request.getfixturevalue("postgres_url")
    yield "postgresql"
    _CURRENT[0] = None
