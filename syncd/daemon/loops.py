"""The loops of `syncd run` and their supervision; `daemon.run` starts them.

::

    watch ──(another connection committed)──► push, reconcile
    passes ──(a pass ended)─────────────────► reconcile

A loop that fails for an unforeseen reason is logged with its traceback and restarted after a pause. A database that
cannot be used ends the daemon (exit 3). After SIGTERM or SIGINT there is no new work, and requests in flight get the
grace.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from syncd.aio import AutoResetEvent, task_group
from syncd.errors import DatabaseBusyError, DatabaseUnusableError, TenantMismatchError
from syncd.mirror.db.change_feed import POLL_SECONDS_LISTENING
from syncd.rules.retry import PASS_AGAIN, Backoff, pass_pause
from syncd.status.watchdog import HeartbeatClock

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.app import Flows
    from syncd.status.watchdog import Watchdog

RECONCILE_GAP, RECONCILE_LONGEST_GAP = 0.5, 5.0
"""The shortest pause in seconds between rounds of reconciliation, however often its event is set, and its limit."""
RECONCILE_GAP_FACTOR = 20.0
"""How much longer the pause is than the queries of the last round, which may read all unresolved source ids."""
SECONDS_TO_WRITE = 2.0
"""Seconds of the grace that are kept to write the outcomes of requests in flight; at most 0.4 of a shorter grace."""
TAKE_BACK_SECONDS = 3.0
"""Seconds until a pass that was lost to another replica is tried again.

