"""One schedule from one integer: the real flows on a real database, against everything that can happen.

::

    for each life of the daemon:   recover, then at once: passes, the queue (one owner or two), reconciliation
      meanwhile:                   others create, change, move, delete; programs enqueue; the operator decides;
                                   clocks are set; the weather (faults) changes
      at some turn of the loop:    stopped (cancelled) or killed (nothing it does has an effect any more)
    then the faults stop:          two passes and the grace, and the mirror must equal the API

`python -m tests.model.simulation SEED` runs one and prints what was asked for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

import anyio
import sqlalchemy as sa

from syncd.mirror.store import established, holds, operation_decisions, operations, restored
from syncd.mirror.store.operation_decisions import Operator
from syncd.pull.flow import Pull
from syncd.push.flow import Push
from syncd.records.enums import HoldState
from syncd.records.ids import OperationId, PassId
from syncd.rules.deletion import ASK_ALIVE_AGAIN
from tests.model.albert import AFTER, BEFORE, GATEWAY_BODIES, GATEWAYS, KilledError, Tenant
from tests.model.clocks import Clocks
from tests.model.daemon import Life, Replica, Schedule
from tests.model.invariants import BrokenError, Checker
from tests.model.loop import VirtualLoop, run
from tests.model.plan import plan
from tests.model.store import SqliteStore, Store

SOURCES = tuple(f"src-{number}" for number in range(3))
SET_BACK_BY_LITTLE = 600.0
"""Seconds; more than all steps of up to a minute in a schedule together, and far less than an hour."""
GATEWAY = 0.15
"""The chance that a storm contains a gateway that answers 404."""
RESTORED = 0.15
"""The chance that a life of the daemon ends with the restore of a backup that was made during it."""
FIRST_MISDATED = 1_000_000
"""Schedules from this seed on may contain wrong dates. Older seeds stay as they were when they found something."""
FIRST_READ_AHEAD = 2_000_000
"""In schedules from this seed on, passes may request pages before their keys are given."""
READ_AHEAD = (0, 1, 2, 5)
HOSTILE = ("..", "a/../../../users/USR1", "nul\u0001", "ü?#&", "x" * 2000)


class Simulation:
    """One schedule."""

    def __init__(self, seed: int, store: Store, loop: VirtualLoop) -> None:
        self.jitter = Random(seed)  # noqa: S311 - not for secrets
        self.plan = plan(self.jitter)
        if seed >= FIRST_READ_AHEAD:
            self.plan.pull = replace(self.plan.pull, read_ahead=READ_AHEAD[seed % len(READ_AHEAD)])
        misdates = seed >= FIRST_MISDATED and seed % 4 == 0
        self.dates = Random(f"dates {seed}") if misdates else None  # noqa: S311 - not for secrets
        self.store = store
        self.loop = loop
        self.clocks = Clocks(loop, alone=store.alone, skews=self.plan.skews)
        self.clock = self.clocks.server
        self.tenant = Tenant(self.jitter, self.plan.habits, loop.time)
        self.tenant.latest_late = self.plan.late
        self.tenant.renames, self.tenant.finds_both = self.plan.renames, self.plan.finds_both
        self.checker = Checker(store, self.tenant, self.plan.guard)
        self.events: list[str] = []
        self.schedule = Schedule(self.plan, self.clocks, self.jitter, self.events, store, self.checker, self.tenant)
        self.life: Life | None = None
        self.born = 0
        # of its own, so that the schedules of seeds that once found something stay as they are
        self.fate = Random(f"restore {seed}")  # noqa: S311 - not for secrets
        self.saved: Any = None

    async def run(self) -> None:
        """Run the schedule; raises BrokenError where an invariant does not hold."""
        for number in range(self.plan.begin_with):
            self.tenant.create({"sourceSessionId": f"old-{number}", "name": f"session {number}"})
        async with anyio.create_task_group() as group:
            self.tenant.late = group
            world = anyio.CancelScope()
            group.start_soon(self._world, world)
            for _ in range(self.plan.lives):
                backup = -1
                if self.fate.random() < RESTORED and self._look_ups_find_creates():
                    backup = self.loop.strike_in(int(self.fate.expovariate(1 / 250)), self._save)
                await self._live()
                self.loop.strikes.pop(backup, None)
                await self._restore()
            world.cancel()
        await self._converge()

    def _look_ups_find_creates(self) -> bool:
        """Whether Albert finds a session by the source id of its create; else nothing shows what a backup lacks."""
        return self.plan.finds_both or not self.plan.renames

    def _save(self) -> None:
        """Back the mirror up while the daemon works."""
        self.saved = self.store.save()

    async def _restore(self) -> None:
        """Put the last backup in place, as an operator does between two lives, and decide about what is on hold."""
        if self.saved is None:
            return
        await anyio.sleep(self.plan.lag + 0.1)  # a restore takes longer than answers lag
        self.store.restore(self.saved)
        self.saved = None
        self.checker.restored()
        self._write(lambda c: restored.hold_open_operations(c, self.clock.now()))
        self.events.append("mirror.restored")
        chance = self.fate.choice((0.0, 0.5, 1.0))
        ids = "SELECT id FROM operations WHERE on_hold_at IS NOT NULL"
        for number in self._write(lambda c: c.exec_driver_sql(ids).scalars().all()):
            if self.fate.random() < chance:
                self._release(number)

    def _release(self, number: int) -> None:
        self.checker.held.discard(number)
        self._write(
            lambda c: c.exec_driver_sql("UPDATE operations SET on_hold_at = NULL WHERE id = ?", (number,)).close()
        )

    def _new_life(self, scope: anyio.CancelScope) -> Life:
        self.born += 1
        self.life = Life(self.schedule, self.born, scope)
        return self.life

    async def _live(self) -> None:
        """Let a daemon live until it is stopped or killed."""
        with anyio.CancelScope() as scope:
            life = self._new_life(scope)
            self.tenant.weather.elsewhere = self._has_established() and self.jitter.random() < 0.4
            end = life.kill if self.jitter.random() < 0.6 else life.end
            strike = self.loop.strike_in(int(self.jitter.expovariate(1 / 250)), end)
            try:
                with anyio.move_on_after(self.jitter.choice((1.0, 5.0, 20.0, 60.0))):
                    await life.run()
            except BaseException as error:
                if not _only_killed(error):
                    raise
            self.loop.strikes.pop(strike, None)
        self.checker.look()
        self.tenant.process_ended()

    async def _world(self, scope: anyio.CancelScope) -> None:
        actions = (
            self._create, self._create, self._change, self._change, self._move, self._delete, self._recreate,
            *[self._enqueue] * 5, self._operate, self._decide, self._storm, self._storm, self._know, self._step,
            self._hide,
        )  # fmt: skip
        with scope:
            while True:
                await anyio.sleep(self.jitter.choice((0.0, 0.01, 0.3, 1.0, 4.0)))
                for _ in range(self.jitter.choice((1, 2, 4))):
                    self.jitter.choice(actions)()

    def _some(self) -> str | None:
        there = list(self.tenant.store.truth.by_id)
        return self.jitter.choice(there) if there else None

    def _name(self) -> str:
        return f"name {self.loop.turns} {self.jitter.random()}"

    def _create(self) -> None:
        new = f"new-{self.loop.turns}"
        source = self.jitter.choice(SOURCES) if self.jitter.random() < 0.1 else new
        self.tenant.create({"sourceSessionId": source, "name": self._name()})

    def _change(self) -> None:
        if (one := self._some()) is not None:
            self.tenant.update(one, {"name": self._name()} | self._wrong_date(one))

    def _wrong_date(self, session_id: str) -> dict[str, Any]:
        """Return a wrong time of a change, in some schedules: of 2099, or of before a tenant was restored."""
        if self.dates is None or self.dates.random() < 0.5:
            return {}
        self.tenant.served.misdated.add(session_id)
        return {"Updated": {"at": self.dates.choice(("2099-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"))}}

    def _move(self) -> None:
        if (one := self._some()) is not None:
            self.tenant.update(one, {"parentId": self.jitter.choice(("FOL1", "FOL2", None)), "name": self._name()})

    def _delete(self) -> None:
        if (one := self._some()) is not None:
            self.tenant.served.foreign.add(self.tenant.store.truth.by_id[one].source)
            self.tenant.store.delete(one)

    def _recreate(self) -> None:
        if (one := self._some()) is not None:
            source = self.tenant.store.truth.by_id[one].source
            self.tenant.store.delete(one)
            wire = {"sourceSessionId": source, "name": self._name()}
            self.tenant.create(wire | ({"id": one} if self.jitter.random() < 0.3 else {}))

    def _hide(self) -> None:
        """Leave one session more out of the listing, or list all again."""
        one, unlisted = self._some(), self.tenant.habits.unlisted
        if one is None or self.jitter.random() < 0.3:
            unlisted.clear()
        elif one not in unlisted:
            unlisted.append(one)

    def _has_established(self) -> bool:
        """Whether the mirror has sessions whose absence proves that the tenant is another one."""

        def read(connection: sa.Connection) -> int:
            known = established.to_request(connection, holds.decisions(connection), self.clock.now(), limit=5)
            return sum(one.established for one in known)

        return bool(self.store.read(read) >= 2)

    def _write(self, work: Any) -> Any:
        """Write to the database as another program does."""
        result = self.store.write(work)
        self.checker.look()
        if self.life is not None:
            self.life.set()
        return result

    def _enqueue(self) -> None:
        draw = self.jitter.random()
        source = self.jitter.choice(SOURCES if draw < 0.95 else HOSTILE[1:])
        name, one = f"ours {self.loop.turns} {self.jitter.random()}", self._some()
        row: tuple[str, str | None, str | None, str | None, str | None] = ("create", source, None, name, None)
        if draw < 0.15:
            row = ("delete", source, None, None, None)
        elif draw < 0.3 and one is not None:
            row = ("delete", None, one, None, None)
        elif draw < 0.4:
            row = ("update", source, None, name, self.jitter.choice((None, "FOL9", "")))
        elif draw < 0.5 and one is not None:
            row = ("update", None, one, name, None)
        insert = (
            "INSERT INTO operations (kind, source_session_id, session_id, name, parent_id) VALUES (?, ?, ?, ?, ?) "
            "RETURNING id"
        )
        self._write(lambda c: c.exec_driver_sql(insert, row).scalar())

    def _operate(self) -> None:
        decision = self.jitter.choice((operation_decisions.retry, operation_decisions.cancel))
        number = self.jitter.randint(1, 12)
        self.checker.operator = {number}
        self._write(lambda c: decision(c, OperationId(number), Operator("model", self.clock.now())))

    def _decide(self) -> None:
        """Approve or reject a hold, or decide differently; before an approval the operator looks into Albert."""
        if self.tenant.weather.elsewhere:
            return

        def work(connection: sa.Connection) -> None:
            for hold in holds.listed(connection, (HoldState.OPEN, HoldState.REJECTED)):
                rows = holds.session_rows(connection, hold.hold_id, limit=10**6)
                gone = not any(row["id"] in self.tenant.store.truth.by_id for row in rows)
                decision = HoldState.APPROVED if gone and self.jitter.random() < 0.5 else HoldState.REJECTED
                if decision is not hold.state:
                    self._decided(connection, hold.last_pass_id, decision)

        self._write(work)

    def _decided(self, connection: sa.Connection, pass_id: int, decision: HoldState) -> None:
        holds.decide(connection, PassId(pass_id), decision, by="the operator", now=self.clock.now())

    def _know(self) -> None:
        source = self.jitter.choice((*SOURCES, "stranger-1", "stranger-2"))
        statement = "INSERT INTO source_sessions (source_session_id) VALUES (?) ON CONFLICT DO NOTHING"
        self._write(lambda c: c.exec_driver_sql(statement, (source,)))

    def _step(self) -> None:
        """Set the clock of a host or of the server, as often as the plan says."""
        if self.plan.steps:
            self.jitter.choice((*self.clocks.hosts, self.clocks.server)).step(self.plan.steps.pop())

    def _storm(self) -> None:
        weather = self.tenant.weather
        weather.jitter = self.jitter.choice((0.0, 0.05, 0.3, 0.7))
        weather.kinds = self.jitter.choice((BEFORE, AFTER, BEFORE + AFTER, (self.jitter.choice(BEFORE + AFTER),)))
        weather.refused = self.jitter.random() < 0.05
        weather.outage = self.jitter.random() < 0.05
        weather.forbidden = self.jitter.random() < 0.05
        weather.gateway = self.jitter.choice(tuple(GATEWAYS)) if self.jitter.random() < GATEWAY else None
        weather.gateway_body = self.jitter.choice(GATEWAY_BODIES)
        weather.broken = self.jitter.choice((0.0, 0.0, 0.1))

    async def _converge(self) -> None:
        """Stop the faults; then two passes and the grace must do."""
        weather, habits = self.tenant.weather, self.tenant.habits
        weather.jitter, weather.broken, weather.refused, weather.outage = 0.0, 0.0, False, False
        weather.forbidden, weather.gateway, weather.elsewhere = False, None, False
        self._list_unmirrored()
        # times that are ahead of a clock by as little as clocks may differ are waited for
        set_back = SET_BACK_BY_LITTLE if self.clock.set_back else 0.0
        # a session that was not listed and answered 200 is requested again after an hour
        alive = ASK_ALIVE_AGAIN.total_seconds()
        await anyio.sleep(max(habits.listing_lag, habits.lookup_lag, set_back) + 0.1 + alive)
        habits.listing_lag = habits.lookup_lag = 0.0
        habits.cursor_ttl = None
        self.checker.duplicates(self.plan.lag, self.plan.push.retry_policy.settle)
        self.checker.held.clear()
        self._write(lambda c: c.exec_driver_sql("UPDATE operations SET on_hold_at = NULL").close())
        with anyio.CancelScope() as scope:
            replica = self._new_life(scope).replicas[0]
            push, pull, reconcile = replica.push, replica.pull(), replica.reconcile()
            if not self.store.alone:
                await self.clock.sleep(self.plan.push.lease + 0.1)  # what the dead have claimed is theirs until then
            await push.recover(abandoned=self.store.alone)
            all_over = await self._settle(push, rounds=20)
            if await self._running(replica):
                await pull.run()  # the pass that the faults interrupted
            self._approve_rejected()
            await self._two_passes(pull)
            # a dead operation on a session blocks others until the session is found deleted
            if not await self._settle(push, rounds=200):
                raise BrokenError("9: the queue does not come to its end")
            if not all_over:  # operations that waited until the passes found witnesses
                await self._two_passes(pull)
            self._write(lambda c: c.exec_driver_sql("UPDATE source_sessions SET checked_at = NULL"))
            await reconcile.run()  # the first answers after a gateway failed are not believed
            for _ in range(2):
                if await reconcile.run():
                    raise BrokenError("9: source ids without an answer, without faults")
        self.checker.look()
        self.checker.duplicates(self.plan.lag, self.plan.push.retry_policy.settle)
        self.checker.converged()

    def _list_unmirrored(self) -> None:
        """List the sessions that the mirror can only learn from a listing, and at least one."""
        query = "SELECT id FROM sessions WHERE deleted_at IS NULL"
        live = set(self.store.read(lambda c: c.exec_driver_sql(query).scalars().all()))
        unlisted = self.tenant.habits.unlisted
        unlisted[:] = [one for one in unlisted if one in live]
        if set(unlisted) >= set(self.tenant.store.truth.by_id):
            unlisted.clear()  # an empty listing holds every pass

    def _approve_rejected(self) -> None:
        """Let go of what the operator kept; the truth decides, because each deletion needs a 404 of its own."""

        def work(connection: sa.Connection) -> None:
            for hold in holds.listed(connection, (HoldState.REJECTED,)):
                self._decided(connection, hold.last_pass_id, HoldState.APPROVED)

        self._write(work)

    async def _two_passes(self, pull: Pull) -> None:
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

    def _approve(self, pass_id: int) -> None:
        self._write(lambda c: self._decided(c, pass_id, HoldState.APPROVED))

    async def _running(self, replica: Replica) -> bool:
        query = "SELECT count(*) FROM passes WHERE state = 'running'"
        return bool(await replica.database.read(lambda c: c.exec_driver_sql(query).scalar()))

    async def _settle(self, push: Push, *, rounds: int) -> bool:
        """Work the queue until nothing in it waits for a time; return whether that was so after some rounds."""
        for _ in range(rounds):
            await push.drain()
            now = self.clock.now()
            due = await push.database.read(partial(operations.next_due, after=now))
            if due is None:
                return True
            await self.clock.sleep(max((due - now).total_seconds(), 0.0) + 0.001)
            if self.life is not None and self.loop.moment > 100_000:
                break
        return False


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


def simulate(seed: int, store: Store) -> Report:
    """Run the schedule of a seed."""
    store.begin()

    async def main(loop: VirtualLoop) -> Report:
        simulation = Simulation(seed, store, loop)
        await simulation.run()
        log = simulation.tenant.served.log
        return Report(seed, simulation.checker.commits, len(log), loop.turns, loop.moment, simulation.events, log)

    result: Report = run(main)
    return result


if __name__ == "__main__":
    warm = SqliteStore()
    try:
        for text in sys.argv[1:]:
            found = simulate(int(text), warm)
            sys.stdout.write("\n".join(found.log[-200:]) + f"\n{found.commits} commits, {found.turns} turns\n")
    finally:
        warm.remove()
