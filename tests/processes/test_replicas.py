"""Several daemons on one PostgreSQL: no operation is lost by kills, cut connections or a restart of the server."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.store import passes
from syncd.sandbox import Habits, Sandbox, serve
from tests.helpers.feed_reader import following
from tests.helpers.postgres_server import PostgresServer, engine_of, in_thread
from tests.helpers.replicas import Prefork, running_replicas, until


async def test_replicas_that_are_killed_leave_each_operation_exactly_one_effect_in_order(
    tmp_path: Path, postgres_url: str
) -> None:
    server = Sandbox(habits=Habits(latency=0.01))
    async with serve(server), running_replicas(tmp_path, server, postgres_url) as replicas:
        await replicas.started(2)
        async with following(postgres_url) as reader:
            await replicas.queue_operations(200)
            for number in (1, 2):
                await until(lambda number=number: len(server.effects) > 40 * number, why="operations")  # type: ignore[misc]
                replicas.processes[number - 1].kill()
                await replicas.started(1)
            await replicas.drained()
        await replicas.judge(200)
        assert reader.polls > 10
        assert len(reader.read) >= len(server.live())


async def test_another_replica_continues_the_pass_of_a_killed_leader_within_seconds(
    tmp_path: Path, postgres_url: str
) -> None:
    server = Sandbox(600, habits=Habits(page_size=20, latency=0.05))
    async with serve(server), running_replicas(tmp_path, server, postgres_url) as replicas:
        await replicas.started(2)
        await until(lambda: any(replica.saw("page.mirrored") for replica in replicas.processes), why="a page")
        (leader,) = [replica for replica in replicas.processes if replica.leads]
        (follower,) = [replica for replica in replicas.processes if not replica.leads]
        await until(lambda: sum(event["event"] == "page.mirrored" for event in leader.events) >= 3, why="three pages")
        leader.kill()
        killed = time.monotonic()
        await until(lambda: follower.leads, why="another leader")
        assert time.monotonic() - killed < 10
        await until(lambda: follower.saw("pass.complete"), why="the pass")
        (begun,) = [event for event in follower.events if event["event"] == "pass.started"][:1]
        assert begun["resumed"]
        assert begun["pages"] >= 3
        rows = await replicas.database.read(lambda c: c.exec_driver_sql("SELECT id, name FROM chat_sessions").all())
        assert {row[0]: row[1] for row in rows} == {key: wire["name"] for key, wire in server.live().items()}
        states = await replicas.database.read(
            lambda c: c.exec_driver_sql("SELECT state, inserted, seen FROM passes").all()
        )
        assert [tuple(row) for row in states] == [("complete", 600, 600)]


async def test_leader_takes_over_again_a_pass_that_was_taken_from_it(tmp_path: Path, postgres_url: str) -> None:
    server = Sandbox(200, habits=Habits(page_size=20, latency=0.05))
    async with serve(server), running_replicas(tmp_path, server, postgres_url) as replicas:
        (leader,) = await replicas.started(1)
        await until(lambda: leader.saw("page.mirrored"), why="a page")
        assert await replicas.database.write(passes.resume) is not None  # as one does that was cut off and came late
        await until(lambda: leader.saw("pass.lost"), why="the loss")
        await until(lambda: leader.saw("pass.complete"), why="the pass", seconds=15)


async def test_replica_waits_at_its_start_for_a_server_without_a_connection_to_spare(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    server, url = Sandbox(3), sa.make_url(postgres_url)
    role = f"crowd_{url.database}"
    limit = f"CREATE ROLE {role} LOGIN; GRANT syncd TO {role}; ALTER ROLE {role} CONNECTION LIMIT 2;"
    await in_thread(lambda: postgres.sql(limit))
    try:
        several = url.set(username=role).render_as_string(hide_password=False)
        async with serve(server), running_replicas(tmp_path, server, several) as replicas:
            async with engine_of(replicas.database).connect():  # one of the two
                replica = replicas.start()
                await until(lambda: replica.saw("database.waiting"), why="it says so")
                assert replica.process.poll() is None
                await in_thread(lambda: postgres.sql(f"ALTER ROLE {role} CONNECTION LIMIT 20"))
            await until(lambda: replica.saw("pass.complete"), why="a pass")
    finally:
        await in_thread(lambda: postgres.sql(f"DROP ROLE {role}"))


async def test_cut_connections_cost_no_operation(tmp_path: Path, postgres: PostgresServer, postgres_url: str) -> None:
    server = Sandbox(habits=Habits(latency=0.01))
    name = sa.make_url(postgres_url).database
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    async with serve(server), running_replicas(tmp_path, server, postgres_url) as replicas:
        await replicas.started(2)
        await replicas.queue_operations(120)
        for number in (1, 2, 3):
            await until(lambda number=number: len(server.effects) > 20 * number, why="operations")  # type: ignore[misc]
            await in_thread(lambda: postgres.sql(cut))
        await replicas.drained()
        await replicas.judge(120)
        assert all(replica.process.poll() is None for replica in replicas.processes)


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """Run a PostgreSQL of this test's own, that keeps what it has committed."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


