"""Several tenants in one database, each in its own schema: locks, leaders and notifications are separate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import anyio
import asyncpg
import pytest
import sqlalchemy as sa

from syncd.clock import SystemClock
from syncd.mirror.db import leader
from syncd.mirror.db.change_feed import NotifyFeed
from syncd.mirror.db.database import Database
from syncd.mirror.schema import enums, migrate
from syncd.mirror.schema.privileges import require_rights
from syncd.mirror.store import operation_views, operations
from tests.helpers.postgres_server import PostgresServer, engine_of, in_thread

NOW = datetime(2031, 6, 1, 12, 0, tzinfo=UTC)
CREATE = {"kind": "create", "source_session_id": "s", "name": "n"}


@pytest.fixture
async def tenants(postgres: PostgresServer) -> AsyncIterator[tuple[sa.URL, sa.URL]]:
    """Make a database with a schema for each of two roles, as docs/scaling.md describes."""
    name = await in_thread(postgres.empty)
    roles = [f"{tenant}_{name}" for tenant in "ab"]
    for role in roles:
        make = f"CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role};"
        await in_thread(lambda make=make: postgres.sql(make, name))  # type: ignore[misc]
        await in_thread(lambda role=role: postgres.sql(f"ALTER ROLE {role} SET search_path = {role}"))  # type: ignore[misc]
    urls = [sa.make_url(postgres.url(name, role)) for role in roles]
    for url in urls:
        async with Database(url, busy_timeout=10) as database:
            await database.write(migrate.migrate)
            await database.write(require_rights)
    yield urls[0], urls[1]
    await in_thread(lambda: postgres.drop(name))
    for role in roles:
        await in_thread(lambda role=role: postgres.sql(f"DROP ROLE {role}"))  # type: ignore[misc]


async def rows(url: sa.URL, query: str) -> list[Any]:
    async with Database(url, busy_timeout=10) as database:
        return await database.read(lambda c: list(c.exec_driver_sql(query).scalars()))


async def test_each_tenant_has_a_leader_and_a_queue_of_its_own(tenants: tuple[sa.URL, sa.URL]) -> None:
    clock = SystemClock()
    async with leader.replica(tenants[0], clock) as first, leader.replica(tenants[1], clock) as other:
        await first.require()
        await other.require()

    def claim(connection: sa.Connection) -> list[str | None]:
        claimed = operations.claim(connection, now=NOW, owner="me", lease=60, limit=10).operations
        return [operation.source_session_id for operation in claimed]

    async with Database(tenants[0], busy_timeout=10) as a, Database(tenants[1], busy_timeout=10) as b:
        for database in (a, b):
            await database.write(lambda c: operations.enqueue(c, [CREATE]))
        async with engine_of(a).connect() as connection, connection.begin():
            assert await connection.run_sync(claim) == ["s"]
            assert await b.write(claim) == ["s"]
        assert await b.read(operation_views.counts) == dict.fromkeys(enums.OPERATIONS, 0) | {"running": 1}


async def test_insert_of_one_tenant_wakes_only_that_tenant(tenants: tuple[sa.URL, sa.URL]) -> None:
    async with Database(tenants[0], busy_timeout=10) as a, Database(tenants[1], busy_timeout=10) as b:
        ours, theirs = NotifyFeed(a), NotifyFeed(b)
        await ours.wait()
        await theirs.wait()
        await a.write(lambda c: operations.enqueue(c, [CREATE]))
        with anyio.fail_after(5):
            await ours.wait()
        await b.read(lambda c: c.exec_driver_sql("SELECT 1").scalar())  # notifications have arrived by now
        assert not theirs._notified.is_set()
        await ours.close()
        await theirs.close()


async def test_program_with_another_search_path_needs_only_the_insert_privilege(
    tenants: tuple[sa.URL, sa.URL], postgres: PostgresServer
) -> None:
    url, other = tenants
    name, role, program = str(url.database), str(url.username), f"program_{url.database}"
    grants = (
        f"CREATE ROLE {program} LOGIN; GRANT USAGE ON SCHEMA {role} TO {program};"
        f"GRANT INSERT (kind, source_session_id, name) ON {role}.operations TO {program};"
    )
    await in_thread(lambda: postgres.sql(grants, name))
    try:
        connection = await asyncpg.connect(host="127.0.0.1", port=postgres.port, user=program, database=name)
        try:
            await connection.execute(f"SET search_path = {other.username}, public")
            insert = f"INSERT INTO {role}.operations (kind, source_session_id, name) VALUES ('create', $1, 'n')"
            await connection.executemany(insert, [("s1",), ("s2",), ("s1",)])
        finally:
            await connection.close()
        assert await rows(url, "SELECT source_session_id FROM source_sessions ORDER BY 1") == ["s1", "s2"]
        assert await rows(other, "SELECT source_session_id FROM source_sessions") == []
    finally:
        await in_thread(lambda: postgres.sql(f"DROP OWNED BY {program}; DROP ROLE {program};", name))
