"""The schema on PostgreSQL: native types, the same comments as the documentation, migrations that take turns."""

from __future__ import annotations

import anyio
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from syncd.errors import DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db.database import Database
from syncd.mirror.read.catalog import VIEWS
from syncd.mirror.schema import migrate
from syncd.mirror.schema.revisions import HEAD
from syncd.mirror.schema.tables import metadata
from syncd.mirror.schema.tables.columns import declare_for_postgresql
from syncd.mirror.schema.types import JsonText
from tests.helpers.old_schema import upgrade
from tests.helpers.postgres_server import PostgresServer, engine_of, in_thread

COMMENTS = """
SELECT c.relname, a.attname, col_description(c.oid, a.attnum), obj_description(c.oid, 'pg_class'), t.typname,
    a.attidentity
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 JOIN pg_type AS t ON t.oid = a.atttypid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
"""


async def test_every_table_view_and_column_has_its_comment_and_native_type(postgres_url: str) -> None:
    async with Database(sa.make_url(postgres_url), busy_timeout=5) as database:
        rows = await database.read(lambda c: c.exec_driver_sql(COMMENTS).all())
    columns = {(row[0], row[1]): row for row in rows}
    expected = {
        (table.name, column.name): column.comment for table in metadata.sorted_tables for column in table.columns
    }
    expected |= {(view.name, column.name): column.comment for view in VIEWS.values() for column in view.columns}
    expected |= {("alembic_version", "version_num"): None}
    assert {key: row[2] for key, row in columns.items()} == expected
    tables = {table.name: table.comment for table in metadata.sorted_tables}
    tables |= {"alembic_version": "the version of the schema"}
    tables |= {view.name: view.comment for view in VIEWS.values()}
    assert {row[0]: row[3] for row in rows} == tables
    types = {name: kind for (table, name), (*_, kind, _) in columns.items() if table == "chat_session_history"}
    assert {types[name] for name in types if name.endswith("_at") or name.startswith("valid")} == {"timestamptz"}
    assert types["extra"] == "jsonb"
    identities = {key for key, row in columns.items() if row[5] == b"d"}
    assert identities == {
        ("holds", "id"), ("operations", "id"), ("operator_actions", "id"), ("passes", "id"), ("quarantine", "id"),
        ("sessions", "key"),
    }  # fmt: skip


async def test_migrations_and_tables_agree(postgres_url: str) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        def same(_context: object, _in: object, _meta: object, _in_type: object, meta_type: object) -> bool | None:
            return False if meta_type is JsonText else None  # its kind is looked at above

        declare_for_postgresql()
        context = MigrationContext.configure(connection, opts={"compare_type": same})
        return list(compare_metadata(context, metadata))

    async with Database(sa.make_url(postgres_url), busy_timeout=5) as database:
        assert await database.read(differences) == []


async def test_replicas_that_start_at_once_migrate_once(postgres: PostgresServer) -> None:
    name = await in_thread(postgres.empty)
    came: list[str | None] = []

    async def start() -> None:
        async with Database.create(sa.make_url(postgres.url(name)), busy_timeout=20) as database:
            came.append((await database.write(migrate.migrate))[0])

    try:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(start)
        assert sorted(came, key=str) == [HEAD] * 3 + [None]
    finally:
        await in_thread(lambda: postgres.drop(name))


async def test_migration_that_waits_for_a_lock_lets_others_continue(postgres: PostgresServer) -> None:
    name = await in_thread(postgres.empty)

    def impatient(connection: sa.Connection) -> None:
        migrate.lock(connection)
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "10s"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "100s"
        connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
        connection.exec_driver_sql("ALTER TABLE busy ADD COLUMN more int")

    url = sa.make_url(postgres.url(name))
    try:
        async with Database(url, busy_timeout=0) as database, Database(url, busy_timeout=5) as other:
            await in_thread(lambda: postgres.sql("CREATE TABLE busy (one int)", name))
            async with engine_of(other).connect() as connection, connection.begin():
                await connection.exec_driver_sql("SELECT * FROM busy")
                with pytest.raises(DatabaseBusyError, match="lock timeout"):
                    await database.write(impatient)
    finally:
        await in_thread(lambda: postgres.drop(name))


async def test_readers_keep_their_rights_to_the_views(postgres: PostgresServer) -> None:
    name = await in_thread(postgres.empty)
    role = f"reader_{name}"
    granted = f"SELECT has_table_privilege('{role}', 'chat_sessions', 'SELECT')"
    try:
        async with Database.create(sa.make_url(postgres.url(name)), busy_timeout=5) as database:
            await database.write(lambda c: upgrade(c, "0001"))
            await in_thread(lambda: postgres.sql(f"CREATE ROLE {role}; GRANT SELECT ON chat_sessions TO {role}", name))
            await database.write(migrate.migrate)
            assert await in_thread(lambda: postgres.sql(granted, name)) is True
    finally:
        await in_thread(lambda: postgres.drop(name))
        await in_thread(lambda: postgres.sql(f"DROP ROLE {role}"))


async def test_view_of_another_program_that_needs_a_dropped_column_is_named(postgres: PostgresServer) -> None:
    name = await in_thread(postgres.empty)
    try:
        async with Database.create(sa.make_url(postgres.url(name)), busy_timeout=5) as database:
            await database.write(lambda c: upgrade(c, "0001"))
            await in_thread(lambda: postgres.sql("CREATE VIEW my_passes AS SELECT * FROM passes", name))
            with pytest.raises(DatabaseUnusableError) as refused:
                await database.write(migrate.migrate)
            assert str(refused.value) == (
                f"the schema cannot be brought to {HEAD}: cannot drop column candidates_of of table passes because "
                "other objects depend on it (view my_passes depends on column candidates_of of table passes); nothing "
                "was changed. Drop that object, run the command again, and make the object again"
            )
            assert await database.read(migrate.revision) == "0001"
            await in_thread(lambda: postgres.sql("DROP VIEW my_passes", name))
            assert await database.write(migrate.migrate) == ("0001", HEAD)
    finally:
        await in_thread(lambda: postgres.drop(name))


async def test_role_that_owns_no_table_is_told_to_migrate_as_their_owner(postgres: PostgresServer) -> None:
    name = await in_thread(postgres.empty)
    role = f"app_{name}"
    rights = f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}; "
    url = sa.make_url(postgres.url(name))
    try:
        async with Database.create(url, busy_timeout=5) as database:
            await database.write(lambda c: upgrade(c, "0008"))
        await in_thread(lambda: postgres.sql(f"{rights}GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", name))
        async with Database(url.set(username=role), busy_timeout=5) as database:
            with pytest.raises(DatabaseUnusableError, match=r"must be owner of .*run syncd migrate as the role that"):
                await database.write(migrate.migrate)
    finally:
        await in_thread(lambda: postgres.drop(name))
        await in_thread(lambda: postgres.sql(f"DROP ROLE {role}"))
