"""The rows of the queue: any program inserts them, a claim takes them, and the holder of the claim finishes them.

::

    pending ──claim──► running ──► succeeded
       ▲                  │  ├───► dead ──(an operator)──► pending
       ├──── retry ───────┘  └───► unknown ──look-ups──► succeeded, or pending again
       └──► cancelled (an operator; also from unknown and dead)

Operations on one key (source id or session id) run in the order of their ids, one at a time: an operation that is
pending, running, unknown or dead blocks the later ones. `operation_keys` defines which operations are on one key.

A blocked operation has `blocked_by`, and the index of due operations does not contain it, so that a claim never reads
it. Triggers write `blocked_by` when an operation is inserted and when the blocker is over (revision 0003). They do not
see two cases: keys that only the mirror relates, and an operation with a lower id that is committed later. A claim
that finds such an operation writes `blocked_by` itself. Whether an operation may run is decided by the claim alone.

`push` calls this module; `operation_decisions` contains the actions of operators.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from syncd.clock import read_stored_time, read_utc_text, utc_text
from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import raw
from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.schema.tables import operations
from syncd.mirror.schema.types import new_id
from syncd.mirror.store.operation import (
    Abandoned,
    Blocked,
    Claimed,
    DueOperation,
    LeaseLostError,
    Operation,
    Success,
    Wait,
)
from syncd.mirror.store.operation_statements import Statements, statements_of
from syncd.records.enums import OperationKind, OperationState
from syncd.records.ids import OperationId

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syncd.records.ids import SessionId

LONGEST_ERROR = 2000
"""Characters of an error that are kept: enough for a message, not for a page of HTML."""
PARKED_AT_ONCE = 200
PARKING_ROUNDS = 5
"""A claim reads at most `PARKED_AT_ONCE` blocked operations in each of `PARKING_ROUNDS` rounds: a few milliseconds."""
CONFIRMED_FOR = 1.0
"""Seconds after a claim was last confirmed in the database in which its holder may still send a request."""

_DELETED_SINCE = """
SELECT DISTINCT result_session_id FROM {deleted} WHERE kind = 'delete' AND state = 'succeeded' AND finished_at > ?
    AND result_session_id IN (SELECT value FROM json_each(?))
