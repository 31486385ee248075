"""A pass and the queue with a locked, replaced, foreign or read-only database file, and with a reader that never ends.

Other tests: `tests/mirror/db/test_database_*.py` (locks, full disks, foreign and damaged files),
`tests/status/test_full_disk.py`, `tests/processes/test_database_trouble.py` and `test_kill_and_resume.py`.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseReplacedError, DatabaseUnusableError
from syncd.mirror.db import sqlite
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate
from syncd.mirror.store import operation_views, operations
from syncd.sandbox import Sandbox, serve
from tests.helpers.harness import open_harness
from tests.kills.case import syncd

pytestmark = pytest.mark.timeout(300)  # processes of a busy machine are slow
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _url(folder: Path) -> sa.URL:
    return sa.make_url(f"sqlite+aiosqlite:///{folder / 'syncd.db'}")


@contextmanager
def _plain(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as another program does."""
    with closing(sqlite3.connect(folder / "syncd.db", isolation_level=None, check_same_thread=False)) as connection:
        yield connection


async def test_pass_waits_for_a_lock_of_another_program_and_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    held = float(os.environ.get("LOCKED_SECONDS", "1.5"))  # 30 in the long form
    async with open_harness(tmp_path, sessions=15) as harness:
        reasons: list[str] = []
        harness.database.retries.on_wait, harness.database.retries.busy_timeout = reasons.append, 60
        with _plain(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            letting_go = threading.Timer(held, other.rollback)
            letting_go.start()
            try:
                assert (await harness.one_pass()).state == "complete"
            finally:
                letting_go.join()
        assert len(reasons) == 1
        assert await harness.live() == harness.there()


@pytest.mark.parametrize("how", ["replaced", "removed"])
async def test_replaced_or_removed_file_is_detected_before_an_operation_changes_albert(
    tmp_path: Path, how: str
) -> None:
    async with open_harness(tmp_path, sessions=5) as harness:
        await harness.enqueue(*({"kind": "create", "source_session_id": f"s-{n}", "name": "n"} for n in range(4)))

        def change_the_file(_request: object) -> None:
            if how == "replaced":
                shutil.copy(tmp_path / "syncd.db", tmp_path / "copy.db")
                (tmp_path / "copy.db").replace(tmp_path / "syncd.db")
            else:
                (tmp_path / "syncd.db").unlink()

        harness.sandbox.script("GET", "/api/v3/chats/sessions/source/", change_the_file)
        with pytest.raises(DatabaseReplacedError):  # one error, in no group: it ends the program with exit 3
            await harness.push().drain()
        assert harness.asked("POST") == []
        assert harness.sandbox.effects == []


async def test_file_of_no_bytes_is_an_empty_mirror(tmp_path: Path) -> None:
    (tmp_path / "syncd.db").touch()
    async with serve(Sandbox(3)) as sandbox:
        assert (await syncd(["once"], tmp_path, _url(tmp_path).render_as_string(), sandbox.url)).returncode == 0
    with _plain(tmp_path) as other:
        assert other.execute("SELECT count(*) FROM chat_sessions").fetchone() == (3,)


async def test_unwritable_shared_memory_file_is_reported_at_once_and_its_removal_fixes_it(tmp_path: Path) -> None:
    """Another user's `-shm` can be read and not written. A directory in its place is the same to SQLite, root's too."""
    async with Database.create(_url(tmp_path)) as database:
        await database.write(migrate.migrate)
    foreign = tmp_path / "syncd.db-shm"
    foreign.mkdir()
    async with Database(_url(tmp_path), busy_timeout=60) as database:
        with pytest.raises(DatabaseUnusableError, match="readonly"), anyio.fail_after(10):
            await database.write(operation_views.counts)
    foreign.rmdir()
    async with Database(_url(tmp_path), busy_timeout=60) as database:
        assert (await database.write(operation_views.counts))["pending"] == 0


async def test_read_only_database_is_refused_at_once(tmp_path: Path) -> None:
    async with Database.create(_url(tmp_path), busy_timeout=60) as database:
        await database.write(migrate.migrate)

        def read_only(connection: sa.Connection) -> None:
            connection.exec_driver_sql("PRAGMA query_only=ON")
            connection.exec_driver_sql("DELETE FROM operations")

        with pytest.raises(DatabaseUnusableError), anyio.fail_after(10):
            await database.write(read_only)


async def test_read_transaction_that_never_ends_does_not_block_passes_and_operations(tmp_path: Path) -> None:
    async with open_harness(tmp_path, sessions=30) as harness:
        assert (await harness.one_pass()).state == "complete"
        with _plain(tmp_path) as analyst:
            analyst.execute("BEGIN")
            before = analyst.execute("SELECT count(*) FROM chat_sessions").fetchone()
            for number in range(5):
                harness.sandbox.create(source_session_id=f"new-{number}", name="n")
                await harness.enqueue({"kind": "create", "source_session_id": f"q-{number}", "name": "n"})
                await harness.push().drain()
                assert (await harness.one_pass()).state == "complete"
            assert analyst.execute("SELECT count(*) FROM chat_sessions").fetchone() == before
            assert await harness.live() == harness.there()
            analyst.rollback()


async def test_claims_of_a_full_queue_do_not_read_all_of_it(tmp_path: Path) -> None:
    count = int(os.environ.get("QUEUED", "50000"))  # a million in the long form
    async with Database.create(_url(tmp_path), busy_timeout=5) as database:
        await database.write(migrate.migrate)
        with _plain(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            other.executemany(
                "INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, 'n')",
                ((f"s-{number}",) for number in range(count)),
            )
            other.execute("COMMIT")
        with anyio.fail_after(5):  # ten claims of a full queue: milliseconds each, not a read of all rows
            for _ in range(10):
                claimed = (
                    await database.write(lambda c: operations.claim(c, now=NOW, owner="me", lease=60, limit=16))
                ).operations
                assert len(claimed) == 16
