"""Source ids and the sessions that carry them: `source_sessions` is kept true by whatever changes a session."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.clock import read_utc_text
from syncd.mirror.db import raw
from syncd.mirror.db.dialects import is_postgresql, json_columns
from syncd.mirror.db.lossy_text import lossy_text, text_value
from syncd.mirror.schema.tables import ACTIVE, operations, sessions, source_sessions
from syncd.mirror.schema.types import moment
from syncd.records.fields import SessionRow
from syncd.rules.sources import SourceState, source_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.db.database import Database
    from syncd.records.ids import SessionId, SourceId

_LINK_ONE = """
UPDATE source_sessions SET state = 'linked', session_id = ?, note = NULL, checked_at = ?
WHERE source_session_id = ? AND state IN ('unresolved', 'missing') AND NOT EXISTS (
    SELECT 1 FROM sessions AS s WHERE s.source_session_id = ? AND s.deleted_at IS NULL AND s.key <> ?)
"""
_LINK_NEW = """
INSERT INTO source_sessions (source_session_id, state, session_id, checked_at)
SELECT source_session_id, 'linked', id, ? FROM sessions WHERE key >= ?
ON CONFLICT (source_session_id) DO NOTHING
"""

_STANDING = """
SELECT w.value, x.state, x.session_id, x.note, s.id, s.missing_since IS NOT NULL
FROM json_each(?) AS w
LEFT JOIN source_sessions AS x ON x.source_session_id = w.value
LEFT JOIN sessions AS s ON s.source_session_id = w.value AND s.deleted_at IS NULL
"""
_SETTLE = """
INSERT INTO source_sessions (source_session_id, state, session_id, note, checked_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (source_session_id) DO UPDATE SET state = excluded.state, session_id = excluded.session_id,
    note = excluded.note, checked_at = excluded.checked_at
"""

_LOCK = """
SELECT 1 FROM source_sessions WHERE source_session_id IN (SELECT value FROM json_each(?))
ORDER BY source_session_id FOR UPDATE
"""
_MAKE = """
INSERT INTO source_sessions (source_session_id) SELECT value FROM json_each(?) ORDER BY 1 ON CONFLICT DO NOTHING
"""
_CARRIERS = """
SELECT id, observed_at FROM sessions INDEXED BY ix_sessions_source
WHERE source_session_id = ? AND deleted_at IS NULL
"""
_CARRIERS_OF = """
SELECT w.value, s.id, s.observed_at FROM json_each(?) AS w
JOIN sessions AS s ON s.source_session_id = w.value AND s.deleted_at IS NULL
"""
_CARRIERS_OF_EACH = f"""
SELECT r.source_id, s.id, s.observed_at FROM {json_columns(1, "source_id")} CROSS JOIN LATERAL (
    SELECT id, observed_at FROM sessions WHERE source_session_id = r.source_id AND deleted_at IS NULL OFFSET 0) AS s
"""  # noqa: S608 - constants
"""The same where PostgreSQL must not read the whole table for it: see `dialects.json_columns`."""


@dataclass(frozen=True, slots=True)
class Link:
    """A source id that has changed its state."""

    source_session_id: SourceId
    state: str
    session_id: SessionId | None
    note: str | None


def link_new(connection: Connection, rows: Sequence[SessionRow], first_key: int, now: str) -> list[Link]:
    """Link the source ids of sessions that were just inserted with keys from `first_key` on.

    The one of a create is known, from its operation. Those of a page are mostly new to the mirror too and need one
    statement; only when some were known are they looked at one by one.
    """
    if len(rows) == 1:
        source_id = rows[0].source_session_id
        parameters = (rows[0].id, now, source_id, source_id, first_key)
        if raw.execute(connection, _LINK_ONE, parameters).rowcount == 1:
            return [Link(source_id, "linked", rows[0].id, None)]
    inserted = raw.execute(connection, _LINK_NEW, (now, first_key)).rowcount
    if inserted == len(rows):
        return []
    return refresh(connection, {row.source_session_id for row in rows}, now)


def _lock(connection: Connection, source_ids: Sequence[SourceId]) -> None:
    """Keep other replicas from deciding where some source ids, in their order, stand until this transaction ends.

    What is read after this sees all that they have committed. SQLite has one writer and needs none of it.
    """
    if not is_postgresql(connection):
        return
    wanted = json.dumps(source_ids)
    if len(raw.execute(connection, _LOCK, (wanted,)).fetchall()) < len(source_ids):  # there is no row to lock yet
        raw.execute(connection, _MAKE, (wanted,))
        raw.execute(connection, _LOCK, (wanted,))


def refresh(
    connection: Connection, source_ids: Iterable[SourceId], now: str, *, albert: SessionId | None = None
) -> list[Link]:
    """Bring the state of source ids in line with the live sessions that carry them.

    One that no session carries any more becomes `unresolved`: only Albert knows its state.

    Returns
    -------
    list[Link]
        Those whose state or session changed.
    """
    wanted = sorted(source_ids)
    if not wanted:
        return []
    _lock(connection, wanted)
    with lossy_text(connection):
        found = raw.execute(connection, _STANDING, (json.dumps(wanted),)).fetchall()
    carriers: dict[SourceId, list[tuple[SessionId, bool]]] = {}
    before: dict[SourceId, tuple[str | None, SessionId | None, str | None]] = {}
    for source_id, state, session_id, note, carrier, missing in found:
        before[source_id] = (state, session_id, note)
        carriers.setdefault(source_id, [])
        if carrier is not None:
            carriers[source_id].append((carrier, bool(missing)))
    changed = []
    for source_id, by in carriers.items():
        now_state = source_state(by, albert)
        if now_state is None:
            if before[source_id][0] not in {"linked", "conflict"}:
                continue
            now_state = SourceState("unresolved", None, None)
        after = (now_state.state, now_state.session_id, now_state.note)
        if after != before[source_id]:
            changed.append(Link(source_id, *after))
    for link in changed:
        write_link(connection, link, None if link.state == "unresolved" else now)
    return changed


def write_link(connection: Connection, link: Link, checked_at: str | None) -> None:
    """Write where a source id stands."""
    raw.execute(connection, _SETTLE, (link.source_session_id, link.state, link.session_id, link.note, checked_at))


def set_state(connection: Connection, link: Link) -> list[Link]:
    """Write where a source id stands and return the link when that is news."""
    query = sa.select(source_sessions.c.state, source_sessions.c.session_id).where(
        source_sessions.c.source_session_id == link.source_session_id
    )
    with lossy_text(connection):
        before = connection.execute(query).first()
    write_link(connection, link, None)
    return [] if before is not None and tuple(before) == (link.state, link.session_id) else [link]


def mark_checked(connection: Connection, source_id: SourceId, checked_at: str) -> None:
    """Note that a source id has just been made sure of; one that is unresolved again meanwhile has not been."""
    connection.exec_driver_sql(
        "UPDATE source_sessions SET checked_at = ? WHERE source_session_id = ? AND state <> 'unresolved'",
        (checked_at, source_id),
    )


def to_ask(
    connection: Connection, *, checked_before: datetime, limit: int, after: SourceId | None = None
) -> list[SourceId]:
    """Return source ids that only Albert can tell about, in their order, beginning behind `after`.

    These are the unresolved ones, and the missing and contradictory ones that were not checked for long; one that an
    operation is busy with is left to the operation.
    """
    # the states stand in the text as they stand in the partial indexes, so that SQLite sees that those serve
    active = sa.text(f"operations.{ACTIVE}")
    busy = (
        sa.exists()
        .where(operations.c.source_session_id == source_sessions.c.source_session_id)
        .where(active, operations.c.state != "dead")
    )
    stale = sa.or_(source_sessions.c.checked_at.is_(None), source_sessions.c.checked_at < checked_before)
    query = (
        sa.select(source_sessions.c.source_session_id)
        .where(sa.text("source_sessions.state <> 'linked'"), stale, ~busy)
        .order_by(source_sessions.c.source_session_id)
        .limit(limit)
    )
    if after is not None:  # not "": an empty source id is one to say something about
        query = query.where(source_sessions.c.source_session_id > text_value(connection, after))
    with lossy_text(connection):
        return list(connection.execute(query).scalars())


def resolve(connection: Connection, *, limit: int, now: str) -> tuple[list[Link], bool]:
    """Let the mirror tell where unresolved source ids stand that live sessions carry.

    Returns
    -------
    tuple[list[Link], bool]
        Those that are resolved now, and whether there may be more of them.
    """
    found = list(connection.execute(_carried().limit(limit)).scalars())
    return refresh(connection, found, now), len(found) == limit


def unresolved(connection: Connection) -> bool:
    """Whether there are unresolved source ids that live sessions carry."""
    return connection.execute(_carried().limit(1)).first() is not None


def _carried() -> sa.Select[Any]:
    return (
        sa.select(source_sessions.c.source_session_id)
        .where(sa.text("source_sessions.state <> 'linked'"), source_sessions.c.state == "unresolved")
        .where(
            sa.exists().where(
                sessions.c.source_session_id == source_sessions.c.source_session_id, sessions.c.deleted_at.is_(None)
            )
        )
    )


def unaskable(connection: Connection, source_id: SourceId, note: str, checked_at: str) -> None:
    """Note why a source id can never be asked for; it may be text that only SQLite holds."""
    connection.execute(
        sa.update(source_sessions)
        .where(source_sessions.c.source_session_id == text_value(connection, source_id))
        .values(note=note, checked_at=read_utc_text(checked_at))
    )


def add(connection: Connection, source_ids: Iterable[SourceId]) -> int:
    """Make source ids known; return how many were not."""
    return sum(
        connection.exec_driver_sql(
            "INSERT INTO source_sessions (source_session_id) VALUES (?) ON CONFLICT (source_session_id) DO NOTHING",
            (source_id,),
        ).rowcount
        for source_id in source_ids
    )


def carriers(connection: Connection, source_id: SourceId) -> list[tuple[SessionId, datetime | None]]:
    """Return the live sessions that carry a source id, each with when something other than a listing showed it."""
    return carriers_of(connection, [source_id])[0]


def carriers_of(
    connection: Connection, source_ids: Sequence[SourceId]
) -> list[list[tuple[SessionId, datetime | None]]]:
    """Return what `carriers` does for each of some source ids."""
    found: dict[SourceId, list[tuple[SessionId, datetime | None]]] = {source_id: [] for source_id in source_ids}
    asked = _CARRIERS_OF_EACH if is_postgresql(connection) else _CARRIERS_OF
    for source_id, session_id, observed_at in raw.execute(connection, asked, (json.dumps([*found]),)):
        found[source_id].append((session_id, moment(observed_at)))
    return [found[source_id] for source_id in source_ids]


async def look_for_carriers(database: Database, source_id: SourceId) -> list[tuple[SessionId, datetime | None]]:
    """Return what `carriers` does, as of now and outside of any transaction: every create asks for it."""
    # not while a first pass loads the mirror: then the index is not there, and SQLite refuses the statement
    found = database.read_inline(_CARRIERS, (source_id,))
    if found is None:
        carried: list[tuple[SessionId, datetime | None]] = await database.read_batched(carriers_of, source_id)
        return carried
    return [(session_id, moment(observed_at)) for session_id, observed_at in found]


def listing(connection: Connection, *, state: str | None, limit: int) -> Sequence[sa.RowMapping]:
    """Return source ids in their order, of one state or of all."""
    query = sa.select(source_sessions).order_by(source_sessions.c.source_session_id).limit(limit)
    if state is not None:
        query = query.where(source_sessions.c.state == state)
    with lossy_text(connection):
        return connection.execute(query).mappings().all()
