"""Speeds up the first pass into an empty SQLite file. `passes` and `pull.flow` call it.

The index on source ids and the rows of `source_sessions` are random inserts. Kept up to date page by page they cost
more than the rest of a first pass. The first pass therefore runs without the index, and a search for the carriers of a
source id reads all sessions. `finish` builds the index and links the source ids in their order, in short transactions.
It is called at the end of the pass, or when `MOST_SESSIONS` are there. An interrupted pass is still loading when it
resumes: the index or a link is absent. PostgreSQL never loads this way, because replicas need the index and the links
at any time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from syncd.clock import utc_text
from syncd.mirror.db.dialects import by_dialect
from syncd.mirror.store import sources

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.db.database import Database

MOST_SESSIONS = 2_000_000
"""Sessions that are loaded at most: SQLite sorts the index in memory, with 80 MB for a million of them."""
CHUNK = 20_000
"""Source ids linked in one transaction: a fraction of a second."""
_INDEX = "ix_sessions_source"
_SOURCES = """
SELECT source_session_id FROM sessions WHERE source_session_id {operator} ? AND deleted_at IS NULL
ORDER BY source_session_id
"""
_COUNT = """
SELECT count(*) FROM sessions WHERE source_session_id {operator} ? AND source_session_id <= ? AND deleted_at IS NULL
"""
_LINK = """
INSERT INTO source_sessions (source_session_id, state, session_id, checked_at)
SELECT source_session_id, 'linked', id, ? FROM sessions
WHERE source_session_id {operator} ? AND source_session_id <= ? AND deleted_at IS NULL
ORDER BY source_session_id
ON CONFLICT (source_session_id) DO NOTHING
"""
_DIFFERENT = """
SELECT DISTINCT s.source_session_id FROM sessions AS s JOIN source_sessions AS x USING (source_session_id)
WHERE source_session_id {operator} ? AND source_session_id <= ? AND s.deleted_at IS NULL
AND NOT (x.state = 'linked' AND x.session_id = s.id)
"""


_UNLINKED = """
SELECT 1 FROM sessions AS s LEFT JOIN source_sessions AS x ON x.source_session_id = s.source_session_id
WHERE s.deleted_at IS NULL AND s.source_session_id IS NOT NULL
AND (x.state IS NOT 'linked' OR x.session_id IS NOT s.id) LIMIT 1
"""
_COMPLETE = "SELECT 1 FROM passes WHERE state = 'complete' AND seen > 0 LIMIT 1"


def _begin(connection: Connection) -> bool:
    if connection.exec_driver_sql("SELECT 1 FROM sessions LIMIT 1").first() is None:
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {_INDEX}")
        return True
    return _is_loading(connection)


def _is_loading(connection: Connection) -> bool:
    if not _has_index(connection):
        return True
    if connection.exec_driver_sql(_COMPLETE).first() is not None:
        return False
    # A process that ended after the index and before the last link is still loading.
    return connection.exec_driver_sql(_UNLINKED).first() is not None


def _has_index(connection: Connection) -> bool:
    there = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?", (_INDEX,))
    return there.first() is not None


begin = by_dialect(sqlite=_begin, postgresql=lambda _: False)
"""Begin to load if the mirror is empty; return whether it is being loaded."""
is_loading = by_dialect(sqlite=_is_loading, postgresql=lambda _: False)
"""Return whether a first pass has begun to load this mirror and has not ended."""
has_index = by_dialect(sqlite=_has_index, postgresql=lambda _: True)
"""Return whether the carriers of a source id can be found without reading all sessions."""


def link_all(connection: Connection, at: str) -> None:
    """Link the source ids of a mirror that was loaded in part, and that another database continues without loading."""
    after, _ = _link(connection, None, at)
    while after is not None:
        after, _ = _link(connection, after, at)


async def finish(database: Database, now: datetime) -> list[sources.Link]:
    """Build the index and link all source ids; return the links of source ids that were rows before."""
    at, links = utc_text(now), []
    after: str | None = None
    await database.write(_build_index)
    while True:
        last, chunk_links = await database.write(partial(_link, after=after, at=at))
        links += chunk_links
        if last is None:
            return links
        after = last


def _build_index(connection: Connection) -> None:
    connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {_INDEX} ON sessions (source_session_id, id, deleted_at)")


def _link(connection: Connection, after: str | None, at: str) -> tuple[str | None, list[sources.Link]]:
    """Link the next chunk of source ids; return its last one (None at the end) and the links that changed."""
    operator = ">=" if after is None else ">"  # the first one may be the empty text
    first = after or ""
    select_sources = _SOURCES.format(operator=operator)
    last = connection.exec_driver_sql(f"{select_sources} LIMIT 1 OFFSET ?", (first, CHUNK)).scalar()
    if last is None:  # the last chunk
        last = connection.exec_driver_sql(f"{select_sources} DESC LIMIT 1", (first,)).scalar()
    if last is None:
        return None, []
    session_count = connection.exec_driver_sql(_COUNT.format(operator=operator), (first, last)).scalar()
    if connection.exec_driver_sql(_LINK.format(operator=operator), (at, first, last)).rowcount == session_count:
        return last, []
    different = connection.exec_driver_sql(_DIFFERENT.format(operator=operator), (first, last)).scalars().all()
    return last, sources.refresh(connection, different, at)
