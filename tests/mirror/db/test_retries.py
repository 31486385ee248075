"""Waiting for a database that cannot be used, and reporting work that fails repeatedly."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sqlalchemy as sa

from syncd.clock import SystemClock
from syncd.errors import DatabaseAwayError, DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db import leader
from syncd.mirror.db import retries as retries_module
from syncd.mirror.db.database import Database
from syncd.mirror.db.retries import Failure, Failures, Retries, work_name
from syncd.mirror.store import operation_views, operations
from tests.helpers.postgres_server import PostgresServer, in_thread

BUSY = DatabaseBusyError("busy")
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


def failing(times: int, *, then: str = "done", error: Exception = BUSY) -> Any:
    """Return a step that fails `times` times and then returns `then`."""
    errors: Iterator[Exception] = iter([error] * times)

    async def step() -> str:
        await anyio.lowlevel.checkpoint()
        if (raised := next(errors, None)) is not None:
            raise raised
        return then

    return step


def named(name: str) -> Any:
    return lambda: name


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(retries_module, "LONGEST_PAUSE", 0.01)


async def test_wait_that_ends_is_reported_once_with_its_seconds() -> None:
    reported: list[object] = []
    waits = Retries(on_wait=reported.append, on_resume=lambda seconds: reported.append(seconds > 0))
    assert await waits.run(named("w"), failing(4)) == "done"
    assert reported == ["busy", True]
    assert not waits.waiting


async def test_reason_of_a_wait_is_known_until_the_last_step_has_ended() -> None:
    full = DatabaseBusyError("no room on the disk")
    reasons: list[str | None] = []

    async def step() -> str:
        await anyio.lowlevel.checkpoint()
        reasons.append(waits.wait_reason)
        if len(reasons) < 4:
            raise BUSY if len(reasons) == 1 else full
        return "done"

    waits = Retries()
    await waits.run(named("w"), step)
    assert reasons == [None, "busy", "no room on the disk", "no room on the disk"]
    assert waits.wait_reason is None


async def test_steps_that_wait_at_the_same_time_are_reported_as_one_wait() -> None:
    reported: list[object] = []
    waits = Retries(on_wait=reported.append, on_resume=lambda _: reported.append("resumed"))
    async with anyio.create_task_group() as group:
        for times in (3, 5, 9):
            group.start_soon(waits.run, named("w"), failing(times))
    assert reported == ["busy", "resumed"]


async def test_step_that_succeeds_at_once_reports_nothing() -> None:
    reported: list[object] = []
    waits = Retries(on_wait=reported.append, on_resume=reported.append)
    assert await waits.run(named("w"), failing(0)) == "done"
    assert reported == []


async def test_wait_that_is_cancelled_or_times_out_reports_no_resume() -> None:
    reported: list[object] = []
    waits = Retries(on_wait=reported.append, on_resume=lambda _: reported.append("resumed"))
    with anyio.move_on_after(0.05):
        await waits.run(named("w"), failing(1_000_000))
    waits.busy_timeout = 0.02
    with pytest.raises(DatabaseBusyError):
        await waits.run(named("w"), failing(1_000_000))
    assert reported == ["busy", "busy"]
    assert not waits.waiting


async def test_wait_that_ends_with_an_error_of_the_statement_reports_a_resume() -> None:
    reported: list[object] = []
    waits = Retries(on_wait=reported.append, on_resume=lambda _: reported.append("resumed"))
    errors = iter([BUSY, ZeroDivisionError()])

    async def step() -> str:
        await anyio.lowlevel.checkpoint()
        raise next(errors)

    with pytest.raises(ZeroDivisionError):
        await waits.run(named("w"), step)
    assert reported == ["busy", "resumed"]


async def test_permanent_error_is_raised_at_once() -> None:
    waits = Retries()
    with pytest.raises(ZeroDivisionError):
        await waits.run(named("w"), failing(1, error=ZeroDivisionError()))
    with pytest.raises(DatabaseUnusableError):
        await waits.run(named("w"), failing(1, error=DatabaseUnusableError("corrupt")))
    assert not waits.failures.any()


def test_error_repeated_over_seconds_is_reported_once_and_its_end_too() -> None:
    reported: list[tuple[str, int]] = []
    failures = Failures(
        on_repeated=lambda failure: reported.append(("repeated", failure.count)),
        on_recovered=lambda failure: reported.append(("recovered", failure.count)),
    )
    for now in (0.0, 0.1, 0.2, 4.9):
        failures.failed("write", "temp_file_limit exceeded", now)
    assert failures.repeated() == []
    for now in (5.1, 6.0):
        failures.failed("write", "temp_file_limit exceeded", now)
    assert failures.repeated() == [Failure("write", "temp_file_limit exceeded", 6, 0.0, 6.0)]
    failures.succeeded("write")
    assert failures.repeated() == []
    assert reported == [("repeated", 5), ("recovered", 6)]


def test_two_failures_are_not_reported_however_far_apart() -> None:
    failures = Failures()
    failures.failed("write", "lost", 0.0)
    failures.failed("write", "lost", 1000.0)
    assert failures.repeated() == []


def test_another_error_begins_a_new_count_and_other_work_has_its_own() -> None:
    failures = Failures()
    for now in range(0, 20, 5):
        failures.failed("write", "one" if now % 10 else "other", now)
        failures.failed("read", "one", now)
    assert [failure.work for failure in failures.repeated()] == ["read"]


def test_work_is_named_by_its_function() -> None:
    assert work_name(operation_views.counts) == "operation_views.counts"
    assert work_name(partial(operations.claim, limit=1)) == "operations.claim"
    assert work_name(lambda _: None) == "test_retries.test_work_is_named_by_its_function"


REFUSES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE SQLSTATE '53400' USING MESSAGE = 'temporary file size exceeds temp_file_limit'; END $$;
CREATE TRIGGER refuses BEFORE INSERT ON operations FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def test_permanent_error_of_a_server_is_reported_until_it_is_fixed(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries_module, "TROUBLE_SECONDS", 0.05)
    url = sa.make_url(postgres_url)
    await in_thread(lambda: postgres.sql(REFUSES, str(url.database)))
    repeated, recovered = anyio.Event(), anyio.Event()
    failures = Failures(lambda _: repeated.set(), lambda _: recovered.set())
    row = {"kind": "delete", "session_id": "SES1"}

    def enqueue(connection: sa.Connection) -> list[int]:
        return [*operations.enqueue(connection, [row])]

    async with (
        Database(url, retries=Retries(failures=failures)) as database,
        anyio.create_task_group() as group,
    ):
        group.start_soon(database.write, enqueue)
        with anyio.fail_after(20):
            await repeated.wait()
        (failure,) = database.failures.repeated()
        assert failure.work.startswith("test_retries.test_permanent_error")
        assert "temp_file_limit" in failure.error
        assert await database.read(operation_views.counts)  # other work, which succeeds, does not hide it
        assert database.failures.repeated() != []
        await in_thread(lambda: postgres.sql("DROP TRIGGER refuses ON operations", str(url.database)))
        with anyio.fail_after(20):
            await recovered.wait()
    assert failures.repeated() == []


async def test_error_of_one_job_in_a_batch_is_counted_for_that_job(tmp_path: Path) -> None:
    """The first job of a batch gives the failure its name, and stays the first until it is committed."""
    async with Database.create(sa.make_url(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"), busy_timeout=0.02) as database:

        def locked(_: sa.Connection) -> None:
            raise DatabaseBusyError("locked by another program")

        with pytest.raises(DatabaseBusyError):
            await database.write(locked)
        assert database.failures.has("test_retries.test_error_of_one_job_in_a_batch_is_counted_for_that_job")


async def test_wait_that_ends_by_itself_is_not_failing_work() -> None:
    counted: list[str] = []

    class Counting(Failures):
        def failed(self, work: str, error: str, now: float) -> None:  # noqa: ARG002
            counted.append(error)

    waits = Retries(failures=Counting())
    assert await waits.run(lambda: "write", failing(3, error=DatabaseAwayError("locked by another program"))) == "done"
    assert await waits.run(lambda: "write", failing(1, error=BUSY)) == "done"
    assert counted == ["busy"]


async def test_interrupted_read_ends_the_statement_in_its_thread(tmp_path: Path) -> None:
    began, ended = threading.Event(), threading.Event()

    def count_forever(connection: sa.Connection) -> None:
        began.set()
        try:
            connection.exec_driver_sql(ENDLESS)
        finally:
            ended.set()

    async with Database.create(sa.make_url(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"), busy_timeout=5) as database:
        reading = asyncio.create_task(database.read(count_forever))
        assert await anyio.to_thread.run_sync(began.wait, 10)
        reading.cancel()  # as the interpreter does after Ctrl-C
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await anyio.to_thread.run_sync(ended.wait, 10)


async def test_server_that_is_away_is_reported_once_by_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    pauses = itertools.count()

    class Clock(SystemClock):
        async def sleep(self, seconds: float) -> None:  # noqa: ARG002 - no time passes
            if next(pauses) == 3:
                raise KeyboardInterrupt

    replica = leader.Replica(sa.make_url("postgresql+asyncpg://u@db.example.com/d"), Clock())

    async def refuse() -> None:
        raise ConnectionRefusedError("no server")

    monkeypatch.setattr(replica, "open", refuse)
    with pytest.raises(KeyboardInterrupt):
        await replica.run(refuse, on_change=reported.append, on_standby=lambda: None)
    assert len(reported) == 1
