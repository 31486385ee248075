"""Revision 0006: pages become bitmaps, and a running pass starts again instead of losing what it has seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.schema import migrate
from syncd.mirror.schema.revisions import REVISIONS
from syncd.mirror.store import pages, passes
from syncd.records.ids import PassId
from tests.helpers.old_schema import upgrade
from tests.helpers.postgres_server import PostgresServer, in_thread

pytestmark = pytest.mark.both_databases

AT = "2026-06-01T12:00:00.000000Z"
COMPLETE = {"state": "complete", "started_at": AT, "finished_at": AT, "pages": 1, "seen": 3, "unchanged": 3}
RUNNING = {
    "state": "running", "started_at": AT, "page_key": "k", "read_at": AT, "pages": 7, "seen": 9, "inserted": 2,
    "updated": 2, "unchanged": 2, "restored": 1, "quarantined": 3, "without_id": 1, "fence": 4,
}  # fmt: skip


@pytest.fixture
async def old(each_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Make a database at revision 0001 with a complete pass and a running one."""
    if each_database == "sqlite":
        url, remove = f"sqlite+aiosqlite:///{tmp_path / 'old.db'}", None
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        remove = await in_thread(server.empty)
        url = server.url(remove)
    async with Database.create(sa.make_url(url), busy_timeout=5) as database:
        await database.write(lambda c: upgrade(c, "0001"))
        for row in (COMPLETE, RUNNING):
            await run(
                database, f"INSERT INTO passes ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values()
            )
        for pass_id in (1, 2):
            await run(
                database,
                "INSERT INTO pages (pass_id, number, next_key, session_keys, quarantine_ids, digest, versions) "
                "VALUES (?, 1, 'k', ?, ?, ?, 3)",
                pass_id, b"x\x9c", b"", b"\x01",
            )  # fmt: skip
        yield database
    if remove is not None:
        await in_thread(lambda: server.drop(remove))


async def run(database: Database, statement: str, *parameters: Any) -> list[dict[str, Any]]:
    def work(connection: sa.Connection) -> list[dict[str, Any]]:
        result = connection.exec_driver_sql(statement, parameters)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []

    return await database.write(work)


async def test_running_pass_starts_again_and_its_holder_has_lost_it(old: Database) -> None:
    held = passes.Progress(PassId(2), datetime(2026, 6, 1, tzinfo=UTC), resumed=True, fence=4)
    await old.write(migrate.migrate)
    (row,) = await run(old, "SELECT * FROM passes WHERE state = 'running'")
    assert {name: row[name] for name in RUNNING} == {
        **RUNNING, **dict.fromkeys(passes.COUNTERS, 0), "page_key": None, "read_at": None, "fence": 5,
    }  # fmt: skip
    with pytest.raises(passes.PassLostError):
        await old.write(lambda c: passes.check(c, held))
    resumed = await old.write(passes.resume)
    assert resumed is not None
    assert (resumed.id, len(resumed.seen), resumed.page_key, resumed.read) == (2, 0, None, False)


async def test_pages_of_older_readers_are_gone_and_the_complete_pass_stays(old: Database) -> None:
    await old.write(migrate.migrate)
    assert await old.read(pages.digests) == (1, {})
    assert await run(old, "SELECT 1 FROM pages") == []
    (row,) = await run(old, "SELECT * FROM passes WHERE state = 'complete'")
    assert {name: row[name] for name in COMPLETE} == COMPLETE


@pytest.mark.sqlite  # no database is contacted
def test_sql_for_postgresql_is_written_without_a_database() -> None:
    output = StringIO()
    migrate.print_sql("postgresql", REVISIONS[REVISIONS.index("0006") - 1], output)
    assert "ALTER TABLE pages ADD COLUMN sessions" in output.getvalue()
    assert "CREATE OR REPLACE VIEW mirror_freshness" in output.getvalue()


async def test_freshness_counts_no_accepted_item_and_is_otherwise_as_it_was(old: Database) -> None:
    before = await run(old, "SELECT * FROM mirror_freshness")
    await old.write(migrate.migrate)
    for accepted, resolved in ((None, None), (AT, None), (None, AT)):
        await run(
            old,
            "INSERT INTO quarantine (reason, payload, seen_at, fingerprint, accepted_at, resolved_at) "
            "VALUES ('r', '1', ?, ?, ?, ?)",
            AT, f"{accepted}{resolved}", accepted, resolved,
        )  # fmt: skip
    (after,) = await run(old, "SELECT * FROM mirror_freshness")
    assert (before[0]["quarantined_items"], after["quarantined_items"]) == (0, 1)
    assert [name for name in after if name in before[0]] == list(before[0])
