"""One schedule from one integer: the real flows on a real database, with all faults and changes of the model.

::

    for each run of the daemon:    recover, then together: passes, the queue (one owner or two), reconciliation
      meanwhile:                   others create, change, move, delete; programs enqueue; the operator decides;
                                   clocks are set; the faults change
      at some turn of the loop:    stopped (cancelled) or killed (its calls have no effect any more)
    then the faults stop:          two passes and the grace, and the mirror must equal the API

`python -m tests.model.simulation SEED` runs one and prints the requests.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import anyio
import sqlalchemy as sa

from syncd.mirror.store import established, holds, operations, restored
from syncd.pull.flow import Pull
from syncd.push.flow import Push
from syncd.records.enums import HoldState
from syncd.rules.deletion import ASK_UNLISTED_AGAIN
from tests.model.actions import Actions
from tests.model.albert import KilledError
from tests.model.daemon import DaemonRun, Replica, Schedule
from tests.model.invariants import BrokenError
from tests.model.loop import VirtualLoop, run
from tests.model.store import SqliteStore, Store

SET_BACK_BY_LITTLE = 600.0
"""Seconds; more than all steps of up to a minute in a schedule together, and far less than an hour."""
RESTORED = 0.15
"""The chance that a run of the daemon ends with the restore of a backup that was made during it."""


class Simulation(Actions):
    """One schedule."""

    def __init__(self, seed: int, store: Store, loop: VirtualLoop) -> None:
        super().__init__(seed, store, loop)
        self.schedule = Schedule(self.plan, self.clocks, self.rng, self.events, store, self.checker, self.tenant)
        self.runs = 0
        # of its own, so that the schedules of seeds that once found something stay as they are
        self.restore_rng = Random(f"restore {seed}")  # noqa: S311 - not for secrets
        self.saved: Any = None

    async def run(self) -> None:
        """Run the schedule; raises BrokenError where an invariant does not hold."""
        for number in range(self.plan.begin_with):
            self.tenant.create({"sourceSessionId": f"old-{number}", "name": f"session {number}"})
        async with anyio.create_task_group() as group:
            self.tenant.late = group
            actions = anyio.CancelScope()
            group.start_soon(self._act_until_cancelled, actions)
            for _ in range(self.plan.runs):
                backup = -1
                if self.restore_rng.random() < RESTORED and self._look_ups_find_creates():
                    backup = self.loop.call_in(int(self.restore_rng.expovariate(1 / 250)), self._save)
                await self._live()
                self.loop.calls.pop(backup, None)
                await self._restore()
            actions.cancel()
        await self._converge()

    def _look_ups_find_creates(self) -> bool:
        """Whether Albert finds a session by the source id of its create: only that shows what a backup lacks."""
        return self.plan.finds_both or not self.plan.renames

    def _save(self) -> None:
        """Back the mirror up while the daemon works."""
        self.saved = self.store.save()

    async def _restore(self) -> None:
        """Put the last backup in place, as an operator does between two runs, and decide about what is on hold."""
        if self.saved is None:
            return
        await anyio.sleep(self.plan.lag + 0.1)  # a restore takes longer than answers lag
        self.store.restore(self.saved)
        self.saved = None
        self.checker.restored()
        self._write(lambda c: restored.hold_open_operations(c, self.clock.now()))
        self.events.append("mirror.restored")
        chance = self.restore_rng.choice((0.0, 0.5, 1.0))
        ids = "SELECT id FROM operations WHERE on_hold_at IS NOT NULL"
        for number in self._write(lambda c: c.exec_driver_sql(ids).scalars().all()):
            if self.restore_rng.random() < chance:
                self._release(number)

    def _release(self, number: int) -> None:
        self.checker.held.discard(number)
        self._write(
            lambda c: c.exec_driver_sql("UPDATE operations SET on_hold_at = NULL WHERE id = ?", (number,)).close()
        )

    def _new_daemon_run(self, scope: anyio.CancelScope) -> DaemonRun:
        self.runs += 1
        self.daemon_run = DaemonRun(self.schedule, self.runs, scope)
        return self.daemon_run

    async def _live(self) -> None:
        """Run a daemon until it is stopped or killed."""
        with anyio.CancelScope() as scope:
            daemon_run = self._new_daemon_run(scope)
            self.tenant.faults.other_tenant = self._has_established() and self.rng.random() < 0.4
            end = daemon_run.kill if self.rng.random() < 0.6 else daemon_run.end
            stop_point = self.loop.call_in(int(self.rng.expovariate(1 / 250)), end)
            try:
                with anyio.move_on_after(self.rng.choice((1.0, 5.0, 20.0, 60.0))):
                    await daemon_run.run()
            except BaseException as error:
                if not _only_killed(error):
                    raise
            self.loop.calls.pop(stop_point, None)
        self.checker.look()
        self.tenant.process_ended()

    def _has_established(self) -> bool:
        """Whether the mirror has sessions whose absence proves that the tenant is another one."""

        def read(connection: sa.Connection) -> int:
            known = established.to_request(connection, holds.decisions(connection), self.clock.now(), limit=5)
            return sum(session.established for session in known)

        return bool(self.store.read(read) >= 2)

    async def _converge(self) -> None:
        """Stop the faults; then two passes and the grace must suffice."""
        faults, habits = self.tenant.faults, self.tenant.habits
        faults.chance, faults.broken, faults.refused, faults.outage = 0.0, 0.0, False, False
        faults.forbidden, faults.gateway, faults.other_tenant = False, None, False
        self._list_unmirrored()
        # times that are ahead of a clock by as little as clocks may differ are waited for
        set_back = SET_BACK_BY_LITTLE if self.clock.set_back else 0.0
        # a session that was not listed and answered 200 is requested again after an hour
        hour = ASK_UNLISTED_AGAIN.total_seconds()
        await anyio.sleep(max(habits.listing_lag, habits.lookup_lag, set_back) + 0.1 + hour)
        habits.listing_lag = habits.lookup_lag = 0.0
        habits.cursor_ttl = None
        self.checker.duplicates(self.plan.lag, self.plan.push.retry_policy.settle)
        self.checker.held.clear()
        self._write(lambda c: c.exec_driver_sql("UPDATE operations SET on_hold_at = NULL").close())
        with anyio.CancelScope() as scope:
            replica = self._new_daemon_run(scope).replicas[0]
            push, pull, reconcile = replica.push, replica.pull(), replica.reconcile()
            if not self.store.alone:
                await self.clock.sleep(self.plan.push.lease + 0.1)  # claims of killed processes are valid until then
            await push.recover(abandoned=self.store.alone)
            await self._settle(push, rounds=20)
            if await self._any(replica, "passes WHERE state = 'running'"):
                await pull.run()  # the pass that the faults interrupted
            self._approve_rejected()
            await self._two_passes(pull)
            # a dead operation on a session blocks others until the session is found deleted
            blocked = await self._any(replica, "operations WHERE state IN ('pending', 'running', 'unknown')")
            if not await self._settle(push, rounds=200):
                raise BrokenError("9: the queue does not come to its end")
            if blocked:  # these were applied after the passes
                await self._two_passes(pull)
            self._write(lambda c: c.exec_driver_sql("UPDATE source_sessions SET checked_at = NULL"))
            await reconcile.run()  # the first answers after a gateway failed are not accepted
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
        unlisted[:] = [session_id for session_id in unlisted if session_id in live]
        if set(unlisted) >= set(self.tenant.store.truth.by_id):
            unlisted.clear()  # an empty listing holds every pass

    def _approve_rejected(self) -> None:
        """Approve the holds that the operator rejected: each deletion still needs a 404 of its own."""

        def work(connection: sa.Connection) -> None:
            for hold in holds.listed(connection, (HoldState.REJECTED,)):
                self._decided(connection, hold.last_pass_id, HoldState.APPROVED)

        self._write(work)

    async def _two_passes(self, pull: Pull) -> None:
        left = 2
        for _ in range(5):
            outcome = await pull.run()
            left -= outcome.state != "held"
            if outcome.state == "held":  # the operator's decision needs another pass
                self._approve(outcome.pass_id)
            elif outcome.state != "complete":
                raise BrokenError(f"9: a pass without faults is {outcome}")
            if not left:
                break
            await self.clock.sleep(self.plan.guard.grace + 1)

    def _approve(self, pass_id: int) -> None:
        self._write(lambda c: self._decided(c, pass_id, HoldState.APPROVED))

    async def _any(self, replica: Replica, rows: str) -> bool:
        query = f"SELECT count(*) FROM {rows}"
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
            if self.daemon_run is not None and self.loop.moment > 100_000:
                break
        return False


def _only_killed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_killed, error.exceptions))
    return isinstance(error, KilledError)


@dataclass(frozen=True)
class Report:
    """The result of a schedule: checked commits, requests, turns of the loop, virtual seconds, and its trace."""

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
            report = simulate(int(text), warm)
            sys.stdout.write("\n".join(report.log[-200:]) + f"\n{report.commits} commits, {report.turns} turns\n")
    finally:
        warm.remove()
