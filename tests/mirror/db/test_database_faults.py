"""PostgreSQL failures: cut connections, transient errors, read-only servers, roles without privileges."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import asyncpg
import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db import postgresql as postgres_module
from syncd.mirror.db.database import Database
from syncd.mirror.schema import migrate
from syncd.mirror.schema.privileges import _unfit, require_rights
from syncd.mirror.store import operation_views, operations
from syncd.records.ids import OperationId
from tests.helpers.postgres_server import PostgresServer, in_thread
from tests.helpers.replicas import ROOT, bare_environment
from tests.helpers.tcp_proxy import proxied

CREATE = {"kind": "create", "source_session_id": "s", "name": "n"}


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    async with Database.create(sa.make_url(postgres_url), busy_timeout=10) as opened:
        yield opened


async def count(database: Database) -> int:
    query = sa.text("SELECT count(*) FROM operations")
    return int(await database.read(lambda c: c.execute(query).scalar_one()))


async def test_commit_whose_answer_was_lost_is_not_done_twice(postgres: PostgresServer, postgres_url: str) -> None:
    async with proxied(postgres.port) as proxy:
        url = sa.make_url(postgres_url).set(port=proxy.port)
        async with Database.create(url, busy_timeout=10) as database:
            assert await count(database) == 0
            proxy.cut_commits = 1
            (operation_id,) = await database.write(lambda c: operations.enqueue(c, [CREATE]))
            assert proxy.cuts == 1
            assert await count(database) == 1
            row = await database.read(lambda c: operation_views.get(c, operation_id))
            assert row is not None
            assert row["source_session_id"] == "s"


async def test_commit_lost_in_a_crash_is_repeated_although_its_transaction_id_is_reused() -> None:
    durable = PostgresServer("wal_writer_delay=10s")  # only a commit then flushes the WAL
    await in_thread(durable.start)
    try:
        url = durable.url(await in_thread(durable.fresh))
        async with (
            proxied(durable.port) as proxy,
            Database.create(sa.make_url(url).set(port=proxy.port), busy_timeout=30) as database,
            Database.create(sa.make_url(url), busy_timeout=30) as other,
        ):
            await other.write(lambda c: c.exec_driver_sql("CREATE TABLE noise (at timestamptz)"))

            async def crash() -> None:
                await in_thread(durable.crash)
                await in_thread(durable.start)
                for _ in range(20):
                    await other.write(lambda c: c.exec_driver_sql("INSERT INTO noise VALUES (now())"))

            assert await count(database) == 0
            proxy.cut_commits, proxy.instead = 1, crash
            await database.write(lambda c: operations.enqueue(c, [CREATE]))
            assert proxy.cuts == 1
            assert await count(other) == 1
    finally:
        await in_thread(durable.remove)


async def test_writes_that_join_during_an_uncertain_commit_are_applied_once(
    postgres: PostgresServer, postgres_url: str
) -> None:
    async with proxied(postgres.port) as proxy:
        url = sa.make_url(postgres_url).set(port=proxy.port)
        async with Database.create(url, busy_timeout=10) as database:
            proxy.cut_commits = 1

            async def one(number: int) -> None:
                await database.write(lambda c: operations.enqueue(c, [CREATE | {"source_session_id": f"s{number}"}]))

            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(one, number)
            assert proxy.cuts == 1
            assert await count(database) == 20


async def test_transaction_whose_connection_is_cut_runs_again_as_a_whole(database: Database) -> None:
    runs = 0

    def work(connection: sa.Connection) -> None:
        nonlocal runs
        runs += 1
        operations.enqueue(connection, [CREATE])
        if runs == 1:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    await database.write(work)
    assert runs == 2
    assert await count(database) == 1


async def test_connection_cut_before_its_first_statement_is_retried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asyncpg reports a connection that is closed before it sends with InternalClientError."""
    real, cuts = postgres_module._set_codecs, iter([True])

    async def cut(connection: Any) -> None:
        if next(cuts, False):
            raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
        await real(connection)

    monkeypatch.setattr(postgres_module, "_set_codecs", cut)
    assert await database.write(lambda c: operations.enqueue(c, [CREATE])) == [1]


