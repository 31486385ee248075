"""Revision 0004: holds of an earlier release stay in force, and its passes get codes for their reasons."""

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
EMPTY = "the listing was empty, and 3 sessions are live in the mirror"
MANY = "4 of 40 live sessions are not listed any more, and at most 3 may go at once"


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


async def insert_pass(database: Database, state: str, **values: Any) -> int:
    row = {"state": state, "started_at": AT, "finished_at": None if state == "running" else AT, **values}
    marks = ", ".join("?" for _ in row)
    statement = f"INSERT INTO passes ({', '.join(row)}) VALUES ({marks}) RETURNING id"
    return int((await run(database, statement, *row.values()))[0]["id"])


async def hold_sessions(database: Database, pass_id: int, *keys: int) -> None:
    for key in keys:
        await run(database, "INSERT INTO held_sessions (pass_id, session_key) VALUES (?, ?)", pass_id, key)


async def migrated(database: Database) -> list[dict[str, Any]]:
    """Upgrade, and return the holds with their sessions."""
    await database.write(lambda c: upgrade(c, "0004"))
    holds = await run(
        database, "SELECT id, pass_id, last_pass_id, state, reason, detail, decided_at FROM holds ORDER BY id"
    )
    for hold in holds:
        keys = await run(database, "SELECT session_key FROM hold_sessions WHERE hold_id = ? ORDER BY 1", hold["id"])
        hold["keys"] = [row["session_key"] for row in keys]
        passes = await run(database, "SELECT id FROM passes WHERE hold_id = ? ORDER BY id", hold.pop("id"))
        hold["passes"] = [row["id"] for row in passes]
    return holds


async def test_holds_that_repeated_one_become_one_open_hold(old: Database) -> None:
    first = await insert_pass(old, "held", error=MANY)
    await hold_sessions(old, first, 7, 8)
    second = await insert_pass(old, "held", error=MANY, candidates_of=first)
    third = await insert_pass(old, "held", error=EMPTY, candidates_of=first)
    await insert_pass(old, "failed", error="gave up on a page after 5 tries: no")
    assert await migrated(old) == [
        {
            "pass_id": first, "last_pass_id": third, "state": "open", "reason": "listing_empty", "detail": EMPTY,
            "decided_at": None, "keys": [7, 8], "passes": [first, second, third],
        }
    ]  # fmt: skip
    assert await run(old, "SELECT held_pass_id FROM mirror_freshness") == [{"held_pass_id": first}]


async def test_hold_whose_first_pass_was_pruned_is_named_by_the_next(old: Database) -> None:
    first = await insert_pass(old, "held", error=MANY)
    await hold_sessions(old, first, 7)
    second = await insert_pass(old, "held", error=MANY, candidates_of=first)
    third = await insert_pass(old, "held", error=MANY, candidates_of=first)
    await run(old, "DELETE FROM passes WHERE id = ?", first)
    (hold,) = await migrated(old)
    assert (hold["pass_id"], hold["keys"], hold["passes"]) == (second, [7], [second, third])


async def test_approval_stays_in_force_for_its_sessions_alone(old: Database) -> None:
    approved = await insert_pass(old, "held", error=MANY, decision="approved", decided_at=AT)
    await hold_sessions(old, approved, 1, 2)
    newer = await insert_pass(old, "held", error=MANY)
    await hold_sessions(old, newer, 2, 3)
    holds = await migrated(old)
    assert [(hold["pass_id"], hold["state"], hold["keys"]) for hold in holds] == [
        (approved, "approved", [1, 2]), (newer, "open", [3]),
    ]  # fmt: skip
    assert holds[0]["decided_at"] == AT


@pytest.mark.parametrize("later", ["complete", "another hold"])
async def test_hold_that_a_later_pass_settled_is_not_carried_over(old: Database, later: str) -> None:
    first = await insert_pass(old, "held", error=MANY)
    await hold_sessions(old, first, 1)
    if later == "complete":
        await insert_pass(old, "complete")
        expected = []
    else:
        second = await insert_pass(old, "held", error=MANY)
        await hold_sessions(old, second, 1, 2)
        expected = [second]
    assert [hold["pass_id"] for hold in await migrated(old)] == expected


async def test_rejection_and_used_approval_of_the_old_form_end(old: Database) -> None:
    rejected = await insert_pass(old, "held", error=MANY, decision="rejected", decided_at=AT)
    await hold_sessions(old, rejected, 1)
    await insert_pass(old, "held", error=MANY, decision="approved", decided_at=AT)
    assert await migrated(old) == []
    assert await run(old, "SELECT state, hold_id FROM passes") == [{"state": "held", "hold_id": None}] * 2


