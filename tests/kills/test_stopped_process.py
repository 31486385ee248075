"""SIGSTOP for longer than a lease, while another owner takes over: the process that continues is fenced.

A SQLite file has one daemon, so the stopped process is not `syncd run` but a process that works the queue with the same
`Push`; on PostgreSQL two daemons are allowed and this happens in normal operation.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa
from structlog.testing import LogCapture

from syncd.albert import AsyncAlbertSession, ChatSessionCollection
from syncd.clock import SystemClock
from syncd.lookups import Lookups
from syncd.mirror.db.database import Database
from syncd.mirror.schema import migrate
from syncd.mirror.store import operation_views, operations
from syncd.push.flow import Push, PushSettings
from syncd.push.record import RetryPolicy
from syncd.records.ids import OperationId
from syncd.rules.retry import Backoff
from syncd.sandbox import Habits, Sandbox, serve
from syncd.witness import Witness
from tests.helpers.logs import capturing_logger
from tests.kills.case import ROOT

SLEEPER = """
import sys, anyio, sqlalchemy as sa
from syncd.albert import AsyncAlbertSession, ChatSessionCollection
from syncd.clock import SystemClock
from syncd.lookups import Lookups
from syncd.witness import Witness
from syncd.push.record import RetryPolicy
from syncd.rules.retry import Backoff
from syncd.logs import configure
from syncd.mirror.db.database import Database
from syncd.push.flow import Push, PushSettings

async def main(file, url):
    retry_policy = RetryPolicy(max_attempts=8, backoff=Backoff(0, 1), settle=0)
    settings = PushSettings(concurrency=1, lease=0.6, retry_policy=retry_policy)
    async with Database(sa.make_url(f"sqlite+aiosqlite:///{file}"), busy_timeout=5) as database:
        async with AsyncAlbertSession(base_url=url, token="sandbox-token", timeout=20) as session:
            log = configure(level="debug", style="json")
            albert, clock = ChatSessionCollection(session=session), SystemClock()
            witness = Witness(database=database, albert=albert, clock=clock, log=log)
            lookups = Lookups(albert=albert, clock=clock, witness=witness)
            push = Push(database=database, lookups=lookups, clock=clock, log=log, settings=settings, owner="sleeper")
            await push.drain()

anyio.run(main, *sys.argv[1:])
"""


async def _take_over(database: Database, sandbox: Sandbox) -> None:
    """Do what a second daemon does: find the lease run out, look up, and bring the operation to its end."""
    settings = PushSettings(
        concurrency=1, lease=60, retry_policy=RetryPolicy(max_attempts=8, backoff=Backoff(0, 1), settle=0)
    )
    async with AsyncAlbertSession(base_url=sandbox.url, token=sandbox.token) as session:
        log = capturing_logger(LogCapture())
        albert, clock = ChatSessionCollection(session=session), SystemClock()
        witness = Witness(database=database, albert=albert, clock=clock, log=log)
        lookups = Lookups(albert=albert, clock=clock, witness=witness)
        push = Push(database=database, lookups=lookups, clock=clock, log=log, settings=settings, owner="other")
        await push.recover(abandoned=False)
        await push.drain()
    row = await database.read(lambda c: operation_views.get(c, OperationId(1)))
    assert row is not None
    assert row["state"] == "succeeded"


@pytest.mark.timeout(120)
async def test_holder_that_was_stopped_for_two_leases_is_fenced_when_it_wakes(tmp_path: Path) -> None:
    file = tmp_path / "syncd.db"
    arrived, go_on = anyio.Event(), anyio.Event()

    async def hold(_request: object) -> None:
        arrived.set()
        await go_on.wait()

    async with (
        serve(Sandbox(0, habits=Habits(duplicate_create="duplicate"))) as sandbox,
        Database.create(sa.make_url(f"sqlite+aiosqlite:///{file}"), busy_timeout=5) as database,
    ):
        await database.write(migrate.migrate)
        await database.write(
            lambda c: operations.enqueue(c, [{"kind": "create", "source_session_id": "s", "name": "n"}])
        )
        sandbox.script("GET", "/api/v3/chats/sessions/source/s", hold)
        process = await anyio.open_process(
            [sys.executable, "-c", SLEEPER, str(file), sandbox.url],
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)}, stderr=None,
        )  # fmt: skip
        await arrived.wait()  # it holds the claim and is about to send its POST
        process.send_signal(signal.SIGSTOP)
        go_on.set()
        await anyio.sleep(1.3)  # two leases of real time
        await _take_over(database, sandbox)
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        output = b"".join([chunk async for chunk in process.stdout])
        await process.wait()
    events = [json.loads(line)["event"] for line in output.splitlines() if line.startswith(b"{")]
    assert "operation.fenced" in events, output
    assert [effect.kind for effect in sandbox.effects] == ["created"]
