"""SQLite's change feed detects every commit of another program, and an idle database is read once a second."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from syncd.clock import SystemClock
from syncd.mirror.db import change_feed
from syncd.mirror.db.change_feed import COMMIT_PAUSES, LOOK_SECONDS, SURE_SECONDS, PollingFeed
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers import empty_mirror
from tests.helpers.virtual_clock import VirtualClock


class Polls(VirtualClock):
    """A clock for a feed: each sleep is one poll, and runs the action of its number first."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.actions: dict[int, Callable[[], object]] = {}

    async def sleep(self, seconds: float) -> None:
        self.number += 1
        assert self.number < 1000, "the commit was not noticed"
        self.forward(seconds)
        self.actions.pop(self.number, lambda: None)()


@pytest.fixture
def _without_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed, "_watched", lambda _: None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    empty_mirror.create(tmp_path / "syncd.db")
    return tmp_path / "syncd.db"


@pytest.fixture
def other(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


def commit(other: sqlite3.Connection) -> None:
    other.execute("INSERT INTO source_sessions (source_session_id) VALUES (hex(randomblob(8)))")


def commit_unseen(other: sqlite3.Connection, log: Path, before: os.stat_result) -> None:
    """Commit, and leave the size and the time of the log as they were."""
    other.execute("PRAGMA wal_checkpoint(RESTART)")  # the next commit writes at the beginning of the log
    commit(other)
    os.utime(log, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert log.stat().st_size == before.st_size


def age(log: Path) -> None:
    """Set the modification time of the log to a moment long ago."""
    then = log.stat().st_mtime_ns - 10**9
    os.utime(log, ns=(then, then))


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Database]:
    async with Database(sa.make_url(f"sqlite+aiosqlite:///{file}"), busy_timeout=5) as database:
        await database.write(lambda c: c.exec_driver_sql("DELETE FROM writers"))  # the daemon's writer sets WAL
        yield database


@asynccontextmanager
async def fed(file: Path, other: sqlite3.Connection) -> AsyncIterator[tuple[PollingFeed, Polls]]:
    """Open a feed that has reported a commit of long ago."""
    clock = Polls()
    async with opened(file) as database:
        feed = PollingFeed(database, clock, Path(f"{file}-wal"))
        commit(other)
        age(feed.log)
        await feed.wait()
        yield feed, clock
        await feed.close()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
async def test_commit_of_another_program_is_reported_by_inotify(file: Path, other: sqlite3.Connection) -> None:
    clock = SystemClock()
    async with opened(file) as database:
        feed = PollingFeed(database, clock, Path(f"{file}-wal"))
        await feed.wait()
        feed._pauses, feed._pause, feed._read_at = iter(()), 3600.0, clock.monotonic() + 3600
        async with anyio.create_task_group() as group:
            group.start_soon(feed.wait)
            await anyio.wait_all_tasks_blocked()
            commit(other)
        await feed.close()


async def test_folder_that_cannot_be_watched_is_polled(
    file: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr("inotify_simple.INotify.add_watch", refuse)
    clock = Polls()
    async with opened(file) as database:
        feed = PollingFeed(database, clock, Path(f"{file}-wal"))
        await feed.wait()
        clock.actions[3] = lambda: commit(other)
        await feed.wait()
        await feed.close()


@pytest.mark.usefixtures("_without_inotify")
async def test_commit_of_another_program_is_detected_at_the_next_poll(file: Path, other: sqlite3.Connection) -> None:
    async with fed(file, other) as (feed, clock):
        clock.actions[5] = lambda: commit(other)
        await feed.wait()
        assert clock.number == 5


@pytest.mark.usefixtures("_without_inotify")
async def test_commit_that_leaves_size_and_time_of_the_log_unchanged_is_detected(
    file: Path, other: sqlite3.Connection
) -> None:
    clock, log = Polls(), Path(f"{file}-wal")
    async with opened(file) as database:
        feed = PollingFeed(database, clock, log)
        for number in range(3):
            commit(other)
            await feed.wait()
            before = log.stat()

            clock.actions[clock.number + 1] = partial(commit_unseen, other, log, before)
            polls = clock.number
            await feed.wait()
            assert clock.number == polls + 1, number  # the feed does not trust the times of a log written a moment ago


@pytest.mark.parametrize("inotify", [False, True])
async def test_commit_that_is_visible_long_after_the_log_was_written_is_detected(
    file: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, *, inotify: bool
) -> None:
    if not inotify:
        monkeypatch.setattr(change_feed, "_watched", lambda _: None)
    async with fed(file, other) as (feed, clock):
        written = clock.number + 40
        clock.actions[written] = lambda: os.utime(feed.log)
        clock.actions[written + 8] = lambda: commit_unseen(other, feed.log, feed.log.stat())
        await feed.wait()
        assert written + 8 <= clock.number <= written + 9, (
            "the log is written first, then synced, and only then is the commit seen"
        )


@pytest.mark.usefixtures("_without_inotify")
async def test_commit_is_detected_within_a_second_on_a_file_system_without_times(
    file: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "_state", lambda _: (0, 0))
    clock = Polls()
    async with opened(file) as database:
        feed = PollingFeed(database, clock, Path(f"{file}-wal"))
        await feed.wait()
        clock.actions[1] = lambda: commit(other)
        await feed.wait()
        assert clock.number * LOOK_SECONDS <= SURE_SECONDS + LOOK_SECONDS


@pytest.mark.usefixtures("_without_inotify")
async def test_idle_database_is_read_once_a_second(file: Path, other: sqlite3.Connection) -> None:
    clock, log, reads = Polls(), Path(f"{file}-wal"), []
    async with opened(file) as database:
        feed = PollingFeed(database, clock, log)
        commit(other)
        age(log)
        await feed.wait()
        data_version = database.data_version

        def counted() -> int:
            reads.append(clock.number)
            return data_version()

        database.data_version = counted  # type: ignore[method-assign]
        ten_seconds = round(10 / LOOK_SECONDS)
        clock.actions[ten_seconds] = lambda: commit(other)
        await feed.wait()
        assert len(reads) == pytest.approx(9 + len(COMMIT_PAUSES), abs=2)


async def test_log_of_a_linked_file_is_next_to_the_file(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(file)
    async with opened(link) as database:
        feed = database.backend.change_feed(database, SystemClock())
        assert isinstance(feed, PollingFeed)
        assert feed.log.exists()
        await feed.close()
