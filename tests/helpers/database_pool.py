"""PostgreSQL databases at head, which tests use one after the other; `databases.postgres_url` lends them.

`CREATE DATABASE` and `DROP DATABASE` take several times the CPU of a small test. A database of a test that only wrote
rows is therefore emptied and lent again. A database whose schema, settings or statistics the test changed is dropped.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

    from tests.helpers.postgres_server import PostgresServer

CATALOGS = (
    "pg_attrdef", "pg_attribute", "pg_class", "pg_collation", "pg_constraint", "pg_default_acl", "pg_depend",
    "pg_description", "pg_event_trigger", "pg_extension", "pg_index", "pg_inherits", "pg_largeobject_metadata",
    "pg_namespace", "pg_policy", "pg_proc", "pg_publication", "pg_rewrite", "pg_sequence", "pg_statistic",
    "pg_statistic_ext", "pg_trigger", "pg_type",
)  # fmt: skip
"""A change of the schema leaves a younger row, or another number of rows, in one of these."""
STATE = " UNION ALL ".join(
    (
        *(f"SELECT '{c}' AS what, count(*) || ' ' || max(xmin::text::bigint) AS state FROM {c}" for c in CATALOGS),
        "SELECT 'analyzed', count(*)::text FROM pg_class WHERE reltuples >= 0 AND oid >= 16384 AND relkind = 'r'",
        "SELECT 'rights', datacl::text FROM pg_database WHERE datname = current_database()",
        "SELECT 'settings', string_agg(setconfig::text, ' ' ORDER BY setrole) FROM pg_db_role_setting",
    )
)
USED = """
SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
WHERE relkind = 'r' AND oid >= 16384 AND pg_relation_size(oid) > 0 AND relnamespace = 'public'::regnamespace
"""
RESTART = "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL"
OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class DatabasePool:
    """Databases of a server that no test uses at the moment."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._states: dict[str, dict[str, str]] = {}
        self._free: list[str] = []
        self._first_rows: dict[str, str] = {}

    def lend(self) -> str:
        """Return the name of a database at head that contains no rows but those of the migrations."""
        if self._free:
            return self._free.pop()
        name = self._server.fresh()
        self._states[name] = asyncio.run(self._prepare(name))
        return name

    def take_back(self, name: str) -> None:
        """Empty a database for the next test, or drop it."""
        if asyncio.run(self._emptied(name)):
            self._free.append(name)
        else:
            self._server.drop(name)

    async def _prepare(self, name: str) -> dict[str, str]:
        connection = await self._server.connect(name)
        try:
            if not self._first_rows:
                self._first_rows = await _rows_of_migrations(connection)
            return await _state(connection)
        finally:
            await connection.close()

    async def _emptied(self, name: str) -> bool:
        """Remove all rows that the test wrote; return False if the database cannot be used again."""
        connection = await self._server.connect(name)
        try:
            if await _state(connection) != self._states[name]:
                return False
            while await connection.fetchval(f"SELECT count(pg_terminate_backend(pid)) {OTHERS}"):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            await self._empty(connection)
            self._states[name] = await _state(connection)
        finally:
            await connection.close()
        return True

    async def _empty(self, connection: asyncpg.Connection[Any]) -> None:
        """Truncate: a table without its old pages lists new rows in the order of their INSERT, as in a new database."""
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # fires no trigger
            used = await connection.fetchval(USED)
            await connection.execute(f"TRUNCATE {used} CASCADE")
            for table, rows in self._first_rows.items():
                await connection.execute(
                    f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1)", rows
                )
            await connection.execute(RESTART)
            await connection.execute("SELECT pg_stat_reset()")


async def _state(connection: asyncpg.Connection[Any]) -> dict[str, str]:
    return {row["what"]: row["state"] for row in await connection.fetch(STATE)}


async def _rows_of_migrations(connection: asyncpg.Connection[Any]) -> dict[str, str]:
    used = await connection.fetchval(USED)
    return {table: await connection.fetchval(f"SELECT json_agg(t) FROM {table} t") for table in used.split(", ")}
