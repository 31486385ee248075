"""A machine that is against it: locks, full disks, replaced and corrupt files, two daemons, readers that stay."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseBusyError, DatabaseReplacedError, DatabaseUnusableError
from syncd.mirror import database as database_module
from syncd.mirror import operations, schema
from syncd.mirror.database import Database
from syncd.mirror.lock import only_daemon
from syncd.sandbox import Sandbox, serve
from tests.kills.rig import environment, syncd
from tests.world import world

pytestmark = pytest.mark.timeout(300)  # processes of a busy machine take their time
UNUSABLE = 3


def _url(folder: Path) -> sa.URL:
    return sa.make_url(f"sqlite+aiosqlite:///{folder / 'syncd.db'}")


@contextmanager
def _plain(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as another program does."""
    with closing(sqlite3.connect(folder / "syncd.db", isolation_level=None, check_same_thread=False)) as connection:
        yield connection


async def test_pass_waits_for_a_lock_that_another_program_holds_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    async with world(tmp_path, sessions=15) as w:
        told: list[str] = []
        w.database.on_wait, w.database.patience = told.append, 60
        with _plain(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            letting_go = threading.Timer(1.5, other.rollback)
            letting_go.start()
            try:
                assert (await w.one_pass()).state == "complete"
            finally:
                letting_go.join()
        assert len(told) == 1
        assert await w.live() == w.there()


async def test_command_gives_up_on_a_lock_after_its_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    async with Database.create(_url(tmp_path), patience=0.3) as database:
        await database.write(schema.migrate)
        with _plain(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseBusyError):
                await database.write(lambda c: operations.recover(c, now=_now(), abandoned=True))
            other.rollback()
        await database.write(lambda c: operations.recover(c, now=_now(), abandoned=True))


def _now() -> datetime:
    return datetime.now(UTC)


async def test_full_disk_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=400) as w:
        told: list[str] = []
        w.database.on_wait, w.database.patience = told.append, 60

        def limit(pages: int) -> None:
            assert w.database._writer is not None
            with w.database._writer.connect() as connection:
                raw = connection.connection.dbapi_connection
                assert raw is not None
                raw.execute(f"PRAGMA max_page_count={pages}")

        limit(1)  # SQLite takes the size that there is: not a page more fits
        async with anyio.create_task_group() as group:

            async def mend() -> None:
                while not told:  # noqa: ASYNC110 - the teller is in another thread of events
                    await anyio.sleep(0.01)
                limit(1 << 30)

            group.start_soon(mend)
            assert (await w.one_pass()).state == "complete"
        assert "full" in told[0]
        assert await w.live() == w.there()


@pytest.mark.parametrize("how", ["replaced", "removed"])
async def test_file_replaced_or_removed_is_noticed_before_a_request_that_changes_albert(
    tmp_path: Path, how: str
) -> None:
    async with world(tmp_path, sessions=5) as w:
        await w.enqueue({"kind": "create", "source_session_id": "s-1", "name": "n"})

        def strike(_request: object) -> None:
            if how == "replaced":
                shutil.copy(tmp_path / "syncd.db", tmp_path / "copy.db")
                (tmp_path / "copy.db").replace(tmp_path / "syncd.db")
            else:
                (tmp_path / "syncd.db").unlink()

        w.sandbox.script("GET", "/api/v3/chats/sessions/source/", strike)
        with pytest.raises(DatabaseReplacedError):
            await w.push().drain()
        assert w.asked("POST") == []
        assert w.sandbox.effects == []


