"""The watchdog of the loops, and the warning about a reader that keeps the write-ahead log growing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import anyio
import pytest
from structlog.testing import LogCapture

from syncd.albert import AlbertConnectError, AlbertTimeoutError
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.status.metrics import outcome
from syncd.status.wal_monitor import WalWatch
from syncd.status.watchdog import HeartbeatClock, Watchdog
from tests.helpers.harness import open_harness
from tests.helpers.logs import capturing_logger
from tests.helpers.virtual_clock import VirtualClock

pytestmark = pytest.mark.both_databases

pytestmark = pytest.mark.sqlite  # SQLite's log and locks


def test_loop_that_announced_a_wait_is_alive_until_its_end() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 10)
    watchdog.heartbeat("passes", 300)
    clock.forward(309)
    assert watchdog.stalled() == []
    clock.forward(2)
    assert watchdog.stalled() == ["passes"]
    watchdog.heartbeat("passes")
    assert watchdog.stalled() == []


def test_loop_that_waits_for_the_database_is_alive_and_its_time_starts_afterwards() -> None:
    clock, waiting = VirtualClock(), [True]
    watchdog = Watchdog(clock, 10, lambda: waiting[0])
    watchdog.heartbeat("passes")
    clock.forward(3600)
    assert watchdog.stalled() == []
    waiting[0] = False
    clock.forward(9)
    assert watchdog.stalled() == []
    clock.forward(2)
    assert watchdog.stalled() == ["passes"]


def test_loop_that_has_ended_is_not_stalled() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 10)
    watchdog.heartbeat("push")
    watchdog.end("push")
    clock.forward(100)
    assert watchdog.stalled() == []


async def test_loop_that_sleeps_by_the_heartbeat_clock_is_alive() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 10)
    async with anyio.create_task_group() as group:
        group.start_soon(HeartbeatClock(clock, watchdog, "passes").sleep, 300)
        await anyio.wait_all_tasks_blocked()
        clock.at = clock.at.replace(minute=4, second=59)
        assert watchdog.stalled() == []
        clock.forward(2)


async def test_heartbeat_of_another_task_does_not_end_the_wait_of_a_loop() -> None:
    clock = VirtualClock()
    watchdog = Watchdog(clock, 10)
    heartbeat_clock = HeartbeatClock(clock, watchdog, "passes")
    async with anyio.create_task_group() as group:
        group.start_soon(heartbeat_clock.sleep, 300)
        await anyio.wait_all_tasks_blocked()
        heartbeat_clock.now()
        clock.at = clock.at.replace(minute=4, second=59)
        assert watchdog.stalled() == []
        clock.at = clock.at.replace(minute=5, second=11)
        assert watchdog.stalled() == ["passes"]
        clock.forward(0)


@pytest.mark.slow
async def test_database_is_waiting_while_a_write_waits_for_a_lock(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        with closing(sqlite3.connect(tmp_path / "syncd.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as group:
                group.start_soon(harness.sql, "UPDATE passes SET pages = 0")
                with anyio.fail_after(10):
                    while not harness.database.waiting:  # noqa: ASYNC110 - nothing rings when it does
                        await anyio.sleep(0.01)
                other.execute("COMMIT")
        assert not harness.database.waiting


async def test_reader_that_keeps_the_log_growing_causes_one_warning(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        log = LogCapture()
        watch = WalWatch(database=harness.database, clock=harness.clock, log=capturing_logger(log), threshold=100_000)

        async def write() -> None:
            await harness.sql(
                "INSERT INTO quarantine (reason, payload, seen_at, fingerprint) "
                "VALUES ('r', hex(randomblob(60000)), '2026-06-01T12:00:00.000000Z', hex(randomblob(8)))"
            )
            watch.look()

        with closing(sqlite3.connect(tmp_path / "syncd.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM passes").fetchone()
            for _ in range(8):
                harness.clock.forward(60)
                await write()
            assert [entry["event"] for entry in log.entries] == ["database.wal_growing"]
            assert "syncd backup" in log.entries[0]["hint"]
            assert watch.growing_seconds() >= 180
            reader.execute("COMMIT")
        await harness.database.write(lambda c: c.exec_driver_sql("SELECT 1"))
        with closing(sqlite3.connect(tmp_path / "syncd.db")) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        watch.look()
        assert [entry["event"] for entry in log.entries] == ["database.wal_growing", "database.wal_shrunk"]
        assert watch.growing_seconds() == 0


async def test_large_log_that_does_not_grow_causes_no_warning(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        log = LogCapture()
        watch = WalWatch(database=harness.database, clock=harness.clock, log=capturing_logger(log), threshold=1)
        for _ in range(20):
            harness.clock.forward(60)
            watch.look()
        assert not log.entries


@pytest.mark.parametrize(
    ("ended", "label"),
    [
        (200, "2xx"),
        (204, "2xx"),
        (302, "3xx"),
        (401, "401"),
        (418, "4xx"),
        (429, "429"),
        (503, "5xx"),
        (AlbertTimeoutError("x"), "timeout"),
        (AlbertConnectError("x"), "connect"),
        (KeyboardInterrupt(), "cancelled"),
    ],
)
def test_outcome_of_a_request_is_one_of_a_fixed_set(ended: int | BaseException, label: str) -> None:
    assert outcome(ended) == label
