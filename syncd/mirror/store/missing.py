"""Sessions that a pass did not see: the mark, and the 404s that count."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.mirror.schema.tables import sessions
from syncd.mirror.store import passes, sources, totals
from syncd.rules.versions import CLOCK_SLACK

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.store.passes import Progress

CHUNK = 500
"""Keys that one statement names."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live session that a pass did not see."""

    key: int
    session_id: str
    source_session_id: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A missing session and its counted 404s."""

    key: int
    absences: int
    missing_since: datetime


def mark(connection: Connection, keys: list[int], now: datetime) -> tuple[list[Candidate], list[str]]:
    """Mark live sessions as missing.

    Returns
    -------
    tuple[list[Candidate], list[str]]
        All of them, and the ids of those that were not marked before.
    """
    wanted = "(SELECT value FROM json_each(?))"
    found = connection.exec_driver_sql(
        f"SELECT key, id, source_session_id, missing_since FROM sessions WHERE key IN {wanted}",  # noqa: S608
        (json.dumps(keys),),
    ).all()
    newly = [row for row in found if row[3] is None]
    set_back = utc_text(now + CLOCK_SLACK)
    later = [row for row in found if row[3] is not None and row[3] > set_back]
    connection.exec_driver_sql(
        f"UPDATE sessions SET missing_since = ? WHERE key IN {wanted}",  # noqa: S608
        (utc_text(now), json.dumps([row[0] for row in newly + later])),
    )
    sources.refresh(connection, {row[2] for row in newly}, utc_text(now))
    return [Candidate(*row[:3]) for row in found], [row[1] for row in newly]


def clear(connection: Connection, keys: list[int], now: datetime) -> None:
    """Take the mark, and the 404s counted so far, from missing sessions that a listing named after all."""
    if keys:
        totals.hold(connection)
    for key in keys:
        source_id = connection.execute(
            sa.select(sessions.c.source_session_id)
            .where(sessions.c.key == key, sessions.c.missing_since.is_not(None), sessions.c.deleted_at.is_(None))
        ).scalar()  # fmt: skip
        if source_id is not None:
            connection.execute(sa.update(sessions).where(sessions.c.key == key).values(missing_since=None, absences=0))
            sources.refresh(connection, {source_id}, utc_text(now))


def listed(connection: Connection, progress: Progress, limit: int) -> list[str]:
    """Return the ids of some live sessions that a pass has seen."""
    query = (
        sa.select(sessions.c.key, sessions.c.id)
        .where(sessions.c.deleted_at.is_(None), sessions.c.missing_since.is_(None))
        .order_by(sessions.c.key.desc())
    )
    found = []
    for key, session_id in connection.execute(query.execution_options(yield_per=1000)):
        if key in progress.seen:
            found.append(session_id)
            if len(found) == limit:
                break
    return found


def count(connection: Connection, keys: Iterable[int], progress: Progress, now: datetime) -> list[Absent]:
    """Count a 404 for sessions that are still missing: once a pass, and none where something saw them meanwhile."""
    wanted, counted = list(keys), []
    for first in range(0, len(wanted), CHUNK):
        still = (
            sessions.c.key.in_(wanted[first : first + CHUNK]),
            sessions.c.deleted_at.is_(None),
            sessions.c.missing_since.is_not(None),
            passes.not_observed(progress, now),
        )
        connection.execute(
            sa.update(sessions)
            .where(
                *still,
                sa.or_(sessions.c.absence_pass_id.is_(None), sessions.c.absence_pass_id != progress.id),
            )
            .values(absences=sessions.c.absences + 1, absence_pass_id=progress.id)
        )
        query = sa.select(sessions.c.key, sessions.c.absences, sessions.c.missing_since).where(*still)
        counted += [Absent(*row) for row in connection.execute(query)]
    return counted
