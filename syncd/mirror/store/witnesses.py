"""Live sessions that can prove that Albert itself answers; `syncd.witness` requests them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.mirror.db import raw
from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.store.lost_deletes import SURELY_NOT_DELETED
from syncd.mirror.store.session_statements import LIVE_AND_LISTED

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syncd.records.ids import SessionId, SourceId

_NOT_HELD = """
NOT EXISTS (
    SELECT 1 FROM holds AS h WHERE h.state <> 'closed' AND EXISTS (
        SELECT 1 FROM hold_sessions AS x WHERE x.hold_id = h.id AND x.session_key = sessions.key LIMIT 1 OFFSET 0
    )
    LIMIT 1 OFFSET 0
) AND
"""
# OFFSET keeps both databases from reading all sessions of a hold for each candidate
"""Albert answers 404 for a session of a hold that is in force, or did when a pass was held."""
_HIGHEST = "SELECT max(key) FROM sessions"
_LIVE = f"""
SELECT id, source_session_id FROM sessions
WHERE {LIVE_AND_LISTED} AND {SURELY_NOT_DELETED} AND
"""  # noqa: S608 - constants
_FROM = f"{_LIVE} {{}} key >= ? ORDER BY key LIMIT ?"
_BEFORE = f"{_LIVE} {{}} key < ? ORDER BY key DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live session that no pass has found missing: Albert should answer 200 for it."""

    session_id: SessionId
    source_session_id: SourceId


def candidates(connection: Connection, *, place: float, limit: int) -> list[Candidate]:
    """Return live, listed sessions: up to `limit` on each side of a place in the table.

    Sessions that syncd may have deleted are left out (`lost_deletes`). Sessions of a hold are returned only if there
    are no others. If Albert knows none of the mirror's sessions, all are in one hold, and then none of them answers: a
    404 is not accepted as proof.

    Parameters
    ----------
    place : float
        From 0 (the session that was seen first) to 1 (the last). A random place makes successive calls return
        different sessions, so that a few deleted ones cannot be the only answer.
    """
    pivot = int((raw.execute(connection, _HIGHEST).fetchone()[0] or 0) * place)
    return _around(connection, pivot, limit, _NOT_HELD) or _around(connection, pivot, limit, "")


def _around(connection: Connection, pivot: int, limit: int, condition: str) -> list[Candidate]:
    with lossy_text(connection):
        rows = [
            row
            for statement in (_FROM, _BEFORE)
            for row in raw.execute(connection, statement.format(condition), (pivot, limit)).fetchall()
        ]
    return [Candidate(*row) for row in rows]
