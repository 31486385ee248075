"""Sessions that a pass did not list: which they are, the mark, and the 404s that count. `pull.sweep` uses it.

Whether a session was observed while the sweep asked about it is decided by comparing its row with what the sweep read
before it asked (`Unlisted.observed_at`, `Unlisted.version`), and never by comparing times.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.mirror.db import raw
from syncd.mirror.schema.tables import sessions
from syncd.mirror.store import sources, totals
from syncd.mirror.store.lost_deletes import SURELY_NOT_DELETED
from syncd.mirror.store.passes import live_count
from syncd.mirror.store.session_statements import LIVE_AND_LISTED
from syncd.mirror.store.witnesses import Candidate
from syncd.rules.deletion import ASK_UNLISTED_AGAIN
from syncd.rules.versions import CLOCK_SLACK

if TYPE_CHECKING:
    from datetime import datetime

    from pyroaring import BitMap64
    from sqlalchemy import Connection

    from syncd.mirror.store.passes import Progress
    from syncd.records.ids import SessionId, SourceId

_WANTED = "WHERE key IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL"
_SELECT = f"""
SELECT key, id, source_session_id, version, observed_at, missing_since, absences, missing_elapsed_ms
FROM sessions {_WANTED}
"""  # noqa: S608 - constants
_MARK = f"UPDATE sessions SET missing_since = coalesce(missing_since, ?), missing_elapsed_ms = ? {_WANTED}"  # noqa: S608
_COUNT = f"""
UPDATE sessions SET absences = absences + 1, absence_pass_id = ?
{_WANTED} AND missing_since IS NOT NULL AND (absence_pass_id IS NULL OR absence_pass_id <> ?)
"""  # noqa: S608 - constants
_CLEAR = f"UPDATE sessions SET missing_since = NULL, absences = 0 {_WANTED} AND missing_since IS NOT NULL"  # noqa: S608
_NOTE_EXISTING = f"""
UPDATE sessions SET unlisted_alive_at = ?, unlisted_alive_elapsed_ms = ?
{_WANTED} AND NOT (pass_id IS NULL AND first_seen_at > ?)
"""  # noqa: S608 - constants
_FORGET_EXISTING = "UPDATE sessions SET unlisted_alive_at = NULL WHERE key IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A live session that a pass did not list, as its row is at one moment; times as text of `clock.utc_text`."""

    key: int
    session_id: SessionId
    source_session_id: SourceId
    version: int
    observed_at: str | None
    missing_since: str | None
    absences: int
    missing_elapsed_ms: int | None

    def is_as(self, other: Unlisted) -> bool:
        """Whether nothing observed the session between the two moments."""
        return (self.version, self.observed_at) == (other.version, other.observed_at)


def unlisted(connection: Connection, progress: Progress, now: datetime, elapsed_ms: int) -> array[int]:
    """Return the keys of the live sessions that the sweep of a pass has to explain, in ascending order.

    These are the sessions that the pass did not see, without two kinds:

    - An operation or a look-up has observed it since the pass began. An observation in the future does not count as
      one: a clock was stepped, so the session is requested to be sure.
    - It answered 200 within the last hour, by the wall clock and by the measured time.

    Parameters
    ----------
    elapsed_ms : int
        The counter of `elapsed.measure`.
    """
    answered = _answered_lately(connection, now, elapsed_ms)
    if _explains_all(connection, progress, answered):
        return array("q")
    observed_at = sessions.c.observed_at
    not_observed = sa.or_(observed_at.is_(None), observed_at < progress.started_at, observed_at > now + CLOCK_SLACK)
    query = sa.select(sessions.c.key).where(sessions.c.deleted_at.is_(None), not_observed).order_by(sessions.c.key)
    keys = connection.execute(query.execution_options(yield_per=10_000)).scalars()
    return array("q", (key for key in keys if key not in progress.seen and key not in answered))


def _answered_lately(connection: Connection, now: datetime, elapsed_ms: int) -> frozenset[int]:
    """Return the live sessions that answered 200 within the last hour.

    The hour ends when it has passed by either clock, and a time in the future is not within it: a request too many does
    no harm.
    """
    answered_at, hour_ms = sessions.c.unlisted_alive_at, int(ASK_UNLISTED_AGAIN.total_seconds() * 1000)
    query = sa.select(sessions.c.key).where(
        answered_at > now - ASK_UNLISTED_AGAIN,
        answered_at <= now,
        sessions.c.unlisted_alive_elapsed_ms > elapsed_ms - hour_ms,
        sessions.c.deleted_at.is_(None),
    )
    return frozenset(connection.execute(query).scalars())


def _explains_all(connection: Connection, progress: Progress, answered: frozenset[int]) -> bool:
    """Whether every live session was seen or answered 200 lately, by counting: most passes need not read each row."""
    tombstones = sa.select(sessions.c.key).where(sessions.c.deleted_at.is_not(None))
    seen_tombstones = sum(key in progress.seen for key in connection.execute(tombstones).scalars())
    not_seen = sum(key not in progress.seen for key in answered)
    return live_count(connection) == len(progress.seen) - seen_tombstones + not_seen


