"""Items that could not be read: one row for each item, however many passes meet it.

`pull.write_pages` stores and resolves them, `replay` reads them again, and `syncd quarantine` lists and accepts them.
An item is recognized by its id, or by its content if it has no readable id. An accepted item counts as known: it makes
no pass partial until its content changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.mirror.db import raw
from syncd.mirror.schema.tables import passes, quarantine, sessions
from syncd.mirror.schema.types import new_id
from syncd.mirror.store import operator_actions

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

    from syncd.records.ids import PassId, SessionId
    from syncd.records.parse import Unreadable


LONGEST_MARK = 500
"""Characters of a fingerprint that an index can hold; a longer id is replaced by its digest."""
_ANY_OPEN = "SELECT 1 FROM quarantine WHERE resolved_at IS NULL LIMIT 1"
_OPEN_SESSIONS = """
SELECT session_id, id FROM quarantine WHERE resolved_at IS NULL AND session_id IN (SELECT value FROM json_each(?))
"""


@dataclass(slots=True)
class MetItems:
    """The rows of the quarantine that a pass has met.

    Parameters
    ----------
    counted : BitMap64
        Rows that count as unreadable items of the pass.
    repeated : BitMap64
        Rows of sessions that count as readable: another page of the pass has a readable version of them.
    """

    counted: BitMap64 = field(default_factory=BitMap64)
    repeated: BitMap64 = field(default_factory=BitMap64)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self.counted or row_id in self.repeated

    def repeat(self, row_ids: BitMap64) -> None:
        """Note that some rows belong to sessions that count as readable by now."""
        self.counted -= row_ids
        self.repeated |= row_ids

    def copy(self) -> MetItems:
        """Return a copy that can grow while this one stays as it is."""
        return MetItems(self.counted.copy(), self.repeated.copy())


class Stored(NamedTuple):
    """The row of an item, and whether it is news: a new item, or an accepted one that has changed."""

    row_id: int
    is_new: bool


def put(connection: Connection, items: Sequence[Unreadable], *, now: datetime, pass_id: PassId) -> list[Stored]:
    """Store unreadable items that a pass has met; return the row of each."""
    return [_put(connection, item, now=now, pass_id=pass_id) for item in items]


def _put(connection: Connection, item: Unreadable, *, now: datetime, pass_id: PassId) -> Stored:
    content, mark = _content(item.payload), _fingerprint(item)
    query = sa.select(quarantine).where(quarantine.c.fingerprint == mark).order_by(quarantine.c.id.desc()).limit(1)
    known = connection.execute(query).first()
    same = known is not None and _content(known.payload) == content
    accepted_at = known.accepted_at if known is not None and same else None
    if known is not None and (
        known.resolved_at is None or (same and _resolved_lately(connection, known.resolved_at, pass_id))
    ):
        if not same or known.reason != item.reason or known.resolved_at is not None:
            values = {
                "payload": item.payload, "reason": item.reason, "resolved_at": None, "accepted_at": accepted_at,
            }  # fmt: skip
            connection.execute(sa.update(quarantine).where(quarantine.c.id == known.id).values(values))
        return Stored(known.id, is_new=known.accepted_at is not None and not same)
    values = {
        "pass_id": pass_id, "session_id": item.record_id, "reason": item.reason, "payload": item.payload,
        "seen_at": now, "fingerprint": mark, "accepted_at": accepted_at,
    }  # fmt: skip
    return Stored(new_id(connection.execute(sa.insert(quarantine).values(values))), is_new=accepted_at is None)


def _resolved_lately(connection: Connection, resolved_at: datetime, pass_id: PassId) -> bool:
    """Whether an item was resolved since the pass before this one began.

    Such an item is readable on one page and unreadable on another: it keeps its row instead of getting one a pass.
    """
    query = sa.select(passes.c.started_at).where(passes.c.id < pass_id).order_by(passes.c.id.desc()).limit(1)
    before = connection.execute(query).scalar()
    return before is None or resolved_at >= before


def _fingerprint(item: Unreadable) -> str:
    if item.record_id is None:
        return f"payload {_digest(_content(item.payload))}"
    return f"id {item.record_id if len(item.record_id) < LONGEST_MARK else _digest(item.record_id)}"


def _content(payload: str) -> str:
    """Bring an item to a form in which the order of its keys does not count."""
    try:
        return json.dumps(json.loads(payload), sort_keys=True)
    except (ValueError, RecursionError):
        return payload


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def any_open(connection: Connection) -> bool:
    """Whether anything is in quarantine. If not, as in most mirrors, other queries are not needed."""
    return raw.execute(connection, _ANY_OPEN).fetchone() is not None


def open_keys(connection: Connection) -> BitMap64:
    """Return the keys of the sessions in the mirror that have an item in quarantine."""
    query = sa.select(sessions.c.key).join(quarantine, quarantine.c.session_id == sessions.c.id)
    return BitMap64(connection.execute(query.where(quarantine.c.resolved_at.is_(None))).scalars().all())


def open_sessions(connection: Connection, session_ids: Iterable[SessionId]) -> dict[SessionId, int]:
    """Return those of some sessions that have an item in quarantine, each with the item's row."""
    rows = raw.execute(connection, _OPEN_SESSIONS, (json.dumps(list(session_ids)),))
    return {session_id: row_id for session_id, row_id in rows}  # noqa: C416 - the rows of either driver


