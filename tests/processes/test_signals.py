"""SIGTERM and SIGINT: no new work, the grace for what is in flight, exit 0 in time."""

from __future__ import annotations

import json
import signal
from contextlib import closing

import anyio
import pytest
import sqlalchemy as sa

from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers.postgres_server import PostgresServer
from tests.helpers.tcp_proxy import proxied
from tests.processes.helpers import COMMAND, SOON_BUSY, Syncd, eventually

GRACE = "0.5"
HANGING = "60"
"""Seconds of a request; longer than the tests wait for the end of a daemon."""
BETWEEN = """\
import os, signal, sys
from syncd.__main__ import main
from syncd.daemon import run
log_database = run.log_database
async def signalled(*given):
    await log_database(*given)
    os.kill(os.getpid(), signal.{name})
run.log_database = signalled
sys.argv = ["syncd", "run"]
main()
"""
"""The daemon, which gets a signal when the database is open and no loop runs yet."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_the_daemon_with_exit_0(syncd: Syncd, number: signal.Signals) -> None:
    daemon = await syncd.run()
    await daemon.event("pass.complete")
    daemon.process.send_signal(number)
    assert await daemon.code(seconds=10) == 0
    assert daemon.events()[-1]["event"] == "daemon.stopped"
    assert sorted(path.name for path in syncd.folder.glob("syncd.db*")) == ["syncd.db", "syncd.db.lock"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
async def test_signal_between_the_opening_and_the_loops_ends_the_daemon_with_exit_0(syncd: Syncd, name: str) -> None:
    program = [COMMAND[0], "-c", BETWEEN.format(name=name)]
    ended = await anyio.run_process(program, env=syncd.environment, cwd=syncd.folder, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    events = [json.loads(line)["event"] for line in ended.stdout.splitlines()]
    assert events[:2] == ["tenant.pinned", "database.opened"]
    assert events[-1] == "daemon.stopped"


async def test_sigterm_while_requests_hang_ends_within_the_grace(syncd: Syncd) -> None:
    assert (await syncd.call("once")).code == 0
    syncd.sandbox.script("GET", "/api/v3/chats/sessions/source", "hang_before", times=100)
    syncd.sandbox.script("DELETE", "/api/v3/chats/sessions", "hang_after", times=100)
    daemon = await syncd.run(SYNCD_REQUEST_TIMEOUT=HANGING, SYNCD_SHUTDOWN_GRACE=GRACE)
    await syncd.call("enqueue", "create", "--source-session-id", "a", "--name", "A")
    await syncd.call("enqueue", "delete", "--id", "CHS1")
    await eventually(lambda: len(syncd.sql("SELECT 1 FROM operations WHERE state = 'running'")) == 2)

    assert await daemon.stop() == 0
    assert daemon.events()[-1]["event"] == "daemon.stopped"
    assert syncd.sql("SELECT state FROM operations WHERE state = 'running'") == []


async def test_sigterm_while_the_first_request_of_the_queue_hangs_ends_within_the_grace(syncd: Syncd) -> None:
    assert (await syncd.call("once")).code == 0
    await syncd.call("enqueue", "delete", "--id", "CHS1")
    asked = len(syncd.sandbox.requests)
    syncd.sandbox.script("GET", "/api/v3/chats/sessions", "hang_before", times=100)
    daemon = await syncd.run(SYNCD_REQUEST_TIMEOUT=HANGING, SYNCD_SHUTDOWN_GRACE=GRACE)
    await eventually(lambda: len(syncd.sandbox.requests) >= asked + 2)  # of the queue and of the pass
    assert await daemon.stop() == 0
    assert syncd.sql("SELECT state, attempts FROM operations") == [{"state": "pending", "attempts": 0}]


async def test_database_that_hangs_does_not_keep_the_daemon_beyond_the_grace(
    syncd: Syncd, postgres: PostgresServer, postgres_url: str
) -> None:
    async with proxied(postgres.port) as proxy:
        url = sa.make_url(postgres_url).set(port=proxy.port).render_as_string(hide_password=False)
        daemon = await syncd.run(SYNCD_DATABASE_URL=url, SYNCD_SHUTDOWN_GRACE="1")
        await daemon.event("pass.complete")
        proxy.hears.clear()
        with anyio.fail_after(30):
            await proxy.held.wait()
        assert await daemon.stop(seconds=20) == 0
        assert daemon.events()[-1]["reason"] == "the grace was over, and something was still waited for"


async def test_answer_that_comes_within_the_grace_is_written_down(syncd: Syncd) -> None:
    assert (await syncd.call("once")).code == 0
    arrived, stopping = anyio.Event(), anyio.Event()

    async def hold(_: object) -> None:
        arrived.set()
        await stopping.wait()

    syncd.sandbox.script("POST", "/api/v3/chats/sessions", hold)
    daemon = await syncd.run()
    await syncd.call("enqueue", "create", "--source-session-id", "slow", "--name", "Slow")
    await arrived.wait()
    daemon.process.terminate()
    await daemon.event("daemon.stopping")
    stopping.set()
    assert await daemon.code() == 0
    assert syncd.sql("SELECT state FROM operations") == [{"state": "succeeded"}]


async def test_sigterm_while_another_program_holds_the_database_ends_within_the_grace(syncd: Syncd) -> None:
    assert (await syncd.call("once")).code == 0
    await syncd.call("enqueue", "import", "-", given=b"source_session_id,name\na,A\nb,B\nc,C\n")
    syncd.sandbox.script("POST", "/api/v3/chats/sessions", "hang_after", times=100)
    daemon = await syncd.run(SYNCD_SHUTDOWN_GRACE=GRACE, SYNCD_REQUEST_TIMEOUT=HANGING)
    await eventually(lambda: len(syncd.sandbox.effects) == 3)
    with closing(sqlite3.connect(syncd.file, timeout=20, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await daemon.stop() == 0
        other.execute("COMMIT")
    assert [row["state"] for row in syncd.sql("SELECT state FROM operations")] == ["running"] * 3
    syncd.sandbox.scripts._waiting.clear()
    again = await syncd.run(SYNCD_UNKNOWN_SETTLE="0")
    await eventually(lambda: len(syncd.sql("SELECT 1 FROM operations WHERE state = 'succeeded'")) == 3)
    assert await again.stop() == 0
    assert len(syncd.sandbox.effects) == 3


async def test_daemon_that_waits_for_a_locked_database_at_its_start_reports_it_and_obeys_sigterm(
    syncd: Syncd,
) -> None:
    assert (await syncd.call("migrate")).code == 0
    syncd.constants |= SOON_BUSY
    with closing(sqlite3.connect(syncd.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        daemon = await syncd.start("run")
        assert "locked" in (await daemon.event("database.waiting"))["reason"]
        assert await daemon.stop(seconds=10) == 0
        assert daemon.events()[-1]["event"] == "daemon.stopped"

        waiting = await syncd.start("run")
        await waiting.event("database.waiting")
        other.execute("COMMIT")
        await waiting.event("pass.complete")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_interrupted_once_ends_cleanly_and_the_next_one_continues_its_pass(
    syncd: Syncd, number: signal.Signals
) -> None:
    syncd.sandbox.habits.latency = 0.3
    running = await syncd.start("once")
    await running.event("page.mirrored")
    running.process.send_signal(number)
    assert await running.code() == 128 + number
    assert running.err.read_text() == "interrupted; the next cycle continues from here\n"
    syncd.sandbox.habits.latency = 0
    ended = await syncd.call("once", "--json")
    assert (ended.code, ended.data["pass"]["id"]) == (0, 1)
