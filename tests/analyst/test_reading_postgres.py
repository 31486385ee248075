"""The role of `docs/reading.md` on PostgreSQL: it reads what analysts read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.analyst.test_reading import BLOCKS
from tests.world import world


async def test_role_of_the_page_reads_the_views_and_cannot_write(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=5) as w:
        if w.database.dialect == "sqlite":
            pytest.skip("roles are PostgreSQL's")
        await w.one_pass()
        (block,) = (text for language, text in BLOCKS if language == "sql")

        def make(connection: sa.Connection) -> None:
            for statement in block.split(";\n"):
                if statement.strip():
                    connection.exec_driver_sql(statement)

        def look(connection: sa.Connection) -> int:
            connection.exec_driver_sql("SET LOCAL ROLE analyst")
            return int(connection.exec_driver_sql("SELECT count(*) FROM chat_session_history").scalar_one())

        def refused(connection: sa.Connection, statement: str) -> None:
            connection.exec_driver_sql("SET LOCAL ROLE analyst")
            with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
                connection.exec_driver_sql(statement)
            connection.rollback()

        def remove(connection: sa.Connection) -> None:
            connection.exec_driver_sql("DROP OWNED BY analyst")
            connection.exec_driver_sql("DROP ROLE analyst")

        await w.database.write(make)
        assert await w.database.read(look) == 5
        for statement in ("DELETE FROM operations", "SELECT * FROM sessions", "SELECT * FROM pages"):
            await w.database.read(lambda c, s=statement: refused(c, s))  # type: ignore[misc]
        await w.database.write(remove)
