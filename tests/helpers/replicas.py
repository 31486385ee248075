"""Replicas of the daemon as processes, towards one sandbox and one PostgreSQL."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio
import sqlalchemy as sa

from syncd.mirror.db.database import Database
from syncd.mirror.schema import tables
from syncd.mirror.store import operation_views
from syncd.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 40.0
FAST = {
    "SYNCD_PASS_INTERVAL": "300", "SYNCD_RECONCILE_INTERVAL": "300", "SYNCD_LEASE": "3", "SYNCD_UNKNOWN_SETTLE": "1",
    "SYNCD_RETRY_BASE": "0.05", "SYNCD_RETRY_MAX": "1", "SYNCD_STATUS_PORT": "0", "SYNCD_REQUEST_TIMEOUT": "10",
    "SYNCD_DELETE_GRACE": "0", "SYNCD_DELETE_CONFIRMATIONS": "1", "SYNCD_OPERATIONS_MAX_ATTEMPTS": "100",
}  # fmt: skip
STEPS = ("created", "deleted", "created", "deleted")
"""What happens to each key that `queue_operations` queues, in this order."""


def bare_environment() -> dict[str, str]:
    """Return the environment without settings of syncd."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SYNCD_", "ALBERT_"))}


async def until(look: Callable[[], Any], *, seconds: float = DEADLINE, why: str) -> None:
    """Wait until something is true."""
    with anyio.move_on_after(seconds):
        while not look():  # noqa: ASYNC110 - other processes set no event
            await anyio.sleep(0.02)
        return
    raise AssertionError(f"not within {seconds} s: {why}")


class Process(Protocol):
    """The methods of a process that tests use."""

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float) -> int: ...


class Child:
    """A process that the prefork server forked. A file descriptor shows its end; only its parent can wait for it."""

    def __init__(self, pid: int) -> None:
        self._descriptor: int | None = os.pidfd_open(pid)
        self._killed = False

    def poll(self) -> int | None:
        """Return its exit code, None while it runs. Without a kill the exit code counts as 0."""
        return None if self._runs(0) else -signal.SIGKILL if self._killed else 0

    def _runs(self, seconds: float) -> bool:
        if self._descriptor is None:
            return False
        over = select.poll()
        over.register(self._descriptor, select.POLLIN)
        if not over.poll(1000 * seconds):
            return True
        os.close(self._descriptor)  # there will be many of them
        self._descriptor = None
        return False

    def kill(self) -> None:
        if self._runs(0) and self._descriptor is not None:
            self._killed = True
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        assert not self._runs(timeout), "it does not end"
        return self.poll() or 0


class Prefork:
    """Forks daemons that have imported everything already: see `prefork.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.prefork"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )

    def start(self, environment: dict[str, str], out: Path) -> Child:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"environment": environment, "out": str(out)})
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()))

    def close(self) -> None:
        """End the prefork server and the daemons that it forked."""
        self._process.communicate(timeout=10)


@dataclass
class Replica:
    """One process."""

    process: Process
    out: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().rpartition("\n")[0].split("\n") if line]

    def saw(self, event: str) -> bool:
        return any(entry["event"] == event for entry in self.events)

    @property
    def at_work(self) -> bool:
        return self.out.read_text().find('"daemon.started"') > 0

    @property
    def leads(self) -> bool:
        events = [entry["event"] for entry in self.events if entry["event"].startswith("replica.")]
        return bool(events) and events[-1] == "replica.leading"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@dataclass
class Replicas:
    """All replicas, running and ended, and the sandbox and the database that they share."""

    folder: Path
    sandbox: Sandbox
    database: Database
    environment: dict[str, str]
    prefork: Prefork | None = None
    processes: list[Replica] = field(default_factory=list)
    not_killed: int = 0
    """Kills that were left out, because only one replica was at work."""

    def start(self, **changes: str) -> Replica:
        out = self.folder / f"replica{len(self.processes)}.log"
        self.processes.append(Replica(self._launch(self.environment | changes, out), out))
        return self.processes[-1]

    def _launch(self, environment: dict[str, str], out: Path) -> Process:
        if self.prefork is not None:
            return self.prefork.start(environment, out)
        with out.open("wb") as stdout:
            return subprocess.Popen(
                [sys.executable, "-m", "syncd", "run"], stdout=stdout, stderr=stdout, env=environment
            )

    async def started(self, count: int) -> list[Replica]:
        """Start replicas and wait until they work."""
        fresh = [self.start() for _ in range(count)]
        for replica in fresh:
            await until(
                lambda replica=replica: replica.saw("daemon.started"),  # type: ignore[misc]
                why=replica.out.read_text(),
            )
        return fresh

    async def states(self) -> dict[str, int]:
        return await self.database.read(operation_views.counts)

    async def drained(self, *, seconds: float = DEADLINE) -> None:
        """Wait until every operation is final."""
        with anyio.move_on_after(seconds):
            while True:
                states = await self.states()
                if not states["pending"] + states["running"] + states["unknown"]:
                    return
                await anyio.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {await self.states()}")

    async def queue_operations(self, count: int) -> None:
        """Queue operations: four in a row on each key."""
        keys = [f"key-{number}" for number in range(count // len(STEPS))]
        rows = [
            {"kind": "create" if step == "created" else "delete", "source_session_id": key,
             "name": f"{key} of step {number}" if step == "created" else None}
            for number, step in enumerate(STEPS) for key in keys
        ]  # fmt: skip
        await self.database.write(lambda c: c.execute(sa.insert(tables.operations), rows).close())

    async def judge(self, count: int) -> None:
        """Make sure that each operation had exactly one effect, in the order of its key."""
        assert (await self.states())["succeeded"] == count
        done: dict[str, list[str]] = defaultdict(list)
        for effect in self.sandbox.effects:
            if effect.source_session_id.startswith("key-"):
                done[effect.source_session_id].append(effect.kind)
        assert Counter(map(tuple, done.values())) == Counter({STEPS: count // len(STEPS)})
        live = await self.database.read(
            lambda c: c.exec_driver_sql(
                "SELECT count(*) FROM chat_sessions WHERE source_session_id LIKE 'key-%'"
            ).scalar()
        )
        assert live == 0

    async def kill_sometimes(self, seconds: float, rng: random.Random) -> None:
        """Kill a replica that is at work every `seconds` seconds, and start another one.

        The last one at work is not killed: where a start takes longer than `seconds`, no replica would ever work.
        """
        while True:
            await anyio.sleep(seconds)
            at_work = [replica for replica in self.processes if replica.process.poll() is None and replica.at_work]
            if len(at_work) > 1:
                rng.choice(at_work).kill()
                self.start()
            else:
                self.not_killed += 1

    def end(self) -> None:
        for replica in self.processes:
            if replica.process.poll() is None:
                replica.kill()
            assert "Traceback" not in replica.out.read_text(), replica.out.read_text()[-3000:]


@asynccontextmanager
async def running_replicas(
    folder: Path, sandbox: Sandbox, url: str, *, prefork: Prefork | None = None, **changes: str
) -> AsyncIterator[Replicas]:
    """Have replicas that end with the test."""
    environment = bare_environment() | FAST | {
        "SYNCD_DATABASE_URL": url, "ALBERT_BASE_URL": sandbox.url, "ALBERT_TOKEN": sandbox.token,
        "PYTHONPATH": str(ROOT), "SYNCD_LOG_FORMAT": "json",
    } | changes  # fmt: skip
    async with Database.create(sa.make_url(url), busy_timeout=30) as database:
        replicas = Replicas(folder, sandbox, database, environment, prefork)
        try:
            yield replicas
        finally:
            replicas.end()
