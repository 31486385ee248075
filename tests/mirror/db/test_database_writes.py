"""SQLite with its one writer: pragmas, transactions, group commit and cancellation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import sqlalchemy as sa

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.database import Database
from syncd.mirror.db.sqlite_module import sqlite3
from tests.mirror.db.helpers import opened, run, writer_of

pytestmark = pytest.mark.usefixtures("short_tries")


async def test_pragmas_of_the_writer_are_in_force(folder: Path) -> None:
    wanted = {
        "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "journal_size_limit": 16777216, "busy_timeout": 20,
    }  # fmt: skip
    async with opened(folder) as database:
        pragmas = {name: await database.write(run(f"PRAGMA {name}")) for name in wanted}
    assert pragmas == wanted


async def test_readers_can_only_read(folder: Path) -> None:
    async with opened(folder) as database:
        assert await database.read(run("PRAGMA query_only")) == 1
        with pytest.raises(DatabaseUnusableError, match="readonly"):
            await database.read(run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))


async def test_no_read_modify_write_of_two_writers_is_lost(folder: Path) -> None:
    rounds = 25

    def add_one(connection: sa.Connection) -> None:
        count = connection.exec_driver_sql("SELECT n FROM counter").scalar_one()
        connection.exec_driver_sql("UPDATE counter SET n = ?", (count + 1,))

    async with opened(folder) as first, opened(folder) as second:
        await first.write(run("CREATE TABLE counter (n INTEGER)"))
        await first.write(run("INSERT INTO counter VALUES (0)"))

        async def work(database: Database) -> None:
            for _ in range(rounds):
                await database.write(add_one)

        async with anyio.create_task_group() as group:
            for database in (first, second, first, second):
                group.start_soon(work, database)
        assert await first.read(run("SELECT n FROM counter")) == 4 * rounds


async def test_write_transaction_holds_the_lock_from_its_first_statement(folder: Path) -> None:
    """BEGIN IMMEDIATE: no other program can write between the reads and the writes of a transaction."""
    async with opened(folder) as database:
        other = sqlite3.connect(folder / "syncd.db", timeout=0, isolation_level=None, check_same_thread=False)

        def work(connection: sa.Connection) -> None:
            connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO source_sessions (source_session_id) VALUES ('s')")

        await database.write(work)
        other.execute("INSERT INTO source_sessions (source_session_id) VALUES ('s')")
        other.close()


async def write_while_busy(database: Database, works: list[Callable[[sa.Connection], Any]]) -> list[Any]:
    """Let writes wait together while another write runs; return the result or the error of each."""
    began, go = anyio.Event(), anyio.Event()
    results: list[Any] = [None] * len(works)

    def slow(_: sa.Connection) -> None:
        anyio.from_thread.run_sync(began.set)
        anyio.from_thread.run(go.wait)

    async def one(number: int) -> None:
        try:
            results[number] = await database.write(works[number])
        except Exception as error:  # noqa: BLE001 - to be looked at by the test
            results[number] = error

    async with anyio.create_task_group() as group:
        group.start_soon(database.write, slow)
        await began.wait()
        for number in range(len(works)):
            group.start_soon(one, number)
        await anyio.wait_all_tasks_blocked()
        go.set()
    return results


def count_commits(database: Database) -> list[str]:
    commits: list[str] = []
    sa.event.listen(writer_of(database), "commit", lambda _: commits.append("commit"))
    return commits


async def test_writes_that_wait_together_are_committed_together(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("CREATE TABLE t (x)"))
        commits = count_commits(database)
        works = [run(f"INSERT INTO t VALUES ({number}) RETURNING x") for number in range(20)]
        assert await write_while_busy(database, works) == list(range(20))
        assert len(commits) == 2
        assert await database.read(run("SELECT count(*) FROM t")) == 20


async def test_failed_write_does_not_fail_the_writes_of_its_batch(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("CREATE TABLE t (x INTEGER PRIMARY KEY)"))

        def fails(connection: sa.Connection) -> None:
            connection.exec_driver_sql("INSERT INTO t VALUES (100)")
            raise KeyError("its own fault")

        works = [
            run("INSERT INTO t VALUES (1)"),
            fails,
            run("INSERT INTO t VALUES (1)"),
            run("INSERT INTO t VALUES (2)"),
        ]
        results = await write_while_busy(database, works)
        assert [type(result) for result in results] == [type(None), KeyError, sa.exc.IntegrityError, type(None)]
        assert await database.read(run("SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY x)")) == "1,2"


async def test_result_of_a_write_is_that_of_the_committed_run(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("CREATE TABLE t (x)"))
        runs = {"fails": 0, "locked": 0}

        def fails_twice(connection: sa.Connection) -> str:
            runs["fails"] += 1
            if runs["fails"] <= 2:  # first in the batch, then in its own savepoint
                raise KeyError("its own fault")
            connection.exec_driver_sql("INSERT INTO t VALUES (2)")
            return "written"

        def locked_once(_: sa.Connection) -> None:
            runs["locked"] += 1
            if runs["locked"] == 1:  # then the whole batch runs again
                busy = sqlite3.OperationalError("database is locked")
                busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise busy

        works = [run("INSERT INTO t VALUES (1)"), fails_twice, locked_once]
        assert await write_while_busy(database, works) == [None, "written", None]
        assert runs == {"fails": 3, "locked": 2}
        assert await database.read(run("SELECT group_concat(x) FROM t")) == "1,2"


async def test_failed_write_leaves_no_rows(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("CREATE TABLE t (x)"))

        def fails(connection: sa.Connection) -> None:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            raise KeyError("its own fault")

        with pytest.raises(KeyError):
            await database.write(fails)
        assert await database.read(run("SELECT count(*) FROM t")) == 0
        await database.write(run("INSERT INTO t VALUES (2)"))


async def test_cancellation_does_not_interrupt_a_transaction(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("CREATE TABLE t (x)"))
        scope = anyio.CancelScope()

        def work(connection: sa.Connection) -> None:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            anyio.from_thread.run_sync(scope.cancel)
            connection.exec_driver_sql("INSERT INTO t VALUES (2)")

        with scope:
            await database.write(work)
        assert await database.read(run("SELECT count(*) FROM t")) == 2


async def test_write_cancelled_while_it_waits_for_its_turn_never_runs(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("CREATE TABLE t (x)"))
        began, go = anyio.Event(), anyio.Event()

        def slow(_: sa.Connection) -> None:
            anyio.from_thread.run_sync(began.set)
            anyio.from_thread.run(go.wait)

        async with anyio.create_task_group() as group:
            group.start_soon(database.write, slow)
            await began.wait()
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(database.write, run("INSERT INTO t VALUES (1)"))
                await anyio.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
            go.set()
        await database.write(run("INSERT INTO t VALUES (2)"))
        assert await database.read(run("SELECT group_concat(x) FROM t")) == "2"


async def test_write_cancelled_while_another_write_commits_it_returns_its_result(folder: Path) -> None:
    async with opened(folder) as database:
        await database.write(run("CREATE TABLE t (x)"))
        began, go, scope, results = anyio.Event(), anyio.Event(), anyio.CancelScope(), []

        def slow(_: sa.Connection) -> None:
            anyio.from_thread.run_sync(began.set)
            anyio.from_thread.run(go.wait)

        def lead(connection: sa.Connection) -> None:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            anyio.from_thread.run_sync(scope.cancel)

        async def follow() -> None:
            with scope:
                results.append(await database.write(run("INSERT INTO t VALUES (2) RETURNING x")))

        async with anyio.create_task_group() as group:
            group.start_soon(database.write, slow)
            await began.wait()
            for work in (partial(database.write, lead), follow):
                group.start_soon(work)
                await anyio.wait_all_tasks_blocked()
            go.set()
        assert results == [2]
        assert await database.read(run("SELECT group_concat(x) FROM t")) == "1,2"


async def test_data_version_changes_when_any_program_commits(folder: Path) -> None:
    async with opened(folder) as database:
        first = database.data_version()
        assert database.data_version() == first
        await database.write(run("INSERT INTO source_sessions (source_session_id) VALUES ('s')"))
        second = database.data_version()
        other = sqlite3.connect(folder / "syncd.db", isolation_level=None)
        other.execute("INSERT INTO source_sessions (source_session_id) VALUES ('t')")
        other.close()
        assert len({first, second, database.data_version()}) == 3
