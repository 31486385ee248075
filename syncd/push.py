"""The queue: mirror → Albert.

::

    claim (durable) ──► perform: look up, POST or DELETE ──► conclude: effect on the mirror and final state,
      lease, fence        `attempt.py`, no database             in one transaction, by the holder of the fence

`Push` keeps as many operations in flight as it may, claims as slots fall free, and holds the leases of what is in
flight. What an answer means is decided in `attempt.py`; here it is written down.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from syncd import attempt
from syncd.attempt import Attempt, Dead, Missed, Outcome, Refused, Retry, Succeeded, Unknown
from syncd.clock import utc_text
from syncd.decide import Backoff, next_lookup
from syncd.logs import log_link
from syncd.mirror import operations, sessions, sources
from syncd.mirror.operations import LeaseLostError, Operation
from syncd.tasks import task_group

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from sqlalchemy import Connection
    from structlog.typing import FilteringBoundLogger

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.database import Database
    from syncd.mirror.sources import Link

SHORTEST_PAUSE = 1.0
"""Seconds that the queue rests at least after Albert refused the credentials."""


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """How the queue is worked; `lease` and `settle` are in seconds."""

    concurrency: int
    max_attempts: int
    backoff: Backoff
    settle: float
    lease: float


class Wake:
    """A bell: it can be rung any number of times, and one who waits hears it once."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake whoever waits, now or next."""
        self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for the bell, at most so long."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self._event = anyio.Event()


