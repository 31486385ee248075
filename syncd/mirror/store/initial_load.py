"""The first mirror into an empty SQLite file: what is built best at once, in order, is built at its end.

An index on source ids, and the rows of `source_sessions`, are random inserts: kept page by page they cost more than all
the rest of a first pass. While the mirror is loaded the index is not there; whoever needs the carriers of a source id
meanwhile looks through the sessions. `finish` builds the index and links the source ids in their order, in short
transactions. A pass that was interrupted is still loading when it goes on: the index is not there, or a link is not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from syncd.clock import utc_text
from syncd.mirror.store import sources

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.db.database import Database

CHUNK = 20_000
_INDEX = "ix_sessions_source"
_SOURCES = """
SELECT source_session_id FROM sessions WHERE source_session_id {behind} ? AND deleted_at IS NULL
ORDER BY source_session_id
"""
_COUNT = """
SELECT count(*) FROM sessions WHERE source_session_id {behind} ? AND source_session_id <= ? AND deleted_at IS NULL
"""
_LINK = """
INSERT INTO source_sessions (source_session_id, state, session_id, checked_at)
SELECT source_session_id, 'linked', id, ? FROM sessions
WHERE source_session_id {behind} ? AND source_session_id <= ? AND deleted_at IS NULL
ORDER BY source_session_id
ON CONFLICT (source_session_id) DO NOTHING
"""
_DIFFERENT = """
SELECT DISTINCT s.source_session_id FROM sessions AS s JOIN source_sessions AS x USING (source_session_id)
WHERE source_session_id {behind} ? AND source_session_id <= ? AND s.deleted_at IS NULL
AND NOT (x.state = 'linked' AND x.session_id = s.id)
"""


_UNLINKED = """
SELECT 1 FROM sessions AS s WHERE s.deleted_at IS NULL
AND NOT EXISTS (SELECT 1 FROM source_sessions AS x WHERE x.source_session_id = s.source_session_id) LIMIT 1
"""
_COMPLETE = "SELECT 1 FROM passes WHERE state = 'complete' AND seen > 0 LIMIT 1"


def begin(connection: Connection) -> bool:
    """Begin to load, when the mirror is empty and in SQLite; return whether it is being loaded."""
    if connection.dialect.name != "sqlite":
        return False
    if connection.exec_driver_sql("SELECT 1 FROM sessions LIMIT 1").first() is None:
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {_INDEX}")
        return True
    return is_loading(connection)


def is_loading(connection: Connection) -> bool:
    """Whether a first pass has begun to load this mirror and has not ended."""
    if connection.dialect.name != "sqlite":
        return False
    if not has_index(connection):
        return True
    if connection.exec_driver_sql(_COMPLETE).first() is not None:
        return False
    # with the index, a process that ended before the last source id was linked is still loading
    return connection.exec_driver_sql(_UNLINKED).first() is not None


def has_index(connection: Connection) -> bool:
    """Whether the carriers of a source id can be found without a look at all sessions."""
    if connection.dialect.name != "sqlite":
        return True
    there = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?", (_INDEX,))
    return there.first() is not None


def link_all(connection: Connection, at: str) -> None:
    """Link the source ids of a mirror that was loaded in part and goes on without loading."""
    after, _ = _link(connection, None, at)
    while after is not None:
        after, _ = _link(connection, after, at)


async def finish(database: Database, now: datetime) -> list[sources.Link]:
    """Build what was left out; return the links that were news to somebody."""
    at, links = utc_text(now), []
    after: str | None = None
    await database.write(_build_index)
    while True:
        last, found = await database.write(partial(_link, after=after, at=at))
        links += found
        if last is None:
            return links
        after = last


def _build_index(connection: Connection) -> None:
    connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {_INDEX} ON sessions (source_session_id, id, deleted_at)")


def _link(connection: Connection, after: str | None, at: str) -> tuple[str | None, list[sources.Link]]:
    """Link the next chunk of source ids; return the last of them, None when there are no more."""
    behind = ">=" if after is None else ">"  # the first one may be empty: a session carries what it carries
    first = after or ""
    sources_behind = _SOURCES.format(behind=behind)
    last = connection.exec_driver_sql(f"{sources_behind} LIMIT 1 OFFSET ?", (first, CHUNK)).scalar()
    if last is None:  # the last chunk
        last = connection.exec_driver_sql(f"{sources_behind} DESC LIMIT 1", (first,)).scalar()
    if last is None:
        return None, []
    there = connection.exec_driver_sql(_COUNT.format(behind=behind), (first, last)).scalar()
    if connection.exec_driver_sql(_LINK.format(behind=behind), (at, first, last)).rowcount == there:
        return last, []
    different = connection.exec_driver_sql(_DIFFERENT.format(behind=behind), (first, last)).scalars().all()
    return last, sources.refresh(connection, different, at)
