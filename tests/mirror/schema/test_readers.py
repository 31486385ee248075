"""The role for analysts: it reads the views, and writes nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.schema.privileges import require_rights
from syncd.mirror.store import operations
from tests.helpers.postgres_server import PostgresServer, binaries, in_thread

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "config" / "postgresql-readers.sql"


async def test_rights_of_the_page_are_enough_for_a_daemon_that_does_not_migrate(
    postgres: PostgresServer, postgres_url: str
) -> None:
    url = sa.make_url(postgres_url)
    role = f"daemon_{url.database}"
    (grants,) = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "docs/scaling.md").read_text(), re.MULTILINE | re.DOTALL)
    try:
        await in_thread(lambda: postgres.sql(f"CREATE ROLE {role} LOGIN"))
        for statement in grants.replace("syncd_app", role).strip().splitlines():
            await in_thread(lambda statement=statement: postgres.sql(statement, str(url.database)))  # type: ignore[misc]
        async with Database.create(url.set(username=role), busy_timeout=10) as database:
            await database.write(require_rights)
            await database.write(lambda c: operations.enqueue(c, [{"kind": "delete", "session_id": "SES1"}]))
    finally:
        await in_thread(lambda: postgres.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", str(url.database)))


async def test_readers_can_read_the_views_and_cannot_write(postgres: PostgresServer, postgres_url: str) -> None:
    psql = binaries() / "psql"
    if not psql.is_file():
        pytest.skip("this PostgreSQL has no psql")
    database = str(sa.make_url(postgres_url).database)
    readers, ada = f"readers_{database}", f"ada_{database}"
    command = [
        str(psql), "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "syncd", "-d", database, "--no-psqlrc", "-q",
        "-v", f"readers={readers}", "-v", "schema=public", "-f", str(SCRIPT),
    ]  # fmt: skip
    try:
        for _ in range(2):
            done = await in_thread(lambda: subprocess.run(command, check=False, capture_output=True, text=True))
            assert done.returncode == 0, done.stderr
        await in_thread(lambda: postgres.sql(f"CREATE ROLE {ada} LOGIN IN ROLE {readers}"))
        connection = await asyncpg.connect(host="127.0.0.1", port=postgres.port, user=ada, database=database)
        try:
            assert await connection.fetchval("SELECT live_sessions FROM mirror_freshness") == 0
            assert await connection.fetch("SELECT * FROM chat_session_history") == []
            for statement in (
                "INSERT INTO operations (kind, session_id) VALUES ('delete', 'SES1')",
                "DELETE FROM sessions",
                "SELECT * FROM sessions",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()
    finally:
        await in_thread(
            lambda: postgres.sql(f"DROP OWNED BY {readers}; DROP ROLE IF EXISTS {ada}, {readers};", database)
        )
