"""One schedule from one integer: the real flows on a real file, against everything that can happen.

::

    for each life of the daemon:   recover, then at once: passes, the queue (one owner or two), reconciliation
      meanwhile:                   others create, change, move, delete; programs enqueue; the operator decides;
                                   the clock jumps; the weather (faults) changes
      at some turn of the loop:    stopped (cancelled) or killed (nothing it does has an effect any more)
    then the faults stop:          two passes and the grace, and the mirror must equal the API

`python -m tests.model.simulation SEED` runs one and prints what was asked for.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import sqlalchemy as sa

from syncd.decide import Backoff
from syncd.mirror import database as database_module
from syncd.mirror import operations, passes, schema
from syncd.mirror.database import Database
from syncd.pull import Pull, PullSettings
from syncd.push import Push, PushSettings
from syncd.reconcile import Reconcile
from syncd.sandbox.habits import Habits
from syncd.sweep import Guard
from tests.model.albert import AFTER, BEFORE, Client, KilledError, Tenant
from tests.model.invariants import BrokenError, Checker
from tests.model.loop import VirtualLoop, run

T = TypeVar("T")
START = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
SOURCES = tuple(f"src-{number}" for number in range(5))
HOSTILE = ("..", "a/../../../users/USR1", "nul\u0001", "ü?#&", "x" * 2000)


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


class Files:
    """One file that every schedule of this process begins anew, and the two engines that are kept warm on it."""

    def __init__(self) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a temporary directory in it
        self.folder = Path(tempfile.mkdtemp(prefix="syncd-model-", dir=base))
        self.path = self.folder / "model.db"
        self.template = self.folder / "template.db"
        self.url = sa.make_url(f"sqlite+aiosqlite:///{self.path}")
        plain = sa.make_url(f"sqlite:///{self.path}")
        self.writer = sa.create_engine(plain, poolclass=sa.pool.StaticPool)
        self.reader = sa.create_engine(plain, poolclass=sa.pool.StaticPool)
        fast = tuple("synchronous=OFF" if p.startswith("synchronous") else p for p in database_module.WRITER_PRAGMAS)
        database_module._prepare_sqlite(self.writer, fast, begin="BEGIN IMMEDIATE")
        database_module._prepare_sqlite(self.reader, database_module.READER_PRAGMAS, begin="BEGIN")
        with self.writer.connect() as connection, connection.begin():
            schema.migrate(connection)
        self.writer.dispose()
        shutil.copy(self.path, self.template)

    def begin(self) -> None:
        """Put an empty mirror in place."""
        self.writer.dispose()
        self.reader.dispose()
        for old in self.folder.glob("model.db*"):
            old.unlink()
        shutil.copy(self.template, self.path)

    def remove(self) -> None:
        """Leave nothing behind."""
        self.writer.dispose()
        self.reader.dispose()
        shutil.rmtree(self.folder)


class ModelDatabase(Database):
    """The real database without threads: each transaction in one step of the loop, and a kill before or after it."""

    files: Files
    checker: Checker
    dead = False

    def __post_init__(self) -> None:
        self._identity = database_module._identity(self.path)
        self._writer = self.files.writer
        self._watcher = None

    async def _run(self, batch: list[Any]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.dead:
            raise KilledError
        database_module._transact(self.files.writer, batch)
        self.checker.look()
        await anyio.lowlevel.checkpoint()
        if self.dead:
            raise KilledError

    async def read(self, work: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        if self.dead:
            raise KilledError
        with self.files.reader.connect() as connection:
            return work(connection)


@dataclass
class Plan:
    """What a seed stands for; times in seconds."""

    habits: Habits
    guard: Guard
    pull: PullSettings
    push: PushSettings
    timeout: float
    begin_with: int
    lives: int
    owners: int
    jump: float
    late: float

    @property
    def lag(self) -> float:
        """The longest that a look-up may lag behind a POST that was sent."""
        return self.habits.lookup_lag + self.late


def plan(chance: Random) -> Plan:
    """Draw a plan."""
    settle = chance.choice((12.0, 30.0))
    backoff = Backoff(0.5, 8.0)
    grace = chance.choice((0.0, 6.0, 25.0))
    jump = chance.choice((3600.0, 30.0, -30.0, -3600.0)) if chance.random() < 0.2 else 0.0
    late = chance.choice((0.0, 1.0, 3.0)) if jump >= 0 else 0.0
    # the look-ups of an unknown create keep their distances from each other: one jump swallows one of them at most
    room = max(settle * 0.45 - late, 0.0) if jump > 0 else (settle - late) * 0.95 if jump == 0 else 0.0
    habits = Habits(
        page_size=chance.choice((1, 2, 3, 7)),
        duplicate_create=chance.choice(("duplicate", "duplicate", "conflict", "bad_request", "first")),
        listing_lag=chance.choice((0.0, 0.0, min(2.0, grace / 2), grace * 0.9)),
        lookup_lag=min(chance.choice((0.0, 0.0, 0.5, room)), room),
        order=chance.choice(("created", "updated", "id", "newest")),
        gone_status=chance.choice((404, 410)),
        cursor_ttl=chance.choice((None, None, 3.0)),
        final_key=chance.choice(("absent", "null", "empty", "repeat", "empty_page")),
        hollow_pages=chance.random() < 0.15,
        extra_fields=chance.random() < 0.3,
    )
    guard = Guard(
        grace=grace, confirmations=chance.choice((1, 2, 2)), max_count=chance.choice((0, 1, 25)), max_fraction=0.2
    )
    return Plan(
        habits=habits,
        guard=guard,
        pull=PullSettings(max_pages=500, max_seconds=chance.choice((20.0, 600.0)), backoff=backoff, guard=guard),
        push=PushSettings(
            concurrency=chance.choice((1, 3, 8)), max_attempts=chance.choice((2, 4, 8)), backoff=backoff,
            settle=settle, lease=10.0,
        ),
        timeout=4.0,
        begin_with=chance.choice((0, 1, 4, 9)),
        lives=chance.randint(1, 4),
        owners=chance.choice((1, 1, 1, 2)),
        jump=jump,
        late=late,
    )  # fmt: skip


@dataclass
class Life:
    """One daemon, from its start to its end."""

    database: ModelDatabase
    client: Client
    scope: anyio.CancelScope
    pushes: list[Push] = field(default_factory=list)

    def ring(self) -> None:
        """Tell the queue that somebody wrote to the database."""
        for push in self.pushes:
            push.wake.ring()

    def kill(self) -> None:
        """End the process: nothing it does has an effect any more."""
        self.database.dead = self.client.dead = True
        self.scope.cancel()

    def end(self) -> None:
        """Stop it as a signal does: what is in flight may write down what it knows."""
        self.scope.cancel()


class Simulation:
    """One schedule."""

    def __init__(self, seed: int, files: Files, loop: VirtualLoop) -> None:
        self.chance = Random(seed)  # noqa: S311 - not for secrets
        self.plan = plan(self.chance)
        self.files = files
        self.loop = loop
        self.clock = ModelClock(loop)
        self.tenant = Tenant(self.chance, self.plan.habits, loop.time)
        self.tenant.latest_late = self.plan.late
        self.checker = Checker(files.path, self.tenant, self.plan.guard)
        self.events: list[str] = []
        self.life: Life | None = None
        self.born = 0
        self.failure: BaseException | None = None

    async def run(self) -> None:
        """Run the schedule; raises BrokenError where an invariant does not hold."""
        try:
            for number in range(self.plan.begin_with):
                self.tenant.create({"sourceSessionId": f"old-{number}", "name": f"session {number}"})
            async with anyio.create_task_group() as group:
                self.tenant.late = group
                world = anyio.CancelScope()
                group.start_soon(self._world, world)
                for _ in range(self.plan.lives):
                    await self._live()
                world.cancel()
            await self._converge()
        finally:
            self.checker.close()

    def _new_life(self, scope: anyio.CancelScope) -> Life:
        ModelDatabase.files, ModelDatabase.checker = self.files, self.checker
        database = ModelDatabase(self.files.url)
        client = Client(self.tenant, self.plan.timeout, self._leaves)
        self.life = Life(database, client, scope)
        self.born += 1
        for number in range(self.plan.owners):
            self.life.pushes.append(self._push(self.life, f"daemon {self.born} {number}"))
        return self.life

    def _push(self, life: Life, owner: str) -> Push:
        log: Any = QuietLog(self.events)
        return Push(
            database=life.database, albert=life.client, clock=self.clock, log=log, settings=self.plan.push,
            chance=self.chance.random, owner=owner,
        )  # fmt: skip

    def _pull(self, life: Life) -> Pull:
        log: Any = QuietLog(self.events)
        return Pull(
            database=life.database, albert=life.client, clock=self.clock, log=log, settings=self.plan.pull,
            chance=self.chance.random,
        )  # fmt: skip

    def _reconcile(self, life: Life) -> Reconcile:
        log: Any = QuietLog(self.events)
        return Reconcile(
            database=life.database, albert=life.client, clock=self.clock, log=log, settle=self.plan.push.settle
        )

    def _leaves(self, method: str, item: str, body: bytes) -> None:
        source = None
        if method == "POST":
            import json  # noqa: PLC0415

            source = json.loads(body)["sourceSessionId"]
        self.checker.claimed(method, item, source)

    async def _live(self) -> None:
        """Let a daemon live until it is stopped or killed."""
        with anyio.CancelScope() as scope:
            life = self._new_life(scope)
            end = life.kill if self.chance.random() < 0.6 else life.end
            strike = self.loop.strike_in(int(self.chance.expovariate(1 / 500)), end)
            try:
                with anyio.move_on_after(self.chance.choice((3.0, 20.0, 90.0))):
                    async with anyio.create_task_group() as group:
                        await life.pushes[0].recover(abandoned=True)
                        group.start_soon(self._passes, life)
                        group.start_soon(self._rounds, life)
                        for push in life.pushes:
                            group.start_soon(push.run)
                        group.start_soon(self._recoveries, life)
            except BaseException as error:
                if not _only_killed(error):
                    raise
            self.loop.strikes.pop(strike, None)
        self.checker.look()

    async def _passes(self, life: Life) -> None:
        pull = self._pull(life)
        while True:
            await pull.run()
            await self.clock.sleep(self.chance.choice((0.0, 5.0)))

    async def _rounds(self, life: Life) -> None:
        reconcile = self._reconcile(life)
        while True:
            await reconcile.run()
            await self.clock.sleep(self.chance.choice((1.0, 7.0)))

    async def _recoveries(self, life: Life) -> None:
        """Take over what a holder has let run out: what a daemon does now and then."""
        while True:
            await self.clock.sleep(self.plan.push.lease)
            await life.pushes[-1].recover(abandoned=False)
            life.ring()

    async def _world(self, scope: anyio.CancelScope) -> None:
        actions = (
            self._create, self._create, self._change, self._change, self._move, self._delete, self._recreate,
            self._enqueue, self._enqueue, self._enqueue, self._operate, self._decide, self._storm, self._storm,
            self._know, self._jump,
        )  # fmt: skip
        with scope:
            while True:
                await anyio.sleep(self.chance.choice((0.0, 0.01, 0.3, 1.0, 4.0)))
                for _ in range(self.chance.choice((1, 1, 3))):
                    self.chance.choice(actions)()

    def _some(self) -> str | None:
        there = list(self.tenant.store.truth.by_id)
        return self.chance.choice(there) if there else None

    def _name(self) -> str:
        return f"name {self.loop.turns} {self.chance.random()}"

    def _create(self) -> None:
        new = f"new-{self.loop.turns}"
        source = self.chance.choice(SOURCES) if self.chance.random() < 0.1 else new
        self.tenant.create({"sourceSessionId": source, "name": self._name()})

    def _change(self) -> None:
        if (one := self._some()) is not None:
            self.tenant.update(one, {"name": self._name()})

    def _move(self) -> None:
        if (one := self._some()) is not None:
            self.tenant.update(one, {"parentId": self.chance.choice(("FOL1", "FOL2", None)), "name": self._name()})

    def _delete(self) -> None:
        if (one := self._some()) is not None:
            self.tenant.served.foreign.add(self.tenant.store.truth.by_id[one].source)
            self.tenant.store.delete(one)

    def _recreate(self) -> None:
        if (one := self._some()) is not None:
            source = self.tenant.store.truth.by_id[one].source
            self.tenant.store.delete(one)
            wire = {"sourceSessionId": source, "name": self._name()}
            self.tenant.create(wire | ({"id": one} if self.chance.random() < 0.3 else {}))

    def _write(self, work: Any) -> Any:
        """Write to the database as another program does."""
        with self.files.writer.connect() as connection, connection.begin():
            result = work(connection)
        self.checker.look()
        if self.life is not None:
            self.life.ring()
        return result

    def _enqueue(self) -> None:
        draw = self.chance.random()
        source = self.chance.choice(SOURCES if draw < 0.95 else HOSTILE[1:])
        row: dict[str, Any] = {"kind": "create", "source_session_id": source, "name": f"ours {self.loop.turns}"}
        if draw < 0.2:
            row = {"kind": "delete", "source_session_id": source}
        elif draw < 0.4 and (one := self._some()) is not None:
            row = {"kind": "delete", "session_id": one}
        self._write(lambda c: operations.enqueue(c, [row]))

    def _operate(self) -> None:
        decision = self.chance.choice((operations.revive, operations.cancel))
        number = self.chance.randint(1, 12)
        self.checker.operator = {number}
        self._write(lambda c: decision(c, number, self.clock.now()))

    def _decide(self) -> None:
        """Approve or reject what is held; the operator looks into Albert first."""

        def work(connection: sa.Connection) -> None:
            gone = self.chance.random() < 0.5
            for held in passes.open_holds(connection):
                query = (
                    "SELECT s.id FROM held_sessions AS h JOIN sessions AS s ON s.key = h.session_key "
                    "JOIN passes AS p ON h.pass_id = coalesce(p.candidates_of, p.id) WHERE p.id = ?"
                )
                ids = connection.exec_driver_sql(query, (held.id,)).scalars()
                gone = gone and not any(one in self.tenant.store.truth.by_id for one in ids)
            for held in passes.open_holds(connection):
                passes.decide(connection, int(held.id), "approved" if gone else "rejected", self.clock.now())

        self._write(work)

    def _know(self) -> None:
        source = self.chance.choice((*SOURCES, "stranger-1", "stranger-2"))
        statement = "INSERT INTO source_sessions (source_session_id) VALUES (?) ON CONFLICT DO NOTHING"
        self._write(lambda c: c.exec_driver_sql(statement, (source,)))

    def _jump(self) -> None:
        self.clock.offset, self.plan.jump = self.clock.offset + self.plan.jump, 0.0  # one to a schedule

    def _storm(self) -> None:
        weather = self.tenant.weather
        weather.chance = self.chance.choice((0.0, 0.05, 0.3, 0.7))
        weather.kinds = self.chance.choice((BEFORE, AFTER, BEFORE + AFTER, (self.chance.choice(BEFORE + AFTER),)))
        weather.refused = self.chance.random() < 0.05
        weather.outage = self.chance.random() < 0.05
        weather.broken = self.chance.choice((0.0, 0.0, 0.1))

    async def _converge(self) -> None:
        """Stop the faults; then two passes and the grace must do."""
        weather, habits = self.tenant.weather, self.tenant.habits
        weather.chance, weather.broken, weather.refused, weather.outage = 0.0, 0.0, False, False
        await anyio.sleep(max(habits.listing_lag, habits.lookup_lag) + 0.1)
        habits.listing_lag = habits.lookup_lag = 0.0
        habits.cursor_ttl = None
        self.checker.duplicates(self.plan.lag, self.plan.push.settle)
        with anyio.CancelScope() as scope:
            life = self._new_life(scope)
            push, pull, reconcile = life.pushes[0], self._pull(life), self._reconcile(life)
            await push.recover(abandoned=True)
            await self._settle(push)
            if await self._running(life):
                await pull.run()  # the pass that the faults interrupted
            left = 2
            for _ in range(5):
                outcome = await pull.run()
                left -= outcome.state != "held"
                if outcome.state == "held":  # the operator's answer costs a pass of its own
                    self._approve(outcome.pass_id)
                elif outcome.state != "complete":
                    raise BrokenError(f"9: a pass without faults is {outcome}")
                if not left:
                    break
                await self.clock.sleep(self.plan.guard.grace + 1)
            self._write(lambda c: c.exec_driver_sql("UPDATE source_sessions SET checked_at = NULL"))
            for _ in range(2):
                if await reconcile.run():
                    raise BrokenError("9: source ids without an answer, without faults")
        self.checker.look()
        self.checker.duplicates(self.plan.lag, self.plan.push.settle)
        self.checker.converged()

    def _approve(self, pass_id: int) -> None:
        self._write(lambda c: passes.decide(c, pass_id, "approved", self.clock.now()))

    async def _running(self, life: Life) -> bool:
        query = "SELECT count(*) FROM passes WHERE state = 'running'"
        return bool(await life.database.read(lambda c: c.exec_driver_sql(query).scalar()))

    async def _settle(self, push: Push) -> None:
        """Work the queue until nothing in it waits for a time."""
        for _ in range(200):
            await push.drain()
            due = await push.database.read(operations.next_due)
            if due is None:
                return
            await self.clock.sleep(max((due - self.clock.now()).total_seconds(), 0.0) + 0.001)
            if self.life is not None and self.loop.moment > 100_000:
                break
        raise BrokenError("9: the queue does not come to its end")


def _only_killed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_killed, error.exceptions))
    return isinstance(error, KilledError)


@dataclass(frozen=True)
class Report:
    """What a schedule was: commits looked at, requests, turns of the loop, virtual seconds, and its trace."""

    seed: int
    commits: int
    requests: int
    turns: int
    seconds: float
    events: list[str]
    log: list[str]


def simulate(seed: int, files: Files) -> Report:
    """Run the schedule of a seed."""
    files.begin()
    made: list[Simulation] = []

    async def main(loop: VirtualLoop) -> Report:
        simulation = Simulation(seed, files, loop)
        made.append(simulation)
        with_log = simulation.tenant.served.log
        await simulation.run()
        checker = simulation.checker
        return Report(seed, checker.commits, len(with_log), loop.turns, loop.moment, simulation.events, with_log)

    result: Report = run(main)
    return result


if __name__ == "__main__":
    warm = Files()
    try:
        for text in sys.argv[1:]:
            found = simulate(int(text), warm)
            sys.stdout.write("\n".join(found.log[-200:]) + f"\n{found.commits} commits, {found.turns} turns\n")
    finally:
        warm.remove()
