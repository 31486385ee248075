"""The statements of the queue that differ between the databases, SQLite's and PostgreSQL's next to each other.

`statements_of` gives the object for a connection; `operations` calls it and does not select a dialect itself.

On PostgreSQL several replicas claim at the same time. Rows that a claim has found are locked (`FOR UPDATE SKIP
LOCKED`), which keeps two replicas from claiming one operation. It does not keep them from claiming two operations of
one key: an INSERT with a lower id may become visible after a higher one was claimed. So a claim also takes a lock on
the key, for its transaction, and checks again under it, in the statement that claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from syncd.clock import read_stored_time
from syncd.mirror.db import locks, raw
from syncd.mirror.db.dialects import PerDialect, as_lists, json_columns
from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.schema.enums import ACTIVE
from syncd.mirror.store.operation import FIELDS, Blocked, DueOperation, Operation, Success
from syncd.mirror.store.operation_keys import blocker, same_column
from syncd.records.enums import OperationKind, OperationState
from syncd.records.ids import OperationId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

_COLUMNS = ", ".join((*FIELDS, "next_attempt_at", "requested_at"))
_RESULT = (*FIELDS, "next_attempt_at", "requested_at", "blocked_by", "free")
_CLAIMED = ("id", "state", "attempts", "fence")
_HELD = "state IN ('running', 'unknown')"


class Statements(Protocol):
    """The statements that the queue needs. Times are text as `clock.utc_text` writes it."""

    DELETED: str
    """The table of operations where succeeded deletes are read by the time they ended."""
    OVERTAKEN: str
    """The times of waiting operations that were written when the clock showed more than it does now."""

    def due(self, connection: Connection, state: OperationState, *, now: str, limit: int) -> list[DueOperation]:
        """Return the operations of a state that have been due for the longest time, in that order."""

    def claim(
        self, connection: Connection, claims: Sequence[Operation], *, now: str, until: str, owner: str
    ) -> set[OperationId]:
        """Write claims; return the ids of those that nothing on their key prevents."""

    def blocked(self, connection: Connection, after: Blocked | None, limit: int) -> list[Blocked]:
        """Return blocked operations, each with its blocker as it is, in the order of the blockers in their rows."""

    def finish(self, connection: Connection, successes: Sequence[Success]) -> int:
        """Write that operations succeeded, where their claims are valid; return how many were written."""


def _candidates(rows: Iterable[Sequence[Any]]) -> list[DueOperation]:
    return [_candidate(dict(zip(_RESULT, row, strict=True))) for row in rows]


def _candidate(row: dict[str, Any]) -> DueOperation:
    values = {name: row[name] for name in FIELDS}
    values |= {
        "kind": OperationKind(row["kind"]),
        "state": OperationState(row["state"]),
        "unknown_since": read_stored_time(row["unknown_since"]),
        "settle_for": read_stored_time(row["settle_for"]),
    }
    return DueOperation(Operation(**values), row["blocked_by"], bool(row["free"]))


def _startable(state: OperationState, now: str) -> str:
    """Write the condition of the index of due operations, with the state as a constant: a parameter implies nothing."""
    free = f"(lease_until IS NULL OR lease_until < {now})"
    return f"state = '{state.value}' AND blocked_by IS NULL AND on_hold_at IS NULL AND {free}"


# Operations that wait for a time and those that never waited are read apart, each in the order of the index, so that
# the first ones are all that is read. Both are then ordered by the time since which they are due. A time of insertion
# in the future counts as now. PostgreSQL does not know that rows with a column that IS NULL are in its order.
_SQLITE_DUE = """
SELECT {fields}, next_attempt_at, requested_at, {blocker} AS blocked_by, 1 AS free FROM (
    SELECT * FROM (
        SELECT * FROM (
            SELECT {columns} FROM operations WHERE {startable} AND next_attempt_at <= ?1
            ORDER BY next_attempt_at, id LIMIT ?2
        )
        UNION ALL
        SELECT * FROM (
            SELECT {columns} FROM operations WHERE {startable} AND next_attempt_at IS NULL
            ORDER BY next_attempt_at, id LIMIT ?2
        )
    )
    ORDER BY min(coalesce(next_attempt_at, requested_at), ?1), id LIMIT ?2
) AS o
"""
# MATERIALIZED: the planner may evaluate the cheaper of two conditions first, and would lock the key of every row.
_POSTGRESQL_DUE = """
WITH waited AS MATERIALIZED (
    SELECT {columns} FROM operations AS o WHERE {startable} AND next_attempt_at <= $1
    ORDER BY next_attempt_at, id LIMIT $2 FOR UPDATE OF o SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT {columns} FROM operations AS o WHERE {startable} AND next_attempt_at IS NULL
    ORDER BY next_attempt_at, id LIMIT $2 FOR UPDATE OF o SKIP LOCKED
), due AS MATERIALIZED (
    SELECT * FROM (SELECT * FROM waited UNION ALL SELECT * FROM fresh) AS o
    ORDER BY least(coalesce(next_attempt_at, requested_at), $1), id LIMIT $2
), checked AS MATERIALIZED (
    SELECT o.*, {blocker} AS blocked_by FROM due AS o
)
SELECT {fields}, next_attempt_at, requested_at, blocked_by, CASE WHEN blocked_by IS NULL THEN pg_try_advisory_xact_lock(
    {locks}, hashtext(current_schema() || coalesce(' s ' || source_session_id, ' i ' || session_id))) END AS free
