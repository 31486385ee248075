"""Operators' decisions about operations: retry, cancel and release; `cli/operations` calls it.

Each decision is one transaction with its effect, the audit row included. docs/operations.md lists the states and their
exits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.schema.tables import operations
from syncd.mirror.store import operator_actions
from syncd.records.enums import ACTIVE_STATES, OperationState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.records.ids import OperationId

MAY_HAVE_BEEN_APPLIED = "its answer was lost, so Albert may have applied it; look for the session in Albert"


@dataclass(frozen=True, slots=True)
class Decided:
    """The result of a decision about one operation.

    `problem` is the reason why it was not possible; nothing was changed then. `warning` is a text for the operator.
    """

    id: OperationId
    problem: str | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """The person who decides, and when."""

    by: str
    now: datetime


def retry(connection: Connection, operation_id: OperationId, operator: Operator) -> Decided:
    """Make a dead operation pending again, with all of its attempts. This also ends its hold."""
    return _decide(connection, operation_id, operator, "retry", {OperationState.DEAD}, _RETRIED)


def cancel(connection: Connection, operation_id: OperationId, operator: Operator) -> Decided:
    """Cancel an operation that is pending, unknown or dead, so that it no longer blocks its key.

    A look-up of an unknown operation may be under way. The fence rises, so that its result is discarded.
    """
    values = {
        "state": OperationState.CANCELLED.value, "finished_at": operator.now, "fence": operations.c.fence + 1,
        "next_attempt_at": None, "clock_at": None, "lease_until": None, "lease_owner": None, "on_hold_at": None,
    }  # fmt: skip
    allowed = {OperationState.PENDING, OperationState.UNKNOWN, OperationState.DEAD}
    return _decide(connection, operation_id, operator, "cancel", allowed, values)


def release(connection: Connection, operation_id: OperationId, operator: Operator) -> Decided:
    """End the hold of an operation: it continues where the backup was made."""
    row = _row(connection, operation_id)
    if row is None:
        return _missing(operation_id)
    if row.on_hold_at is None:
        return Decided(operation_id, f"operation {operation_id} is not on hold; it is {row.state}")
    return _decide(connection, operation_id, operator, "release", ACTIVE_STATES, {"on_hold_at": None})


def retry_all_dead(connection: Connection, operator: Operator) -> list[int]:
    """Make every dead operation pending again; return their ids."""
    return _decide_all(connection, operator, "retry", operations.c.state == OperationState.DEAD.value, _RETRIED)


def release_all(connection: Connection, operator: Operator) -> list[int]:
    """End the hold of every operation; return their ids."""
    return _decide_all(connection, operator, "release", operations.c.on_hold_at.is_not(None), {"on_hold_at": None})


_RETRIED: dict[str, Any] = {
    "state": OperationState.PENDING.value, "attempts": 0, "finished_at": None, "next_attempt_at": None,
    "clock_at": None, "unknown_since": None, "settle_for": None, "lookups": 0, "on_hold_at": None,
}  # fmt: skip


def _row(connection: Connection, operation_id: OperationId) -> Any:  # noqa: ANN401 - a row, or None
    columns = (operations.c.state, operations.c.on_hold_at, operations.c.attempts)
    return connection.execute(sa.select(*columns).where(operations.c.id == operation_id)).first()


def _missing(operation_id: OperationId) -> Decided:
    return Decided(operation_id, f"there is no operation {operation_id}")


def _decide(
    connection: Connection,
    operation_id: OperationId,
    operator: Operator,
    action: str,
    allowed: Collection[OperationState],
    values: dict[str, Any],
) -> Decided:
    row = _row(connection, operation_id)
    if row is None:
        return _missing(operation_id)
    if row.state not in allowed:
        return Decided(operation_id, f"operation {operation_id} is {row.state}, not {_any_of(allowed)}")
    changed = connection.execute(
        sa.update(operations).where(operations.c.id == operation_id, operations.c.state == row.state).values(values)
    )
    if changed.rowcount != 1:
        return Decided(operation_id, f"operation {operation_id} has changed meanwhile; run the command again")
    _record(connection, operator, action, f"operation {operation_id}", f"it was {row.state}")
    lost = action == "cancel" and row.state == OperationState.UNKNOWN
    return Decided(operation_id, warning=f"operation {operation_id}: {MAY_HAVE_BEEN_APPLIED}" if lost else None)


def _decide_all(
    connection: Connection,
    operator: Operator,
    action: str,
    which: sa.ColumnElement[bool],
    values: dict[str, Any],
) -> list[int]:
    """Decide about every operation of a kind, and record that as one action."""
    changed = connection.execute(sa.update(operations).where(which).values(values).returning(operations.c.id))
    ids = sorted(changed.scalars())
    if ids:
        _record(connection, operator, action, f"{len(ids)} operations", _ranges(ids))
    return ids


def _record(connection: Connection, operator: Operator, action: str, subject: str, detail: str) -> None:
    operator_actions.record(connection, now=operator.now, by=operator.by, action=action, subject=subject, detail=detail)


def _any_of(states: Iterable[OperationState]) -> str:
    *others, last = sorted(state.value for state in states)
    return f"{', '.join(others)} or {last}" if others else last


def _ranges(ids: Sequence[int]) -> str:
    """Write sorted ids as ranges, such as `1-3, 7`."""
    ranges: list[list[int]] = []
    for operation_id in ids:
        if ranges and ranges[-1][-1] == operation_id - 1:
            ranges[-1][1:] = [operation_id]
        else:
            ranges.append([operation_id])
    return ", ".join("-".join(map(str, bounds)) for bounds in ranges)
