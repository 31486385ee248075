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
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.mirror.db import raw
from syncd.mirror.db.dialects import as_lists, is_postgresql
from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.schema import enums
from syncd.mirror.schema.tables import operations
from syncd.mirror.schema.types import moment, new_id
from syncd.mirror.store import operations_pg

if TYPE_CHECKING:
    from sqlalchemy import Connection

LONGEST_ERROR = 2000


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
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Success:
    """What is written of a claimed operation that succeeded; `at` as `clock.utc_text` writes it."""

    operation: Operation
    session_id: str | None
    at: str
    note: str | None
    status: int | None


_FIELDS = tuple(Operation.__dataclass_fields__)
_ACTIVE = "state IN ('pending', 'running', 'unknown', 'dead')"
"""As it stands in the partial indexes, so that SQLite sees that those serve."""


def _earlier(what: str, this: str, *, at_once: bool = False) -> tuple[str, ...]:
    """Write queries for the earlier operations on the same key that are not over.

    An operation is on the source id or the session id that it names, and on that of the session which the mirror knows
    to belong to it: a delete by id must neither overtake the create of its session, nor be overtaken by the next one.

    Parameters
    ----------
    at_once : bool
        Keep PostgreSQL from a join with all operations, as long as it knows nothing of the rows.
    """
    own = f"s.id = {this}.session_id"
    carriers = f"s.source_session_id = {this}.source_session_id AND s.deleted_at IS NULL"
    alone, known = "operations AS e WHERE", "sessions AS s JOIN operations AS e ON"
    same = (
        f"{alone} e.source_session_id = {this}.source_session_id",
        f"{alone} e.session_id = {this}.session_id",
        *(
            f"{alone} e.{name} = ANY (ARRAY(SELECT s.{key} FROM sessions AS s WHERE {those}))"  # noqa: S608
            if at_once
            else f"{known} e.{name} = s.{key} WHERE e.{name} IS NOT NULL AND {those}"
            for name, key, those in (
                ("source_session_id", "source_session_id", own),
                ("session_id", "id", carriers),
            )
        ),
    )
    return tuple(f"SELECT {what} FROM {one} AND e.id < {this}.id AND e.{_ACTIVE}" for one in same)  # noqa: S608


def _due(when: str, *, at_once: bool = False) -> str:
    """Write the query for the operations that are due and that nothing blocks, the first of them first."""
    return f"""
SELECT {", ".join(_FIELDS)} FROM operations AS o
WHERE state = ? AND {when} AND (lease_until IS NULL OR lease_until < ?)
    {" ".join(f"AND NOT EXISTS ({query})" for query in _earlier("1", "o", at_once=at_once))}
ORDER BY next_attempt_at, id LIMIT ?
"""  # noqa: S608 - constants


_DELETED_SINCE = """
SELECT DISTINCT result_session_id FROM operations WHERE kind = 'delete' AND state = 'succeeded' AND finished_at > ?
    AND result_session_id IN (SELECT value FROM json_each(?))
"""
_ANY_DELETED_SINCE = """
SELECT 1 FROM operations WHERE kind = 'delete' AND state = 'succeeded' AND finished_at > ? LIMIT 1
"""
_NEXT_DUE = "SELECT min(next_attempt_at) FROM operations WHERE state = ? AND next_attempt_at > ?"
_WAITED, _FRESH = "next_attempt_at <= ?", "next_attempt_at IS NULL"
_DUE_NOW = _due(f"({_FRESH} OR {_WAITED})")
_DUE_AND_FREE = operations_pg.free(*(_due(when, at_once=True) for when in (_WAITED, _FRESH)))
_CLAIM = "UPDATE operations SET state = ?, attempts = ?, fence = ?, lease_until = ?, lease_owner = ? WHERE id = ?"


_BLOCKER: sa.ColumnElement[int] = sa.func.coalesce(
    *(sa.literal_column(f"({query})") for query in _earlier("min(e.id)", "operations"))
)
"""The first operation that blocks one."""
_SHOWN = tuple(column for column in operations.c if column is not operations.c.blocked_by)


