"""PgBouncer: a transaction pool needs an option in the URL and has no LISTEN; a session pool needs nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from syncd.clock import SystemClock
from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import leader, pg_pool
from syncd.mirror.db.change_feed import NotifyFeed
from syncd.mirror.db.database import Database
from syncd.mirror.store import operation_views, operations
from syncd.sandbox import Habits, Sandbox, serve
from tests.helpers.postgres_server import PostgresServer, _die_with_parent, _unprivileged, free_port, in_thread
from tests.helpers.replicas import ROOT, bare_environment, running_replicas, until

OPTION = "?prepared_statement_cache_size=0"
PGBOUNCER = os.environ.get("SYNCD_TEST_PGBOUNCER") or shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    PGBOUNCER is None, reason="no pgbouncer: apt-get install pgbouncer, or set SYNCD_TEST_PGBOUNCER"
)
CONFIG = """
[databases]
* = host=127.0.0.1 port={postgres}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {size}
"""
Pooler = Callable[..., str]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def pooler(postgres: PostgresServer, postgres_url: str) -> Iterator[Pooler]:
    """Return a function that runs PgBouncer in front of the test's database and returns its URL."""
    running: list[subprocess.Popen[bytes]] = []

    def run(mode: str, size: int = 10) -> str:
        port = free_port()
        folder = postgres.folder / f"pooler-{port}"
        folder.mkdir()
        (folder / "users").write_text('"syncd" ""\n')
        text = CONFIG.format(postgres=postgres.port, port=port, folder=folder, mode=mode, size=size)
        (folder / "pgbouncer.ini").write_text(text)
        with (folder / "log").open("wb") as log:
            command = [str(PGBOUNCER), str(folder / "pgbouncer.ini")]
            running.append(
                subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_die_with_parent, **_unprivileged())  # noqa: PLW1509
            )
        deadline = time.monotonic() + 20
        while not _answers(port):
            assert running[-1].poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return sa.make_url(postgres_url).set(port=port).render_as_string(hide_password=False)

    yield run
    for process in running:
        process.terminate()
        process.wait(10)


async def test_replicas_behind_a_transaction_pool_apply_all_operations(tmp_path: Path, pooler: Pooler) -> None:
    server = Sandbox(60, habits=Habits(page_size=20, latency=0.01))
    url = await in_thread(lambda: pooler("transaction", 8)) + OPTION
    async with serve(server), running_replicas(tmp_path, server, url) as replicas:
        await replicas.started(2)
        await until(lambda: any(replica.saw("pass.complete") for replica in replicas.processes), why="a pass")
        await until(
            lambda: sum(replica.saw("replica.standby") for replica in replicas.processes) == 1, why="one on standby"
        )
        await replicas.queue_operations(80)
        await until(lambda: len(server.effects) > 30, why="operations")
        (first,) = [replica for replica in replicas.processes if replica.leads]
        first.kill()
        await until(
            lambda: any(replica.leads for replica in replicas.processes if replica is not first), why="another leader"
        )
        await replicas.drained()
        await replicas.judge(80)


async def test_clients_that_share_few_pooled_sessions_do_not_mix_their_statements(pooler: Pooler) -> None:
    url = sa.make_url(await in_thread(lambda: pooler("transaction", 2)) + OPTION)
    row = {"kind": "create", "source_session_id": "s", "name": "n"}
    async with (
        Database(url, busy_timeout=10) as first,
        Database(url, busy_timeout=10) as other,
        anyio.create_task_group() as group,
    ):

        async def work(database: Database, number: int) -> None:
            source = f"{number}"
            (added,) = await database.write(lambda c: operations.enqueue(c, [row | {"source_session_id": source}]))
            operation = await database.read(lambda c: operation_views.get(c, added))
            assert operation is not None
            assert operation["source_session_id"] == source

        for number in range(30):
            group.start_soon(work, (first, other)[number % 2], number)


async def test_transaction_pool_without_the_option_in_the_url_is_refused(pooler: Pooler) -> None:
    url = await in_thread(lambda: pooler("transaction"))
    assert await pg_pool.shares_sessions(sa.make_url(url))
    with pytest.raises(DatabaseUnusableError, match="prepared_statement_cache_size=0"):
        async with leader.replica(sa.make_url(url), SystemClock()):
            pass
    environment = bare_environment() | {
        "SYNCD_DATABASE_URL": url, "ALBERT_BASE_URL": "http://127.0.0.1:9", "ALBERT_TOKEN": "t",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "syncd", "once"]
    done = await in_thread(lambda: subprocess.run(command, check=False, capture_output=True, env=environment))
    assert done.returncode == 3
    assert b"prepared_statement_cache_size=0" in done.stderr


async def test_session_pool_works_like_a_direct_connection(pooler: Pooler) -> None:
    url = sa.make_url(await in_thread(lambda: pooler("session", 20)))
    assert not await pg_pool.shares_sessions(url)
    async with leader.replica(url, SystemClock()) as first, leader.replica(url, SystemClock()) as other:
        await first.require()
        with pytest.raises(DatabaseUnusableError, match="stop it first"):
            await other.require()
        async with Database(url, busy_timeout=10) as database:
            feed = NotifyFeed(database)
            await feed.wait()
            async with anyio.create_task_group() as group:
                group.start_soon(feed.wait)
                row = {"kind": "delete", "session_id": "SES1"}
                await database.write(lambda c: operations.enqueue(c, [row]))
            await feed.close()
