"""One run of the daemon in the model: the real flows over the model's database, client, clock and log."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import sqlalchemy as sa

from syncd.clock import Clock, machine_boot
from syncd.lookups import Lookups
from syncd.mirror.db.database import Database
from syncd.mirror.db.shared_clock import SharedClock
from syncd.mirror.store import elapsed
from syncd.pull.flow import Pull
from syncd.pull.known_tenant import KnownTenant
from syncd.push.flow import Push
from syncd.reconcile import Reconcile
from syncd.witness import Witness
from tests.model.albert import Client, KilledError, Tenant
from tests.model.clocks import Clocks
from tests.model.invariants import Checker
from tests.model.plan import Plan
from tests.model.store import Store

RUNS_OF_A_BOOT = 3
"""Daemons that follow each other on a host before it is restarted."""


class QuietLog:
    """A log that keeps the names of events and nothing else."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def bind(self, **_: Any) -> QuietLog:
        return self

    def info(self, event: str, **_: Any) -> None:
        self._events.append(event)

    debug = warning = error = exception = info


class StepStore:
    """A store without threads: each transaction in one step of the loop, and a kill before or after it."""

    def __init__(self, kept: Store, checker: Checker, clock: SharedClock) -> None:
        self.kept, self.checker, self.dead, self._clock = kept, checker, False, clock

    def shared_clock(self, _host: Clock) -> SharedClock:
        return self._clock

    async def transact(self, work: Callable[[sa.Connection], None]) -> None:
        await anyio.lowlevel.checkpoint()
        self.check_identity()
        if self.kept.transact(work):
            self.checker.look()
        await anyio.lowlevel.checkpoint()
        self.check_identity()

    async def read(self, work: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        self.check_identity()
        return self.kept.read(work)

    read_batched = read

    def read_inline(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        self.check_identity()
        return self.kept.read_inline(statement, parameters)

    def check_identity(self) -> None:
        if self.dead:
            raise KilledError

    def wal_bytes(self) -> None:
        """Return None: no schedule uses it."""

    async def aclose(self) -> None:
        """Close nothing: the schedules share it."""


class ModelDatabase(Database):
    """The real database over such a store."""

    def __init__(self, kept: Store, checker: Checker, clock: SharedClock) -> None:
        self.steps = StepStore(kept, checker, clock)
        super().__init__(kept.url, store=self.steps)


@dataclass
class Schedule:
    """The shared state of all daemons of a schedule."""

    plan: Plan
    clocks: Clocks
    rng: Random
    events: list[str]
    store: Store
    checker: Checker
    tenant: Tenant


@dataclass
class Process:
    """The state of one process: its view of the database, its client, and its clock."""

    database: ModelDatabase
    client: Client
    lookups: Lookups

    @classmethod
    def start(cls, schedule: Schedule, host: int) -> Process:
        """Start a process on a host."""
        database = ModelDatabase(schedule.store, schedule.checker, schedule.clocks.of_daemon(host))

        def leaves(method: str, item: str, body: bytes) -> None:
            source = json.loads(body)["sourceSessionId"] if method == "POST" else None
            schedule.checker.claimed(method, item, source)

        client = Client(schedule.tenant, schedule.plan.timeout, leaves)
        log: Any = QuietLog(schedule.events)
        clock = database.clock
        witness = Witness(database=database, albert=client, clock=clock, log=log, random_place=schedule.rng.random)
        return cls(database, client, Lookups(albert=client, clock=clock, witness=witness))


class Replica:
    """The flows of one daemon; its name is the owner of its claims, and its machine has the monotonic clock."""

    def __init__(self, schedule: Schedule, process: Process, name: str, machine: str) -> None:
        self._schedule = schedule
        self.process = process
        self.database = process.database
        self._known_tenant = KnownTenant(database=process.database, albert=process.client, clock=process.database.clock)
        self.push = Push(
            settings=schedule.plan.push, jitter=schedule.rng.random, owner=name, machine=machine,
            known_tenant=self._known_tenant, **self._parts(),
        )  # fmt: skip

    def pull(self) -> Pull:
        """Make the flow of passes."""
        plan, rng = self._schedule.plan, self._schedule.rng
        return Pull(settings=plan.pull, jitter=rng.random, **self._parts())

    def reconcile(self) -> Reconcile:
        """Make the flow of source ids."""
        settle = self._schedule.plan.push.retry_policy.settle
        return Reconcile(settle=settle, known_tenant=self._known_tenant, **self._parts())

    async def passes(self) -> None:
        """Take passes forever."""
        pull = self.pull()
        while True:
            await pull.run()
            await anyio.sleep(self._schedule.rng.choice((0.0, 5.0, 20.0)))

    async def rounds(self) -> None:
        """Reconcile forever."""
        reconcile = self.reconcile()
        while True:
            await reconcile.run()
            await anyio.sleep(self._schedule.rng.choice((1.0, 7.0, 30.0)))

    def _parts(self) -> dict[str, Any]:
        log = QuietLog(self._schedule.events)
        lookups = self.process.lookups
        return {"database": self.database, "lookups": lookups, "clock": self.database.clock, "log": log}


class DaemonRun:
    """The daemons that run at the same time, from their start to their end.

    On SQLite there is one process; a second owner of claims in it stands for one that was suspended. On PostgreSQL each
    owner is a replica on a host of its own.
    """

    def __init__(self, schedule: Schedule, number: int, scope: anyio.CancelScope) -> None:
        self._alone = schedule.store.alone
        self._scope = scope
        owners, boot = range(schedule.plan.owners), number // RUNS_OF_A_BOOT
        shared = Process.start(schedule, 0)
        processes = [shared if self._alone or owner == 0 else Process.start(schedule, owner) for owner in owners]
        self.replicas = [
            Replica(schedule, process, f"daemon {number} {owner}", f"host {0 if self._alone else owner}, boot {boot}")
            for owner, process in zip(owners, processes, strict=True)
        ]

    async def run(self) -> None:
        """Do everything that daemons do at the same time, until they end."""
        first = self.replicas[0]
        async with anyio.create_task_group() as group:
            for replica in self.replicas[: 1 if self._alone else None]:
                await elapsed.continue_clock(replica.database, machine_boot())
                await replica.push.recover(abandoned=self._alone)
                group.start_soon(replica.passes)  # one of the two leaders was cut off and has not noticed it yet
            group.start_soon(first.rounds)
            for replica in self.replicas:
                group.start_soon(replica.push.run)

    def set(self) -> None:
        """Note that another program wrote to the database."""
        for replica in self.replicas:
            replica.push.wake_up.set()

    def kill(self) -> None:
        """End the processes: their calls have no effect any more."""
        for replica in self.replicas:
            replica.database.steps.dead = replica.process.client.dead = True
        self._scope.cancel()

    def end(self) -> None:
        """Stop them as a signal does: operations in flight may write their outcome."""
        self._scope.cancel()
