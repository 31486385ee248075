"""The daemon: a task group of loops, their supervision, signals and shutdown.

::

    watch ──(somebody committed)──► push, reconcile
    passes ──(a pass ended)──────► reconcile

A loop that fails for a reason nobody foresaw is logged with its traceback and begun anew after a pause; a database
that cannot be used ends the daemon (exit 3). SIGTERM and SIGINT: no new work, what is in flight gets the grace.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from syncd.aio import AutoResetEvent, task_group
from syncd.errors import DatabaseBusyError, DatabaseUnusableError, TenantMismatchError
from syncd.mirror.db.change_feed import POLL_SECONDS_LISTENING, change_feed
from syncd.rules.retry import PASS_AGAIN, Backoff, pass_pause
from syncd.status.watchdog import BeatingClock

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.app import Flows
    from syncd.status.watchdog import Watchdog

RECONCILE_GAP = 0.5
"""Seconds between rounds of reconciliation, however often the bell rings."""
SECONDS_TO_WRITE = 2.0
"""What is kept of the grace, 0.4 of it at the most, to write down what became of the requests in flight."""
TAKE_BACK_SECONDS = 3.0
"""After a pass was lost to another replica: longer than one that was cut off takes to notice that it leads no more."""
RESTARTS = Backoff(1.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """The daemon's periods, in seconds; `backoff` is between rounds of reconciliation that Albert does not answer."""

    pass_interval: float
    reconcile_interval: float
    shutdown_grace: float
    backoff: Backoff


@dataclass(kw_only=True)
class Daemon:
    """The loops of a running syncd.

    The flows' `watchdog` says whether one is wedged. `others` are loops besides the flows, each by its name.
    """

    flows: Flows
    log: FilteringBoundLogger
    intervals: Intervals
    others: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    _reconcile_event: AutoResetEvent = field(default_factory=AutoResetEvent)

    async def run(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Run until a signal comes; one that came before counts."""
        async with task_group() as group:
            stoppable = anyio.CancelScope()
            drained = anyio.Event()
            group.start_soon(self._until_cancelled, stoppable)
            group.start_soon(self._push, drained)
            self.log.info("daemon.started", pass_interval=self.intervals.pass_interval)
            async for number in signals:
                self.log.info("daemon.stopping", signal=signal.Signals(number).name)
                break
            stoppable.cancel()
            self.flows.push.stop()
            grace = self.intervals.shutdown_grace
            with anyio.move_on_after(max(grace - SECONDS_TO_WRITE, grace * 0.6)):
                await drained.wait()
            # From here on a database that somebody else holds is not waited for: recovery finds what was in flight.
            self.flows.database.busy_timeout = 0.0
            group.cancel_scope.cancel()
        self.log.info("daemon.stopped")

    async def _until_cancelled(self, scope: anyio.CancelScope) -> None:
        """Run the loops that a signal may cancel at once: all but the queue."""
        with scope:
            async with task_group() as group:
                group.start_soon(self._supervise, "watch", self._watch)
                group.start_soon(self._supervise, "leader", self._lead)
                for name, loop in self.others.items():
                    group.start_soon(self._supervise, name, loop)

    async def _lead(self) -> None:
        """Take passes and reconcile, on PostgreSQL only while this is the replica that leads."""
        await self.flows.leadership.run(self._led, on_change=self._report_leadership, on_standby=self._stand_by)

    async def _led(self) -> None:
        async with task_group() as group:
            group.start_soon(self._supervise, "passes", self._passes)
            group.start_soon(self._supervise, "reconcile", self._reconcile)

    def _report_leadership(self, change: str) -> None:
        if change == "leading":
            self.log.info("replica.leading")
        elif change == "standby":
            self.log.info("replica.standby")
        else:
            self.log.warning("replica.lost", reason=change, hint="it goes on by itself when this is over")

    def _stand_by(self) -> None:
        for name in ("passes", "reconcile"):
            self.flows.watchdog.heartbeat(name)

    async def _push(self, drained: anyio.Event) -> None:
        self.flows.push.wake_up = _QueueEvent(self.flows.watchdog, "push")
        await self._supervise("push", self.flows.push.run)
        drained.set()

    async def _supervise(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop; begin it anew when it fails, but for a database that cannot be used."""
        failures = 0
        while True:
            began = self.flows.clock.monotonic()
            try:
                await loop()
            except DatabaseBusyError as error:
                self.log.warning("database.waiting", loop=name, reason=str(error))
            except (DatabaseUnusableError, TenantMismatchError):
                raise
            except Exception:
                self.log.exception("loop.failed", loop=name)
            else:
                self.flows.watchdog.end(name)
                return
            failures = 1 if self.flows.clock.monotonic() - began > RESTARTS.longest else failures + 1
            await self._sleep(name, RESTARTS.wait(failures, jitter=1.0))

    async def _sleep(self, name: str, seconds: float) -> None:
        self.flows.watchdog.heartbeat(name, seconds)
        await self.flows.clock.sleep(seconds)
        self.flows.watchdog.heartbeat(name)

    async def _passes(self) -> None:
        clock = self.flows.clock
        while True:
            began = clock.monotonic()
            self.flows.watchdog.heartbeat("passes")
            state = (await self.flows.pull.run()).state
            self._reconcile_event.set()
            self.flows.watchdog.heartbeat("passes")
            seconds_spent = clock.monotonic() - began
            rest = pass_pause(self.intervals.pass_interval, seconds_spent, failed=state == "failed")
            if state == "running":  # another replica took it up; if this one leads still, it takes it back
                rest = min(rest, TAKE_BACK_SECONDS)
            await self._sleep("passes", rest)

    async def _reconcile(self) -> None:
        failures = 0
        while True:
            self.flows.watchdog.heartbeat("reconcile")
            unanswered = await self.flows.reconcile.run()
            failures = failures + 1 if unanswered else 0
            if unanswered:
                wait = self.intervals.backoff.wait(failures, jitter=1.0)
                rest = min(wait, self.intervals.reconcile_interval, PASS_AGAIN)
                await self._sleep("reconcile", rest)
            await self._sleep("reconcile", min(RECONCILE_GAP, self.intervals.reconcile_interval))
            self.flows.watchdog.heartbeat("reconcile", self.intervals.reconcile_interval)
            await self._reconcile_event.wait(self.intervals.reconcile_interval)

    async def _watch(self) -> None:
        """Ring the bells when anybody has committed, or the file is not the one that was opened any more."""
        told = change_feed(self.flows.database, BeatingClock(self.flows.clock, self.flows.watchdog, "watch"))
        try:
            while True:
                self.flows.watchdog.heartbeat("watch", POLL_SECONDS_LISTENING)
                await told.wait()
                self.flows.watchdog.heartbeat("watch")
                self.flows.push.wake_up.set()
                self._reconcile_event.set()
        finally:
            await told.close()


class _QueueEvent(AutoResetEvent):
    """The queue's bell: whoever comes to wait for it has made progress."""

    def __init__(self, watchdog: Watchdog, loop: str) -> None:
        super().__init__()
        self._pulse, self._loop = watchdog, loop
        watchdog.heartbeat(loop)

    async def wait(
        self, seconds: float | None = None, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        """Wait for the bell, alive; with no limit of time it waits for work in flight, which ends by itself."""
        self._pulse.heartbeat(self._loop, seconds or 0.0)
        await super().wait(seconds, sleep=sleep)
        self._pulse.heartbeat(self._loop)
