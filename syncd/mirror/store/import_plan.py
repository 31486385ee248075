"""A file of operations: predicts the outcome of each row, and queues all rows. `syncd enqueue import` calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.schema.tables import ACTIVE, operations, sessions
from syncd.records.enums import OPEN_STATES, OperationKind
from syncd.records.fields import SESSIONS, SessionRow
from syncd.records.operation_kinds import CONTENT_COLUMNS
from syncd.rules.sources import difference

if TYPE_CHECKING:
    from sqlalchemy import Connection

CHUNK = 1000
"""Rows of one INSERT, and of one step of the progress bar."""


class PlannedOutcome(StrEnum):
    """The predicted outcome of a row."""

    CREATED = "created"
    ADOPTED = "adopted"
    """Albert has the session with another name or folder."""
    UPDATED = "updated"
    DELETED = "deleted"
    THERE = "there"
    """Albert has what the row asks for, or an earlier row or operation asks for the same."""
    ABSENT = "absent"
    """The session to delete or to update does not exist."""


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The last operation on a session before a row, in the file or in the queue.

    `exists` tells whether the session exists after it.
    """

    exists: bool
    row: Mapping[str, Any]


def enqueue_all(
    connection: Connection, rows: list[dict[str, Any]], *, on_row: Callable[[int], None] | None = None
) -> None:
    """Queue every row in the caller's transaction."""
    names = ("kind", *CONTENT_COLUMNS)
    for start in range(0, len(rows), CHUNK):
        chunk = [{name: row[name] for name in names} for row in rows[start : start + CHUNK]]
        connection.execute(sa.insert(operations), chunk)
        if on_row is not None:
            on_row(start + len(chunk))


def plan(connection: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predict the outcome of each row from the mirror and the queue.

    Returns
    -------
    list[dict]
        Each with `line`, `kind`, `source_session_id`, `id`, `outcome` (a `PlannedOutcome`) and `note`.
    """
    planned: dict[tuple[str, str], _Earlier] = {}
    with lossy_text(connection):
        return [_plan_row(connection, row, planned) for row in rows]


def _plan_row(connection: Connection, row: dict[str, Any], planned: dict[tuple[str, str], _Earlier]) -> dict[str, Any]:
    live = _live(connection, row)
    key = ("id", row["session_id"]) if row["session_id"] else ("source", row["source_session_id"])
    earlier = planned.get(key) or _queued(connection, row)
    outcome, note = _outcome(row, live, earlier)
    exists = row["kind"] != OperationKind.DELETE and outcome is not PlannedOutcome.ABSENT
    planned[key] = _Earlier(exists, row)
    return {
        "line": row["line"], "kind": row["kind"], "source_session_id": row["source_session_id"],
        "id": row["session_id"] or (live.id if live is not None else None), "outcome": outcome.value, "note": note,
    }  # fmt: skip


def _outcome(
    row: dict[str, Any], live: SessionRow | None, earlier: _Earlier | None
) -> tuple[PlannedOutcome, str | None]:
    if earlier is not None and _same(earlier.row, row):
        return PlannedOutcome.THERE, "queued already"
    exists = live is not None if earlier is None else earlier.exists
    if row["kind"] == OperationKind.DELETE:
        return (PlannedOutcome.DELETED if exists else PlannedOutcome.ABSENT), None
    if not exists:
        return (PlannedOutcome.CREATED if row["kind"] == OperationKind.CREATE else PlannedOutcome.ABSENT), None
    differs = None if live is None else difference(live, _wanted(row))
    if row["kind"] == OperationKind.CREATE:
        return (PlannedOutcome.ADOPTED if differs else PlannedOutcome.THERE), differs
    unchanged = earlier is None and differs is None
    return (PlannedOutcome.THERE if unchanged else PlannedOutcome.UPDATED), differs


def _wanted(row: dict[str, Any]) -> dict[str, str | None]:
    """Return what a create or an update wants; an empty folder means none."""
    if row["kind"] == OperationKind.CREATE:
        return {"name": row["name"], "parent_id": row["parent_id"] or None}
    return {name: row[name] or None for name in ("name", "parent_id") if row[name] is not None}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the second of two operations on one session changes nothing after the first."""
    if one["kind"] != other["kind"]:
        return False
    return one["kind"] != OperationKind.UPDATE or all(one[name] == other[name] for name in ("name", "parent_id"))


def _live(connection: Connection, row: dict[str, Any]) -> SessionRow | None:
    column, value = ("id", row["session_id"]) if row["session_id"] else ("source_session_id", row["source_session_id"])
    columns = [sa.type_coerce(sessions.c[name], sa.Text) for name in SESSIONS.columns]
    query = sa.select(*columns).where(sessions.c[column] == value, sessions.c.deleted_at.is_(None)).limit(1)
    found = connection.execute(query).mappings().first()
    return None if found is None else SessionRow(**found)


def _queued(connection: Connection, row: dict[str, Any]) -> _Earlier | None:
    """Return the last queued operation on the same id that is not over."""
    column = "session_id" if row["session_id"] else "source_session_id"
    query = (
        sa.select(operations.c.kind, operations.c.name, operations.c.parent_id)
        .where(
            operations.c[column] == row[column],
            sa.text(ACTIVE),
            operations.c.state.in_(OPEN_STATES),
        )
        .order_by(operations.c.id.desc())
        .limit(1)
    )
    found = connection.execute(query).mappings().first()
    return None if found is None else _Earlier(found["kind"] != OperationKind.DELETE, dict(found))
