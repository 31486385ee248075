"""The queue: mirror → Albert.

::

    claim (durable) ──► perform: look up, POST or DELETE ──► conclude: effect on the mirror and final state,
      lease, fence        `attempt.py`, no database             in one transaction, by the holder of the fence

`Push` keeps as many operations in flight as it may, claims as slots fall free, and holds the leases of what is in
flight. What an answer means is decided in `attempt.py` and written down by `conclude.py`; whether Albert is down for
everybody is told by `outage.py`.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio

from syncd.aio import AutoResetEvent, task_group
from syncd.errors import DatabaseUnusableError
from syncd.logs import log_link, safe_text
from syncd.mirror.store import operations
from syncd.mirror.store.operation import LeaseLostError, Operation
from syncd.push import attempt, lease, record
from syncd.push.attempt import Attempt
from syncd.push.lease import Lease
from syncd.push.outage import LONGEST_PAUSE, Outage, Pauses
from syncd.push.outcomes import (
    CredentialsRejected,
    Dead,
    NotFound,
    Outcome,
    Retry,
    Succeeded,
    Unknown,
    proves_available,
)
from syncd.push.record import Completion, Recorded, RetryPolicy
from syncd.push.upkeep import Upkeep

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from structlog.typing import FilteringBoundLogger

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.operation import Abandoned, Claimed

LAST_WORDS = 2.0
"""Seconds that writing down what became of an operation gets after a cancellation."""
NEVER = datetime.min.replace(tzinfo=UTC)
"""Before every time that an operation may be due at."""
LOST = Lease(0.0, NEVER, 0.0)
"""The lease of an operation that another daemon holds."""
AHEAD = 4
"""One out of so many operations is claimed ahead of its turn, so that nobody waits for a commit between two of them."""
LOOKS_AT_ONCE = 0.005
"""Seconds; the shortest time between two looks into the queue when nothing was found."""


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """How the queue is worked; `lease` is in seconds."""

    concurrency: int
    lease: float
    retry_policy: RetryPolicy


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
    wake_up: AutoResetEvent = field(default_factory=AutoResetEvent)
    jitter: Callable[[], float] = field(default=random.random)
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    refused: str | None = None
    """Why the queue rests, while Albert refuses the credentials."""
    _limited: dict[int, int] = field(default_factory=dict)
    """How often in a row each operation was answered 429 with no word of how long to wait."""
    _in_flight: dict[int, Attempt] = field(default_factory=dict)
    _looked_at: datetime = NEVER
    _turn: int = 0
    _stopping: bool = False

    def __post_init__(self) -> None:
        backoff = self.settings.retry_policy.backoff
        self._refusals = Pauses(backoff)
        self._outage = Outage(Pauses(replace(backoff, longest=min(backoff.longest, LONGEST_PAUSE))))
        self._room = anyio.Semaphore(self.settings.concurrency, fast_acquire=True)
        self._upkeep = Upkeep(self.database)

    async def run(self) -> None:
        """Work the queue until `stop`, and what is then in flight to its end."""
        async with task_group() as group:
            group.start_soon(self._hold_leases)
            while not self._stopping:
                claimed = await self._launch(group)
                if not claimed and not self._stopping:
                    await self.wake_up.wait(await self._idle_seconds(), sleep=self.clock.sleep)
            while self._in_flight:
                await self.wake_up.wait()
            group.cancel_scope.cancel()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self.wake_up.set()

    def note_response(self) -> None:
        """Note that Albert answered somebody else: if all operations fail, that is not for want of Albert.

        They still go one at a time, but not ever more slowly, and each comes to the end of its attempts.
        """
        self._outage.note_response(self.clock.monotonic())

    async def drain(self) -> None:
        """Work the queue until nothing is due and nothing is in flight, or Albert takes nothing."""
        async with task_group() as group:
            group.start_soon(self._hold_leases)
            while True:
                idle = not self._in_flight  # what ends while the queue is looked at may have been in the way of others
                claimed = 0 if self.refused else await self._launch(group)
                if not claimed and idle:
                    if await self._upkeep.recheck_all():
                        continue
                    break
                if not claimed:
                    await self.wake_up.wait()
            group.cancel_scope.cancel()

    async def recover(self, *, abandoned: bool) -> None:
        """Make operations whose holder is gone `unknown`, and correct waits after a step of the clock."""

        def work(connection: Connection) -> list[Abandoned]:
            return operations.recover(connection, now=self.database.now(connection), abandoned=abandoned)

        found = await self.database.write(work)
        for one in found:
            self.log.warning(
                "operation.unknown",
                operation_id=one.id,
                source_session_id=one.source_session_id,
                error="its daemon stopped before the answer was known",
            )
        if await self._upkeep.rebase() or found:
            self.wake_up.set()

    @property
    def _free(self) -> int:
        """How many more operations may be claimed: those that may ask Albert at once, and some that wait their turn.

        One that is through makes room before it is written down.
        """
        at_once = self.settings.concurrency
        slots = 1 if self.refused or self._outage.down else at_once + at_once // AHEAD
        return slots - sum(not flight.awaiting_commit for flight in self._in_flight.values())

    def _rest_seconds(self) -> float:
        now = self.clock.monotonic()
        return max(self._refusals.left(now), self._outage.pauses.left(now))

    async def _launch(self, group: TaskGroup) -> int:
        """Claim as many operations as there are free slots, and set them off."""
        free = self._free
        if free <= 0 or self._rest_seconds() > 0:
            return 0
        claimed, held = await self._claim(free)
        for operation in claimed:
            flight = Attempt(operation, self.albert, self.clock, held, self.database, self.settings.retry_policy.settle)
            self._in_flight[operation.id] = flight
            group.start_soon(self._run_operation, flight)
        return len(claimed)

    async def _claim(self, limit: int) -> tuple[list[Operation], Lease]:
        """Claim operations; read on while all that are due are blocked."""
        self._turn += 1

        def work(connection: Connection) -> tuple[Claimed, datetime, float]:
            # the clocks are read in the transaction, which may have waited long for its turn: the lease begins here
            monotonic, now = self.clock.monotonic(), self.database.now(connection)
            found = operations.claim(
                connection,
                now=now,
                owner=self.owner,
                lease=self.settings.lease,
                limit=limit,
                lookups_first=self._turn % 2 == 0,
            )
            return found, now, monotonic

        while True:
            claimed, self._looked_at, monotonic = await self.database.write(work)
            if claimed.operations or not claimed.more:
                return claimed.operations, Lease.begin(self.settings.lease, now=self._looked_at, monotonic=monotonic)

    async def _idle_seconds(self) -> float | None:
        """Return how long there is nothing to do unless the bell rings."""
        if self._free <= 0:
            return None
        if rest := self._rest_seconds():
            return rest
        # what was due when the queue was looked at and was not claimed is blocked: the bell rings when that changes
        due = await self.database.read(lambda c: operations.next_due(c, after=self._looked_at))
        ceiling = self.settings.lease
        if due is None:
            return ceiling
        return min(max((due - self.clock.now()).total_seconds(), LOOKS_AT_ONCE), ceiling)

    async def _run_operation(self, flight: Attempt) -> None:
        """Perform one claimed operation and write what became of it."""
        operation = flight.operation
        log = self.log.bind(operation_id=operation.id, source_session_id=operation.source_session_id)
        outcome: Outcome | None = None
        try:
            outcome = await self._perform(flight)
            if isinstance(outcome, Succeeded):
                # the next claim shares a commit with this one's end; see `database.write`
                flight.awaiting_commit = True
                self.wake_up.set()
            await self._conclude(operation, outcome, log)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(LAST_WORDS, shield=True):
                await self._last_words(operation, outcome or flight.interrupted(), log)
            raise
        except LeaseLostError as error:
            log.warning("operation.fenced", error=str(error))
        except DatabaseUnusableError:
            raise
        except Exception as error:
            log.exception("operation.failed")
            sent = operation.kind == "create" and (flight.sent or isinstance(outcome, Succeeded | Unknown))
            await self._break(operation, error, log, sent=sent)
        finally:
            if self._in_flight.get(operation.id) is flight:  # not when its lease ran out and it was claimed anew, by us
                del self._in_flight[operation.id]
            self.wake_up.set()

    async def _perform(self, flight: Attempt) -> Outcome:
        """Make the attempt when there is room; one that the queue came to rest before gives its claim back."""
        async with self._room:
            if self._stopping or self._rest_seconds() > 0:
                return Retry("the queue came to rest before it was sent", counts=False, returned=True)
            return await attempt.perform(flight)

    async def _last_words(self, operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Write an outcome down while everything is being cancelled; what fails now is found `running` later."""
        try:
            await self._conclude(operation, outcome, log)
        except LeaseLostError as error:
            log.warning("operation.fenced", error=str(error))
        except DatabaseUnusableError as error:
            log.info("operation.left", error=str(error))
        except Exception:
            log.exception("operation.failed")

    async def _conclude(self, operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
        operation, own = self._record_failure(operation, outcome, log)
        now, jitter = self.clock.now(), self.jitter()
        own = self._slow_down(operation, own, jitter)
        outcome = record.give_up_if_exhausted(operation, own, now=now, retry_policy=self.settings.retry_policy)
        completion = Completion(operation, outcome, now, self.settings.retry_policy, jitter)
        written: Recorded = await self.database.write_batched(record.write_all, completion)
        for link in written.links:
            log_link(log, link)
        self._record_recovery(own, log)  # not what was written: to be given up is no sign of life
        _report(operation, written.outcome, log)

    async def _break(self, operation: Operation, error: Exception, log: FilteringBoundLogger, *, sent: bool) -> None:
        """Give up a claim on which syncd itself failed, so that it does not stay `running` with nobody there."""
        words = safe_text(f"syncd failed on it: {type(error).__name__}: {error}".splitlines()[0])
        now = self.clock.now()
        try:
            outcome = await self.database.write(
                lambda c: record.write_broken(
                    c, operation, words, sent=sent, now=now, retry_policy=self.settings.retry_policy
                )
            )
        except LeaseLostError as lost:
            log.warning("operation.fenced", error=str(lost))
        else:
            _report(operation, outcome, log)

    def _record_failure(
        self, operation: Operation, outcome: Outcome, log: FilteringBoundLogger
    ) -> tuple[Operation, Outcome]:
        """Learn from an outcome that Albert is down or refuses the credentials, before the next in line is sent."""
        if isinstance(outcome, CredentialsRejected):
            # a credential that stays refused costs no attempt of anybody: the queue rests
            if self.refused is None:
                log.error("queue.paused", error=outcome.error, hint="mend the credentials, then: syncd doctor")
            self.refused = outcome.error
            self._refusals.grow(self.clock.monotonic())
        if isinstance(outcome, Retry | Unknown) and outcome.down:
            was_down, error = self._outage.down, outcome.error
            moment = self.clock.monotonic()
            if self._outage.failed(operation.id, moment, retry_after=outcome.retry_after):
                operation, outcome = record.refund_attempt(operation, outcome, self._outage.pauses.left(moment))
            if self._outage.down and not was_down:
                log.error("queue.slowed", error=error, hint="Albert fails for everybody; no attempt counts meanwhile")
        return operation, outcome

    def _slow_down(self, operation: Operation, outcome: Outcome, jitter: float) -> Outcome:
        """Wait ever longer for a server that says "too many" and not until when: such an attempt is not counted."""
        if not isinstance(outcome, Retry) or outcome.status != HTTPStatus.TOO_MANY_REQUESTS or outcome.retry_after:
            self._limited.pop(operation.id, None)
            return outcome
        self._limited[operation.id] = count = self._limited.get(operation.id, 0) + 1
        return replace(outcome, retry_after=self.settings.retry_policy.backoff.wait(count, jitter=jitter))

    def _record_recovery(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Learn from an outcome that Albert takes the credentials again, or works again."""
        if isinstance(outcome, CredentialsRejected):
            return
        taken = outcome.status is not None and not getattr(outcome, "down", False)
        if taken and self.refused is not None:
            self.refused = None
            self._refusals.end()
            log.info("queue.resumed")
        if proves_available(outcome) and self._outage.over():
            log.info("queue.resumed")

    async def _hold_leases(self) -> None:
        """Prolong the leases of what is in flight long before they run out, and sweep up those that nobody holds."""
        for turn in itertools.count(1):
            await self.clock.sleep(self.settings.lease / 3)
            await self._renew(list(self._in_flight.values()))
            await self.recover(abandoned=False)
            if turn % 3 == 0 and await self._upkeep.recheck():
                self.wake_up.set()

    async def _renew(self, flights: list[Attempt]) -> None:
        if not flights:
            return
        held = [flight.operation for flight in flights]
        kept = await lease.renew(self.database, self.clock, held, self.settings.lease)
        for flight in flights:
            # an operation that is not held any more must send nothing more
            flight.lease = kept.get(flight.operation.id, LOST)


def _report(operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
    """Log the one event that an attempt ends with."""
    facts: dict[str, Any] = {"kind": operation.kind, "attempts": operation.attempts, "status": outcome.status}
    match outcome:
        case Succeeded():
            log.info("operation.succeeded", session_id=outcome.session_id, note=outcome.note, **facts)
        case Retry(returned=True):
            log.debug("operation.returned", reason=outcome.error, **facts)
        case Retry():
            log.warning("operation.retrying", error=outcome.error, **facts)
        case Unknown():
            log.warning("operation.unknown", error=outcome.error, **facts)
        case NotFound():
            log.info("operation.looked_up", lookups=operation.lookups + 1, **facts)
        case Dead():
            log.error("operation.dead", error=outcome.error, hint=f"syncd operations show {operation.id}", **facts)