FROM checked ORDER BY least(coalesce(next_attempt_at, requested_at), $1), id
"""

_SQLITE_CLAIM = """
UPDATE operations SET state = ?, attempts = ?, fence = ?, lease_until = ?, lease_owner = ?, clock_at = ? WHERE id = ?
"""
# The later operations on a key may be many, so those that run are read apart: there are few of them.
_POSTGRESQL_CLAIM = f"""
WITH running AS MATERIALIZED (SELECT id, source_session_id, session_id FROM operations WHERE state = 'running')
UPDATE operations AS o SET state = r.state, attempts = r.attempts::int, fence = r.fence::bigint, lease_until = $1,
    lease_owner = $2, clock_at = $3
FROM {json_columns(4, *_CLAIMED)}
WHERE o.id = r.id::bigint AND o.id = ANY($8::bigint[]) AND {same_column("o", "last", "postgresql")} IS NULL
AND NOT EXISTS (
    SELECT 1 FROM running AS r
    WHERE r.id <> o.id AND (r.source_session_id = o.source_session_id OR r.session_id = o.session_id)
)
RETURNING o.id
"""  # noqa: S608 - constants

# SQLite would read all operations of a state instead of the index on the times, which is nearly always empty.
_OVERTAKEN = """
SELECT id, next_attempt_at, lease_until, clock_at FROM operations {indexed}
WHERE (state = 'pending' OR state = 'unknown') AND clock_at > ? ORDER BY clock_at LIMIT ?
"""
# A blocker on the same column stays one until it is over. Every other one is looked for again.
_BLOCKED = """
SELECT o.id, o.blocked_by, CASE WHEN EXISTS (
    SELECT 1 FROM operations AS p WHERE p.id = o.blocked_by AND p.{active}
        AND (p.source_session_id = o.source_session_id OR p.session_id = o.session_id)
) THEN o.blocked_by ELSE {blocker} END AS now
FROM (
    SELECT id, blocked_by, source_session_id, session_id FROM operations
    WHERE blocked_by >= ? AND (blocked_by > ? OR id > ?) ORDER BY blocked_by, id LIMIT ?
) AS o
ORDER BY o.blocked_by, o.id
"""

_SUCCEEDED = "next_attempt_at = NULL, clock_at = NULL, unknown_since = NULL, lease_until = NULL, lease_owner = NULL"
_SQLITE_FINISH = f"""
UPDATE operations SET state = 'succeeded', result_session_id = ?3, finished_at = ?4, last_error = ?5, last_status = ?6,
    {_SUCCEEDED}
WHERE id = ?1 AND fence = ?2 AND {_HELD}
"""  # noqa: S608 - constants
_POSTGRESQL_FINISH = f"""
UPDATE operations AS o SET state = 'succeeded', result_session_id = r.session_id, finished_at = r.at::timestamptz,
    last_error = r.note, last_status = r.status::int, {_SUCCEEDED}
