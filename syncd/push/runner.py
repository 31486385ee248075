"""Runs one claimed operation: makes the attempt, judges its outcome, records it and logs it. `flow` starts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from syncd.albert import AlbertException, InvalidIdError
from syncd.errors import DatabaseUnusableError
from syncd.logs import log_link, safe_text
from syncd.mirror.store import refunds
from syncd.mirror.store.operation import LeaseLostError, Operation
from syncd.push import record
from syncd.push.answers import outcome_of
from syncd.push.events import report
from syncd.push.kinds import KINDS
from syncd.push.outcomes import Dead, Outcome, Retry, RetryReason, Succeeded, Unknown, may_be_outage
from syncd.push.record import Completion, Recorded, RetryPolicy
from syncd.push.settling import SettleTime, Settling
from syncd.records.enums import OperationKind, OperationState
from syncd.records.operation_kinds import SPECS
from syncd.records.parse import GarbledError
from syncd.witness import AbsenceUnprovenError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.push.attempt import Attempt
    from syncd.push.brake import Brake
    from syncd.push.probe import Probe

LAST_WRITE = 2.0
"""Seconds for recording an outcome after a cancellation; half of the shortest useful shutdown grace."""


async def perform(attempt: Attempt) -> Outcome:
    """Make one attempt.

    Raises
    ------
    LeaseLostError
        The claim was lost during the attempt; nothing that changes Albert was sent after that.
    DatabaseUnusableError
        The database cannot be read, or was replaced.
    """
    operation = attempt.operation
    try:
        return await KINDS[OperationKind(operation.kind)](attempt)
    except (AlbertException, GarbledError, AbsenceUnprovenError) as error:
        outcome = outcome_of(error)
        if isinstance(error, InvalidIdError):
            return outcome  # the look-up by this id precedes every change, so nothing was ever sent
    if isinstance(outcome, Retry) and attempt.delete_sent:
        return replace(outcome, may_be_deleted=True)
    if isinstance(outcome, Dead) and operation.state == OperationState.UNKNOWN:
        # a look-up that is refused decides nothing: the create may have been applied
        return Retry(RetryReason.UNDECIDED, outcome.error, outcome.status)
    return outcome


@dataclass(kw_only=True)
class Runner:
    """Runs claimed operations, up to `concurrency` of them at the same time.

    Attributes
    ----------
    jitter : Callable[[], float]
        Draws a number from 0 to 1 for each wait.
    machine : str
        See `evidence.Settling`.
    may_send : Callable[[], bool]
        Whether requests may be sent now; an attempt that may not begin gives its claim back.
    on_room : Callable[[], None]
        Called when an operation has freed its slot.
    """

    database: Database
    clock: Clock
    log: FilteringBoundLogger
    retry_policy: RetryPolicy
    concurrency: int
    jitter: Callable[[], float]
    brake: Brake
    probe: Probe
    machine: str
    may_send: Callable[[], bool]
    on_room: Callable[[], None]

    def __post_init__(self) -> None:
        self._room = anyio.Semaphore(self.concurrency, fast_acquire=True)
        self._settling = Settling(self.clock, self.machine)

    async def run(self, attempt: Attempt) -> None:
        """Make the attempt and record its outcome, also when it is cancelled.

        Raises
        ------
        DatabaseUnusableError
            The database is corrupt, or was replaced.
        """
        operation = attempt.operation
        log = self.log.bind(operation_id=operation.id, source_session_id=operation.source_session_id)
        outcome: Outcome | None = None
        try:
            outcome = await self._perform(attempt)
            if isinstance(outcome, Succeeded):
                # the next claim shares a commit with the end of this operation; see `Database.write`
                attempt.awaiting_commit = True
                self.on_room()
            await self._record(operation, outcome, log)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(LAST_WRITE, shield=True):
                await self._record_cancelled(operation, outcome or attempt.interrupted(), log)
            raise
        except LeaseLostError as error:
            log.warning("operation.fenced", error=str(error))
        except DatabaseUnusableError:
            raise
        except Exception as error:
            log.exception("operation.failed")
            applied = attempt.sent or isinstance(outcome, Succeeded | Unknown)
            sent = applied and not SPECS[OperationKind(operation.kind)].repeatable
            await self._record_broken(attempt, error, log, sent=sent)

    async def refund(self) -> None:
        """Give operations back the attempts that they used before an outage was recognized.

        An operation that is claimed at the moment is left for later: the end of its attempt overwrites the number.

        Raises
        ------
        DatabaseUnusableError
            The database is corrupt, or was replaced.
        """
        attempts = self.brake.take_refunds()
        if not attempts:
            return
        not_refunded = set(attempts)
        try:
            not_refunded = await self.database.write(lambda c: refunds.refund(c, attempts))
        finally:
            self.brake.add_refunds({operation_id: attempts[operation_id] for operation_id in not_refunded})

    async def _perform(self, attempt: Attempt) -> Outcome:
        async with self._room:
            if not self.may_send():
                return Retry(RetryReason.RETURNED, "the queue began to rest before the request was sent")
            return await self._without_outage(await perform(attempt))

    async def _without_outage(self, outcome: Outcome) -> Outcome:
        """Return the outcome of an attempt; a failure uses no attempt if Albert does not answer a listing either.

        When several operations fail, and for an unknown create, the brake decides that. It only needs the answer of the
        listing.
        """
        if not may_be_outage(outcome) or (isinstance(outcome, Retry) and not outcome.uses_attempt):
            return outcome
        if isinstance(outcome, Retry) and not self.brake.is_down:
            return outcome if await self._albert_answers() else replace(outcome, outage=True)
        if self.brake.is_silent:
            await self._albert_answers()
        return outcome

    async def _albert_answers(self) -> bool:
        """Return whether Albert answers a listing, and note an answer in the brake."""
        answers = await self.probe.albert_answers()
        if answers:
            self.brake.note_response()
        return answers

    async def _record(self, operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
        jitter, now = self.jitter(), self.clock.now()
        judged = self.brake.judge(operation, outcome, jitter=jitter)
        settle_time = self._settle_time(operation, judged)
        lag = self.database.clock.span(self.retry_policy.settle)
        completion = Completion(operation, judged, now, self.retry_policy, jitter, lag, settle_time)
        completion = replace(completion, outcome=record.give_up_if_exhausted(completion))
        recorded: Recorded = await self.database.write_batched(record.write_all, completion)
        self._note_settling(operation, recorded.outcome, now, settle_time)
        for link in recorded.links:
            log_link(log, link)
        self.brake.note_recorded(judged)
        report(operation, recorded.outcome, log)

    def _settle_time(self, operation: Operation, outcome: Outcome) -> SettleTime | None:
        """Return the settle time of an operation that becomes unknown, or was and may stay so."""
        if isinstance(outcome, Unknown):
            return self._settling.begin()
        return self._settling.current(operation) if operation.state == OperationState.UNKNOWN else None

    def _note_settling(
        self, operation: Operation, outcome: Outcome, now: datetime, settle_time: SettleTime | None
    ) -> None:
        match outcome:
            case Unknown():
                self._settling.remember(operation.id, now, settle_time or self._settling.begin())
            case Succeeded() | Dead():
                self._settling.forget(operation.id)

    async def _record_cancelled(self, operation: Operation, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Record an outcome during a shutdown; after a failure the next start finds the operation `running`."""
        try:
            await self._record(operation, outcome, log)
        except LeaseLostError as error:
            log.warning("operation.fenced", error=str(error))
        except DatabaseUnusableError as error:
            log.info("operation.left", error=str(error))
        except Exception:
            log.exception("operation.failed")

    async def _record_broken(
        self, attempt: Attempt, error: Exception, log: FilteringBoundLogger, *, sent: bool
    ) -> None:
        """Give up a claim on which syncd itself failed, so that the operation does not stay `running`."""
        text = safe_text(f"syncd failed on it: {type(error).__name__}: {error}".splitlines()[0])
        operation, now = attempt.operation, self.clock.now()

        def work(connection: Connection) -> Outcome:
            return record.write_broken(
                connection, operation, text, sent=sent, delete_sent=attempt.delete_sent, now=now,
                retry_policy=self.retry_policy,
            )  # fmt: skip

        try:
            outcome = await self.database.write(work)
        except LeaseLostError as lost:
            log.warning("operation.fenced", error=str(lost))
        else:
            self._note_settling(operation, outcome, now, None)
            report(operation, outcome, log)
