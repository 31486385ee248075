"""`syncd migrate-store`: everything goes over, both ways, and is the same afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncd.clock import SystemClock
from syncd.errors import DatabaseUnusableError, SyncdError
from syncd.mirror.copy import migrate_store as moving
from syncd.mirror.db.database import Database
from syncd.mirror.db.leader import replica
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate
from syncd.sandbox import Habits
from tests.helpers.harness import world
from tests.helpers.postgres_server import PostgresServer, in_thread
from tests.helpers.replicas import bare_environment

pytestmark = pytest.mark.both_databases

pytestmark = pytest.mark.sqlite
ROOT = Path(__file__).resolve().parents[3]
EXTRA = '{"a":1e+22,"b":[1.50,-0.0,"x"],"z":{"é":null}}'


@pytest.fixture
def empty_url(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.empty()
    yield postgres.url(name)
    postgres.drop(name)


async def fill(folder: Path) -> sa.URL:
    """Make a SQLite mirror with something in each table."""
    async with world(folder, sessions=35, habits=Habits(page_size=10)) as w:
        await w.one_pass()
        w.sandbox.delete("SES3")
        w.sandbox.delete("SES4")
        await w.enqueue(
            {"kind": "create", "source_session_id": "s-1", "name": "Ünï\n"},
            {"kind": "delete", "session_id": "SES5"},
        )
        await w.push().drain()
        await w.enqueue({"kind": "create", "source_session_id": "s-2", "name": "later", "not_before": w.clock.now()})
        await w.one_pass()
        await w.sql("UPDATE operations SET next_attempt_at = '2031-01-01T00:00:00.000001Z' WHERE name = 'later'")
        await w.sql("UPDATE sessions SET extra = ? WHERE id = 'SES7'", EXTRA)
        await w.sql("INSERT INTO source_sessions (source_session_id) VALUES ('zzz'), ('Äé')")
        await w.sql(
            "INSERT INTO quarantine (pass_id, session_id, reason, payload, seen_at, fingerprint) "
            "VALUES (1, 'SES9', 'r', '{}', '2026-01-01T00:00:00.000000Z', 'f')"
        )
        await w.sql("INSERT INTO held_sessions VALUES (1, 2)")
        await w.sql("INSERT INTO mirror_identity (id, origin) VALUES (1, 'https://app.albertinvent.com')")
        await w.sql(
            "INSERT INTO operator_actions (at, by, action, subject) "
            "VALUES ('2026-06-01T13:00:00.000000Z', 'alice', 'retry', 'operation 1')"
        )
        await w.sql("INSERT INTO passes (started_at, page_key) VALUES ('2026-06-01T13:00:00.000000Z', 'k')")
        return w.database.url


async def tables(url: sa.URL) -> dict[str, list[Any]]:
    """Read every table, in an order of Python's own."""

    def work(connection: sa.Connection) -> dict[str, list[Any]]:
        found = {}
        for table in moving.TABLES:
            rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            for row in rows:
                if "extra" in row:
                    row["extra"] = json.loads(row["extra"])
            found[table.name] = sorted(rows, key=repr)
        return found

    async with Database(url, busy_timeout=5) as database:
        return await database.read(work)


