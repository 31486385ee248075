"""The queue's rows: enqueued by anyone, claimed with a lease and a fence, and finished by whoever holds the fence.

::

    pending ──claim──► running ──► succeeded
       ▲                  │  ├───► dead ──(an operator)──► pending
       ├──── retry ───────┘  └───► unknown ──look-ups──► succeeded, or pending again
       └──► cancelled (an operator)

Operations on one key (source id or session id) run in the order of their ids, one at a time: one that is pending,
running, unknown or dead blocks those behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.tables import new_id, operations

if TYPE_CHECKING:
    from sqlalchemy import Connection

STATES = ("pending", "running", "unknown", "succeeded", "dead", "cancelled")
LONGEST_ERROR = 2000
_KEYS = ("source_session_id", "session_id")


class LeaseLostError(Exception):
    """Somebody else holds the operation now: whatever this holder did, it must not finish it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A claimed operation.

    `state` is `running`, or `unknown` when the claim is for a look-up only. `target_session_id` is what a delete by
    source id was found to mean. `fence` tells this claim from every other.
    """

    id: int
    kind: str
    source_session_id: str | None
    session_id: str | None
    name: str | None
    parent_id: str | None
    state: str
    attempts: int
    fence: int
    target_session_id: str | None
    unknown_since: datetime | None
    lookups: int


_FIELDS = tuple(Operation.__dataclass_fields__)


@functools.cache  # a table's alias copies all of its columns: too much for every claim
def _earlier(name: str) -> tuple[sa.FromClause, sa.ColumnElement[bool]]:
    """Match the earlier operations on the same key that are not over.

    The states stand in the text as they stand in the partial indexes, so that SQLite sees that those serve.
    """
    earlier = operations.alias(f"earlier_{name}")
    active = sa.text(f"{earlier.name}.state IN ('pending', 'running', 'unknown', 'dead')")
    return earlier, sa.and_(earlier.c[name] == operations.c[name], earlier.c.id < operations.c.id, active)


def _blocked() -> sa.ColumnElement[bool]:
    """Whether an earlier operation on the same key is not over."""
    return sa.or_(*(sa.exists().where(_earlier(name)[1]) for name in _KEYS))


def _blocker() -> sa.ColumnElement[int]:
    """Return the first operation that blocks this one."""
    firsts = [
        sa.select(sa.func.min(earlier.c.id)).where(same).scalar_subquery() for earlier, same in map(_earlier, _KEYS)
    ]
    return sa.func.coalesce(*firsts)


def enqueue(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Queue operations; return their ids in the order of the rows."""
    return [new_id(connection.execute(sa.insert(operations).values(dict(row)))) for row in rows]


def claim(connection: Connection, *, now: datetime, owner: str, lease: float, limit: int) -> list[Operation]:
    """Claim what is due: pending operations to run, unknown ones to look up.

    The claim must be durable before a request leaves; it is when the caller's transaction has been committed.
    """
    due = sa.or_(operations.c.next_attempt_at.is_(None), operations.c.next_attempt_at <= now)
    free = sa.or_(operations.c.lease_until.is_(None), operations.c.lease_until < now)
    columns = [operations.c[name] for name in _FIELDS]
    found: list[sa.Row[Any]] = []
    for state in ("unknown", "pending"):
        query = (
            sa.select(*columns)
            .where(operations.c.state == state, due, free, ~_blocked())
            .order_by(operations.c.next_attempt_at, operations.c.id)
            .limit(limit - len(found))
        )
        if len(found) < limit:
            found += connection.execute(query).all()
    claimed = [_take(Operation(*tuple(row))) for row in found]
    if claimed:
        connection.execute(
            sa.update(operations)
            .where(operations.c.id == sa.bindparam("b_id"))
            .values(
                state=sa.bindparam("b_state"), attempts=sa.bindparam("b_attempts"), fence=sa.bindparam("b_fence"),
                lease_until=now + timedelta(seconds=lease), lease_owner=owner,
            ),
            [{"b_id": o.id, "b_state": o.state, "b_attempts": o.attempts, "b_fence": o.fence} for o in claimed],
        )  # fmt: skip
    return claimed


def _take(operation: Operation) -> Operation:
    """Return the operation as claimed; an unknown create is only looked up, everything else runs."""
    if operation.state == "unknown" and operation.kind == "create":
        return replace(operation, fence=operation.fence + 1)
    return replace(operation, state="running", fence=operation.fence + 1, attempts=operation.attempts + 1)


def renew(connection: Connection, held: Iterable[Operation], *, until: datetime) -> set[int]:
    """Prolong the leases of claimed operations; return the ids of those that are still held."""
    return {
        operation.id
        for operation in held
        if connection.execute(_mine(operation).values(lease_until=until)).rowcount == 1
    }


