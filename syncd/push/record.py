"""Writing what became of an attempt: the final state and its effect on the mirror, in the caller's transaction.

Every function takes the transaction's connection and may be run again with it. Whoever calls must hold the fence of
the operation: `LeaseLostError` otherwise, and nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from syncd.clock import utc_text
from syncd.mirror.db.dialects import is_postgresql
from syncd.mirror.store import operations, sessions, sources
from syncd.mirror.store.operations import Success
from syncd.push.outcomes import CredentialsRejected, Dead, NotFound, Outcome, Retry, Succeeded, Unknown
from syncd.rules.retry import Backoff, lag_wait, next_lookup
from syncd.rules.versions import listed_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.operations import Operation
    from syncd.mirror.store.sources import Link


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, and how long, an operation is tried; `settle` is in seconds."""

    max_attempts: int
    backoff: Backoff
    settle: float


@dataclass(frozen=True, slots=True)
class Completion:
    """What is to be written of an operation; `jitter` is from 0 to 1, for the jitter of a wait."""

    operation: Operation
    outcome: Outcome
    now: datetime
    retry_policy: RetryPolicy
    jitter: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was written, which may be another outcome than the attempt's own, and the links that changed."""

    outcome: Outcome
    links: list[Link]


def give_up_if_exhausted(
    operation: Operation, outcome: Outcome, *, now: datetime, retry_policy: RetryPolicy
) -> Outcome:
    """Turn a retry of an operation whose attempts are used up into its end."""
    over = operation.attempts >= retry_policy.max_attempts
    if isinstance(outcome, Retry) and outcome.counts and over and operation.state == "running":
        return Dead(f"gave up after {operation.attempts} attempts: {outcome.error}", outcome.status)
    if isinstance(outcome, NotFound) and over and _following(operation, now, retry_policy) is None:
        words = f"gave up after {operation.attempts} attempts, each with its answer lost"
        return Dead(f"{words}; the last: {operation.last_error}" if operation.last_error else words, outcome.status)
    return outcome


def refund_attempt(operation: Operation, outcome: Outcome, rest: float) -> tuple[Operation, Outcome]:
    """Take an attempt back that was not the operation's fault: Albert is down for everybody.

    It waits for as long as the queue rests, in seconds: a growing wait of its own would outlast the outage.
    """
    if isinstance(outcome, Retry):
        return operation, replace(outcome, counts=False, retry_after=outcome.retry_after or rest)
    if isinstance(outcome, Unknown) and operation.state == "running":
        return replace(operation, attempts=operation.attempts - 1), outcome
    return operation, outcome


def write_all(connection: Connection, completions: Sequence[Completion]) -> list[Recorded]:
    """Write what became of some attempts, each of an operation of its own: see `write`.

    On PostgreSQL the sessions that were made are written together; SQLite has no round trips to save.
    """
    done = _write_made(connection, completions) if is_postgresql(connection) and len(completions) > 1 else {}
    return [done.get(one.operation.id) or write(connection, one) for one in completions]


def _write_made(connection: Connection, completions: Sequence[Completion]) -> dict[int, Recorded]:
    """Write what creates have made, where it is new to the mirror, as it nearly always is; return those written."""
    made = {}
    for one in completions:
        outcome = one.outcome
        if (
            isinstance(outcome, Succeeded)
            and outcome.made
            and outcome.rows[0].source_session_id == one.operation.source_session_id
        ):
            made[outcome.rows[0].id] = one.operation, outcome, one.now
    if not made:
        return {}
    rows = [outcome.rows[0] for _, outcome, _ in made.values()]
    now = utc_text(max(one.now for one in completions))
    inserted, links = sessions.insert_new(connection, rows, now=now)
    written = [made[session_id] for session_id in inserted]
    operations.finish(
        connection,
        [
            Success(operation, outcome.session_id, utc_text(at), outcome.note, outcome.status)
            for operation, outcome, at in written
        ],
    )
    return {
        operation.id: Recorded(
            outcome, [link for link in links if link.source_session_id == operation.source_session_id]
        )
        for operation, outcome, _ in written
    }


def write(connection: Connection, completion: Completion) -> Recorded:
    """Write an outcome.

    Raises
    ------
    LeaseLostError
        The claim is not good any more.
    """
    operation, outcome, now = completion.operation, completion.outcome, completion.now
    retry_policy, jitter = completion.retry_policy, completion.jitter
    match outcome:
        case Succeeded():
            links, written = _effect(connection, operation, outcome, now, retry_policy)
            created = outcome.session_id or ""
            if operation.kind == "create" and created not in written and not sessions.is_live(connection, created):
                # deleted by another operation between the answer and now, or lately, and look-ups lag: what a create
                # promises is not there
                words = f"{outcome.session_id} was deleted lately and is shown still: look-ups lag"
                again = Retry(words, outcome.status, lag_wait(retry_policy.settle), counts=False)
                _retry(connection, operation, again, now=now, retry_policy=retry_policy, jitter=jitter)
                return Recorded(again, links)
            operations.release(
                connection, operation, "succeeded", result_session_id=outcome.session_id, finished_at=now,
                last_error=outcome.note, last_status=outcome.status, next_attempt_at=None, unknown_since=None,
            )  # fmt: skip
            return Recorded(outcome, links)
        case Retry():
            _retry(connection, operation, outcome, now=now, retry_policy=retry_policy, jitter=jitter)
        case CredentialsRejected():
            operations.release(
                connection, operation, "unknown" if operation.state == "unknown" else "pending",
                attempts=operation.attempts - (operation.state == "running"),
                last_error=outcome.error, last_status=outcome.status, next_attempt_at=now,
            )  # fmt: skip
        case Unknown():
            _unknown(connection, operation, outcome, now, retry_policy)
        case NotFound():
            _missed(connection, operation, outcome, now, retry_policy)
        case Dead():
            operations.release(
                connection, operation, "dead", finished_at=now, last_error=outcome.error,
                last_status=outcome.status, next_attempt_at=None,
            )  # fmt: skip
    return Recorded(outcome, [])