def enqueue(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Queue operations; return their ids in the order of the rows."""
    return [new_id(connection.execute(sa.insert(operations).values(dict(row)))) for row in rows]


def claim(
    connection: Connection, *, now: datetime, owner: str, lease: float, limit: int, lookups_first: bool = True
) -> list[Operation]:
    """Claim what is due: pending operations to run, unknown ones to look up.

    The claim must be durable before a request leaves; it is when the caller's transaction has been committed.

    Parameters
    ----------
    lookups_first : bool
        Which of both gets the slots when there are not enough; who calls takes turns, so that neither starves.
    """
    at, until = utc_text(now), utc_text(now + timedelta(seconds=lease))
    postgresql = is_postgresql(connection)
    found: list[Operation] = []
    for state in ("unknown", "pending") if lookups_first else ("pending", "unknown"):
        if len(found) < limit:
            with lossy_text(connection):
                left = limit - len(found)
                parameters = (state, at, at, left, state, at, left, left) if postgresql else (state, at, at, left)
                rows = raw.execute(connection, _DUE_AND_FREE if postgresql else _DUE_NOW, parameters).fetchall()
            found += [_read(row) for row in rows]
    claimed = [_take(operation) for operation in found]
    if claimed and postgresql:
        columns = as_lists(zip(*((o.id, o.state, o.attempts, o.fence) for o in claimed), strict=True))
        ids = [operation.id for operation in claimed]
        free = {row[0] for row in raw.execute(connection, operations_pg.CLAIM, (until, owner, *columns, ids))}
        claimed = [operation for operation in claimed if operation.id in free]
    elif claimed:
        raw.executemany(connection, _CLAIM, [(o.state, o.attempts, o.fence, until, owner, o.id) for o in claimed])
    return claimed


def _read(row: Sequence[Any]) -> Operation:
    """Read a row of `_due`."""
    values = [*row[:-3], moment(row[-3]), *row[-2:]]
    return Operation(*values)


def _take(operation: Operation) -> Operation:
    """Return the operation as claimed; an unknown create is only looked up, everything else runs."""
    if operation.state == "unknown" and operation.kind == "create":
        return replace(operation, fence=operation.fence + 1)
    return replace(operation, state="running", fence=operation.fence + 1, attempts=operation.attempts + 1)


def renew(connection: Connection, held: Iterable[Operation], *, until: datetime) -> set[int]:
    """Prolong the leases of claimed operations; return the ids of those that are still held."""
    return {operation.id for operation in held if _write_mine(connection, operation, {"lease_until": until})}


def _write_mine(connection: Connection, operation: Operation, values: Mapping[str, Any]) -> bool:
    """Write columns of a claimed operation; return whether the claim is still good."""
    bound = [utc_text(value) if isinstance(value, datetime) else value for value in values.values()]
    changed = raw.execute(connection, _update(tuple(values)), (*bound, operation.id, operation.fence))
    return bool(changed.rowcount == 1)


@functools.cache
def _update(columns: tuple[str, ...]) -> str:
    settings = ", ".join(f"{column} = ?" for column in columns)
    return f"UPDATE operations SET {settings} WHERE id = ? AND fence = ? AND state IN ('running', 'unknown')"  # noqa: S608 - columns


def write(connection: Connection, operation: Operation, **values: Any) -> None:  # noqa: ANN401 - columns
    """Write what became of a claimed operation.

    Raises
    ------
    LeaseLostError
        The claim is not good any more.
    """
    if not _write_mine(connection, operation, values):
        raise LeaseLostError(f"operation {operation.id} was claimed by somebody else")


def release(connection: Connection, operation: Operation, state: str, **values: Any) -> None:  # noqa: ANN401 - columns
    """Write what became of a claimed operation, and give the claim back."""
    if "last_error" in values and values["last_error"] is not None:
        values["last_error"] = values["last_error"][:LONGEST_ERROR]
    write(connection, operation, state=state, lease_until=None, lease_owner=None, **values)


def finish(connection: Connection, successes: Sequence[Success]) -> None:
    """Write that claimed operations succeeded.

    Raises
    ------
    LeaseLostError
        One of the claims is not good any more.
    """
    if not successes:
        return
    if not is_postgresql(connection):
        for one in successes:
            release(
                connection, one.operation, "succeeded", result_session_id=one.session_id, finished_at=one.at,
                last_error=one.note, last_status=one.status, next_attempt_at=None, unknown_since=None,
            )  # fmt: skip
        return
    rows = [
        (one.operation.id, one.operation.fence, one.session_id, one.at, one.note and one.note[:LONGEST_ERROR],
         one.status)
        for one in successes
    ]  # fmt: skip
    parameters = (*as_lists(zip(*rows, strict=True)), [row[0] for row in rows])
    if raw.execute(connection, operations_pg.FINISH, parameters).rowcount != len(rows):
        raise LeaseLostError("one of these operations was claimed by somebody else")


def recover(connection: Connection, *, now: datetime, abandoned: bool) -> list[tuple[int, str | None]]:
    """Make operations whose holder is gone `unknown`: their request may have been applied.

    Parameters
    ----------
    abandoned : bool
        Every claim is without a holder (this daemon is the only one, and it has just begun), not only those whose
        lease ran out.

    Returns
    -------
    list[tuple[int, str | None]]
        The operations that became unknown, with their source ids.
    """
    late = sa.or_(operations.c.lease_until.is_(None), operations.c.lease_until < now)
    lost = sa.true() if abandoned else late
    query = sa.select(operations.c.id, operations.c.source_session_id).where(operations.c.state == "running", lost)
    rows = [(row.id, row.source_session_id) for row in connection.execute(query.with_for_update(skip_locked=True))]
    for row_id, _ in rows:
        connection.execute(
            sa.update(operations)
            .where(operations.c.id == row_id)
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
    return rows


def next_due(connection: Connection, *, after: datetime) -> datetime | None:
    """Return when the next operation becomes due after a moment; None when none waits for a time."""
    at = utc_text(after)
    with lossy_text(connection):
        firsts = [raw.execute(connection, _NEXT_DUE, (state, at)).fetchone()[0] for state in ("pending", "unknown")]
    return min((first for first in map(moment, firsts) if first is not None), default=None)


def any_deleted_since(connection: Connection, moment: str) -> bool:
    """Whether an operation has deleted a session since a moment, written as `clock.utc_text` does."""
    return raw.execute(connection, _ANY_DELETED_SINCE, (moment,)).fetchone() is not None


def deleted_since(connection: Connection, session_ids: Iterable[str | None], moment: str) -> set[str]:
    """Return those of some sessions that an operation has deleted since a moment."""
    found = raw.execute(connection, _DELETED_SINCE, (moment, json.dumps([*session_ids]))).fetchall()
    return {row[0] for row in found}


def counts(connection: Connection) -> dict[str, int]:
    """Return how many operations are in each state."""
    query = sa.select(operations.c.state, sa.func.count()).group_by(operations.c.state)
    found = {row[0]: row[1] for row in connection.execute(query)}
    return {state: found.get(state, 0) for state in enums.OPERATIONS}


def listing(connection: Connection, *, state: str | None, limit: int) -> Sequence[sa.RowMapping]:
    """Return operations, newest first, each with the id of the one that blocks it."""
    query = sa.select(*_SHOWN, _BLOCKER.label("blocked_by")).order_by(operations.c.id.desc())
    if state is not None:
        query = query.where(operations.c.state == state)
    with lossy_text(connection):
        return connection.execute(query.limit(limit)).mappings().all()


def get(connection: Connection, operation_id: int) -> sa.RowMapping | None:
    """Return one operation, with the id of the one that blocks it."""
    query = sa.select(*_SHOWN, _BLOCKER.label("blocked_by")).where(operations.c.id == operation_id)
    with lossy_text(connection):
        return connection.execute(query).mappings().first()


def retry(connection: Connection, operation_id: int, now: datetime) -> str | None:
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
    allowed_still = operations.c.state.in_(allowed)
    changed = connection.execute(
        sa.update(operations).where(operations.c.id == operation_id, allowed_still).values(values)
    )
    return None if changed.rowcount == 1 else f"operation {operation_id} has just changed; look again"
