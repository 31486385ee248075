"""Alembic's commands in a checkout, as a contributor runs them, and the SQL that `syncd migrate --sql` prints."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from alembic.config import CommandLine, Config
from click.testing import CliRunner

from syncd.cli import cli
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema.revisions import HEAD
from tests.helpers import empty_mirror
from tests.helpers.postgres_server import PostgresServer
from tests.helpers.programs import ROOT

pytestmark = pytest.mark.both_databases

NEXT = f"{int(HEAD) + 1:04}"
CATALOGUE = """
SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT objoid::regclass || ' ' || objsubid || ' ' || description FROM pg_description
    WHERE objoid::regclass::text IN (SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""


@dataclass(frozen=True)
class EmptyDatabase:
    """A database without a schema."""

    url: str
    execute: Callable[[str], Any]
    """Executes statements."""
    schema: Callable[[], list[str]]
    """Returns all that the schema declares, sorted."""
    migrated: Callable[[], list[str]]
    """Returns the same of a database that syncd has migrated."""


@pytest.fixture
def database(each_database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if each_database == "sqlite":
        yield _sqlite(tmp_path)
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    empty, migrated = server.empty(), server.fresh()
    yield _postgresql(server, empty, migrated)
    server.drop(empty)
    server.drop(migrated)


def _sqlite(folder: Path) -> EmptyDatabase:
    file, migrated = folder / "syncd.db", folder / "migrated.db"
    empty_mirror.create(migrated)

    def execute(script: str) -> None:
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(script)

    def schema(file: Path) -> list[str]:
        with closing(sqlite3.connect(file)) as connection:
            return sorted(
                sql.strip() for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
            )

    return EmptyDatabase(f"sqlite+aiosqlite:///{file}", execute, lambda: schema(file), lambda: schema(migrated))


def _postgresql(server: PostgresServer, empty: str, migrated: str) -> EmptyDatabase:
    async def work(name: str, statement: str) -> Any:
        connection = await server.connect(name)
        try:
            return await connection.fetch(statement) if statement == CATALOGUE else await connection.execute(statement)
        finally:
            await connection.close()

    def schema(name: str) -> list[str]:
        return sorted(row[0] for row in asyncio.run(work(name, CATALOGUE)))

    return EmptyDatabase(
        server.url(empty),
        lambda script: asyncio.run(work(empty, script)),
        lambda: schema(empty),
        lambda: schema(migrated),
    )


@pytest.fixture
def checkout(tmp_path: Path, database: EmptyDatabase, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the migrations in a folder of their own, where a new one may be written."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SYNCD_DATABASE_URL", database.url)
    return folder


def alembic(*arguments: str) -> str:
    """Run a command of Alembic in the current folder; return what it prints."""
    line, output = CommandLine(), StringIO()
    options = line.parser.parse_args(arguments)
    line.run_cmd(Config(toml_file="pyproject.toml", stdout=output, output_buffer=output, cmd_opts=options), options)
    return output.getvalue()


@pytest.mark.usefixtures("checkout")
def test_upgrade_brings_an_empty_database_to_head_and_check_finds_no_difference() -> None:
    alembic("upgrade", "head")
    assert "No new upgrade operations detected" in alembic("check")
    assert f"{HEAD} (head)" in alembic("current")


def test_difference_fails_check_and_becomes_a_migration_with_the_next_number(
    checkout: Path, database: EmptyDatabase
) -> None:
    alembic("upgrade", "head")
    complete = database.schema()
    database.execute("DROP INDEX ix_operations_state")
    with pytest.raises(SystemExit):
        alembic("check")
    alembic("revision", "--autogenerate", "-m", "index again")
    migration = (checkout / "migrations" / "versions" / f"{NEXT}_index_again.py").read_text()
    assert f'down_revision = "{HEAD}"' in migration.replace("'", '"')
    assert "ix_operations_state" in migration
    alembic("upgrade", "head")
    assert database.schema() == complete
    alembic("revision", "--rev-id", "4711", "-m", "named")
    assert (checkout / "migrations" / "versions" / "4711_named.py").exists()


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("program", ["alembic", "syncd"])
def test_printed_sql_creates_the_same_schema_without_a_connection(database: EmptyDatabase, program: str) -> None:
    if program == "alembic":
        script = alembic("upgrade", "head", "--sql")
    else:
        done = CliRunner().invoke(cli, ["migrate", "--sql"])
        assert done.exit_code == 0, done.output
        script = done.stdout
    assert database.schema() == []
    database.execute(script)
    assert database.schema() == database.migrated()


@pytest.mark.usefixtures("checkout")
def test_printed_sql_for_an_older_schema_begins_there(database: EmptyDatabase) -> None:
    alembic("upgrade", "0001")
    done = CliRunner().invoke(cli, ["migrate", "--sql", "--from", "0001"])
    assert done.exit_code == 0, done.output
    database.execute(done.stdout)
    assert database.schema() == database.migrated()
    assert f"{HEAD} (head)" in alembic("current")