async def test_server_that_crashes_and_comes_back_costs_no_operation(tmp_path: Path, durable: PostgresServer) -> None:
    server = Sandbox(habits=Habits(latency=0.01))
    url = durable.url(await in_thread(durable.fresh))
    async with serve(server), running_replicas(tmp_path, server, url) as replicas:
        await replicas.started(2)
        await replicas.queue_operations(120)
        await until(lambda: len(server.effects) > 30, why="operations")
        await in_thread(durable.crash)
        await in_thread(durable.start)
        await replicas.drained(seconds=50)
        await replicas.judge(120)
        assert all(replica.process.poll() is None for replica in replicas.processes)


async def test_one_replica_leads_and_another_programs_row_is_noticed_at_once(tmp_path: Path, postgres_url: str) -> None:
    server = Sandbox(30)
    async with serve(server), running_replicas(tmp_path, server, postgres_url) as replicas:
        await replicas.started(3)
        await until(lambda: any(replica.leads for replica in replicas.processes), why="a leader")
        await until(
            lambda: sum(replica.saw("replica.standby") for replica in replicas.processes) == 2, why="two on standby"
        )
        await until(lambda: any(replica.saw("pass.complete") for replica in replicas.processes), why="a pass")
        async with Database(sa.make_url(postgres_url), busy_timeout=5) as other:
            began = time.monotonic()
            await other.write(
                lambda c: c.exec_driver_sql(
                    "INSERT INTO operations (kind, source_session_id, name) VALUES ('create', 'o''clock', 'n')"
                )
            )
            await until(lambda: any(e.source_session_id == "o'clock" for e in server.effects), why="a create")
            assert time.monotonic() - began < 5
        assert sum(replica.leads for replica in replicas.processes) == 1


SOAK = os.environ.get("SOAK_PG_OPERATIONS")
KILL_SECONDS = float(os.environ.get("SOAK_PG_KILL_SECONDS", "1"))
SEED = int(os.environ.get("SOAK_PG_SEED", "1"))


@pytest.fixture
def prefork() -> Iterator[Prefork]:
    """Have replicas that start in a moment."""
    forker = Prefork()
    yield forker
    forker.close()


@pytest.mark.skipif(not SOAK, reason="make soak-pg: minutes")
@pytest.mark.timeout(3000)
async def test_soak_of_four_replicas_that_lose_one_every_second(
    tmp_path: Path, durable: PostgresServer, prefork: Prefork
) -> None:
    count = int(SOAK or 0)
    server = Sandbox(habits=Habits(latency=0.005))
    url = durable.url(await in_thread(durable.fresh))
    async with serve(server), running_replicas(tmp_path, server, url, prefork=prefork) as replicas:
        await replicas.started(4)
        await replicas.queue_operations(count)
        began = time.monotonic()
        async with following(url), anyio.create_task_group() as group:
            group.start_soon(replicas.kill_sometimes, KILL_SECONDS, random.Random(SEED))  # noqa: S311 - not a secret
            await replicas.drained(seconds=2900)
            group.cancel_scope.cancel()
        seconds = time.monotonic() - began
        await replicas.judge(count)
        killed = sum(replica.process.poll() == -signal.SIGKILL for replica in replicas.processes)
        print(  # noqa: T201
            f"{count} operations, seed {SEED}, {killed} replicas killed "
            f"({replicas.not_killed} times the last was not killed), {seconds:.0f} s, "
            f"{count / seconds:.0f} a second, load {os.getloadavg()[0]:.1f}"
        )
