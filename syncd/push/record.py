"""Writes the outcome of an attempt: the effect on the mirror and the operation's state, in one transaction.

`runner` calls `write_all` through the group commit, and `write_broken` after an unexpected error.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from syncd.clock import utc_text
from syncd.mirror.store import operations, sessions, sources
from syncd.mirror.store.operation import Success, Wait
from syncd.push.outcomes import (
    NO_EFFECT,
    CredentialsRejected,
    Dead,
    Effect,
    NotFound,
    Outcome,
    Retry,
    RetryReason,
    Succeeded,
    Unknown,
    UnknownReason,
)
from syncd.records.enums import OperationKind, OperationState
from syncd.records.ids import SessionId
from syncd.records.operation_kinds import SPECS
from syncd.rules.retry import Backoff, LookupPlan, after_lookup, first_lookup, lag_wait
from syncd.rules.versions import Change, listed_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.operation import Operation
    from syncd.mirror.store.sources import Link
    from syncd.push.settling import SettleTime


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, and how long, an operation is tried; `settle` is in seconds."""

    max_attempts: int
    backoff: Backoff
    settle: float


@dataclass(frozen=True, slots=True)
class Completion:
    """An outcome to write.

    Attributes
    ----------
    jitter : float
        From 0 to 1, for the jitter of a wait.
    lag : float
        Seconds of the shared clock by which a look-up may lag.
    settle_time : SettleTime | None
        The settle time of an operation that was unknown, or that the outcome makes unknown.
    """

    operation: Operation
    outcome: Outcome
    now: datetime
    retry_policy: RetryPolicy
    jitter: float
    lag: float
    settle_time: SettleTime | None = None

    def wait(self, seconds: float) -> Wait:
        """Return a wait of some seconds from now."""
        return Wait(self.now, self.now + timedelta(seconds=seconds))

    @property
    def unclaimed_state(self) -> OperationState:
        """Return the state that the claim came from."""
        running = self.operation.state is OperationState.RUNNING
        return OperationState.PENDING if running else OperationState.UNKNOWN

    @property
    def plan(self) -> LookupPlan:
        """Return the look-ups that follow one that found nothing."""
        elapsed = 0.0 if self.settle_time is None else self.settle_time.elapsed
        return after_lookup(self.operation.lookups, elapsed=elapsed, settle=self.retry_policy.settle)

    @property
    def kept_settle_time(self) -> dict[str, Any]:
        """Return the columns of the settle time for an operation that was unknown and stays so."""
        if self.settle_time is None or self.unclaimed_state is OperationState.PENDING:
            return {}
        return self.settle_time.columns(self.operation.unknown_since)

    @property
    def new_settle_time(self) -> dict[str, Any]:
        """Return the columns of the settle time for an operation that becomes unknown."""
        return {"settle_for": None} if self.settle_time is None else self.settle_time.columns(self.now)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The outcome that was written, which may differ from the attempt's own outcome, and the links that changed."""

    outcome: Outcome
    links: list[Link]


def give_up_if_exhausted(completion: Completion) -> Outcome:
    """Return the outcome, or `Dead` if it is a retry of an operation whose attempts are used up."""
    operation, outcome = completion.operation, completion.outcome
    over = operation.attempts >= completion.retry_policy.max_attempts
    if isinstance(outcome, Retry) and outcome.reason is RetryReason.UNCHANGED:
        over = operation.attempts > completion.retry_policy.max_attempts  # the last change has time to show
    if isinstance(outcome, Retry) and outcome.uses_attempt and over and operation.state == OperationState.RUNNING:
        return Dead(f"gave up after {operation.attempts} attempts: {outcome.error}", outcome.status)
    may_be_sent_again = operation.target_session_id is None
    if isinstance(outcome, NotFound) and over and may_be_sent_again and completion.plan.wait is None:
        text = f"gave up after {operation.attempts} attempts: none created a session that look-ups find"
        return Dead(f"{text}; the last: {operation.last_error}" if operation.last_error else text, outcome.status)
    return outcome


def attempts_used(operation: Operation, outcome: Outcome) -> int:
    """Return the attempts that an operation has used after an outcome."""
    running = operation.state is OperationState.RUNNING  # a look-up uses no attempt
    match outcome:
        case Retry():
            refunds = outcome.refunds + (running and not outcome.uses_attempt)
        case Unknown():
            refunds = outcome.refunds
        case CredentialsRejected():
            refunds = int(running)
        case _:
            refunds = 0
    return max(operation.attempts - refunds, 0)


def write_all(connection: Connection, completions: Sequence[Completion]) -> list[Recorded]:
    """Write the outcomes of several operations, each a different one; new sessions are written together.

    Raises
    ------
    LeaseLostError
        One of the claims is not valid any more; nothing is written.
    """
    done = _write_made(connection, completions)
    return [done.get(completion.operation.id) or write(connection, completion) for completion in completions]


