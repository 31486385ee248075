"""The table `source_sessions`. Each write of a session brings its source ids up to date in the same transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.clock import read_stored_time, read_utc_text
from syncd.mirror.db import raw
from syncd.mirror.db.dialects import PerDialect, by_dialect, json_columns
from syncd.mirror.db.lossy_text import lossy_text, text_value
from syncd.mirror.schema.enums import ACTIVE
from syncd.mirror.schema.tables import operations, sessions, source_sessions
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

_LINKS_AND_CARRIERS = """
SELECT w.value, x.state, x.session_id, x.note, s.id, s.missing_since IS NOT NULL
FROM json_each(?) AS w
LEFT JOIN source_sessions AS x ON x.source_session_id = w.value
LEFT JOIN sessions AS s ON s.source_session_id = w.value AND s.deleted_at IS NULL
"""
_WRITE = """
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
# In this form PostgreSQL does not scan the table: see `dialects.json_columns`.
_CARRIERS_OF = PerDialect(
    sqlite="""
SELECT w.value, s.id, s.observed_at FROM json_each(?) AS w
JOIN sessions AS s ON s.source_session_id = w.value AND s.deleted_at IS NULL
""",
    postgresql=f"""
SELECT r.source_id, s.id, s.observed_at FROM {json_columns(1, "source_id")} CROSS JOIN LATERAL (
    SELECT id, observed_at FROM sessions WHERE source_session_id = r.source_id AND deleted_at IS NULL OFFSET 0) AS s
""",  # noqa: S608 - constants
)


@dataclass(frozen=True, slots=True)
class Link:
    """A source id that has changed its state."""

    source_session_id: SourceId
    state: str
    session_id: SessionId | None
    note: str | None