@dataclass(kw_only=True)
class Push:
    """The flow that operations run in: `run` for ever, or `drain` what is due.

    Parameters
    ----------
    wake : Wake
        Rung when the queue may have something new.
    """

    database: Database
    albert: ChatSessionCollection
    clock: Clock
    log: FilteringBoundLogger
    settings: PushSettings
    wake: Wake = field(default_factory=Wake)
    chance: Callable[[], float] = field(default=random.random)
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    refused: str | None = None
    """Why the queue rests, while Albert refuses the credentials."""
    _flying: dict[int, Attempt] = field(default_factory=dict)
    _refusals: int = 0
    _rest_until: float = 0.0
    _stopping: bool = False

    async def run(self) -> None:
        """Work the queue until `stop`, and what is then in flight to its end."""
        async with task_group() as group:
            group.start_soon(self._hold_leases)
            while not self._stopping:
                claimed = await self._launch(group)
                if not claimed and not self._stopping:
                    await self.wake.wait(await self._idle_seconds())
            while self._flying:
                await self.wake.wait()
            group.cancel_scope.cancel()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self.wake.ring()

    async def drain(self) -> None:
        """Work the queue until nothing is due and nothing is in flight."""
        async with task_group() as group:
            group.start_soon(self._hold_leases)
            while True:
                claimed = 0 if self.refused else await self._launch(group)
                if not claimed and not self._flying:
                    break
                if not claimed:
                    await self.wake.wait()
            group.cancel_scope.cancel()

    async def recover(self, *, abandoned: bool) -> None:
        """Make operations whose holder is gone `unknown`."""
        now = self.clock.now()
        for operation_id in await self.database.write(lambda c: operations.recover(c, now=now, abandoned=abandoned)):
            self.log.warning(
                "operation.unknown",
                operation_id=operation_id,
                error="its daemon stopped before the answer was known",
            )

    async def _launch(self, group: TaskGroup) -> int:
        """Claim as many operations as there are free slots, and set them off."""
        free = (1 if self._refusals else self.settings.concurrency) - len(self._flying)
        if free <= 0 or self._rest_seconds() > 0:
            return 0
        now, settings = self.clock.now(), self.settings
        claimed = await self.database.write(
            lambda c: operations.claim(c, now=now, owner=self.owner, lease=settings.lease, limit=free)
        )
        for operation in claimed:
            flight = Attempt(operation, self.albert, self.clock, now + timedelta(seconds=settings.lease), self.database)
            flight.settle = settings.settle
            self._flying[operation.id] = flight
            group.start_soon(self._fly, flight)
        return len(claimed)

    async def _idle_seconds(self) -> float | None:
        """Return how long there is nothing to do unless the bell rings."""
        if len(self._flying) >= self.settings.concurrency:
            return None
        if self._refusals:
            return None if self._flying else self._rest_seconds()
        due = await self.database.read(operations.next_due)
        ceiling = self.settings.lease
        if due is None:
            return ceiling
        return min(max((due - self.clock.now()).total_seconds(), 0.005), ceiling)

    async def _fly(self, flight: Attempt) -> None:
        """Perform one claimed operation and write what became of it."""
        operation = flight.operation
        log = self.log.bind(operation_id=operation.id, source_session_id=operation.source_session_id)
        try:
            try:
                outcome = await attempt.perform(flight)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await self._conclude(operation, flight.interrupted(), log)
                raise
            await self._conclude(operation, outcome, log)
        except LeaseLostError as error:
            log.warning("operation.fenced", error=str(error))
        finally:
            del self._flying[operation.id]
            self.wake.ring()

    async def _conclude(self, operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
        outcome = self._spent(operation, outcome)
        now = self.clock.now()
        links = await self.database.write(lambda c: self._write(c, operation, outcome, now))
        for link in links:
            log_link(log, link)
        self._report(operation, outcome, log)

    def _spent(self, operation: Operation, outcome: Outcome) -> Outcome:
        """Turn a retry of an operation whose attempts are used up into its end."""
        over = operation.attempts >= self.settings.max_attempts
        if isinstance(outcome, Retry) and outcome.counts and over and operation.state == "running":
            return Dead(f"gave up after {operation.attempts} attempts: {outcome.error}", outcome.status)
        if isinstance(outcome, Missed) and over and self._looked_enough(operation):
            return Dead(f"gave up after {operation.attempts} attempts, each with its answer lost", outcome.status)
        return outcome

    def _looked_enough(self, operation: Operation) -> bool:
        since = operation.unknown_since or self.clock.now()
        return next_lookup(since, lookups=operation.lookups + 1, settle=self.settings.settle) is None

    def _write(self, connection: Connection, operation: Operation, outcome: Outcome, now: datetime) -> list[Link]:
        """Write an outcome: the final state and its effect on the mirror stand or fall together."""
        match outcome:
            case Succeeded():
                links = self._effect(connection, operation, outcome, now)
                operations.release(
                    connection, operation, "succeeded", result_session_id=outcome.session_id, finished_at=now,
                    last_error=outcome.note, last_status=outcome.status, next_attempt_at=None, unknown_since=None,
                )  # fmt: skip
                return links
            case Retry():
                self._write_retry(connection, operation, outcome, now)
            case Refused():
                operations.release(
                    connection, operation, "unknown" if operation.state == "unknown" else "pending",
                    attempts=operation.attempts - (operation.state == "running"),
                    last_error=outcome.error, last_status=outcome.status, next_attempt_at=now,
                )  # fmt: skip
            case Unknown():
                first = next_lookup(now, lookups=0, settle=self.settings.settle) or now
                told = now + timedelta(seconds=outcome.retry_after or 0)
                operations.release(
                    connection, operation, "unknown", unknown_since=now, lookups=0, last_error=outcome.error,
                    last_status=outcome.status, next_attempt_at=max(first, told),
                )  # fmt: skip
            case Missed():
                self._write_missed(connection, operation, outcome, now)
            case Dead():
                operations.release(
                    connection, operation, "dead", finished_at=now, last_error=outcome.error,
                    last_status=outcome.status, next_attempt_at=None,
                )  # fmt: skip
        return []

    def _write_retry(self, connection: Connection, operation: Operation, outcome: Retry, now: datetime) -> None:
        running = operation.state == "running"
        counted = running and not outcome.counts
        wait = self.settings.backoff.wait(
            max(operation.attempts, 1), chance=self.chance(), retry_after=outcome.retry_after
        )
        operations.release(
            connection, operation, "pending" if running else "unknown", attempts=operation.attempts - counted,
            last_error=outcome.error, last_status=outcome.status, next_attempt_at=now + timedelta(seconds=wait),
        )  # fmt: skip

    def _write_missed(self, connection: Connection, operation: Operation, outcome: Missed, now: datetime) -> None:
        """Count a look-up that found nothing; after the last of them the create may be sent again."""
        since = operation.unknown_since or now
        following = next_lookup(since, lookups=operation.lookups + 1, settle=self.settings.settle, now=now)
        values: dict[str, Any] = {"lookups": operation.lookups + 1, "next_attempt_at": following}
        if following is None:
            values = {"lookups": 0, "next_attempt_at": now, "unknown_since": None}
        state = "pending" if following is None else "unknown"
        operations.release(connection, operation, state, last_status=outcome.status, **values)

    def _effect(self, connection: Connection, operation: Operation, outcome: Succeeded, now: datetime) -> list[Link]:
        links: list[Link] = []
        for row in outcome.rows:
            applied = sessions.apply(connection, [row], sessions.Sighting(outcome.asked_at, utc_text(now)))
            links += applied.sources
        gone = [sessions.key_of(connection, session_id) for session_id in outcome.gone]
        sessions.bury(connection, [key for key in gone if key is not None], now=utc_text(now))
        if operation.source_session_id is not None:
            links += sources.refresh(connection, {operation.source_session_id}, utc_text(now))
        return links

    def _report(self, operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
        if isinstance(outcome, Refused):
            self._rest(outcome, log)
            return
        if self._refusals:
            self._refusals, self.refused = 0, None
            log.info("queue.resumed")
        facts: dict[str, Any] = {
            "kind": operation.kind,
            "attempts": operation.attempts,
            "status": outcome.status,
        }
        match outcome:
            case Succeeded():
                log.info("operation.succeeded", session_id=outcome.session_id, note=outcome.note, **facts)
            case Retry():
                log.warning("operation.retrying", error=outcome.error, **facts)
            case Unknown():
                log.warning("operation.unknown", error=outcome.error, **facts)
            case Missed():
                log.info("operation.looked_up", lookups=operation.lookups + 1, **facts)
            case Dead():
                log.error(
                    "operation.dead",
                    error=outcome.error,
                    hint=f"syncd operations show {operation.id}",
                    **facts,
                )

    def _rest(self, outcome: Refused, log: FilteringBoundLogger) -> None:
        """Let the queue rest: a credential that stays refused costs no attempt of anybody."""
        if not self._refusals:
            log.error("queue.paused", error=outcome.error, hint="mend the credentials, then: syncd doctor")
        self._refusals += 1
        self.refused = outcome.error
        rest = self.settings.backoff.wait(self._refusals, chance=1.0)
        self._rest_until = self.clock.monotonic() + max(rest, min(SHORTEST_PAUSE, self.settings.backoff.longest))

    def _rest_seconds(self) -> float:
        return max(self._rest_until - self.clock.monotonic(), 0.0) if self._refusals else 0.0

    async def _hold_leases(self) -> None:
        """Prolong the leases of what is in flight, long before they run out."""
        while True:
            await self.clock.sleep(self.settings.lease / 3)
            flights = list(self._flying.values())
            if not flights:
                continue
            until = self.clock.now() + timedelta(seconds=self.settings.lease)
            held = await self.database.write(
                partial(operations.renew, held=[flight.operation for flight in flights], until=until)
            )
            for flight in flights:
                if flight.operation.id in held:
                    flight.lease_until = until
