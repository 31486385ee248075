"""Items that could not be read: one row for each, however many passes meet it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.db import raw
from syncd.mirror.schema.tables import quarantine, sessions
from syncd.mirror.schema.types import new_id

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from syncd.records.parse import Unreadable


LONGEST_MARK = 500
_ANY_OPEN = "SELECT 1 FROM quarantine WHERE resolved_at IS NULL LIMIT 1"


def put(connection: Connection, items: Sequence[Unreadable], *, now: datetime, pass_id: int) -> list[tuple[int, bool]]:
    """Keep unreadable items.

    Returns
    -------
    list[tuple[int, bool]]
        For each item the id of its row and whether it is new there.
    """
    return [_put(connection, item, now=now, pass_id=pass_id) for item in items]


def _put(connection: Connection, item: Unreadable, *, now: datetime, pass_id: int) -> tuple[int, bool]:
    content = _content(item.payload)
    mark = f"payload {_digest(content)}"
    if item.record_id is not None:  # as it is, unless it is too long for an index
        mark = f"id {item.record_id}" if len(item.record_id) < LONGEST_MARK else f"id {_digest(item.record_id)}"
    open_row = connection.execute(
        sa.select(quarantine.c.id, quarantine.c.payload, quarantine.c.reason)
        .where(quarantine.c.fingerprint == mark, quarantine.c.resolved_at.is_(None))
    ).first()  # fmt: skip
    if open_row is None:
        values = {
            "pass_id": pass_id, "session_id": item.record_id, "reason": item.reason, "payload": item.payload,
            "seen_at": now, "fingerprint": mark,
        }  # fmt: skip
        result = connection.execute(sa.insert(quarantine).values(values))
        return new_id(result), True
    if (_content(open_row.payload), open_row.reason) != (content, item.reason):
        connection.execute(
            sa.update(quarantine).where(quarantine.c.id == open_row.id).values(payload=item.payload, reason=item.reason)
        )
    return open_row.id, False


def _content(payload: str) -> str:
    """Bring an item to a form in which the order of its keys does not count."""
    try:
        return json.dumps(json.loads(payload), sort_keys=True)
    except (ValueError, RecursionError):
        return payload


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def any_open(connection: Connection) -> bool:
    """Whether anything is in quarantine: most mirrors need not ask for more."""
    return raw.execute(connection, _ANY_OPEN).fetchone() is not None


def open_keys(connection: Connection) -> frozenset[int]:
    """Return the keys of the sessions in the mirror that have an item in quarantine."""
    query = sa.select(sessions.c.key).join(quarantine, quarantine.c.session_id == sessions.c.id)
    return frozenset(connection.execute(query.where(quarantine.c.resolved_at.is_(None))).scalars())


def open_sessions(connection: Connection, session_ids: Iterable[str | None]) -> dict[str | None, int]:
    """Return which of these sessions have an item in quarantine, and the item's row."""
    rows = connection.exec_driver_sql(
        "SELECT session_id, id FROM quarantine "
        "WHERE resolved_at IS NULL AND session_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(session_ids)),),
    )
    return {row[0]: row[1] for row in rows}


def resolve_sessions(connection: Connection, session_ids: Iterable[str | None], now: datetime) -> None:
    """Resolve the items of sessions of which a good version came."""
    for session_id in session_ids:
        connection.execute(
            sa.update(quarantine)
            .where(quarantine.c.resolved_at.is_(None), quarantine.c.session_id == session_id)
            .values(resolved_at=now)
        )


def resolve_unseen(connection: Connection, seen: Iterable[int], now: datetime) -> None:
    """Resolve what a complete pass did not meet any more; an id's sign is the pass's own business."""
    met = {abs(row_id) for row_id in seen}
    rows = connection.execute(sa.select(quarantine.c.id).where(quarantine.c.resolved_at.is_(None))).scalars().all()
    for row in rows:
        if row not in met:
            resolve(connection, row, now)


def resolve(connection: Connection, row_id: int, now: datetime) -> None:
    """Resolve one item."""
    connection.execute(sa.update(quarantine).where(quarantine.c.id == row_id).values(resolved_at=now))


def unresolved(connection: Connection, *, after: int = 0, limit: int = 1000) -> Sequence[Row[tuple[object, ...]]]:
    """Return what is in quarantine, oldest first."""
    query = (
        sa.select(quarantine)
        .where(quarantine.c.resolved_at.is_(None), quarantine.c.id > after)
        .order_by(quarantine.c.id)
        .limit(limit)
    )
    return connection.execute(query).all()