def _mine(operation: Operation) -> sa.Update:
    return sa.update(operations).where(
        operations.c.id == operation.id,
        operations.c.fence == operation.fence,
        operations.c.state.in_(("running", "unknown")),
    )


def write(connection: Connection, operation: Operation, **values: Any) -> None:  # noqa: ANN401 - columns
    """Write what became of a claimed operation.

    Raises
    ------
    LeaseLostError
        The claim is not good any more.
    """
    if connection.execute(_mine(operation).values(values)).rowcount != 1:
        raise LeaseLostError(f"operation {operation.id} was claimed by somebody else")


def release(connection: Connection, operation: Operation, state: str, **values: Any) -> None:  # noqa: ANN401 - columns
    """Write what became of a claimed operation, and give the claim back."""
    if "last_error" in values and values["last_error"] is not None:
        values["last_error"] = values["last_error"][:LONGEST_ERROR]
    write(connection, operation, state=state, lease_until=None, lease_owner=None, **values)


def recover(connection: Connection, *, now: datetime, abandoned: bool) -> list[int]:
    """Make operations whose holder is gone `unknown`: their request may have been applied.

    Parameters
    ----------
    abandoned : bool
        Every claim is without a holder (this daemon is the only one, and it has just begun), not only those whose
        lease ran out.

    Returns
    -------
    list[int]
        The operations that became unknown.
    """
    lost = sa.true() if abandoned else operations.c.lease_until < now
    rows = connection.execute(sa.select(operations.c.id).where(operations.c.state == "running", lost)).scalars().all()
    if rows:
        connection.execute(
            sa.update(operations)
            .where(operations.c.state == "running", lost)
            .values(
                state="unknown", unknown_since=now, lookups=0, next_attempt_at=now, lease_until=None, lease_owner=None,
                fence=operations.c.fence + 1, last_error="the daemon that held it stopped before it knew the answer",
            )
        )  # fmt: skip
    if abandoned:
        connection.execute(
            sa.update(operations)
            .where(operations.c.state == "unknown", operations.c.lease_until.is_not(None))
            .values(lease_until=None, lease_owner=None, fence=operations.c.fence + 1)
        )
    return list(rows)


def next_due(connection: Connection) -> datetime | None:
    """Return when the next waiting operation is due; None when none waits for a time."""
    waiting = sa.select(sa.func.min(operations.c.next_attempt_at)).where(
        operations.c.state.in_(("pending", "unknown")), operations.c.next_attempt_at.is_not(None)
    )
    return connection.execute(waiting).scalar()


def counts(connection: Connection) -> dict[str, int]:
    """Return how many operations are in each state."""
    query = sa.select(operations.c.state, sa.func.count()).group_by(operations.c.state)
    found = {row[0]: row[1] for row in connection.execute(query)}
    return {state: found.get(state, 0) for state in STATES}


def listing(connection: Connection, *, state: str | None, limit: int) -> Sequence[sa.RowMapping]:
    """Return operations, newest first, each with the id of the one that blocks it."""
    query = sa.select(operations, _blocker().label("blocked_by")).order_by(operations.c.id.desc())
    if state is not None:
        query = query.where(operations.c.state == state)
    return connection.execute(query.limit(limit)).mappings().all()


def get(connection: Connection, operation_id: int) -> sa.RowMapping | None:
    """Return one operation."""
    query = sa.select(operations).where(operations.c.id == operation_id)
    return connection.execute(query).mappings().first()


def revive(connection: Connection, operation_id: int, now: datetime) -> str | None:
    """Make a dead operation pending again; return what is wrong with that, None when nothing is."""
    return _decide(connection, operation_id, {"dead"}, {
        "state": "pending", "attempts": 0, "finished_at": None, "next_attempt_at": now,
        "unknown_since": None, "lookups": 0,
    })  # fmt: skip


def cancel(connection: Connection, operation_id: int, now: datetime) -> str | None:
    """Cancel a pending operation, or give up a dead one so that it blocks its key no longer.

    Returns
    -------
    str | None
        What is wrong with that, None when nothing is.
    """
    return _decide(connection, operation_id, {"pending", "dead"}, {"state": "cancelled", "finished_at": now})


def _decide(connection: Connection, operation_id: int, allowed: set[str], values: dict[str, Any]) -> str | None:
    row = get(connection, operation_id)
    if row is None:
        return f"there is no operation {operation_id}"
    if row["state"] not in allowed:
        return f"operation {operation_id} is {row['state']}, not {' or '.join(sorted(allowed))}"
    connection.execute(sa.update(operations).where(operations.c.id == operation_id).values(values))
    return None