async def test_write_that_is_cancelled_in_its_transaction_is_committed_and_returns_its_result(
    database: Database,
) -> None:
    scope, queued = anyio.CancelScope(), []

    def work(connection: sa.Connection) -> list[OperationId]:
        ids = operations.enqueue(connection, [CREATE])
        scope.cancel()
        connection.execute(sa.text("SELECT 1"))
        return ids

    with scope:
        queued += await database.write(work)
    assert len(queued) == 1
    assert await count(database) == 1


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57P01", "53300"])
async def test_transaction_with_a_transient_error_runs_again(database: Database, state: str) -> None:
    runs = 0

    def work(connection: sa.Connection) -> None:
        nonlocal runs
        runs += 1
        operations.enqueue(connection, [CREATE])
        if runs == 1:
            connection.exec_driver_sql(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")

    await database.write(work)
    assert runs == 2
    assert await count(database) == 1


async def test_wrong_statement_is_not_retried(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        await database.write(lambda c: c.exec_driver_sql("SELECT no_such_column FROM operations"))
    with pytest.raises(sa.exc.IntegrityError):
        await database.write(lambda c: operations.enqueue(c, [{"kind": "create"}]))


async def test_failed_write_does_not_fail_the_writes_of_its_batch(database: Database) -> None:
    failed: list[Exception] = []

    async def one(row: dict[str, Any]) -> None:
        try:
            await database.write(lambda c: operations.enqueue(c, [row]))
        except sa.exc.IntegrityError as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, CREATE if number % 3 else {"kind": "create"})
    assert len(failed) == 4
    assert await count(database) == 6


async def test_standby_is_reported_before_the_first_request_to_albert() -> None:
    server = PostgresServer("hot_standby=on")
    await in_thread(server.start)
    try:
        name = await in_thread(server.fresh)
        await in_thread(server.stop)
        (server.data / "standby.signal").touch()
        await in_thread(server.start)
        environment = bare_environment() | {
            "SYNCD_DATABASE_URL": server.url(name), "ALBERT_BASE_URL": "http://127.0.0.1:9", "ALBERT_TOKEN": "t",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [sys.executable, "-m", "syncd", "run"]
        done = await in_thread(lambda: subprocess.run(command, check=False, capture_output=True, env=environment))
        assert done.returncode == 3, done.stderr
        assert b"point SYNCD_DATABASE_URL at the primary" in done.stderr
    finally:
        await in_thread(server.remove)


async def test_database_that_cannot_hold_every_text_is_refused(postgres: PostgresServer) -> None:
    await in_thread(lambda: postgres.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0"))
    try:
        async with Database.create(sa.make_url(postgres.url("latin")), busy_timeout=10) as database:
            with pytest.raises(DatabaseUnusableError, match="ENCODING 'UTF8'"):
                await database.write(migrate.migrate)
            assert await database.read(migrate.revision) is None
    finally:
        await in_thread(lambda: postgres.drop("latin"))


def test_server_that_is_too_old_is_refused() -> None:
    assert "13 or newer" in (_unfit(120022, "UTF8") or "")
    assert _unfit(130000, "UTF8") is None


async def test_error_of_a_role_without_privileges_names_the_grants_that_fix_it(
    postgres: PostgresServer, postgres_url: str
) -> None:
    url = sa.make_url(postgres_url)
    role = f"app_{url.database}"
    await in_thread(lambda: postgres.sql(f"CREATE ROLE {role} LOGIN"))
    try:
        async with Database.create(url.set(username=role), busy_timeout=10) as database:
            with pytest.raises(DatabaseUnusableError, match="administrator") as caught:
                await database.read(migrate.require_head)
            with pytest.raises(DatabaseUnusableError, match="operations") as caught:
                await database.write(require_rights)
            grant = str(caught.value).split("can fix that with: ")[1]
            for statement in grant.split(";"):
                if statement.strip():
                    await in_thread(lambda statement=statement: postgres.sql(statement, str(url.database)))  # type: ignore[misc]
        async with Database.create(url.set(username=role), busy_timeout=10) as database:
            await database.write(require_rights)
            await database.write(lambda c: operations.enqueue(c, [CREATE]))
            assert await count(database) == 1
    finally:
        await in_thread(lambda: postgres.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", str(url.database)))


async def test_error_of_a_role_that_may_not_migrate_names_the_missing_grant(postgres: PostgresServer) -> None:
    name = await in_thread(postgres.empty)
    await in_thread(lambda: postgres.sql(f"CREATE ROLE app_{name} LOGIN"))
    try:
        async with Database.create(sa.make_url(postgres.url(name, f"app_{name}")), busy_timeout=10) as database:
            with pytest.raises(DatabaseUnusableError, match=f"GRANT CREATE ON SCHEMA public TO app_{name}"):
                await database.write(migrate.migrate)
    finally:
        await in_thread(lambda: postgres.drop(name))
        await in_thread(lambda: postgres.sql(f"DROP ROLE app_{name}"))


async def test_too_many_connections_are_waited_for(postgres: PostgresServer, postgres_url: str) -> None:
    url = sa.make_url(postgres_url)
    role = f"few_{url.database}"
    await in_thread(lambda: postgres.sql(f"CREATE ROLE {role} LOGIN SUPERUSER CONNECTION LIMIT 0"))
    await in_thread(lambda: postgres.sql(f"ALTER ROLE {role} NOSUPERUSER"))
    await in_thread(lambda: postgres.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", str(url.database)))
    waiting = anyio.Event()
    waited: list[str] = []

    def on_wait(reason: str) -> None:
        waited.append(reason)
        waiting.set()

    try:
        async with (
            Database.create(url.set(username=role), busy_timeout=20, on_wait=on_wait) as database,
            anyio.create_task_group() as group,
        ):

            async def ask() -> None:
                assert await count(database) == 0

            group.start_soon(ask)
            await waiting.wait()
            await in_thread(lambda: postgres.sql(f"ALTER ROLE {role} CONNECTION LIMIT 5"))
        assert "too many connections" in waited[0]
    finally:
        await in_thread(lambda: postgres.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", str(url.database)))


async def test_missing_database_and_refused_login_are_permanent_errors(postgres: PostgresServer) -> None:
    for url, problem in ((postgres.url("nowhere"), "CREATE DATABASE"), (postgres.url("postgres", "stranger"), "login")):
        async with Database.create(sa.make_url(url), busy_timeout=10) as database:
            with pytest.raises(DatabaseUnusableError, match=problem) as caught:
                await count(database)
            assert not isinstance(caught.value, DatabaseBusyError)


async def test_unreachable_server_is_retried_until_the_busy_timeout() -> None:
    async with Database.create(sa.make_url("postgresql+asyncpg://syncd@127.0.0.1:1/x"), busy_timeout=0.1) as database:
        with pytest.raises(DatabaseBusyError):
            await count(database)
