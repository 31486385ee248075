"""One life of the daemon in the model: the real flows over the model's database, client, clock and log."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import sqlalchemy as sa

from syncd.lookups import Lookups
from syncd.mirror.db.database import Database
from syncd.pull.flow import Pull
from syncd.push.flow import Push
from syncd.reconcile import Reconcile
from syncd.witness import Witness
from tests.model.albert import Client, KilledError, Tenant
from tests.model.invariants import Checker
from tests.model.loop import VirtualLoop
from tests.model.plan import Plan
from tests.model.store import Store

START = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


class QuietLog:
    """A log that keeps the names of events and nothing else."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def bind(self, **_: Any) -> QuietLog:
        return self

    def info(self, event: str, **_: Any) -> None:
        self._events.append(event)

    debug = warning = error = exception = info


class ModelClock:
    """The loop's virtual time as a wall clock that may jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.moment + self.offset)

    def monotonic(self) -> float:
        return self._loop.moment

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(seconds, 0.0))


class StepStore:
    """A store without threads: each transaction in one step of the loop, and a kill before or after it."""

    def __init__(self, kept: Store, checker: Checker) -> None:
        self.kept, self.checker, self.dead = kept, checker, False

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
        """Return None: no schedule looks at it."""

    async def aclose(self) -> None:
        """Close nothing: the schedules share it."""


class ModelDatabase(Database):
    """The real database over such a store."""

    def __init__(self, kept: Store, checker: Checker) -> None:
        self.steps = StepStore(kept, checker)
        super().__init__(kept.url, store=self.steps)


@dataclass
class Life:
    """One daemon, from its start to its end."""

    plan: Plan
    clock: ModelClock
    jitter: Random
    events: list[str]
    database: ModelDatabase
    client: Client
    lookups: Lookups
    scope: anyio.CancelScope
    pushes: list[Push] = field(default_factory=list)

    @classmethod
    def begin(
        cls, number: int, plan: Plan, clock: ModelClock, jitter: Random, events: list[str], database: ModelDatabase,
        tenant: Tenant, scope: anyio.CancelScope,
    ) -> Life:  # fmt: skip
        """Start the so-manieth daemon."""

        def leaves(method: str, item: str, body: bytes) -> None:
            database.steps.checker.claimed(
                method, item, json.loads(body)["sourceSessionId"] if method == "POST" else None
            )

        client = Client(tenant, plan.timeout, leaves)
        log: Any = QuietLog(events)
        witness = Witness(database=database, albert=client, clock=clock, log=log, random_place=jitter.random)
        lookups = Lookups(albert=client, clock=clock, witness=witness)
        life = cls(plan, clock, jitter, events, database, client, lookups, scope)
        life.pushes = [life._push(f"daemon {number} {owner}") for owner in range(plan.owners)]
        return life

    async def run(self) -> None:
        """Do all that a daemon does at once, until somebody ends it."""
        async with anyio.create_task_group() as group:
            await self.pushes[0].recover(abandoned=self.database.steps.kept.alone)
            for _ in range(1 if self.database.steps.kept.alone else self.plan.owners):
                group.start_soon(self._passes)  # two of them: one that was cut off and does not know it yet
            group.start_soon(self._rounds)
            for push in self.pushes:
                group.start_soon(push.run)

    def set(self) -> None:
        """Tell the queue that somebody wrote to the database."""
        for push in self.pushes:
            push.wake_up.set()

    def kill(self) -> None:
        """End the process: nothing it does has an effect any more."""
        self.database.steps.dead = self.client.dead = True
        self.scope.cancel()

    def end(self) -> None:
        """Stop it as a signal does: what is in flight may write down what it knows."""
        self.scope.cancel()

    def pull(self) -> Pull:
        """Make the flow of passes."""
        return Pull(settings=self.plan.pull, jitter=self.jitter.random, **self._parts())

    def reconcile(self) -> Reconcile:
        """Make the flow of source ids."""
        return Reconcile(settle=self.plan.push.retry_policy.settle, **self._parts())

    def _push(self, owner: str) -> Push:
        return Push(settings=self.plan.push, jitter=self.jitter.random, owner=owner, **self._parts())

    def _parts(self) -> dict[str, Any]:
        log = QuietLog(self.events)
        return {"database": self.database, "lookups": self.lookups, "clock": self.clock, "log": log}

    async def _passes(self) -> None:
        pull = self.pull()
        while True:
            await pull.run()
            await self.clock.sleep(self.jitter.choice((0.0, 5.0, 20.0)))

    async def _rounds(self) -> None:
        reconcile = self.reconcile()
        while True:
            await reconcile.run()
            await self.clock.sleep(self.jitter.choice((1.0, 7.0, 30.0)))