"""
_ANY_DELETED_SINCE = """
SELECT 1 FROM {deleted} WHERE kind = 'delete' AND state = 'succeeded' AND finished_at > ? LIMIT 1
"""
_NEXT_DUE = """
SELECT min(next_attempt_at) FROM operations
WHERE state = '{state}' AND blocked_by IS NULL AND on_hold_at IS NULL AND next_attempt_at > ?
"""
_ANY_WAITS = """
SELECT 1 FROM operations WHERE state = '{state}' AND blocked_by IS NULL AND on_hold_at IS NULL LIMIT 1
"""
_PARK = "UPDATE operations SET blocked_by = ? WHERE id = ?"
_OVERTAKEN_LEASES = """
SELECT id, next_attempt_at, lease_until, clock_at FROM operations WHERE state = 'running' AND clock_at > ? LIMIT ?
"""
_REBASE = "UPDATE operations SET next_attempt_at = ?, lease_until = ?, clock_at = ? WHERE id = ? AND clock_at = ?"
REBASED_AT_ONCE = 1000
RECHECKED_AT_ONCE = 2000
"""Rows of one transaction of `rebase`, and blocked operations of one call of `recheck`: some milliseconds."""


def enqueue(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[OperationId]:
    """Queue operations; return their ids in the order of the rows.

    Raises
    ------
    DatabaseUnusableError
        A trigger of another program let the database ignore a row.
    """
    ids = list[OperationId]()
    for row in rows:
        inserted = connection.execute(sa.insert(operations).values(dict(row)))
        if inserted.rowcount != 1:
            raise DatabaseUnusableError("a trigger on the table operations ignores the row; nothing was queued")
        ids.append(OperationId(new_id(inserted)))
    return ids


def claim(
    connection: Connection, *, now: datetime, owner: str, lease: float, limit: int, lookups_first: bool = True
) -> Claimed:
    """Claim what is due: pending operations to run, unknown ones to look up.

    A claim must be durable before a request is sent. It is durable when the caller's transaction is committed.

    Parameters
    ----------
    now : datetime
        The shared clock, read in the same transaction.
    lease : float
        Seconds for which the claim is valid.
    lookups_first : bool
        Which of both kinds gets the slots when there are not enough. The caller alternates, so that neither starves.
    """
    claiming = _Claiming(statements_of(connection), utc_text(now), utc_text(now + timedelta(seconds=lease)), owner)
    states = (OperationState.UNKNOWN, OperationState.PENDING)
    claimed, more = list[Operation](), False
    for state in states if lookups_first else reversed(states):
        if len(claimed) < limit:
            batch = claiming.claim(connection, state, limit - len(claimed))
            claimed += batch.operations
            more = more or batch.more
    return Claimed(claimed, more)


@dataclass(frozen=True, slots=True)
class _Claiming:
    """A claim by one owner at one moment."""

    statements: Statements
    now: str
    until: str
    owner: str

    def claim(self, connection: Connection, state: OperationState, limit: int) -> Claimed:
        """Claim operations of a state, in the order in which they became due."""
        claimed, window = list[Operation](), limit
        for _ in range(PARKING_ROUNDS):
            candidates = self.statements.due(connection, state, now=self.now, limit=window)
            claimed += self._take(connection, candidates, limit - len(claimed))
            blocked = [
                (candidate.blocked_by, candidate.operation.id)
                for candidate in candidates
                if candidate.blocked_by is not None
            ]
            if blocked:
                raw.executemany(connection, _PARK, blocked)
            if not blocked or len(claimed) >= limit:
                return Claimed(claimed)
            window = max(PARKED_AT_ONCE, limit)
        return Claimed(claimed, more=True)

    def _take(self, connection: Connection, candidates: Iterable[DueOperation], limit: int) -> list[Operation]:
        claims = [
            _claimed(candidate.operation) for candidate in candidates if candidate.blocked_by is None and candidate.free
        ][:limit]
        if not claims:
            return []
        written = self.statements.claim(connection, claims, now=self.now, until=self.until, owner=self.owner)
        return [operation for operation in claims if operation.id in written]


def _claimed(operation: Operation) -> Operation:
    """Return the operation as claimed: an unknown create is only looked up, every other one runs."""
    if operation.state is OperationState.UNKNOWN and operation.kind is OperationKind.CREATE:
        return replace(operation, fence=operation.fence + 1)
    return replace(operation, state=OperationState.RUNNING, fence=operation.fence + 1, attempts=operation.attempts + 1)


def renew(connection: Connection, held: Iterable[Operation], *, now: datetime, lease: float) -> set[OperationId]:
    """Prolong the leases of claimed operations; return the ids of those that are still held.

    Parameters
    ----------
    now : datetime
        The shared clock, read in the same transaction.
    lease : float
        Seconds from then on for which the claims are valid.
    """
    values = {"lease_until": now + timedelta(seconds=lease), "clock_at": now}
    return {operation.id for operation in held if _write_held(connection, operation, values)}


def _write_held(connection: Connection, operation: Operation, values: Mapping[str, Any]) -> bool:
    """Write columns of a claimed operation; return whether the claim is still valid."""
    bound = [utc_text(value) if isinstance(value, datetime) else value for value in values.values()]
    changed = raw.execute(connection, _update(tuple(values)), (*bound, operation.id, operation.fence))
    return bool(changed.rowcount == 1)


@functools.cache
def _update(columns: tuple[str, ...]) -> str:
    settings = ", ".join(f"{column} = ?" for column in columns)
    return f"UPDATE operations SET {settings} WHERE id = ? AND fence = ? AND state IN ('running', 'unknown')"  # noqa: S608 - columns


def write(connection: Connection, operation: Operation, **values: Any) -> None:  # noqa: ANN401 - columns
    """Write columns of a claimed operation.

    Raises
    ------
    LeaseLostError
        The claim is not valid any more; nothing was written.
    """
    if not _write_held(connection, operation, values):
        raise LeaseLostError(f"the claim of operation {operation.id} was lost to another daemon or to an operator")


def end_claim(
    connection: Connection,
    operation: Operation,
    state: OperationState,
    *,
    wait: Wait | None = None,
    **values: Any,  # noqa: ANN401 - columns
) -> None:
    """Write the outcome of a claimed operation, and end the claim.

    Parameters
    ----------
    wait : Wait | None
        Until when the operation is not due; None when it does not wait.

    Raises
    ------
    LeaseLostError
        The claim is not valid any more; nothing was written.
    """
    if values.get("last_error") is not None:
        values["last_error"] = values["last_error"][:LONGEST_ERROR]
    due, since = (None, None) if wait is None else (wait.until, wait.since)
    write(
        connection, operation, state=state.value, lease_until=None, lease_owner=None, next_attempt_at=due,
        clock_at=since, **values,
    )  # fmt: skip


def finish(connection: Connection, successes: Sequence[Success]) -> None:
    """Write that claimed operations succeeded, and end their claims.

    Raises
    ------
    LeaseLostError
        One of the claims is not valid any more. The caller must roll back: the others may have been written.
    """
    cut = [replace(success, note=success.note and success.note[:LONGEST_ERROR]) for success in successes]
    if cut and statements_of(connection).finish(connection, cut) != len(cut):
        raise LeaseLostError("the claim of one of these operations was lost to another daemon or to an operator")


def recover(connection: Connection, *, now: datetime, abandoned: bool) -> list[Abandoned]:
    """Make operations whose holder is gone `unknown`, because their request may have been applied.

    Parameters
    ----------
    now : datetime
        The shared clock, read in the same transaction.
    abandoned : bool
        No claim has a holder: this daemon is the only one, and it has just started. Otherwise a claim whose lease has
        ended counts. Its holder may still send a request for `CONFIRMED_FOR` seconds, if the clock was set forward.
    """
    o = operations.c
    late = sa.or_(o.lease_until.is_(None), o.lease_until < now)
    query = sa.select(o.id, o.source_session_id).where(o.state == "running", sa.true() if abandoned else late)
    recovered = [Abandoned(*row) for row in connection.execute(query.with_for_update(skip_locked=True))]
    ended = {"lease_until": None, "lease_owner": None, "fence": o.fence + 1}
    since = now if abandoned else now + timedelta(seconds=CONFIRMED_FOR)
    for operation in recovered:
        connection.execute(
            sa.update(operations)
            .where(o.id == operation.id)
            .values(
                state="unknown", unknown_since=since, settle_for=None, lookups=0, next_attempt_at=now, clock_at=now,
                last_error="the daemon that held it stopped before the answer was known", **ended,
            )
        )  # fmt: skip
    if abandoned:  # a claim for a look-up leaves the state as it is
        connection.execute(
            sa.update(operations).where(o.state == "unknown", o.lease_until.is_not(None)).values(**ended)
        )
    return recovered


def rebase(connection: Connection, *, now: datetime) -> int:
    """Shorten waits and leases that were written before the shared clock was set back; return how many.

    A wait that began in the future begins now instead, with the same length. The caller repeats until none is left.

    Parameters
    ----------
    now : datetime
        The shared clock, read in the same transaction.
    """
    at, overtaken = utc_text(now), list[_Times]()
    for query in (statements_of(connection).OVERTAKEN, _OVERTAKEN_LEASES):
        overtaken += [_Times(*row) for row in raw.execute(connection, query, (at, REBASED_AT_ONCE)).fetchall()]
    rows = [times.rebased(now) for times in overtaken]
    if rows:
        raw.executemany(connection, _REBASE, rows)
    return len(rows)


class _Times(NamedTuple):
    """A row of `_OVERTAKEN`; times are text."""

    id: OperationId
    next_attempt_at: str | None
    lease_until: str | None
    clock_at: str

    def rebased(self, now: datetime) -> tuple[str | None, str | None, str, int, str]:
        """Return the parameters of `_REBASE`: the times, earlier by as much as the clock was set back."""
        step = read_utc_text(self.clock_at) - now
        due, lease = (
            None if text is None else utc_text(read_utc_text(text) - step)
            for text in (self.next_attempt_at, self.lease_until)
        )
        return due, lease, utc_text(now), self.id, self.clock_at


def recheck(connection: Connection, after: Blocked | None) -> list[Blocked]:
    """Return blocked operations in the order of their blockers, `RECHECKED_AT_ONCE` of them, from one of them on.

    Each has its blocker as it is now. The triggers see that a blocker is over; this finds what they do not see: a
    session that left the source id through which the mirror related two operations.
    """
    return statements_of(connection).blocked(connection, after, RECHECKED_AT_ONCE)


def unblock(connection: Connection, blocked: Iterable[Blocked]) -> int:
    """Write the blockers that `recheck` found to be others; return how many."""
    changed = [
        (operation.current, operation.id, operation.before)
        for operation in blocked
        if operation.current != operation.before
    ]
    if changed:
        raw.executemany(connection, "UPDATE operations SET blocked_by = ? WHERE id = ? AND blocked_by = ?", changed)
    return len(changed)


def next_due(connection: Connection, *, after: datetime) -> datetime | None:
    """Return when the next operation that nothing blocks becomes due after a time; None when none waits."""
    at, waiting = utc_text(after), (OperationState.PENDING, OperationState.UNKNOWN)
    with lossy_text(connection):
        rows = [raw.execute(connection, _NEXT_DUE.format(state=state.value), (at,)).fetchone() for state in waiting]
    return min((first for (text,) in rows if (first := read_stored_time(text)) is not None), default=None)


def any_waits(connection: Connection) -> bool:
    """Whether an operation that nothing blocks waits to be claimed, now or later."""
    waiting = (OperationState.PENDING, OperationState.UNKNOWN)
    return any(raw.execute(connection, _ANY_WAITS.format(state=state.value)).fetchone() for state in waiting)


def any_deleted_since(connection: Connection, moment: str) -> bool:
    """Return whether an operation has deleted a session since a time, written as `clock.utc_text` does."""
    statement = _ANY_DELETED_SINCE.format(deleted=statements_of(connection).DELETED)
    return raw.execute(connection, statement, (moment,)).fetchone() is not None


def deleted_since(connection: Connection, session_ids: Iterable[SessionId | None], moment: str) -> set[SessionId]:
    """Return those of some sessions that an operation has deleted since a time."""
    statement = _DELETED_SINCE.format(deleted=statements_of(connection).DELETED)
    rows = raw.execute(connection, statement, (moment, json.dumps([*session_ids]))).fetchall()
    return {session_id for (session_id,) in rows}