@pytest.mark.parametrize("what", ["corrupt", "foreign", "text", "newer", "unreadable directory"])
async def test_file_that_is_not_to_be_used_is_exit_3_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    file = tmp_path / "syncd.db"
    if what == "text":
        file.write_text("this is no database, and it is somebody's\n" * 100)
    elif what == "foreign":
        with _plain(tmp_path) as other:
            other.execute("CREATE TABLE recipes (id)")
    elif what == "unreadable directory":
        file.mkdir()
    else:
        async with Database.create(_url(tmp_path), patience=5) as database:
            await database.write(schema.migrate)
        if what == "newer":
            with _plain(tmp_path) as other:
                other.execute("UPDATE alembic_version SET version_num = '9999'")
        else:
            content = bytearray(file.read_bytes())
            content[100:4096] = os.urandom(3996)
            file.write_bytes(content)
    before = file.read_bytes() if file.is_file() else b""
    async with serve(Sandbox(3)) as sandbox:
        done = await syncd("once", tmp_path, sandbox.url)
        assert done.returncode == UNUSABLE, (done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr + done.stdout
        assert done.stderr.startswith(b"error: ")
        assert not sandbox.requests
    assert (file.read_bytes() if file.is_file() else b"") == before


async def test_file_of_no_bytes_is_an_empty_mirror(tmp_path: Path) -> None:
    (tmp_path / "syncd.db").touch()
    async with serve(Sandbox(3)) as sandbox:
        assert (await syncd("once", tmp_path, sandbox.url)).returncode == 0
    with _plain(tmp_path) as other:
        assert other.execute("SELECT count(*) FROM chat_sessions").fetchone() == (3,)


async def test_read_only_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    async with Database.create(_url(tmp_path), patience=5) as database:
        await database.write(schema.migrate)
    with _plain(tmp_path) as other:
        other.execute("PRAGMA journal_mode=DELETE")
    file = tmp_path / "syncd.db"
    async with Database(_url(tmp_path), patience=60) as database:

        def read_only(connection: sa.Connection) -> None:
            connection.exec_driver_sql("PRAGMA query_only=ON")
            connection.exec_driver_sql("DELETE FROM operations")

        with pytest.raises(DatabaseUnusableError), anyio.fail_after(10):
            await database.write(read_only)
    assert file.is_file()


async def test_second_daemon_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    async with serve(Sandbox(3)) as sandbox:
        with only_daemon(tmp_path / "syncd.db", "run"):
            done = await syncd("once", tmp_path, sandbox.url)
        assert done.returncode == UNUSABLE
        assert f"process {os.getpid()}".encode() in done.stderr
        killed = await syncd("once", tmp_path, sandbox.url, FAILPOINT="kill=3")
        assert killed.returncode == -9
        assert (await syncd("once", tmp_path, sandbox.url)).returncode == 0


async def test_analyst_who_never_ends_a_read_transaction_stops_nobody(tmp_path: Path) -> None:
    async with world(tmp_path, sessions=30) as w:
        assert (await w.one_pass()).state == "complete"
        with _plain(tmp_path) as analyst:
            analyst.execute("BEGIN")
            before = analyst.execute("SELECT count(*) FROM chat_sessions").fetchone()
            for number in range(5):
                w.sandbox.create(source_session_id=f"new-{number}", name="n")
                await w.enqueue({"kind": "create", "source_session_id": f"q-{number}", "name": "n"})
                await w.push().drain()
                assert (await w.one_pass()).state == "complete"
            assert analyst.execute("SELECT count(*) FROM chat_sessions").fetchone() == before
            assert await w.live() == w.there()
            analyst.rollback()


@pytest.mark.timeout(180)
async def test_queue_of_fifty_thousand_operations_is_claimed_without_looking_at_all_of_them(tmp_path: Path) -> None:
    count = int(os.environ.get("QUEUED", "50000"))
    async with Database.create(_url(tmp_path), patience=5) as database:
        await database.write(schema.migrate)
        with _plain(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            other.executemany(
                "INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, 'n')",
                ((f"s-{number}",) for number in range(count)),
            )
            other.execute("COMMIT")
        with anyio.fail_after(5):  # ten claims of a full queue: milliseconds each, not a look at all
            for _ in range(10):
                claimed = await database.write(
                    lambda c: operations.claim(c, now=_now(), owner="me", lease=60, limit=16)
                )
                assert len(claimed) == 16


def test_environment_of_the_rig_holds_nothing_of_this_process(tmp_path: Path) -> None:
    assert "HOME" not in environment(tmp_path, "http://127.0.0.1:1")