FROM {json_columns(1, "id", "fence", "session_id", "at", "note", "status")}
WHERE o.id = r.id::bigint AND o.id = ANY($7::bigint[]) AND o.fence = r.fence::bigint AND o.{_HELD}
"""  # noqa: S608 - constants


def _finished(success: Success) -> tuple[OperationId | int | str | None, ...]:
    """Return the values of a success in the order of the statements above."""
    operation = success.operation
    return operation.id, operation.fence, success.session_id, success.at, success.note, success.status


def _blocked(connection: Connection, statement: str, after: Blocked | None, limit: int) -> list[Blocked]:
    start = Blocked(OperationId(0), OperationId(0), None) if after is None else after
    rows = raw.execute(connection, statement, (start.before, start.before, start.id, limit)).fetchall()
    return [Blocked(*row) for row in rows]


def _due_statements(template: str, **parts: str) -> dict[OperationState, str]:
    fields = ", ".join(FIELDS)
    now = "?1" if "?1" in template else "$1"
    return {
        state: template.format(fields=fields, columns=_COLUMNS, startable=_startable(state, now), **parts)
        for state in (OperationState.UNKNOWN, OperationState.PENDING)
    }


class _Sqlite:
    """One daemon at a time: what it reads in its transaction is true until the end of it."""

    DUE = _due_statements(_SQLITE_DUE, blocker=blocker("o", "last", "sqlite"))

    BLOCKED = _BLOCKED.format(active=ACTIVE, blocker=blocker("o", "last", "sqlite"))
    DELETED = "operations INDEXED BY ix_operations_deleted"  # SQLite would read all succeeded ones
    OVERTAKEN = _OVERTAKEN.format(indexed="INDEXED BY ix_operations_clock")

    def due(self, connection: Connection, state: OperationState, *, now: str, limit: int) -> list[DueOperation]:
        with lossy_text(connection):
            return _candidates(raw.execute(connection, self.DUE[state], (now, limit)).fetchall())

    def claim(
        self, connection: Connection, claims: Sequence[Operation], *, now: str, until: str, owner: str
    ) -> set[OperationId]:
        rows = [
            (operation.state.value, operation.attempts, operation.fence, until, owner, now, operation.id)
            for operation in claims
        ]
        raw.executemany(connection, _SQLITE_CLAIM, rows)
        return {operation.id for operation in claims}

    def blocked(self, connection: Connection, after: Blocked | None, limit: int) -> list[Blocked]:
        return _blocked(connection, self.BLOCKED, after, limit)

    def finish(self, connection: Connection, successes: Sequence[Success]) -> int:
        return sum(raw.execute(connection, _SQLITE_FINISH, _finished(success)).rowcount for success in successes)


class _Postgresql:
    """Replicas claim at the same time; each method is one round trip for all rows."""

    DUE = _due_statements(_POSTGRESQL_DUE, blocker=blocker("o", "last", "postgresql"), locks=str(locks.OPERATION_KEY))

    BLOCKED = _BLOCKED.format(active=ACTIVE, blocker=blocker("o", "last", "postgresql"))
    DELETED = "operations"
    OVERTAKEN = _OVERTAKEN.format(indexed="")

    def due(self, connection: Connection, state: OperationState, *, now: str, limit: int) -> list[DueOperation]:
        return _candidates(raw.execute(connection, self.DUE[state], (now, limit)).fetchall())

    def claim(
        self, connection: Connection, claims: Sequence[Operation], *, now: str, until: str, owner: str
    ) -> set[OperationId]:
        columns = as_lists([[getattr(operation, name) for operation in claims] for name in _CLAIMED])
        parameters = (until, owner, now, *columns, [operation.id for operation in claims])
        return set(raw.execute(connection, _POSTGRESQL_CLAIM, parameters).scalars())

    def blocked(self, connection: Connection, after: Blocked | None, limit: int) -> list[Blocked]:
        return _blocked(connection, self.BLOCKED, after, limit)

    def finish(self, connection: Connection, successes: Sequence[Success]) -> int:
        columns = as_lists(zip(*map(_finished, successes), strict=True))
        parameters = (*columns, [success.operation.id for success in successes])
        return int(raw.execute(connection, _POSTGRESQL_FINISH, parameters).rowcount)


_STATEMENTS = PerDialect[Statements](sqlite=_Sqlite(), postgresql=_Postgresql())


def statements_of(connection: Connection) -> Statements:
    """Return the statements for the database of a connection."""
    return _STATEMENTS.on(connection)
