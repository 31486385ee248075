"""The role of `docs/reading.md` on PostgreSQL: it reads what analysts read, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.docs.test_reading import BLOCKS
from tests.helpers import harness as harnesses
from tests.helpers.programs import ROOT


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    try:
        return str(request.getfixturevalue("postgres_url"))
    except pytest.FixtureLookupError:
        pytest.skip("no PostgreSQL to test with")


def granted(sql: str) -> set[str]:
    lists = re.findall(r"GRANT SELECT ON\s+(.*?)\s+TO ", sql, re.DOTALL)
    return {name.strip().removeprefix(':"schema".') for names in lists for name in names.split(",")}


def test_page_and_script_grant_the_same() -> None:
    (block,) = (text for language, text in BLOCKS if language == "sql")
    script = (ROOT / "config/postgresql-readers.sql").read_text(encoding="utf-8")
    assert granted(block) == granted(script) > {"chat_sessions"}


@pytest.mark.slow
async def test_role_of_the_page_reads_the_views_and_cannot_write(tmp_path: Path, url: str) -> None:
    options: dict[str, Any] = {"url": url}
    async with harnesses.open_harness(tmp_path, sessions=5, **options) as harness:
        await harness.one_pass()
        (block,) = (text for language, text in BLOCKS if language == "sql")

        def make(connection: sa.Connection) -> None:
            for statement in block.split(";\n"):
                if statement.strip():
                    connection.exec_driver_sql(statement)

        def look(connection: sa.Connection) -> int:
            connection.exec_driver_sql("SET LOCAL ROLE analyst")
            may = "SELECT has_table_privilege('analyst', 'operations', 'INSERT, UPDATE, DELETE')"
            assert connection.exec_driver_sql(may).scalar_one() is False
            return int(connection.exec_driver_sql("SELECT count(*) FROM chat_session_history").scalar_one())

        def refused(connection: sa.Connection, statement: str) -> None:
            connection.exec_driver_sql("SET LOCAL ROLE analyst")
            with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
                connection.exec_driver_sql(statement)
            connection.rollback()

        def remove(connection: sa.Connection) -> None:
            connection.exec_driver_sql("DROP OWNED BY analyst")
            connection.exec_driver_sql("DROP ROLE analyst")

        await harness.database.write(make)
        assert await harness.database.read(look) == 5
        for statement in ("SELECT * FROM sessions", "SELECT * FROM pages"):
            await harness.database.read(lambda c, s=statement: refused(c, s))  # type: ignore[misc]
        await harness.database.write(remove)