def not_accepted(connection: Connection, met: MetItems) -> list[int]:
    """Return the rows that a pass has met, in their order, of items without a readable id that were not accepted."""
    query = sa.select(quarantine.c.id).where(
        quarantine.c.resolved_at.is_(None), quarantine.c.session_id.is_(None), quarantine.c.accepted_at.is_(None)
    )
    return [row_id for row_id in connection.execute(query.order_by(quarantine.c.id)).scalars() if row_id in met]


def resolve_sessions(connection: Connection, session_ids: Iterable[SessionId], now: datetime) -> None:
    """Resolve the items of sessions of which a readable version was listed."""
    for session_id in session_ids:
        connection.execute(
            sa.update(quarantine)
            .where(quarantine.c.resolved_at.is_(None), quarantine.c.session_id == session_id)
            .values(resolved_at=now)
        )


def resolve_unseen(connection: Connection, met: MetItems, now: datetime) -> None:
    """Resolve the items that a complete pass did not meet."""
    rows = connection.execute(sa.select(quarantine.c.id).where(quarantine.c.resolved_at.is_(None))).scalars().all()
    for row_id in rows:
        if row_id not in met:
            resolve(connection, row_id, now)


def resolve(connection: Connection, row_id: int, now: datetime) -> None:
    """Resolve one item."""
    connection.execute(sa.update(quarantine).where(quarantine.c.id == row_id).values(resolved_at=now))


def unresolved(connection: Connection, *, after: int = 0, limit: int = 1000) -> Sequence[Row[tuple[object, ...]]]:
    """Return items in quarantine, accepted ones included, oldest first."""
    query = (
        sa.select(quarantine)
        .where(quarantine.c.resolved_at.is_(None), quarantine.c.id > after)
        .order_by(quarantine.c.id)
        .limit(limit)
    )
    return connection.execute(query).all()


def accept(connection: Connection, row_ids: Sequence[int], *, now: datetime, by: str) -> str | None:
    """Accept items as they are: until their content changes they make no pass partial.

    Returns
    -------
    str | None
        The reason why nothing was changed: one of the rows is not an open item.
    """
    states = sa.select(quarantine.c.id, quarantine.c.resolved_at).where(quarantine.c.id.in_(row_ids))
    resolved_at = {row.id: row.resolved_at for row in connection.execute(states)}
    for row_id in row_ids:
        if row_id not in resolved_at:
            return f"there is no quarantine item {row_id}"
        if resolved_at[row_id] is not None:
            return f"quarantine item {row_id} is resolved already"
    for row_id in dict.fromkeys(row_ids):
        open_item = (quarantine.c.id == row_id, quarantine.c.accepted_at.is_(None))
        if connection.execute(sa.update(quarantine).where(*open_item).values(accepted_at=now)).rowcount:
            operator_actions.record(connection, now=now, by=by, action="accept", subject=f"quarantine item {row_id}")
    return None