async def test_everything_goes_to_postgresql_and_back(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    back = source.set(database=str(tmp_path / "back.db"))
    moved = await moving.move(source, there)
    before = await tables(source)
    assert {one.table: one.rows for one in moved} == {name: len(rows) for name, rows in before.items()}
    assert all(one.rows for one in moved)
    assert await tables(there) == before
    async with Database.create(back):
        pass
    assert await moving.move(there, back) == moved
    assert await tables(back) == before


async def test_moved_queue_goes_on_where_it_was(tmp_path: Path, empty_url: str) -> None:
    await moving.move(await fill(tmp_path), sa.make_url(empty_url))
    async with world(tmp_path, url=empty_url, sessions=35) as w:  # the Albert that was mirrored: a 404 needs a witness
        w.sandbox.create(source_session_id="s-1", name="made before the move")
        last = max(row["id"] for row in await w.sql("SELECT id FROM operations"))
        (following,) = await w.enqueue({"kind": "create", "source_session_id": "s-3", "name": "after"})
        assert following == last + 1
        assert await w.sql("SELECT 1 AS one FROM source_sessions WHERE source_session_id = 's-3'") == [{"one": 1}]
        await w.push().drain()
        assert (await w.operation(following))["state"] == "succeeded"


async def test_target_that_is_not_empty_is_refused_and_not_touched(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    await moving.move(source, there)
    before = await tables(there)
    with pytest.raises(DatabaseUnusableError, match="not empty"):
        await moving.move(source, there)
    assert await tables(there) == before


KILLED = """
import os, signal, sys
import anyio, sqlalchemy as sa
from syncd.mirror.copy import migrate_store

def stop(done, total):
    if done > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

migrate_store.CHUNK = 10
anyio.run(lambda: migrate_store.move(sa.make_url(sys.argv[1]), sa.make_url(sys.argv[2]), on_rows=stop))
"""


async def killed(source: sa.URL, target: sa.URL, rows: int) -> None:
    """Begin a move in a process that is killed after so many rows."""
    arguments = [sys.executable, "-c", KILLED, *map(str, (source, target, rows))]
    environment = bare_environment() | {"PYTHONPATH": str(ROOT)}
    done = await in_thread(lambda: subprocess.run(arguments, check=False, capture_output=True, env=environment))
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


async def resumed(source: sa.URL, target: sa.URL) -> None:
    """End a move that was killed; make sure that it goes on where it was."""
    environment = bare_environment() | {"PYTHONPATH": str(ROOT), "SYNCD_DATABASE_URL": str(target)}
    refused = await in_thread(
        lambda: subprocess.run(
            [sys.executable, "-m", "syncd", "status"], check=False, capture_output=True, text=True, env=environment
        )
    )
    assert refused.returncode == 3
    assert "interrupted" in refused.stderr
    there = {name: len(rows) for name, rows in (await tables(target)).items()}
    assert 0 < there["sessions"] < 35
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("sqlalchemy.delete")  # nothing that is there already is thrown away
        await moving.move(source, target)
    assert await tables(target) == await tables(source)


async def test_move_that_was_killed_goes_on_behind_its_last_row_both_ways(tmp_path: Path, empty_url: str) -> None:
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


async def test_what_the_source_has_changed_since_the_kill_is_copied_anew(tmp_path: Path, empty_url: str) -> None:
    source, there = await fill(tmp_path), sa.make_url(empty_url)
    with pytest.raises(SyncdError):
        await moving.move(source, there, on_rows=lambda done, total: interrupt() if done > total / 2 else None)
    async with Database(source, busy_timeout=5) as database:
        await database.write(lambda c: c.exec_driver_sql("UPDATE sessions SET name = 'another' WHERE id = 'SES8'"))
    await moving.move(source, there)
    assert await tables(there) == await tables(source)


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
async def test_what_is_written_while_the_source_is_moved_is_not_left_behind(
    tmp_path: Path, empty_url: str, statement: str
) -> None:
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
        await moving.move(source, there, on_rows=write)
    await moving.move(source, there)
    assert await tables(there) == await tables(source)


async def test_mirror_that_its_first_pass_has_loaded_in_part_is_linked_by_the_move(
    tmp_path: Path, empty_url: str
) -> None:
    async with world(tmp_path, sessions=30, habits=Habits(page_size=10)) as w:
        await w.one_pass()
        source = w.database.url
        assert await w.sql("SELECT 1 FROM sessions")
    async with Database(source, busy_timeout=5) as database:
        await database.write(lambda c: c.exec_driver_sql("DROP INDEX IF EXISTS ix_sessions_live_source"))
        await database.write(lambda c: c.exec_driver_sql("DELETE FROM source_sessions"))
    await moving.move(source, sa.make_url(empty_url))
    found = await tables(sa.make_url(empty_url))
    linked = {row["source_session_id"]: row["session_id"] for row in found["source_sessions"]}
    assert linked == {row["source_session_id"]: row["id"] for row in found["sessions"]}


async def test_row_that_the_target_does_not_hold_as_it_was_ends_the_move(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    source, there = await fill(tmp_path), sa.make_url(postgres_url)
    rule = "CREATE RULE lose AS ON INSERT TO held_sessions DO INSTEAD NOTHING"
    await in_thread(lambda: postgres.sql(rule, str(there.database)))
    with pytest.raises(SyncdError, match="held_sessions has 1 rows"):
        await moving.move(source, there)
    async with Database(there, busy_timeout=5) as database:
        with pytest.raises(DatabaseUnusableError, match="interrupted"):
            await database.read(migrate.require_head)


async def test_text_that_postgresql_cannot_hold_is_named(tmp_path: Path, empty_url: str) -> None:
    source = await fill(tmp_path)
    async with Database(source, busy_timeout=5) as database:
        await database.write(lambda c: c.exec_driver_sql("UPDATE operations SET name = 'a' || char(0) WHERE id = 1"))
    with pytest.raises(SyncdError, match="cannot hold a row of operations"):
        await moving.move(source, sa.make_url(empty_url))


def syncd(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = bare_environment() | {"SYNCD_DATABASE_URL": source, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "syncd", *arguments], check=False, capture_output=True, text=True, env=environment
    )


async def test_command_moves_and_refuses_while_a_daemon_works_there(tmp_path: Path, empty_url: str) -> None:
    source = str(await fill(tmp_path))
    async with replica(sa.make_url(empty_url), SystemClock()):
        refused = await in_thread(lambda: syncd(source, "migrate-store", "--to", empty_url))
        assert refused.returncode == 3, refused.stderr
        assert "stop it first" in refused.stderr
    done = await in_thread(lambda: syncd(source, "migrate-store", "--to", empty_url, "--json"))
    assert done.returncode == 0, done.stderr
    assert {one["table"] for one in json.loads(done.stdout)["moved"]} == {table.name for table in moving.TABLES}
    again = await in_thread(lambda: syncd(source, "migrate-store", "--to", source))
    assert again.returncode == 2, again.stderr
    status = await in_thread(lambda: syncd(empty_url, "status", "--json"))
    assert json.loads(status.stdout)["freshness"]["live_sessions"] == 33
