"""`syncd migrate-store`: every row is moved, in both directions, and the source does not act any more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.clock import SystemClock
from syncd.errors import DatabaseMovedError, DatabaseUnusableError, SyncdError
from syncd.mirror.copy import migrate_store
from syncd.mirror.copy.move_target import TABLES
from syncd.mirror.db.database import Database
from syncd.mirror.db.leader import replica
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate
from syncd.mirror.store import identity
from syncd.mirror.store.identity import StoredIdentity
from syncd.sandbox import Habits
from tests.helpers import fork_server
from tests.helpers.harness import open_harness
from tests.helpers.postgres_server import PostgresServer, in_thread
from tests.helpers.replicas import bare_environment

ROOT = Path(__file__).resolve().parents[3]
EXTRA = '{"a":1e+22,"b":[1.50,-0.0,"x"],"z":{"é":null}}'
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


async def move(source: sa.URL, target: sa.URL, **options: Any) -> list[migrate_store.Moved]:
    return await migrate_store.move(source, target, now=NOW, **options)


@pytest.fixture
def other_url(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.empty()
    yield postgres.url(name)
    postgres.drop(name)


async def fill(folder: Path) -> sa.URL:
    """Make a SQLite mirror with something in each table."""
    async with open_harness(folder, sessions=35, habits=Habits(page_size=10)) as harness:
        await harness.one_pass()
        harness.sandbox.delete("SES3")
        harness.sandbox.delete("SES4")
        await harness.enqueue(
            {"kind": "create", "source_session_id": "s-1", "name": "Ünï\n"},
            {"kind": "delete", "session_id": "SES5"},
        )
        await harness.push().drain()
        await harness.enqueue(
            {"kind": "create", "source_session_id": "s-2", "name": "later", "not_before": harness.clock.now()}
        )
        await harness.one_pass()
        await harness.sql("UPDATE operations SET next_attempt_at = '2031-01-01T00:00:00.000001Z' WHERE name = 'later'")
        await harness.sql("UPDATE sessions SET extra = ? WHERE id = 'SES7'", EXTRA)
        await harness.sql("INSERT INTO source_sessions (source_session_id) VALUES ('zzz'), ('Äé')")
        await harness.sql(
            "INSERT INTO quarantine (pass_id, session_id, reason, payload, seen_at, fingerprint) "
            "VALUES (1, 'SES9', 'r', '{}', '2026-01-01T00:00:00.000000Z', 'f')"
        )
        await harness.sql(
            "INSERT INTO holds (pass_id, last_pass_id, state, reason, detail, opened_at, updated_at) "
            "VALUES (1, 1, 'rejected', 'too_many_gone', 'too many', '2026-01-01T00:00:00.000000Z', "
            "'2026-01-01T00:00:00.000000Z')"
        )
        await harness.sql("INSERT INTO hold_sessions VALUES (1, 2)")
        await harness.sql(
            "INSERT INTO folders (id, name, path, extra, first_seen_at, changed_at) VALUES "
            "('FOL1', 'R&D', 'R&D', '{\"a\": 1.50}', '2026-06-01T13:00:00.000000Z', '2026-06-01T13:00:00.000001Z')"
        )
        await harness.sql("INSERT INTO folder_listing (id, fence, state) VALUES (1, 3, 'complete')")
        await harness.sql("INSERT INTO mirror_identity (id, origin) VALUES (1, 'https://app.albertinvent.com')")
        await harness.sql(
            "INSERT INTO operator_actions (at, by, action, subject) "
            "VALUES ('2026-06-01T13:00:00.000000Z', 'alice', 'retry', 'operation 1')"
        )
        await harness.sql("INSERT INTO passes (started_at, page_key) VALUES ('2026-06-01T13:00:00.000000Z', 'k')")
        return harness.database.url


async def tables(url: sa.URL) -> dict[str, list[Any]]:
    """Read every table, in an order of Python's own."""

    def work(connection: sa.Connection) -> dict[str, list[Any]]:
        contents = {}
        for table in TABLES:
            rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            for row in rows:
                if "extra" in row:
                    row["extra"] = json.loads(row["extra"])
                for mark in ("moved_to", "moved_at"):  # of the source alone
                    row.pop(mark, None)
            contents[table.name] = sorted(rows, key=repr)
        return contents

    async with Database(url, busy_timeout=5) as database:
        return await database.read(work)


