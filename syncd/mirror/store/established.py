"""Sessions that a listing must contain, or Albert must know, if nothing is wrong. `pull` checks them for each pass.

A session is *established* if the last complete pass listed it, or if no operation or look-up has shown it within the
last ten minutes (`FRESH`). A session that an operation has just created is not established: a listing or a look-up may
not show it yet.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pyroaring import BitMap64

from syncd.mirror.schema.tables import pages, sessions
from syncd.mirror.store.lost_deletes import SURELY_NOT_DELETED
from syncd.mirror.store.pages import newest_complete, unpack
from syncd.mirror.store.session_statements import LIVE_AND_LISTED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from syncd.mirror.store.holds import Decisions
    from syncd.records.ids import SessionId

FRESH = timedelta(minutes=10)
"""How long a session that no pass has listed may be absent from listings and look-ups: well above any lag."""


NEIGHBOURS = 20
"""Sessions that are considered at each place of the table: enough to find some that are in no hold."""
_LISTED = sa.text(LIVE_AND_LISTED)


@dataclass(frozen=True, slots=True)
class Known:
    """A live session to request. Only the absence of an established one proves anything.

    Its presence always does: operations and look-ups write to the mirror only after `pull.known_tenant` has asked.
    """

    session_id: SessionId
    established: bool


def live_keys(connection: Connection, now: datetime) -> array[int]:
    """Return the keys of the established live sessions, in their order."""
    listed = BitMap64()
    query = sa.select(pages.c.sessions).where(pages.c.pass_id == newest_complete(connection))
    for packed in connection.execute(query.execution_options(yield_per=100)).scalars():
        listed |= unpack(packed)
    live = sa.select(sessions.c.key, _is_fresh(now).label("is_fresh")).where(sessions.c.deleted_at.is_(None))
    rows = connection.execute(live.order_by(sessions.c.key).execution_options(yield_per=10_000))
    return array("q", (row.key for row in rows if not row.is_fresh or row.key in listed))


def _is_fresh(now: datetime) -> sa.ColumnElement[bool]:
    """Match sessions that an operation or a look-up has shown within `FRESH`; a time in the future matches too."""
    observed_at = sessions.c.observed_at
    return sa.and_(observed_at.is_not(None), observed_at > now - FRESH)


def to_request(connection: Connection, decisions: Decisions, now: datetime, *, limit: int) -> list[Known]:
    """Return up to `limit` live sessions that the first requests of a pass may ask for, the best first.

    Sessions of the last complete pass come first, spread over its pages, so that a few deletions cannot hide all of
    them. Sessions of an open hold come last; one of them is requested in any case if no other proves anything. Sessions
    of an approved hold may be gone, and rejected ones are known to be: they prove nothing. Missing sessions, and those
    that syncd may have deleted (`lost_deletes`), are left out for the same reason.
    """
    listed = _spread_over_pages(connection, limit)
    others = _spread_over_keys(connection, limit)
    query = sa.select(sessions.c.key, sessions.c.id, _is_fresh(now).label("is_fresh"))
    query = query.where(sessions.c.key.in_([*listed, *others]), _LISTED, sa.text(SURELY_NOT_DELETED))
    rows = {row.key: row for row in connection.execute(query)}
    keys = [key for key in dict.fromkeys([*listed, *others]) if key in rows]
    keys = [key for key in keys if key not in decisions.approved and key not in decisions.kept]
    keys.sort(key=lambda key: (key in decisions.waiting, rows[key].is_fresh and key not in listed))
    known = [Known(rows[key].id, key in listed or not rows[key].is_fresh) for key in keys]
    if not any(session.established for session in known[:limit]):
        known[limit - 1 : limit] = [session for session in known if session.established][:1]
    return known[:limit]


def _spread_over_pages(connection: Connection, limit: int) -> list[int]:
    """Return keys from pages of the last complete pass: one from each of `limit` pages, then another from each."""
    of_pass = pages.c.pass_id == newest_complete(connection)
    count = connection.execute(sa.select(sa.func.count()).select_from(pages).where(of_pass)).scalar_one()
    numbers = [1 + place for place in _spread(count, limit)]
    query = sa.select(pages.c.sessions).where(of_pass, pages.c.number.in_(numbers)).order_by(pages.c.number)
    key_lists = [_at(list(unpack(packed)), limit) for packed in connection.execute(query).scalars()]
    return [keys[turn] for turn in range(limit) for keys in key_lists if turn < len(keys)]


def _spread_over_keys(connection: Connection, limit: int) -> list[int]:
    """Return keys of live sessions from `limit` places of the table: one from each place, then another from each."""
    ends = [sa.select(end(sessions.c.key)).scalar_subquery() for end in (sa.func.min, sa.func.max)]
    first, last = connection.execute(sa.select(*ends)).one()  # SQLite reads the whole table for both in one query
    if first is None:
        return []
    live = sa.select(sessions.c.key).where(_LISTED).order_by(sessions.c.key).limit(NEIGHBOURS)
    key_lists = [
        connection.execute(live.where(sessions.c.key >= first + place)).scalars().all()
        for place in _spread(last - first + 1, limit)
    ]
    return [keys[turn] for turn in range(NEIGHBOURS) for keys in key_lists if turn < len(keys)]


def _at(keys: Sequence[int], limit: int) -> list[int]:
    return [keys[place] for place in _spread(len(keys), limit)]


def _spread(count: int, limit: int) -> list[int]:
    """Return up to `limit` different places from 0 to `count` - 1, evenly spread, both ends included."""
    wanted = min(count, limit)
    return [round(number * (count - 1) / max(wanted - 1, 1)) for number in range(wanted)]
