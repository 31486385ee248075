"""PostgreSQL sessions: settings that matter do not depend on the server, the database or the role."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import asyncpg
import pytest
import sqlalchemy as sa

from syncd.clock import SystemClock
from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import leader, pg_session, postgresql
from syncd.mirror.db.change_feed import NotifyFeed
from syncd.mirror.db.database import Database
from syncd.mirror.db.retries import Retries
from syncd.mirror.schema import migrate
from syncd.mirror.store import operation_views, operations
from syncd.records.ids import OperationId
from tests.helpers.postgres_server import PostgresServer, engine_of, in_thread

CREATE = {"kind": "create", "source_session_id": "s", "name": "n"}
HOSTILE = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "statement_timeout": "20ms",  # the statement that ends it may take some milliseconds on a busy machine
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "200ms",
    "tcp_keepalives_idle": "600",
    "DateStyle": "German, DMY",
    "TimeZone": "Pacific/Chatham",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "0",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
}
IN_FORCE = {
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "synchronous_commit": "on",
    "statement_timeout": "2min",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "1min",
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "5",
}
NUMBERS = itertools.count()


@pytest.fixture(params=["role", "database"])
def hostile_url(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[sa.URL]:
    """Make a mirror with harmful default settings of the database or of its role."""
    name = postgres.fresh()
    role = f"hostile_{next(NUMBERS)}"
    postgres.sql(f"CREATE ROLE {role} LOGIN SUPERUSER")
    on = f"ROLE {role}" if request.param == "role" else f"DATABASE {name}"
    for setting, value in HOSTILE.items():
        postgres.sql(f"ALTER {on} SET {setting} = '{value}'")
    yield sa.make_url(postgres.url(name, role))
    postgres.drop(name)
    postgres.sql(f"DROP ROLE {role}")


@pytest.fixture
async def hostile(hostile_url: sa.URL) -> AsyncIterator[Database]:
    waited: list[str] = []
    async with Database(hostile_url, busy_timeout=20, on_wait=waited.append) as database:
        yield database
    assert waited == []


def shown(connection: sa.Connection) -> dict[str, Any]:
    return {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in IN_FORCE}


async def test_write_overrides_the_settings_of_the_server(hostile: Database) -> None:
    assert await hostile.write(shown) == IN_FORCE


async def test_read_is_one_snapshot_that_writes_nothing(hostile: Database) -> None:
    wanted = IN_FORCE | {"transaction_isolation": "repeatable read", "transaction_read_only": "on"}
    assert await hostile.read(shown) == wanted


async def test_statement_without_a_transaction_overrides_the_settings_of_the_server(hostile: Database) -> None:
    def ask(connection: sa.Connection, names: list[str]) -> list[str]:
        return [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]

    assert {name: await hostile.read_batched(ask, name) for name in IN_FORCE} == IN_FORCE


async def test_slow_statements_locks_and_pauses_are_within_the_limits(hostile: Database) -> None:
    await hostile.write(lambda c: c.exec_driver_sql("CREATE TABLE t (x int)"))
    await hostile.write(lambda c: c.exec_driver_sql("SELECT pg_sleep(0.05)"))
    began = anyio.Event()

    async def hold() -> None:
        async with engine_of(hostile).begin() as connection:
            await connection.exec_driver_sql("LOCK TABLE t")
            began.set()
            await anyio.sleep(0.3)  # idle in a transaction while the insert waits for the lock

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await began.wait()
        await hostile.write(lambda c: c.exec_driver_sql("INSERT INTO t VALUES (1)"))
    await anyio.sleep(0.4)  # longer than the server's idle_session_timeout
    assert await hostile.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM t").scalar()) == 1


async def test_mirror_is_created_and_used(hostile: Database) -> None:
    async with engine_of(hostile).begin() as connection:
        await connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        await connection.exec_driver_sql("CREATE SCHEMA public")
    assert (await hostile.write(migrate.migrate))[0] is None
    assert await hostile.write(lambda c: operations.enqueue(c, [CREATE])) == [1]
    row = await hostile.read(lambda c: operation_views.get(c, OperationId(1)))
    assert row is not None
    assert row["requested_at"].tzinfo is not None


async def test_leader_and_change_feed_outlast_the_servers_idle_timeouts(hostile: Database) -> None:
    # as of the daemon: the server's own timeout can cancel the statement that ends it
    retries = Retries(busy_timeout=10.0)
    async with (
        leader.replica(hostile.url, SystemClock(), retries) as first,
        leader.replica(hostile.url, SystemClock(), retries) as other,
    ):
        await first.require()
        feed = NotifyFeed(hostile)
        await feed.wait()
        pid = feed._connection.get_server_pid()
        await anyio.sleep(0.5)
        await first.require()
        with pytest.raises(DatabaseUnusableError, match="stop it first"):
            await other.require()
        assert not feed._connection.is_closed()
        assert feed._connection.get_server_pid() == pid
        await feed.close()


@pytest.mark.parametrize(("default", "in_force"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
async def test_synchronous_commit_is_raised_and_never_lowered(
    postgres: PostgresServer, postgres_url: str, default: str, in_force: str
) -> None:
    url = sa.make_url(postgres_url)
    await in_thread(lambda: postgres.sql(f"ALTER DATABASE {url.database} SET synchronous_commit = '{default}'"))
    async with Database(url, busy_timeout=10) as database:
        assert await database.write(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar()) == in_force


async def test_session_behind_a_pooler_changes_settings_only_for_the_transaction(hostile_url: sa.URL) -> None:
    """The connection is direct, so that the settings after the transaction can be read."""
    session = await postgresql.connect(hostile_url.update_query_dict({postgresql.POOLED: "0"}))
    try:
        async with session.transaction():
            settings = {name: await session.fetchval(f"SHOW {name}") for name in IN_FORCE if "idle_s" not in name}
        local = {name: value for name, value in IN_FORCE.items() if "idle_s" not in name}
        assert settings == local | {"tcp_keepalives_idle": "600"}
        after = "SET LOCAL statement_timeout = 0; SELECT 1 WHERE current_setting('{}') = '{}'"
        for name in ("synchronous_commit", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert await session.execute(after.format(name, HOSTILE[name])) == "SELECT 1"
    finally:
        session.terminate()


async def test_commit_of_a_failed_transaction_raises(postgres_url: str) -> None:
    session = await postgresql.connect(sa.make_url(postgres_url))
    try:
        transaction = session.transaction()
        await transaction.start()
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await session.execute("NONSENSE")
        with pytest.raises(asyncpg.InFailedSQLTransactionError, match="rolled back"):
            await transaction.commit()
    finally:
        session.terminate()


async def test_moves_between_databases_have_no_time_limits(postgres_url: str) -> None:
    session = await postgresql.connect(sa.make_url(postgres_url), limits=pg_session.UNLIMITED)
    try:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert await session.fetchval(f"SHOW {name}") == "0"
    finally:
        session.terminate()


@pytest.mark.parametrize("path", ["nowhere", "''"])
async def test_search_path_without_a_schema_is_reported(postgres: PostgresServer, postgres_url: str, path: str) -> None:
    url = sa.make_url(postgres_url)
    await in_thread(lambda: postgres.sql(f"ALTER DATABASE {url.database} SET search_path = {path}"))
    with pytest.raises(DatabaseUnusableError, match="no schema of its search_path"):
        async with leader.replica(url, SystemClock()):
            pass
    async with Database(url, busy_timeout=10) as database:
        with pytest.raises(DatabaseUnusableError, match="create the schema, or change the search_path"):
            await database.write(migrate.migrate)
