"""A file of operations and the queue: what would become of each row, and all of them queued."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.schema.tables import operations, sessions
from syncd.records.fields import SESSIONS, SessionRow
from syncd.rules.sources import difference

if TYPE_CHECKING:
    from sqlalchemy import Connection


def enqueue_all(
    connection: Connection, rows: list[dict[str, Any]], *, on_row: Callable[[int], None] | None = None
) -> None:
    """Queue every row in the caller's transaction."""
    names = ("kind", "source_session_id", "session_id", "name", "parent_id")
    for start in range(0, len(rows), 1000):
        chunk = [{name: row[name] for name in names} for row in rows[start : start + 1000]]
        connection.execute(sa.insert(operations), chunk)
        if on_row is not None:
            on_row(start + len(chunk))


def plan(connection: Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say what would become of each row, as far as the mirror and the queue can tell.

    Returns
    -------
    list[dict]
        Each with `line`, `kind`, `source_session_id`, `id`, `note` and an `outcome`: `created`, `adopted` (Albert has
        it with another name or folder), `there` (as asked for, or queued already), `deleted`, `absent` (nothing to
        delete).
    """
    planned: dict[tuple[str, str], bool] = {}
    return [_plan_one(connection, row, planned) for row in rows]


def _plan_one(connection: Connection, row: dict[str, Any], planned: dict[tuple[str, str], bool]) -> dict[str, Any]:
    """Plan a row; `planned` tells which sessions rows before it create (True) or delete (False)."""
    live = _live(connection, row)
    key = ("id", row["session_id"]) if row["session_id"] else ("source", row["source_session_id"])
    creates, before = row["kind"] == "create", planned.get(key)
    planned[key] = creates
    note = None
    if before is creates or (before is None and _queued(connection, row)):
        outcome, note = "there", "queued already"
    elif not creates:
        outcome = "deleted" if live is not None or before else "absent"
    elif live is None or before is False:
        outcome = "created"
    else:
        note = difference(live, name=row["name"], parent_id=row["parent_id"])
        outcome = "adopted" if note else "there"
    return {
        "line": row["line"], "kind": row["kind"], "source_session_id": row["source_session_id"],
        "id": row["session_id"] or (live.id if live is not None else None), "outcome": outcome, "note": note,
    }  # fmt: skip


def _live(connection: Connection, row: dict[str, Any]) -> SessionRow | None:
    column, value = ("source_session_id", row["source_session_id"])
    if value is None:
        column, value = "id", row["session_id"]
    columns = [sa.type_coerce(sessions.c[name], sa.Text) for name in SESSIONS.columns]
    query = sa.select(*columns).where(sessions.c[column] == value, sessions.c.deleted_at.is_(None)).limit(1)
    found = connection.execute(query).mappings().first()
    return None if found is None else SessionRow(**found)


def _queued(connection: Connection, row: dict[str, Any]) -> bool:
    column = "session_id" if row["session_id"] else "source_session_id"
    query = sa.select(operations.c.id).where(
        operations.c[column] == row[column],
        operations.c.kind == row["kind"],
        sa.text("state IN ('pending', 'running', 'unknown', 'dead')"),
        operations.c.state != "dead",
    )
    return connection.execute(query.limit(1)).first() is not None