KEY_TWICE = "the server gave a page key twice, on a page with sessions that were new: the listing may go on"
ERRORS = {
    "Albert refuses the credentials: GET /x answered 401": "credentials_refused",
    "stopped at the ceiling of 3 pages": "ceiling",
    "stopped at the ceiling of 21600 seconds: its checkpoint is too old": "checkpoint_expired",
    "gave up on a page after 5 tries: no": "page_failed",
    EMPTY: "listing_empty",
    MANY: "too_many_gone",
    KEY_TWICE: "page_key_repeated",
    "2 items had no readable id: nobody can tell which sessions they are": "item_without_id",
    "GET /api answered 400: no": "listing_refused",
}


async def test_reason_of_an_old_pass_becomes_a_code(old: Database) -> None:
    for error in ERRORS:
        await insert_pass(old, "failed", error=error)
    await insert_pass(old, "complete")
    await migrated(old)
    assert await run(old, "SELECT reason, error FROM passes ORDER BY id") == [
        *({"reason": reason, "error": error} for error, reason in ERRORS.items()), {"reason": None, "error": None},
    ]  # fmt: skip


async def test_each_pass_keeps_its_values_and_the_running_one_can_continue(old: Database) -> None:
    await insert_pass(old, "complete", pages=3, seen=20, inserted=1, without_id=2)
    running = await insert_pass(old, "running", page_key="k", fence=4, pages=1)
    before = await run(old, "SELECT * FROM passes ORDER BY id")
    await migrated(old)
    after = await run(old, "SELECT * FROM passes ORDER BY id")
    kept = before[0].keys() - {"candidates_of", "decision", "decided_at"}
    assert [{name: row[name] for name in kept} for row in after] == [
        {name: row[name] for name in kept} for row in before
    ]
    with pytest.raises(sa.exc.IntegrityError):
        await insert_pass(old, "running")
    assert after[1]["id"] == running


async def test_id_of_a_deleted_pass_is_not_used_again(old: Database) -> None:
    last = [await insert_pass(old, "complete") for _ in range(3)][-1]
    await run(old, "DELETE FROM passes")
    await migrated(old)
    assert await insert_pass(old, "complete") == last + 1


async def test_passes_without_a_row_are_numbered_from_one(old: Database) -> None:
    await migrated(old)
    assert await insert_pass(old, "complete") == 1


async def test_one_hold_at_most_is_open(old: Database) -> None:
    await migrated(old)
    statement = (
        "INSERT INTO holds (pass_id, last_pass_id, state, reason, detail, opened_at, updated_at) "
        f"VALUES (1, 1, ?, 'too_many_gone', '', '{AT}', '{AT}')"
    )
    for state in ("open", "approved", "approved", "rejected", "closed"):
        await run(old, statement, state)
    with pytest.raises(sa.exc.IntegrityError):
        await run(old, statement, "open")
    with pytest.raises(sa.exc.IntegrityError):
        await run(old, statement, "opne")


@pytest.mark.sqlite
async def test_every_other_view_and_trigger_is_as_it_was(old: Database) -> None:
    query = (
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('view', 'trigger') "
        "AND name <> 'mirror_freshness' ORDER BY type, name"
    )
    await old.write(lambda c: upgrade(c, "0003"))
    await run(old, "CREATE VIEW passes_of_a_user AS SELECT id, state FROM passes")
    await run(old, "CREATE TRIGGER of_a_user AFTER UPDATE ON passes BEGIN SELECT 1; END")
    before = await run(old, query)
    await insert_pass(old, "complete")
    await migrated(old)
    assert await run(old, query) == before
    assert await run(old, "SELECT state FROM passes_of_a_user") == [{"state": "complete"}]


async def test_readers_keep_their_right_to_the_view(old: Database) -> None:
    if old.dialect == "sqlite":
        pytest.skip("SQLite has no rights")
    await run(old, "CREATE ROLE reader_of_0004 NOLOGIN")
    try:
        await run(old, "GRANT SELECT ON mirror_freshness TO reader_of_0004")
        await migrated(old)
        rights = await run(old, "SELECT has_table_privilege('reader_of_0004', 'mirror_freshness', 'SELECT') AS may")
        assert rights == [{"may": True}]
    finally:
        await run(old, "DROP OWNED BY reader_of_0004")
        await run(old, "DROP ROLE reader_of_0004")


async def test_old_database_reaches_the_head(old: Database) -> None:
    await insert_pass(old, "complete")
    await old.write(migrate.migrate)
    assert await run(old, "SELECT id, state FROM passes") == [{"id": 1, "state": "complete"}]