async def test_everything_moves_to_postgresql_and_back(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    back = source.set(database=str(tmp_path / "back.db"))
    moved = await move(source, there)
    before = await tables(source)
    assert {moved_table.table: moved_table.rows for moved_table in moved} == {
        name: len(rows) for name, rows in before.items()
    }
    assert all(moved_table.rows for moved_table in moved)
    assert await tables(there) == before
    async with Database.create(back):
        pass
    assert await move(there, back) == moved
    assert await tables(back) == before


async def test_moved_queue_continues(tmp_path: Path, empty_url: str) -> None:
    await move(await fill(tmp_path), sa.make_url(empty_url))
    async with open_harness(
        tmp_path, url=empty_url, sessions=35
    ) as harness:  # the Albert that was mirrored: a 404 needs a witness
        harness.sandbox.create(source_session_id="s-1", name="made before the move")
        last = max(row["id"] for row in await harness.sql("SELECT id FROM operations"))
        (following,) = await harness.enqueue({"kind": "create", "source_session_id": "s-3", "name": "after"})
        assert following == last + 1
        assert await harness.sql("SELECT 1 AS one FROM source_sessions WHERE source_session_id = 's-3'") == [{"one": 1}]
        await harness.push().drain()
        assert (await harness.operation(following))["state"] == "succeeded"


async def test_target_that_is_not_empty_is_refused_and_not_touched(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    await move(source, there)
    async with Database(source, busy_timeout=5) as database:
        await database.write(identity.unmark_moved)
    before = await tables(there)
    with pytest.raises(DatabaseUnusableError, match="not empty"):
        await move(source, there)
    assert await tables(there) == before


KILLED = """
import datetime, os, signal, sys
import anyio, sqlalchemy as sa
from syncd.mirror.copy import migrate_store

def stop(done, total):
    if done > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

migrate_store.CHUNK = 10
now = datetime.datetime.now(datetime.UTC)
anyio.run(lambda: migrate_store.move(sa.make_url(sys.argv[1]), sa.make_url(sys.argv[2]), now=now, on_rows=stop))
"""


async def killed(source: sa.URL, target: sa.URL, rows: int) -> None:
    """Begin a move in a process that is killed after a number of rows."""
    arguments = [sys.executable, "-c", KILLED, *map(str, (source, target, rows))]
    environment = bare_environment() | {"PYTHONPATH": str(ROOT)}
    done = await in_thread(lambda: subprocess.run(arguments, check=False, capture_output=True, env=environment))
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


async def resumed(source: sa.URL, target: sa.URL) -> None:
    """End a move that was killed; make sure that it goes on where it was."""
    environment = bare_environment() | {"PYTHONPATH": str(ROOT), "SYNCD_DATABASE_URL": str(target)}
    refused = await fork_server.run(["status"], environment=environment, folder=ROOT)
    assert refused.returncode == 3
    assert b"interrupted" in refused.stderr
    there = {name: len(rows) for name, rows in (await tables(target)).items()}
    assert 0 < there["sessions"] < 35
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("sqlalchemy.delete")  # nothing that is there already is thrown away
        await move(source, target)
    assert await tables(target) == await tables(source)


async def test_killed_move_continues_after_its_last_row_both_ways(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    await killed(source, there, 30)
    await resumed(source, there)
    back = source.set(database=str(tmp_path / "back.db"))
    await killed(there, back, 30)
    await resumed(there, back)
    assert await triggers(back) == await triggers(source)


async def triggers(url: sa.URL) -> list[Any]:
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    async with Database(url, busy_timeout=5) as database:
        return await database.read(lambda c: [tuple(row) for row in c.exec_driver_sql(query)])


async def test_rows_that_changed_since_the_kill_are_copied_again(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    with pytest.raises(SyncdError):
        await move(source, there, on_rows=lambda done, total: interrupt() if done > total / 2 else None)
    async with Database(source, busy_timeout=5) as database:
        await database.write(lambda c: c.exec_driver_sql("UPDATE sessions SET name = 'another' WHERE id = 'SES8'"))
    await move(source, there)
    assert await tables(there) == await tables(source)


async def test_tables_of_other_programs_are_read_last_before_the_end(
    tmp_path: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = await fill(tmp_path), list[str]()
    async with Database(source, busy_timeout=5) as database:
        more = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) "
        insert = "INSERT INTO operations (kind, source_session_id, name) SELECT 'create', 'more-' || i, 'n' FROM n"
        await database.write(lambda c: c.exec_driver_sql(more + insert))
    checksum = migrate_store._Move._checksum

    async def recorded(self: Any, connection: Any, table: sa.Table) -> Any:
        read.append(table.name)
        return await checksum(self, connection, table)

    monkeypatch.setattr(migrate_store._Move, "_checksum", recorded)
    moved = await move(source, sa.make_url(empty_url))
    largest = {moved_table.table for moved_table in sorted(moved, key=lambda table: table.rows)[-2:]}
    assert set(read[-2:]) == largest == {"operations", "source_sessions"}


def interrupt() -> None:
    raise InterruptedError


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO operations (kind, session_id) VALUES ('delete', 'SES30')",
        "UPDATE operations SET state = 'cancelled', finished_at = next_attempt_at WHERE name = 'later'",
        "UPDATE sessions SET name = 'another' WHERE id = 'SES8'",
        "DELETE FROM source_sessions WHERE source_session_id = 'zzz'",
    ],
)
async def test_rows_written_during_the_move_are_moved_too(tmp_path: Path, empty_url: str, statement: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    late = False

    def write(done: int, total: int) -> None:
        nonlocal late
        if done > total / 2 and not late:
            late = True
            with sqlite3.connect(str(source.database)) as connection:
                assert connection.execute(statement).rowcount == 1
            connection.close()

    with pytest.raises(SyncdError, match="written to"):
        await move(source, there, on_rows=write)
    await move(source, there)
    assert await tables(there) == await tables(source)


async def test_mirror_that_its_first_pass_has_loaded_in_part_is_linked_by_the_move(
    tmp_path: Path, empty_url: str
) -> None:
    async with open_harness(tmp_path, sessions=30, habits=Habits(page_size=10)) as harness:
        await harness.one_pass()
        source = harness.database.url
        assert await harness.sql("SELECT 1 FROM sessions")
    async with Database(source, busy_timeout=5) as database:
        await database.write(lambda c: c.exec_driver_sql("DROP INDEX IF EXISTS ix_sessions_source"))
        await database.write(lambda c: c.exec_driver_sql("DELETE FROM source_sessions"))
    await move(source, sa.make_url(empty_url))
    contents = await tables(sa.make_url(empty_url))
    linked = {row["source_session_id"]: row["session_id"] for row in contents["source_sessions"]}
    assert linked == {row["source_session_id"]: row["id"] for row in contents["sessions"]}


async def test_row_that_the_target_does_not_hold_as_it_was_ends_the_move(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    source, there = await fill(tmp_path), sa.make_url(postgres_url)
    rule = "CREATE RULE lose AS ON INSERT TO hold_sessions DO INSTEAD NOTHING"
    await in_thread(lambda: postgres.sql(rule, str(there.database)))
    with pytest.raises(SyncdError, match="hold_sessions has 1 rows"):
        await move(source, there)
    async with Database(there, busy_timeout=5) as database:
        with pytest.raises(DatabaseUnusableError, match="interrupted"):
            await database.read(migrate.require_head)


async def syncd(source: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = bare_environment() | {"SYNCD_DATABASE_URL": source, "PYTHONPATH": str(ROOT)}
    return await fork_server.run(arguments, environment=environment, folder=ROOT)


async def test_command_moves_and_refuses_while_a_daemon_works_there(tmp_path: Path, empty_url: str) -> None:
    source = str(await fill(tmp_path))
    async with replica(sa.make_url(empty_url), SystemClock()):
        refused = await syncd(source, "migrate-store", "--to", empty_url)
        assert refused.returncode == 3, refused.stderr
        assert b"stop it first" in refused.stderr
    done = await syncd(source, "migrate-store", "--to", empty_url, "--json")
    assert done.returncode == 0, done.stderr
    assert {moved_table["table"] for moved_table in json.loads(done.stdout)["moved"]} == {
        table.name for table in TABLES
    }
    again = await syncd(source, "migrate-store", "--to", source)
    assert again.returncode == 2, again.stderr
    status = await syncd(empty_url, "status", "--json")
    assert json.loads(status.stdout)["freshness"]["live_sessions"] == 33


async def identity_of(url: sa.URL) -> StoredIdentity:
    async with Database(url, busy_timeout=5) as database:
        return await database.read(identity.read)


async def test_source_is_marked_with_the_address_of_the_target_and_the_target_is_not(
    tmp_path: Path, empty_url: str
) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url).set(password="hidden-word")
    before = await identity_of(source)
    await move(source, there)
    marked, target = await identity_of(source), await identity_of(there)
    assert (marked.moved_to, marked.moved_at) == (there.set(password=None).render_as_string(), NOW)
    assert "hidden-word" not in str(marked)
    assert marked.pinned == before.pinned == target.pinned
    assert (target.moved_to, target.moved_at) == (None, None)
    back = source.set(database=os.path.relpath(tmp_path / "back.db"))
    async with Database.create(back):
        pass
    await move(there, back)
    assert (await identity_of(there)).moved_to == f"sqlite+aiosqlite:///{tmp_path / 'back.db'}"
    assert (await identity_of(back)).moved_to is None


async def test_mark_of_a_copy_is_moved_with_it(tmp_path: Path, empty_url: str) -> None:
    source = await fill(tmp_path)
    async with Database(source, busy_timeout=5) as database:
        await database.write(
            lambda c: c.exec_driver_sql("UPDATE mirror_identity SET copied_at = '2026-06-01T12:00:00.000000Z'")
        )
    await move(source, sa.make_url(empty_url))
    assert (await identity_of(sa.make_url(empty_url))).copied_at == NOW


@pytest.mark.parametrize("step", ["checksum.Checksum.add", "move_target.finish"])
async def test_move_that_fails_leaves_the_source_without_a_mark(
    tmp_path: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)

    def fail(*_: object, **__: object) -> None:
        raise SyncdError("it failed")

    with monkeypatch.context() as patch:
        patch.setattr(f"syncd.mirror.copy.{step}", fail)
        with pytest.raises(SyncdError, match="it failed"):
            await move(source, there)
    assert (await identity_of(source)).moved_to is None
    await move(source, there)
    assert await tables(there) == await tables(source)


async def test_kill_after_the_mark_leaves_a_move_that_the_same_command_finishes(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    stop = "from syncd.mirror.copy import move_target\nmove_target.finish = lambda *_, **__: os.kill(os.getpid(), 9)\n"
    code = KILLED.replace("migrate_store.CHUNK = 10\n", stop)
    arguments = [sys.executable, "-c", code, *map(str, (source, there, 10**9))]
    environment = bare_environment() | {"PYTHONPATH": str(ROOT)}
    done = await in_thread(lambda: subprocess.run(arguments, check=False, capture_output=True, env=environment))
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (await identity_of(source)).moved_to is not None
    async with Database(there, busy_timeout=5) as database:
        with pytest.raises(DatabaseUnusableError, match="interrupted"):
            await database.read(migrate.require_head)
    await move(source, there)
    assert await tables(there) == await tables(source)


async def test_moved_database_is_moved_again_only_by_force(tmp_path: Path, empty_url: str, other_url: str) -> None:
    source, other = await fill(tmp_path), sa.make_url(other_url)
    await move(source, sa.make_url(empty_url))
    with pytest.raises(DatabaseMovedError, match="--force"):
        await move(source, other)
    await move(source, other, force=True)
    assert (await identity_of(source)).moved_to == other_url