def link_new(connection: Connection, rows: Sequence[SessionRow], first_key: int, now: str) -> list[Link]:
    """Link the source ids of sessions that were just inserted with keys from `first_key` on.

    The source id of a create has a row already, from its operation. Most source ids of a page are new, and one
    statement inserts them. If some had a row, all are refreshed.
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


def _need_no_lock(_connection: Connection, _source_ids: Sequence[SourceId]) -> None:
    """Do nothing: SQLite has one writer."""


def _lock_rows(connection: Connection, source_ids: Sequence[SourceId]) -> None:
    """Lock the rows of sorted source ids until this transaction ends, so that other replicas do not change them.

    A later read in this transaction sees all that other replicas have committed.
    """
    wanted = json.dumps(source_ids)
    if len(raw.execute(connection, _LOCK, (wanted,)).fetchall()) < len(source_ids):  # there is no row to lock yet
        raw.execute(connection, _MAKE, (wanted,))
        raw.execute(connection, _LOCK, (wanted,))


_lock = by_dialect(sqlite=_need_no_lock, postgresql=_lock_rows)


def refresh(
    connection: Connection, source_ids: Iterable[SourceId], now: str, *, albert: SessionId | None = None
) -> list[Link]:
    """Bring the state of source ids in line with the live sessions that carry them.

    A source id that no session carries any more becomes `unresolved`: its state does not follow from the mirror.

    Parameters
    ----------
    albert : SessionId | None
        The session that Albert just returned for these source ids.

    Returns
    -------
    list[Link]
        The source ids whose state, session or note changed.
    """
    wanted = sorted(source_ids)
    if not wanted:
        return []
    _lock(connection, wanted)
    with lossy_text(connection):
        rows = raw.execute(connection, _LINKS_AND_CARRIERS, (json.dumps(wanted),)).fetchall()
    carriers: dict[SourceId, list[tuple[SessionId, bool]]] = {}
    before: dict[SourceId, tuple[str | None, SessionId | None, str | None]] = {}
    for source_id, state, session_id, note, carrier, missing in rows:
        before[source_id] = (state, session_id, note)
        carriers.setdefault(source_id, [])
        if carrier is not None:
            carriers[source_id].append((carrier, bool(missing)))
    changed = []
    for source_id, its_carriers in carriers.items():
        now_state = source_state(its_carriers, albert)
        if now_state is None:
            if before[source_id][0] not in {"linked", "conflict"}:
                continue
            now_state = SourceState("unresolved", None, None)
        after = (now_state.state, now_state.session_id, now_state.note)
        if after != before[source_id]:
            changed.append(Link(source_id, *after))
    if changed:  # a sweep may change tens of thousands
        rows = [_row(link, None if link.state == "unresolved" else now) for link in changed]
        raw.executemany(connection, _WRITE, rows)
    return changed


def write_link(connection: Connection, link: Link, checked_at: str | None) -> None:
    """Write the state of a source id."""
    raw.execute(connection, _WRITE, _row(link, checked_at))


def _row(link: Link, checked_at: str | None) -> tuple[str | None, ...]:
    return link.source_session_id, link.state, link.session_id, link.note, checked_at


def set_state(connection: Connection, link: Link) -> list[Link]:
    """Write the state of a source id; return the link if its state or session changed."""
    query = sa.select(source_sessions.c.state, source_sessions.c.session_id).where(
        source_sessions.c.source_session_id == link.source_session_id
    )
    with lossy_text(connection):
        before = connection.execute(query).first()
    write_link(connection, link, None)
    return [] if before is not None and tuple(before) == (link.state, link.session_id) else [link]


def mark_checked(connection: Connection, source_id: SourceId, checked_at: str) -> None:
    """Write when Albert confirmed the state of a source id, unless the id became unresolved in the meantime."""
    connection.exec_driver_sql(
        "UPDATE source_sessions SET checked_at = ? WHERE source_session_id = ? AND state <> 'unresolved'",
        (checked_at, source_id),
    )


def to_ask(
    connection: Connection, *, checked_before: datetime, limit: int, after: SourceId | None = None
) -> list[SourceId]:
    """Return the source ids that Albert must be asked about, sorted, from the first after `after` on.

    These are the unresolved ones, and the missing and contradictory ones that were not checked since
    `checked_before`. A source id with an active operation is left out: the operation looks it up.
    """
    # The conditions are text, exactly as in the partial indexes: otherwise SQLite does not use these indexes.
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
    if after is not None:  # an empty source id can be in the table, too
        query = query.where(source_sessions.c.source_session_id > text_value(connection, after))
    with lossy_text(connection):
        return list(connection.execute(query).scalars())


def resolve(connection: Connection, *, limit: int, now: str) -> tuple[list[Link], bool]:
    """Resolve source ids that live sessions carry, from the mirror alone.

    Returns
    -------
    tuple[list[Link], bool]
        The source ids that are resolved now, and whether there may be more.
    """
    source_ids = list(connection.execute(_carried().limit(limit)).scalars())
    return refresh(connection, source_ids, now), len(source_ids) == limit


def any_carried(connection: Connection) -> bool:
    """Whether there are unresolved source ids that live sessions carry."""
    return connection.execute(_carried().limit(1)).first() is not None


def _carried() -> sa.Select[Any]:
    # OFFSET keeps PostgreSQL from joining all sessions
    carrier = (
        sa.select(sessions.c.key)
        .where(sessions.c.source_session_id == source_sessions.c.source_session_id, sessions.c.deleted_at.is_(None))
        .limit(1)
        .offset(0)
    )
    return sa.select(source_sessions.c.source_session_id).where(
        sa.text("source_sessions.state <> 'linked'"), source_sessions.c.state == "unresolved", carrier.exists()
    )


def note_undecidable(connection: Connection, source_id: SourceId, note: str, checked_at: str) -> None:
    """Write why the state of a source id cannot be decided. The id may be text that only SQLite can store."""
    connection.execute(
        sa.update(source_sessions)
        .where(source_sessions.c.source_session_id == text_value(connection, source_id))
        .values(note=note, checked_at=read_utc_text(checked_at))
    )


def add(connection: Connection, source_ids: Iterable[SourceId]) -> int:
    """Insert source ids; return how many are new."""
    return sum(
        connection.exec_driver_sql(
            "INSERT INTO source_sessions (source_session_id) VALUES (?) ON CONFLICT (source_session_id) DO NOTHING",
            (source_id,),
        ).rowcount
        for source_id in source_ids
    )


def carriers(connection: Connection, source_id: SourceId) -> list[tuple[SessionId, datetime | None]]:
    """Return the live sessions that carry a source id, each with its last observation other than by a listing."""
    return carriers_of(connection, [source_id])[0]


def carriers_of(
    connection: Connection, source_ids: Sequence[SourceId]
) -> list[list[tuple[SessionId, datetime | None]]]:
    """Return the result of `carriers` for each source id."""
    carriers: dict[SourceId, list[tuple[SessionId, datetime | None]]] = {source_id: [] for source_id in source_ids}
    statement, parameters = _CARRIERS_OF.on(connection), (json.dumps([*carriers]),)
    for source_id, session_id, observed_at in raw.execute(connection, statement, parameters):
        carriers[source_id].append((session_id, read_stored_time(observed_at)))
    return [carriers[source_id] for source_id in source_ids]


async def look_for_carriers(database: Database, source_id: SourceId) -> list[tuple[SessionId, datetime | None]]:
    """Return the result of `carriers` in a read of its own. Every create calls it."""
    # None while a first pass loads the mirror: without the index, SQLite refuses `INDEXED BY`.
    rows = database.read_inline(_CARRIERS, (source_id,))
    if rows is None:
        live_carriers: list[tuple[SessionId, datetime | None]] = await database.read_batched(carriers_of, source_id)
        return live_carriers
    return [(session_id, read_stored_time(observed_at)) for session_id, observed_at in rows]


def listing(connection: Connection, *, state: str | None, limit: int) -> Sequence[sa.RowMapping]:
    """Return source ids, sorted, of one state or of all."""
    query = sa.select(source_sessions).order_by(source_sessions.c.source_session_id).limit(limit)
    if state is not None:
        query = query.where(source_sessions.c.state == state)
    with lossy_text(connection):
        return connection.execute(query).mappings().all()