def read(connection: Connection, keys: Iterable[int]) -> list[Unlisted]:
    """Return some sessions that are still live, by their keys."""
    rows = raw.execute(connection, _SELECT, (json.dumps(list(keys)),)).fetchall()
    return sorted((Unlisted(*row) for row in rows), key=lambda row: row.key)


def mark(connection: Connection, rows: list[Unlisted], now: datetime, elapsed_ms: int) -> list[str]:
    """Mark sessions as missing; return the ids of those that were not marked before.

    The grace of a session that an earlier release marked starts now, because that release measured no time.
    """
    newly = [row for row in rows if row.missing_since is None]
    unmeasured = [row for row in rows if row.missing_since is not None and row.missing_elapsed_ms is None]
    keys = json.dumps([row.key for row in newly + unmeasured])
    raw.execute(connection, _MARK, (utc_text(now), elapsed_ms, keys))
    sources.refresh(connection, {row.source_session_id for row in newly}, utc_text(now))
    return [row.session_id for row in newly]


def count(connection: Connection, keys: Iterable[int], progress: Progress) -> list[Unlisted]:
    """Count a 404 for sessions that are marked as missing, once in a pass; return their rows after it."""
    wanted = list(keys)
    raw.execute(connection, _COUNT, (progress.id, json.dumps(wanted), progress.id))
    return [row for row in read(connection, wanted) if row.missing_since is not None]


def clear(connection: Connection, keys: list[int], now: datetime) -> None:
    """Remove the mark, and the 404s counted so far, from sessions that exist."""
    cleared = [row for row in read(connection, keys) if row.missing_since is not None]
    if not cleared:
        return
    totals.lock(connection)
    raw.execute(connection, _CLEAR, (json.dumps([row.key for row in cleared]),))
    sources.refresh(connection, {row.source_session_id for row in cleared}, utc_text(now))


def note_existing(connection: Connection, keys: list[int], now: datetime, elapsed_ms: int, *, grace: float) -> None:
    """Record that sessions that are not listed answered 200.

    A session that an operation created within the grace is left out: listings may lag, and the next pass requests it.

    Parameters
    ----------
    grace : float
        Seconds of the shared clock by which listings may lag.
    """
    since = utc_text(now - timedelta(seconds=grace))
    raw.execute(connection, _NOTE_EXISTING, (utc_text(now), elapsed_ms, json.dumps(keys), since))


def forget_existing(connection: Connection, seen: BitMap64, gone: frozenset[int]) -> None:
    """Remove that record from sessions that are listed again, deleted, or reported as gone."""
    query = sa.select(sessions.c.key, sessions.c.deleted_at.is_not(None).label("is_deleted"))
    rows = connection.execute(query.where(sessions.c.unlisted_alive_at.is_not(None))).all()
    keys = [row.key for row in rows if row.is_deleted or row.key in seen or row.key in gone]
    if keys:
        raw.execute(connection, _FORGET_EXISTING, (json.dumps(keys),))


def listed(connection: Connection, progress: Progress, *, place: float, limit: int) -> list[Candidate]:
    """Return live sessions that a pass has listed, as witnesses: up to `limit` on each side of a place in the table.

    Sessions that syncd may have deleted (`lost_deletes`) are returned only if there are no others. One of them that
    answers is a witness. If none does, a 404 is not accepted as proof.

    Parameters
    ----------
    place : float
        From 0 (the session that was seen first) to 1 (the last).
    """
    columns = (sessions.c.key, sessions.c.id, sessions.c.source_session_id)
    live = sa.select(*columns).where(sa.text(LIVE_AND_LISTED))
    surely_live = live.where(sa.text(SURELY_NOT_DELETED))
    return _around(connection, surely_live, progress, place, limit) or _around(connection, live, progress, place, limit)


def _around(
    connection: Connection, live: sa.Select[Any], progress: Progress, place: float, limit: int
) -> list[Candidate]:
    """Return those of some sessions that a pass has listed, on each side of a place."""
    highest = connection.execute(sa.select(sa.func.max(sessions.c.key))).scalar() or 0
    pivot = int(highest * place)
    candidates: list[Candidate] = []
    for query in (
        live.where(sessions.c.key >= pivot).order_by(sessions.c.key),
        live.where(sessions.c.key < pivot).order_by(sessions.c.key.desc()),
    ):
        on_this_side: list[Candidate] = []
        for row in connection.execute(query.execution_options(yield_per=1000)):
            if row.key in progress.seen:
                on_this_side.append(Candidate(row.id, row.source_session_id))
                if len(on_this_side) == limit:
                    break
        candidates += on_this_side
    return candidates
