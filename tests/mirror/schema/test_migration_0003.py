"""Revision 0003: the queue of an earlier release continues, row by row, and takes updates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.schema import migrate
from tests.helpers.old_schema import upgrade
from tests.helpers.postgres_server import PostgresServer, in_thread

pytestmark = pytest.mark.both_databases

AT = "2026-06-01T12:00:00.000000Z"
CREATE = {"kind": "create", "name": "Ünï\n"}
OLD_ROWS: list[dict[str, Any]] = [
    {**CREATE, "source_session_id": "s-1", "state": "pending", "not_before": "2030-01-01T00:00:00.000000Z"},
    {**CREATE, "source_session_id": "s-1", "state": "pending", "parent_id": "FOL1", "requested_by": "me"},
    {**CREATE, "source_session_id": "s-2", "state": "running", "fence": 3, "lease_until": AT, "lease_owner": "h:1"},
    {**CREATE, "source_session_id": "s-3", "state": "unknown", "unknown_since": AT, "lookups": 2, "attempts": 1},
    {**CREATE, "source_session_id": "s-4", "state": "succeeded", "finished_at": AT, "result_session_id": "SES1"},
    {
        "kind": "delete",
        "session_id": "SES1",
        "state": "dead",
        "finished_at": AT,
        "last_error": "no",
        "last_status": 403,
    },
    {
        "kind": "delete",
        "source_session_id": "s-5",
        "state": "cancelled",
        "finished_at": AT,
        "target_session_id": "SES2",
    },
    {"kind": "delete", "session_id": "SES3", "state": "pending", "next_attempt_at": AT},
]


@pytest.fixture
async def old(each_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Make a database at revision 0001."""
    if each_database == "sqlite":
        url, remove = f"sqlite+aiosqlite:///{tmp_path / 'old.db'}", None
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = await in_thread(server.empty)
        url, remove = server.url(name), name
    async with Database.create(sa.make_url(url), busy_timeout=5) as database:
        await database.write(lambda c: upgrade(c, "0001"))
        yield database
    if remove is not None:
        await in_thread(lambda: server.drop(remove))


async def run(database: Database, statement: str, *parameters: Any) -> list[dict[str, Any]]:
    def work(connection: sa.Connection) -> list[dict[str, Any]]:
        result = connection.exec_driver_sql(statement, parameters)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []

    return await database.write(work)


async def insert(database: Database, row: dict[str, Any]) -> int:
    marks = ", ".join("?" for _ in row)
    statement = f"INSERT INTO operations ({', '.join(row)}) VALUES ({marks}) RETURNING id"
    return int((await run(database, statement, *row.values()))[0]["id"])


@pytest.fixture
async def rows(old: Database) -> list[dict[str, Any]]:
    """Fill the old queue, the newest row deleted again; return what it holds."""
    for row in OLD_ROWS:
        await insert(old, row)
    gone = await insert(old, {**CREATE, "source_session_id": "gone"})
    await run(old, "DELETE FROM operations WHERE id = ?", gone)
    return await run(old, "SELECT * FROM operations ORDER BY id")


async def test_each_row_of_the_old_queue_is_kept(old: Database, rows: list[dict[str, Any]]) -> None:
    assert len(rows) == len(OLD_ROWS)
    await old.write(migrate.migrate)
    kept = await run(old, "SELECT * FROM operations ORDER BY id")
    assert [{name: row[name] for name in rows[0]} for row in kept] == rows
    assert {(row["on_hold_at"], row["clock_at"]) for row in kept} == {(None, None)}
    assert await run(old, "SELECT operations_pending, operations_dead FROM mirror_freshness") == [
        {"operations_pending": 3, "operations_dead": 1}
    ]


async def test_id_of_a_deleted_row_is_not_used_again(old: Database, rows: list[dict[str, Any]]) -> None:
    await old.write(migrate.migrate)
    assert await insert(old, {**CREATE, "source_session_id": "s"}) == rows[-1]["id"] + 2


async def test_queue_without_a_row_numbers_from_one(old: Database) -> None:
    await old.write(migrate.migrate)
    assert await insert(old, {**CREATE, "source_session_id": "s"}) == 1


async def test_triggers_act_on_a_row_inserted_after_the_upgrade(old: Database) -> None:
    await old.write(migrate.migrate)
    await insert(old, {**CREATE, "source_session_id": "s", "not_before": "2030-01-01T01:00:00+01:00"})
    (row,) = await run(old, "SELECT not_before, next_attempt_at FROM operations")
    assert row == {"not_before": "2030-01-01T00:00:00.000000Z", "next_attempt_at": "2030-01-01T00:00:00.000000Z"}
    assert await run(old, "SELECT source_session_id FROM source_sessions") == [{"source_session_id": "s"}]


@pytest.mark.sqlite
async def test_every_view_and_trigger_is_as_it_was(old: Database) -> None:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('view', 'trigger')"
    await old.write(lambda c: upgrade(c, "0002"))
    before = await run(old, query)
    await old.write(lambda c: upgrade(c, "0003"))
    after = await run(old, query)
    assert [row for row in before if row not in after] == []


ALLOWED_UPDATES = (
    {"session_id": "SES1", "name": "n"},
    {"source_session_id": "s", "parent_id": "FOL1"},
    {"source_session_id": "s", "parent_id": ""},
    {"source_session_id": "s", "name": "n", "parent_id": ""},
)
REFUSED_UPDATES = (
    {"source_session_id": "s"},
    {"name": "n"},
    {"source_session_id": "s", "session_id": "SES1", "name": "n"},
    {"source_session_id": "s", "name": ""},
    {"source_session_id": "s", "name": "", "parent_id": ""},
    {"session_id": ".", "name": "n"},
)


async def test_update_names_one_session_and_a_change(old: Database) -> None:
    await old.write(migrate.migrate)
    for row in ALLOWED_UPDATES:
        await insert(old, {"kind": "update", **row})
    for row in REFUSED_UPDATES:
        with pytest.raises(sa.exc.IntegrityError):
            await insert(old, {"kind": "update", **row})