def _write_made(connection: Connection, completions: Sequence[Completion]) -> dict[int, Recorded]:
    """Write the creates whose sessions are new to the mirror, as nearly all are; return what was written by id."""
    creates: dict[str | None, tuple[Completion, Succeeded]] = {}
    for completion in completions:
        if isinstance(completion.outcome, Succeeded) and completion.outcome.effect.made:
            (row,) = completion.outcome.effect.rows
            if row.source_session_id == completion.operation.source_session_id:
                creates[row.id] = completion, completion.outcome
    if not creates:
        return {}
    rows = [outcome.effect.rows[0] for _, outcome in creates.values()]
    now = utc_text(max(completion.now for completion, _ in creates.values()))
    new = sessions.insert_new(connection, rows, now=now)
    written = [creates[session_id] for session_id in new.inserted]
    operations.finish(
        connection,
        [
            Success(completion.operation, outcome.session_id, utc_text(completion.now), outcome.note, outcome.status)
            for completion, outcome in written
        ],
    )
    return {
        completion.operation.id: Recorded(
            outcome,
            [link for link in new.links if link.source_session_id == completion.operation.source_session_id],
        )
        for completion, outcome in written
    }


def write(connection: Connection, completion: Completion) -> Recorded:
    """Write one outcome.

    Raises
    ------
    LeaseLostError
        The claim is not valid any more.
    """
    outcome = completion.outcome
    match outcome:
        case Succeeded():
            return _succeeded(connection, completion, outcome)
        case Retry():
            _retry(connection, completion, outcome)
        case CredentialsRejected():
            _credentials_rejected(connection, completion, outcome)
        case Unknown():
            return Recorded(outcome, _unknown(connection, completion, outcome))
        case NotFound():
            return Recorded(_not_found(connection, completion, outcome), [])
        case Dead():
            _dead(connection, completion, outcome)
    return Recorded(outcome, [])


def write_broken(
    connection: Connection,
    operation: Operation,
    error: str,
    *,
    sent: bool,
    delete_sent: bool,
    now: datetime,
    retry_policy: RetryPolicy,
) -> Outcome:
    """Write that syncd itself failed on an operation, so that it is neither claimed nor tried forever.

    Parameters
    ----------
    sent : bool
        A request that must not be repeated blindly may have been applied.
    delete_sent : bool
        A delete may have been applied.

    Raises
    ------
    LeaseLostError
        The claim is not valid any more.
    """
    looked_up = operation.state == OperationState.UNKNOWN
    attempts = operation.attempts + looked_up
    if attempts >= retry_policy.max_attempts:
        operations.end_claim(
            connection, operation, OperationState.DEAD,
            attempts=attempts, finished_at=now, last_error=error,
        )  # fmt: skip
        return Dead(error)
    wait = Wait(now, now + timedelta(seconds=retry_policy.backoff.wait(attempts, jitter=1.0)))
    values: dict[str, Any] = {"attempts": attempts, "last_error": error}
    if sent and not looked_up:
        values |= {"unknown_since": now, "settle_for": None, "lookups": 0}
    if delete_sent and operation.unknown_since is None:
        values |= {"unknown_since": now}
    unknown = sent or looked_up
    state = OperationState.UNKNOWN if unknown else OperationState.PENDING
    operations.end_claim(connection, operation, state, wait=wait, **values)
    return Unknown(UnknownReason.LOST_ANSWER, error) if unknown else Retry(RetryReason.NO_ANSWER, error)


def _succeeded(connection: Connection, completion: Completion, outcome: Succeeded) -> Recorded:
    operation, settle = completion.operation, completion.retry_policy.settle
    links, written = _apply(connection, completion, outcome.effect)
    session_id = outcome.session_id or SessionId("")
    must_be_live = SPECS[OperationKind(operation.kind)].leaves_live
    if must_be_live and session_id not in written and not sessions.is_live(connection, session_id):
        # another operation deleted it recently, and look-ups lag: the session that the create promises does not exist
        text = f"{session_id} was deleted recently and look-ups still show it"
        again = Retry(RetryReason.LAGGING, text, outcome.status, lag_wait(settle))
        _retry(connection, completion, again)
        return Recorded(again, links)
    operations.end_claim(
        connection, operation, OperationState.SUCCEEDED, result_session_id=outcome.session_id,
        finished_at=completion.now, last_error=outcome.note, last_status=outcome.status, unknown_since=None,
    )  # fmt: skip
    return Recorded(outcome, links)


