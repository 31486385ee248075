"""Reads and writes that wait: for a lock, for space on the disk, and until they time out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseBusyError
from syncd.mirror.db.sqlite_module import sqlite3
from tests.mirror.db.helpers import opened, run, writer_of

pytestmark = pytest.mark.usefixtures("short_tries")


async def test_write_waits_for_the_lock_of_another_program(folder: Path) -> None:
    waiting = anyio.Event()
    reasons: list[str] = []

    def on_wait(reason: str) -> None:
        reasons.append(reason)
        waiting.set()

    async with opened(folder, on_wait=on_wait) as database:
        other = sqlite3.connect(folder / "syncd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as group:
            group.start_soon(database.write, run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))
            await waiting.wait()
            assert await database.read(run("SELECT count(*) FROM source_sessions")) == 0
            other.execute("COMMIT")
        other.close()
        assert await database.read(run("SELECT count(*) FROM source_sessions")) == 1
        assert len(reasons) == 1
        assert "locked" in reasons[0]


async def test_database_is_not_waiting_after_a_retried_read_succeeds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Any] = []
    async with opened(folder, on_wait=lambda _: waiting.append("waited")) as database:
        await database.write(run("CREATE TABLE t (x)"))
        real, failures = database.store.read, iter([sqlite3.SQLITE_CANTOPEN])

        async def read(work: Any) -> Any:
            if (code := next(failures, None)) is not None:
                error = sqlite3.OperationalError("unable to open database file")
                error.sqlite_errorcode = code
                raise error
            waiting.append(database.waiting)
            return await real(work)

        monkeypatch.setattr(database.store, "read", read)
        assert await database.read(run("SELECT count(*) FROM t")) == 0
        assert waiting == ["waited", True]
        assert not database.waiting


async def test_write_that_waits_too_long_fails_and_is_not_committed_later(folder: Path) -> None:
    async with opened(folder, busy_timeout=0.1) as database:
        other = sqlite3.connect(folder / "syncd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusyError):
            await database.write(run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))
        other.execute("COMMIT")
        other.close()
        await database.write(run("INSERT INTO source_sessions (source_session_id) VALUES ('t')"))
        assert await database.read(run("SELECT group_concat(source_session_id) FROM source_sessions")) == "t"


async def test_write_cancelled_while_it_waits_for_a_lock_does_not_block_later_writes(folder: Path) -> None:
    waiting = anyio.Event()
    async with opened(folder, on_wait=lambda _: waiting.set()) as database:
        other = sqlite3.connect(folder / "syncd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as group:
            async with anyio.create_task_group() as first:
                first.start_soon(database.write, run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))
                await waiting.wait()
                group.start_soon(database.write, run("INSERT INTO source_sessions (source_session_id) VALUES ('t')"))
                first.cancel_scope.cancel()
            other.execute("COMMIT")
        other.close()
        assert await database.read(run("SELECT group_concat(source_session_id) FROM source_sessions")) == "t"


async def test_write_waits_while_the_disk_is_full(folder: Path) -> None:
    waiting = anyio.Event()
    async with opened(folder, on_wait=lambda _: waiting.set()) as database:
        await database.write(run("CREATE TABLE t (x)"))
        pages = await database.write(run("PRAGMA page_count"))
        room = [pages + 2]

        @sa.event.listens_for(writer_of(database), "begin")
        def _(connection: sa.Connection) -> None:
            connection.connection.cursor().execute(f"PRAGMA max_page_count = {room[0]}")

        async with anyio.create_task_group() as group:
            group.start_soon(database.write, run("INSERT INTO t VALUES (zeroblob(100000))"))
            with anyio.fail_after(10):
                await waiting.wait()
            assert await database.read(run("SELECT count(*) FROM t")) == 0
            room[0] = pages + 1000
        assert await database.read(run("SELECT count(*) FROM t")) == 1


@pytest.mark.parametrize(
    ("space", "inodes", "reason"),
    [(0, 1000, "no space is left in {}; make room, see: df -h"), (1 << 30, 0, "no inodes are left in {}; .*df -i")],
    ids=["space", "inodes"],
)
async def test_disk_without_room_for_the_files_of_sqlite_is_waited_for_and_no_failing_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, space: int, inodes: int, reason: str
) -> None:
    reasons: list[str] = []
    waiting = anyio.Event()

    def on_wait(reason: str) -> None:
        reasons.append(reason)
        waiting.set()

    async with opened(folder, on_wait=on_wait) as database:
        blocked = Path(f"{database.path}-wal")
        blocked.mkdir()  # SQLite cannot open its file, as on a disk without room for one
        disk = SimpleNamespace(f_bavail=space, f_frsize=1, f_files=1000, f_favail=inodes)
        monkeypatch.setattr(os, "statvfs", lambda _: disk)
        async with anyio.create_task_group() as group:
            group.start_soon(database.write, run("CREATE TABLE t (x)"))
            with anyio.fail_after(10):
                await waiting.wait()
            assert re.search(f"unable to open database file: {reason.format(re.escape(str(folder)))}", reasons[0])
            assert not database.failures.any()
            blocked.rmdir()
        assert await database.read(run("SELECT count(*) FROM t")) == 0


async def test_file_that_sqlite_cannot_open_counts_as_failing_work_while_the_disk_has_room(folder: Path) -> None:
    async with opened(folder, busy_timeout=0.2) as database:
        Path(f"{database.path}-wal").mkdir()
        with pytest.raises(DatabaseBusyError, match=r"right now: .*unable to open database file$"):
            await database.write(run("CREATE TABLE t (x)"))
        assert database.failures.any()
        Path(f"{database.path}-wal").rmdir()