Longer than an ex-leader needs to notice that it lost the lock.
"""
RESTARTS = Backoff(1.0, 60.0)
"""The pauses in seconds before a loop that failed is restarted."""
RECOVERED_FACTOR, RECOVERED_SECONDS = 2.0, 5.0
"""A restarted loop has recovered if it runs twice as long as before its failure, and 5 seconds more."""


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

    Parameters
    ----------
    others : Mapping[str, Callable[[], Awaitable[None]]]
        Loops besides those of the flows, by their names.
    facts : Mapping[str, object]
        The fields of `daemon.started`.
    on_start, on_stop : Callable[[], None]
        Called when the loops run, and when a signal has arrived.
    """

    flows: Flows
    log: FilteringBoundLogger
    intervals: Intervals
    others: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    on_start: Callable[[], None] = lambda: None
    on_stop: Callable[[], None] = lambda: None
    _reconcile_event: AutoResetEvent = field(default_factory=AutoResetEvent)

    async def run(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Run until a signal arrives; one that arrived earlier counts."""
        async with task_group() as group:
            stoppable = anyio.CancelScope()
            drained = anyio.Event()
            group.start_soon(self._until_cancelled, stoppable)
            group.start_soon(self._push, drained)
            self.log.info("daemon.started", **self.facts)
            self.on_start()
            async for number in signals:
                self.on_stop()
                self.log.info("daemon.stopping", signal=signal.Signals(number).name)
                break
            stoppable.cancel()
            self.flows.push.stop()
            grace = self.intervals.shutdown_grace
            with anyio.move_on_after(max(grace - SECONDS_TO_WRITE, grace * 0.6)):
                await drained.wait()
            # From here on a database that cannot be used is not waited for: recovery finds what was in flight.
            self.flows.database.retries.busy_timeout = 0.0
            group.cancel_scope.cancel()
        self.log.info("daemon.stopped")

    async def _until_cancelled(self, scope: anyio.CancelScope) -> None:
        """Run the loops that a signal may cancel immediately: all but the queue."""
        with scope:
            async with task_group() as group:
                group.start_soon(self._supervise, "watch", self._watch)
                group.start_soon(self._supervise, "leader", self._lead)
                for name, loop in self.others.items():
                    group.start_soon(self._supervise, name, loop)

    async def _lead(self) -> None:
        """Take passes and reconcile while this process leads; the only daemon of a database always does."""
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
            self.log.warning("replica.lost", reason=change, hint="it continues by itself when this is over")

    def _stand_by(self) -> None:
        for name in ("passes", "reconcile"):
            self.flows.watchdog.heartbeat(name)

    async def _push(self, drained: anyio.Event) -> None:
        self.flows.push.wake_up = _QueueEvent(self.flows.watchdog, "push")
        await self._supervise("push", self.flows.push.run)
        drained.set()

    async def _supervise(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop, and restart it when it fails, unless the database cannot be used."""
        failures, ran = 0, 0.0
        while True:
            began = self.flows.clock.monotonic()
            try:
                await self._until_it_fails(name, loop, RECOVERED_FACTOR * ran + RECOVERED_SECONDS)
            except DatabaseUnusableError as error:
                if not isinstance(error, DatabaseBusyError):
                    raise
                self.log.warning("loop.failed", loop=name, reason=str(error))
            except TenantMismatchError:
                raise
            except Exception as error:
                self.log.exception("loop.failed", loop=name)
                self.flows.database.failures.failed(f"loop {name}", describe(error), self.flows.clock.monotonic())
            else:
                self.flows.watchdog.end(name)
                return
            ran = self.flows.clock.monotonic() - began
            failures = 1 if ran > RESTARTS.longest else failures + 1
            await self._sleep(name, RESTARTS.wait(failures, jitter=1.0))

    async def _until_it_fails(self, name: str, loop: Callable[[], Awaitable[None]], recovered_after: float) -> None:
        """Run a loop; if it has failed before and now runs for some seconds, forget its failures."""
        failures, work = self.flows.database.failures, f"loop {name}"
        if not failures.has(work):
            await loop()
            return

        async def note_recovery() -> None:
            await self.flows.clock.sleep(recovered_after)
            failures.succeeded(work)

        async with task_group() as group:
            group.start_soon(note_recovery)
            await loop()
            group.cancel_scope.cancel()

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
            await self.flows.mirror_folders(state)
            seconds_spent = clock.monotonic() - began
            rest = pass_pause(self.intervals.pass_interval, seconds_spent, failed=state == "failed")
            if state == "running":  # another replica resumed it; if this one still leads, it resumes it again
                rest = min(rest, TAKE_BACK_SECONDS)
            await self._sleep("passes", rest)

    async def _reconcile(self) -> None:
        failures = 0
        while True:
            self.flows.watchdog.heartbeat("reconcile")
            unanswered = await self.flows.reconcile.run()
            pause = max(RECONCILE_GAP, RECONCILE_GAP_FACTOR * self.flows.reconcile.query_seconds)
            pause = min(pause, RECONCILE_LONGEST_GAP, self.intervals.reconcile_interval)
            failures = failures + 1 if unanswered else 0
            if unanswered:
                wait = self.intervals.backoff.wait(failures, jitter=1.0)
                rest = min(wait, self.intervals.reconcile_interval, PASS_AGAIN)
                await self._sleep("reconcile", rest)
            await self._sleep("reconcile", pause)
            self.flows.watchdog.heartbeat("reconcile", self.intervals.reconcile_interval)
            await self._reconcile_event.wait(self.intervals.reconcile_interval)

    async def _watch(self) -> None:
        """Wake the queue and the reconciliation after each commit of another connection.

        Raises `DatabaseReplacedError` if the file is not the one that was opened.
        """
        clock = HeartbeatClock(self.flows.clock, self.flows.watchdog, "watch")
        feed = self.flows.database.backend.change_feed(self.flows.database, clock)
        try:
            while True:
                self.flows.watchdog.heartbeat("watch", POLL_SECONDS_LISTENING)
                await feed.wait()
                self.flows.watchdog.heartbeat("watch")
                self.flows.push.wake_up.set()
                self._reconcile_event.set()
        finally:
            await feed.close()


class _QueueEvent(AutoResetEvent):
    """The queue's event: a loop that waits for it has made progress."""

    def __init__(self, watchdog: Watchdog, loop: str) -> None:
        super().__init__()
        self._watchdog, self._loop = watchdog, loop
        watchdog.heartbeat(loop)

    async def wait(
        self, seconds: float | None = None, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        """Wait, with a heartbeat before and after; without a limit it waits for work in flight, which ends."""
        self._watchdog.heartbeat(self._loop, seconds or 0.0)
        await super().wait(seconds, sleep=sleep)
        self._watchdog.heartbeat(self._loop)


def describe(error: Exception) -> str:
    """Return an error's type and the first line of its text, by which identical failures are recognized."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
