"""Revision 0005: the versions of an earlier release are numbered, compared and counted, and the views read them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.schema import migrate
from syncd.mirror.store import initial_load
from tests.helpers.old_schema import upgrade
from tests.helpers.postgres_server import PostgresServer, in_thread

pytestmark = pytest.mark.both_databases


def at(minute: int) -> str:
    return f"2026-06-01T12:{minute:02}:00.000000Z"


BASE = {"source_session_id": "s", "created_at": "2026-05-31T23:59:59.999999Z", "extra": "{}"}
SESSIONS: list[dict[str, Any]] = [
    {
        "key": 1, "id": "SES1", "name": "third", **BASE, "version": 3, "change": "updated", "valid_from": at(7),
        "last_message_at": "2026-06-01T00:00:00.000000Z", "first_seen_at": at(0),
    },
    {"key": 2, "id": "SES2", "name": "b", **BASE, "version": 1, "change": "created", "valid_from": at(0),
     "first_seen_at": at(0)},
    {
        "key": 3, "id": "SES3", "name": "c", **BASE, "version": 2, "change": "deleted", "valid_from": at(5),
        "first_seen_at": at(0), "deleted_at": at(5), "missing_since": at(4),
    },
    {"key": 4, "id": "SES4", "name": "d", **BASE, "version": 3, "change": "restored", "valid_from": at(5),
     "first_seen_at": at(0), "missing_since": at(6)},
]  # fmt: skip
VERSIONS: list[dict[str, Any]] = [
    {"session_key": 1, "version": 1, "id": "SES1", "name": "first", **BASE, "change": "created", "valid_from": at(0),
     "valid_to": at(5)},
    {"session_key": 1, "version": 2, "id": "SES1", "name": "second", **BASE, "status": "active", "change": "updated",
     "valid_from": at(5), "valid_to": at(7)},
    {"session_key": 3, "version": 1, "id": "SES3", "name": "c", **BASE, "change": "created", "valid_from": at(0),
     "valid_to": at(5)},
    {"session_key": 4, "version": 1, "id": "SES4", "name": "d", **BASE, "change": "created", "valid_from": at(0),
     "valid_to": at(2)},
    {"session_key": 4, "version": 2, "id": "SES4", "name": "d", **BASE, "change": "deleted", "valid_from": at(2),
     "valid_to": at(5)},
]  # fmt: skip


@pytest.fixture
async def old(each_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Make a database at revision 0001 with versions of four sessions."""
    remove = None
    if each_database == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        remove = await in_thread(server.empty)
        url = server.url(remove)
    async with Database.create(sa.make_url(url), busy_timeout=5) as database:
        await database.write(lambda c: upgrade(c, "0001"))
        for table, rows in (("sessions", SESSIONS), ("session_versions", VERSIONS)):
            for row in rows:
                marks = ", ".join("?" for _ in row)
                statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
                await run(database, statement, *row.values())
        yield database
    if remove is not None:
        await in_thread(lambda: server.drop(remove))


async def run(database: Database, statement: str, *parameters: Any) -> list[dict[str, Any]]:
    def work(connection: sa.Connection) -> list[dict[str, Any]]:
        result = connection.exec_driver_sql(statement, parameters)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []

    return await database.write(work)


async def test_old_versions_are_numbered_in_the_order_of_their_times(old: Database) -> None:
    await old.write(migrate.migrate)
    rows = await run(old, "SELECT seq, session_id, change, changed_fields FROM chat_session_changes ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, 10))
    assert [(row["session_id"], row["change"], json.loads(row["changed_fields"])) for row in rows] == [
        ("SES1", "created", []), ("SES2", "created", []), ("SES3", "created", []), ("SES4", "created", []),
        ("SES4", "deleted", []), ("SES1", "updated", ["name", "status"]), ("SES3", "deleted", []),
        ("SES4", "restored", []), ("SES1", "updated", ["name", "status", "last_message_at"]),
    ]  # fmt: skip


async def test_next_version_is_numbered_after_the_old_ones(old: Database) -> None:
    await old.write(migrate.migrate)
    assert await run(old, "SELECT last_seq, live_sessions, deleted_sessions FROM mirror_totals") == [
        {"last_seq": 9, "live_sessions": 3, "deleted_sessions": 1}
    ]


async def test_empty_mirror_has_no_totals_and_counts_zero(old: Database) -> None:
    for table in ("sessions", "session_versions"):
        await run(old, f"DELETE FROM {table}")
    await old.write(migrate.migrate)
    assert await run(old, "SELECT * FROM mirror_totals") == []
    (row,) = await run(old, "SELECT live_sessions, deleted_sessions, last_listed_at FROM mirror_freshness")
    assert row == {"live_sessions": 0, "deleted_sessions": 0, "last_listed_at": None}


async def test_views_read_the_old_rows(old: Database) -> None:
    before = await run(old, "SELECT * FROM chat_session_history ORDER BY session_id, valid_from")
    await old.write(migrate.migrate)
    after = await run(old, "SELECT * FROM chat_session_history ORDER BY session_id, valid_from")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    columns = "id, created_date, last_message_date, missing_since, deleted_at"
    rows = await run(old, f"SELECT {columns} FROM chat_sessions_all ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [
        ("SES1", "2026-05-31", "2026-06-01", None, None),
        ("SES2", "2026-05-31", None, None, None),
        ("SES3", "2026-05-31", None, None, at(5)),
        ("SES4", "2026-05-31", None, at(6), None),
    ]
    (fresh,) = await run(old, "SELECT live_sessions, deleted_sessions, missing_sessions FROM mirror_freshness")
    assert fresh == {"live_sessions": 3, "deleted_sessions": 1, "missing_sessions": 1}


@pytest.mark.sqlite
async def test_first_pass_that_was_interrupted_is_still_loading(old: Database) -> None:
    await run(old, "DROP INDEX ix_sessions_live_source")
    await old.write(migrate.migrate)
    assert await old.read(initial_load.is_loading)
