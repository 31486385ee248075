"""A file of operations: predicts the outcome of each row, and queues all rows. `syncd enqueue import` calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.schema.enums import ACTIVE
from syncd.mirror.schema.tables import operations, sessions
from syncd.records.enums import OPEN_STATES, OperationKind
from syncd.records.operation_kinds import CONTENT_COLUMNS
from syncd.rules.predictions import PredictedSession, Prediction, Predictions

if TYPE_CHECKING:
    from sqlalchemy import Connection

CHUNK = 1000
"""Rows of one INSERT, ids of one SELECT, and rows of one step of the progress bar."""


def enqueue_all(
    connection: Connection, rows: list[dict[str, Any]], *, on_row: Callable[[int], None] | None = None
) -> None:
    """Queue every row in the caller's transaction.

    Raises
    ------
    DatabaseUnusableError
        A trigger of another program let the database ignore a row.
    """
    names = ("kind", *CONTENT_COLUMNS)
    last = connection.execute(sa.select(sa.func.max(operations.c.id))).scalar() or 0
    for start in range(0, len(rows), CHUNK):
        chunk = [{name: row[name] for name in names} for row in rows[start : start + CHUNK]]
        connection.execute(sa.insert(operations), chunk)
        if on_row is not None:
            on_row(start + len(chunk))
    queued = connection.execute(sa.select(sa.func.count()).where(operations.c.id > last)).scalar() or 0
    if queued < len(rows):
        raise DatabaseUnusableError("a trigger on the table operations ignores rows; nothing was queued")


def plan(connection: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predict the outcome of each row from the mirror and the queue.

    The operations of the queue run first, then the rows, all in their order.

    Returns
    -------
    list[dict]
        Each with `line`, `item`, `kind`, `source_session_id`, `id`, `outcome` (a `PlannedOutcome`) and `note`.
    """
    ids = {row["session_id"] for row in rows if row["session_id"]}
    sources = {row["source_session_id"] for row in rows if row["source_session_id"]}
    with lossy_text(connection):
        live = _live(connection, ids, sources)
        ids.update(session.id for session in live)
        sources.update(session.source_session_id for session in live if session.source_session_id)
        predictions = Predictions(live)
        for operation in _queued(connection, ids, sources):
            predictions.predict(operation)
    return [_planned(row, predictions.predict(row)) for row in rows]


def _planned(row: dict[str, Any], prediction: Prediction) -> dict[str, Any]:
    return {
        "line": row["line"], "item": row["item"], "kind": row["kind"], "source_session_id": row["source_session_id"],
        "id": row["session_id"] or prediction.session_id, "outcome": prediction.outcome.value, "note": prediction.note,
    }  # fmt: skip


def _live(connection: Connection, ids: set[str], sources: set[str]) -> list[PredictedSession]:
    """Return the live sessions with these ids or source ids, and all others with a source id of one of them.

    Listed sessions come before missing ones.
    """
    rows = {row.id: row for row in _live_in(connection, sessions.c.id, ids)}
    further = sources | {row.source_session_id for row in rows.values() if row.source_session_id}
    rows |= {row.id: row for row in _live_in(connection, sessions.c.source_session_id, further)}
    ordered = sorted(rows.values(), key=lambda row: (row.is_missing, row.id))
    return [PredictedSession(row.id, row.source_session_id, row.name, row.parent_id) for row in ordered]


def _live_in(connection: Connection, column: sa.Column[Any], values: Iterable[str]) -> Iterator[sa.Row[Any]]:
    query = sa.select(
        sessions.c.id,
        sessions.c.source_session_id,
        sessions.c.name,
        sessions.c.parent_id,
        sessions.c.missing_since.is_not(None).label("is_missing"),
    ).where(sessions.c.deleted_at.is_(None))
    for chunk in _chunks(values):
        yield from connection.execute(query.where(column.in_(chunk)))


def _queued(connection: Connection, ids: set[str], sources: set[str]) -> list[dict[str, Any]]:
    """Return the queued operations that are not over and name one of these ids or source ids, in their order."""
    columns = operations.c
    query = sa.select(
        columns.id, columns.kind, columns.source_session_id, columns.session_id, columns.target_session_id,
        columns.name, columns.parent_id,
    ).where(sa.text(ACTIVE), columns.state.in_(OPEN_STATES))  # fmt: skip
    queued: dict[int, dict[str, Any]] = {}
    for column, values in ((columns.session_id, ids), (columns.source_session_id, sources)):
        for chunk in _chunks(values):
            rows = connection.execute(query.where(column.in_(chunk))).mappings()
            queued |= {row["id"]: dict(row) for row in rows}
    for operation in queued.values():
        if operation["kind"] != OperationKind.CREATE:
            operation["session_id"] = operation["session_id"] or operation["target_session_id"]
    return [queued[number] for number in sorted(queued)]


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(values)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