def write_broken(
    connection: Connection, operation: Operation, error: str, *, sent: bool, now: datetime, retry_policy: RetryPolicy
) -> Outcome:
    """Write that syncd itself failed on an operation: it must neither stay claimed for ever nor be tried for ever.

    Parameters
    ----------
    sent : bool
        A request that changes Albert may have been applied.
    """
    looked_up = operation.state == "unknown"
    attempts = operation.attempts + looked_up
    if attempts >= retry_policy.max_attempts:
        operations.release(
            connection, operation, "dead", attempts=attempts, finished_at=now, last_error=error, next_attempt_at=None
        )
        return Dead(error)
    due = now + timedelta(seconds=retry_policy.backoff.wait(attempts, jitter=1.0))
    values: dict[str, Any] = {"attempts": attempts, "last_error": error, "next_attempt_at": due}
    if sent and not looked_up:
        values |= {"unknown_since": now, "lookups": 0}
    operations.release(connection, operation, "unknown" if sent or looked_up else "pending", **values)
    return Unknown(error) if sent or looked_up else Retry(error)


def _retry(
    connection: Connection,
    operation: Operation,
    outcome: Retry,
    *,
    now: datetime,
    retry_policy: RetryPolicy,
    jitter: float,
) -> None:
    running = operation.state == "running"
    if running:
        attempt = max(operation.attempts, 1)
        wait = retry_policy.backoff.wait(attempt, jitter=jitter, retry_after=outcome.retry_after)
    else:  # failed look-ups are not counted, so what grows their waits is the time that has gone by
        elapsed = (now - (operation.unknown_since or now)).total_seconds()
        wait = retry_policy.backoff.since(elapsed, jitter=jitter, retry_after=outcome.retry_after)
    operations.release(
        connection, operation, "pending" if running else "unknown",
        attempts=operation.attempts - (running and not outcome.counts),
        last_error=outcome.error, last_status=outcome.status, next_attempt_at=now + timedelta(seconds=wait),
    )  # fmt: skip


def _unknown(
    connection: Connection, operation: Operation, outcome: Unknown, now: datetime, retry_policy: RetryPolicy
) -> None:
    first = next_lookup(now, lookups=0, settle=retry_policy.settle, now=now) or now
    told = now + timedelta(seconds=retry_policy.backoff.told(outcome.retry_after or 0.0))
    operations.release(
        connection, operation, "unknown", attempts=operation.attempts, unknown_since=now, lookups=0,
        last_error=outcome.error, last_status=outcome.status, next_attempt_at=max(first, told),
    )  # fmt: skip


def _following(operation: Operation, now: datetime, retry_policy: RetryPolicy) -> datetime | None:
    """Return when to look after this look-up; None when it was the last."""
    since = operation.unknown_since or now
    return next_lookup(since, lookups=operation.lookups + 1, settle=retry_policy.settle, now=now)


def _missed(
    connection: Connection, operation: Operation, outcome: NotFound, now: datetime, retry_policy: RetryPolicy
) -> None:
    """Count a look-up that found nothing; after the last of them the create may be sent again."""
    following = _following(operation, now, retry_policy)
    values: dict[str, Any] = {"lookups": operation.lookups + 1, "next_attempt_at": following}
    if following is None:
        values = {"lookups": 0, "next_attempt_at": now, "unknown_since": None}
    state = "pending" if following is None else "unknown"
    operations.release(connection, operation, state, last_status=outcome.status, **values)


def _effect(
    connection: Connection, operation: Operation, outcome: Succeeded, now: datetime, retry_policy: RetryPolicy
) -> tuple[list[Link], set[str | None]]:
    """Bring the mirror in line; return the links that changed, and the sessions that were written, so are live."""
    links: list[Link] = []
    written: set[str | None] = set()
    linked = False
    lags_from = None if outcome.made or not outcome.rows else listed_from(outcome.asked_at, now, retry_policy.settle)
    observation = sessions.Observation(outcome.asked_at, utc_text(now), listed_from=lags_from, new=outcome.made)
    for row in outcome.rows:
        applied = sessions.apply(connection, [row], observation)
        links += applied.sources
        linked = "inserted" in applied.changes.values()
        if applied.changes and not applied.deleted:
            written.add(row.id)
    gone = [sessions.key_of(connection, session_id) for session_id in outcome.gone]
    sessions.tombstone(connection, [key for key in gone if key is not None], now=utc_text(now))
    if operation.source_session_id is not None and not linked:
        links += sources.refresh(connection, {operation.source_session_id}, utc_text(now))
    return links, written
