"""The schema: from empty, equal to `tables.py`, and of syncd alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.sqlite import sync_engine
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import enums, migrate, revisions, tables
from syncd.mirror.schema.revisions import HEAD, REVISIONS
from syncd.mirror.schema.types import UtcDateTime


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sync_engine(tmp_path / "x.db")
    yield engine
    engine.dispose()


def test_migrating_an_empty_database_twice_changes_nothing_the_second_time(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        assert migrate.revision(connection) is None
        assert migrate.migrate(connection) == (None, HEAD)
        before = connection.exec_driver_sql("SELECT * FROM sqlite_master").all()
        assert migrate.migrate(connection) == (HEAD, HEAD)
        assert connection.exec_driver_sql("SELECT * FROM sqlite_master").all() == before
        migrate.require_head(connection)


NUMBERED = (tables.sessions, tables.passes, tables.holds, tables.quarantine, tables.operations, tables.operator_actions)


def test_tables_and_migrations_make_the_same_schema(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        migrate.migrate(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, tables.metadata)
        migrated = _declared(connection)
    # SQLite has no identity columns, so that Alembic finds one to add in each run; PostgreSQL's test looks at those
    identities = [
        difference
        for difference in differences
        if isinstance(difference, list) and difference[0][0] == "modify_default"
    ]
    assert {difference[0][2:4] for difference in identities} <= {
        (table.name, table.primary_key.columns.keys()[0]) for table in NUMBERED
    }
    assert [difference for difference in differences if difference not in identities] == []
    other = sync_engine(None)
    with other.begin() as connection:
        tables.metadata.create_all(connection)
        assert _declared(connection) == migrated
    other.dispose()


def _declared(connection: sa.Connection) -> dict[str, list[str]]:
    """Return what each table and index declares, its parts in an order of their own: checks and STRICT included."""
    rows = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL "
        "AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"
    )
    return {name: _parts(sql) for name, sql in rows}


def _parts(sql: str) -> list[str]:
    """Return the parts of a declaration: what stands between commas in the outer parentheses, and what follows them.

    A column that was added later is written by SQLite without a line of its own.
    """
    parts, depth = [""], 0
    for letter in sql:
        depth += (letter == "(") - (letter == ")")
        if (letter in "()" and depth == (letter == "(")) or (letter == "," and depth == 1):
            parts.append("")
        else:
            parts[-1] += letter
    return sorted(" ".join(part.split()) for part in parts if part.strip())


def test_every_table_is_strict(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        migrate.migrate(connection)
        rows = connection.exec_driver_sql(
            "SELECT name FROM pragma_table_list WHERE type = 'table' AND NOT strict AND schema = 'main'"
        )
        assert {row[0] for row in rows} == {"alembic_version", "sqlite_schema", "sqlite_sequence"}


def test_the_known_revisions_are_those_of_the_files() -> None:
    successors = {}
    for path in (revisions.scripts() / "versions").glob("*.py"):
        text = path.read_text()
        revision = re.search(r'^revision = "(.+)"$', text, re.MULTILINE)
        before = re.search(r'^down_revision = (?:"(.+)"|None)$', text, re.MULTILINE)
        assert revision, path
        assert before, path
        successors[before.group(1)] = revision.group(1)
    chain: list[str] = []
    while (following := successors.get(chain[-1] if chain else None)) is not None:
        chain.append(following)
    assert tuple(chain) == REVISIONS
    assert len(chain) == len(successors)


def test_an_empty_or_old_schema_must_be_migrated_first(engine: sa.Engine) -> None:
    with engine.begin() as connection, pytest.raises(DatabaseUnusableError, match="syncd migrate"):
        migrate.require_head(connection)


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["CREATE TABLE theirs (x)"], "not syncd's"),
        (["CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('9999')"], "9999"),
        (["CREATE TABLE alembic_version (version_num)", "CREATE TABLE theirs (x)"], "none"),
    ],
)
def test_a_foreign_or_newer_schema_is_refused_and_left_as_it_is(
    engine: sa.Engine, statements: list[str], problem: str
) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        before = connection.exec_driver_sql("SELECT * FROM sqlite_master").all()
        for refuse in (migrate.migrate, migrate.require_head, migrate.revision):
            with pytest.raises(DatabaseUnusableError, match=problem):
                refuse(connection)
        assert connection.exec_driver_sql("SELECT * FROM sqlite_master").all() == before


def test_failed_migration_leaves_no_change(tmp_path: Path) -> None:
    """The schema is there whole or not at all."""
    path = tmp_path / "x.db"
    engine = sync_engine(path)

    @sa.event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @sa.event.listens_for(engine, "before_cursor_execute")
    def _(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "mirror_freshness" in statement:
            raise RuntimeError("killed here")

    with pytest.raises(RuntimeError, match="killed here"), engine.begin() as connection:
        migrate.migrate(connection)
    engine.dispose()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_naive_time_is_refused_and_an_aware_one_is_stored_in_utc(engine: sa.Engine) -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("at", UtcDateTime))
    with engine.begin() as connection:
        table.create(connection)
        with pytest.raises(sa.exc.StatementError, match="without a zone"):
            connection.execute(sa.insert(table), {"at": datetime(2026, 1, 1)})  # noqa: DTZ001 - the point
        there = timezone(timedelta(hours=5, minutes=30))
        connection.execute(sa.insert(table), {"at": datetime(2026, 1, 1, 12, tzinfo=there)})
        connection.execute(sa.insert(table), {"at": None})
        stored = connection.exec_driver_sql("SELECT at FROM t ORDER BY at IS NULL").scalars().all()
        assert stored == ["2026-01-01T06:30:00.000000Z", None]
        back = connection.execute(sa.select(table.c.at).order_by(table.c.at.is_(None))).scalars().all()
        assert back == [datetime(2026, 1, 1, 6, 30, tzinfo=UTC), None]


def test_states_that_are_shown_are_those_that_the_tables_allow() -> None:
    for table, known in (
        (tables.operations, enums.OPERATIONS),
        (tables.source_sessions, enums.SOURCES),
        (tables.passes, ("running", *enums.ENDED)),
    ):
        (check,) = (
            c for c in table.constraints if isinstance(c, sa.CheckConstraint) and str(c.name).endswith("_state")
        )
        assert sorted(re.findall("'([a-z]+)'", str(check.sqltext))) == sorted(known)


def test_columns_of_operations_that_are_shown_are_those_of_the_table() -> None:
    columns = tables.operations.c
    assert {*enums.OPERATION_SHOWN, "blocked_by"} == {column.name for column in columns}
    assert set(enums.OPERATION_TIMES) == {column.name for column in columns if isinstance(column.type, UtcDateTime)}