def _retry(connection: Connection, completion: Completion, outcome: Retry) -> None:
    operation, backoff, jitter = completion.operation, completion.retry_policy.backoff, completion.jitter
    running = operation.state == OperationState.RUNNING
    if running:
        wait = backoff.wait(max(operation.attempts, 1), jitter=jitter, retry_after=outcome.retry_after)
    else:  # look-ups that fail use no attempts, so their waits grow with the time since the answer was lost
        unknown_for = completion.now - (operation.unknown_since or completion.now)
        wait = backoff.since(unknown_for.total_seconds(), jitter=jitter, retry_after=outcome.retry_after)
    lost = outcome.may_be_deleted and operation.unknown_since is None
    loss = {"unknown_since": completion.now} if lost else {}
    operations.end_claim(
        connection, operation, completion.unclaimed_state, wait=completion.wait(wait),
        attempts=attempts_used(operation, outcome), last_error=outcome.error, last_status=outcome.status,
        **completion.kept_settle_time, **loss,
    )  # fmt: skip


def _credentials_rejected(connection: Connection, completion: Completion, outcome: CredentialsRejected) -> None:
    operation = completion.operation
    operations.end_claim(
        connection, operation, completion.unclaimed_state, wait=completion.wait(0),
        attempts=attempts_used(operation, outcome),
        last_error=outcome.error, last_status=outcome.status, **completion.kept_settle_time,
    )  # fmt: skip


def _unknown(connection: Connection, completion: Completion, outcome: Unknown) -> list[Link]:
    operation, policy = completion.operation, completion.retry_policy
    links, _ = _apply(connection, completion, outcome.effect)
    wait = max(first_lookup(policy.settle), policy.backoff.bounded(outcome.retry_after or 0.0))
    created = [row.id for row in outcome.effect.rows]
    result = {"result_session_id": created[0], "target_session_id": created[0]} if created else {}
    operations.end_claim(
        connection, operation, OperationState.UNKNOWN, wait=completion.wait(wait),
        attempts=attempts_used(operation, outcome), unknown_since=completion.now, lookups=0,
        last_error=outcome.error, last_status=outcome.status, **result, **completion.new_settle_time,
    )  # fmt: skip
    return links


def _not_found(connection: Connection, completion: Completion, outcome: NotFound) -> Outcome:
    """Count a look-up that found nothing; after the last one the create may be sent again.

    A create whose session has another source id is never sent again: it ends here.
    """
    operation, plan = completion.operation, completion.plan
    if plan.wait is not None:
        operations.end_claim(
            connection, operation, OperationState.UNKNOWN, wait=completion.wait(plan.wait),
            lookups=plan.lookups, last_status=outcome.status, **completion.kept_settle_time,
        )  # fmt: skip
        return outcome
    created = operation.target_session_id
    if created is None:
        operations.end_claim(
            connection, operation, OperationState.PENDING, wait=completion.wait(0),
            lookups=0, unknown_since=None, settle_for=None, last_status=outcome.status,
        )  # fmt: skip
        return outcome
    source_id = sessions.source_of(connection, created)
    requested = operation.source_session_id
    text = (
        f"Albert created {created} with the source id {source_id!r} and not {requested!r}, under which it finds nothing"
    )
    dead = Dead(text, outcome.status, created)
    _dead(connection, completion, dead)
    return dead


def _dead(connection: Connection, completion: Completion, outcome: Dead) -> None:
    values: dict[str, Any] = {} if outcome.session_id is None else {"result_session_id": outcome.session_id}
    operations.end_claim(
        connection, completion.operation, OperationState.DEAD, finished_at=completion.now, last_error=outcome.error,
        last_status=outcome.status, **values,
    )  # fmt: skip


def _apply(connection: Connection, completion: Completion, effect: Effect) -> tuple[list[Link], set[str | None]]:
    """Write an effect to the mirror; return the links that changed, and the ids of sessions that are live by it."""
    links: list[Link] = []
    written: set[str | None] = set()
    if effect == NO_EFFECT and completion.operation.source_session_id is None:
        return links, written
    now, inserted = completion.now, False
    lags_from = None if effect.made or not effect.rows else listed_from(effect.asked_at, now, completion.lag)
    observation = sessions.Observation(effect.asked_at, utc_text(now), listed_from=lags_from, new=effect.made)
    for row in effect.rows:
        applied = sessions.apply(connection, [row], observation)
        links += applied.sources
        inserted = Change.INSERTED in applied.changes.values()
        if applied.changes and not applied.deleted:
            written.add(row.id)
    gone = [sessions.key_of(connection, session_id) for session_id in effect.gone]
    sessions.tombstone(connection, [key for key in gone if key is not None], now=utc_text(now))
    source_id = completion.operation.source_session_id
    if source_id is not None and not (inserted and effect.rows[0].source_session_id == source_id):
        links += sources.refresh(connection, {source_id}, utc_text(now))
    return links, written
