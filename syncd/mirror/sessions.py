"""Sessions: what a sighting does to the rows. The hot path of a pass.

A page is one SELECT of the rows it names and, for what is new or changed only, executemany with statements written
once. A session's current version is its row in `sessions`; a change moves the old one to `session_versions` first.
Whatever changes a row keeps `source_sessions` true in the same transaction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.decide import Change, Known, weigh
from syncd.listing import ID, SOURCE, Row
from syncd.mirror import sources
from syncd.mirror.tables import CONTENT, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_COLUMNS = ", ".join(CONTENT)
_SELECT = f"""
SELECT key, version, valid_from, pass_id, observed_at, missing_since, deleted_at, {_COLUMNS}
FROM sessions WHERE id IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - constants
_INSERT = f"""
INSERT INTO sessions (key, {_COLUMNS}, version, change, valid_from, pass_id, first_seen_at, observed_at)
VALUES (?, {", ".join("?" * len(CONTENT))}, 1, 'created', ?, ?, ?, ?)
"""  # noqa: S608 - constants
_ARCHIVE = f"""
INSERT INTO session_versions (session_key, version, {_COLUMNS}, change, valid_from, valid_to, pass_id)
SELECT key, version, {_COLUMNS}, change, valid_from, ?, pass_id FROM sessions WHERE key = ?
"""  # noqa: S608 - constants
_UPDATE = f"""
UPDATE sessions SET {", ".join(f"{name} = ?" for name in CONTENT)}, version = version + 1, change = ?, valid_from = ?,
    pass_id = ?, observed_at = coalesce(?, observed_at), missing_since = NULL, absences = 0, deleted_at = NULL
WHERE key = ?
"""  # noqa: S608 - constants
_TOUCH = """
UPDATE sessions SET observed_at = coalesce(?, observed_at), missing_since = NULL, absences = 0 WHERE key = ?
"""


@dataclass(slots=True)
class Applied:
    """What an answer did to the mirror.

    `by_id` holds the key of each session in it; `changes` what became of those that changed, and `before` the pass that
    had written their version until now; `clean` tells that the mirror now holds just what the answer says; `sources`
    are the links that changed.
    """

    by_id: dict[str | None, int] = field(default_factory=dict)
    before: dict[int, int | None] = field(default_factory=dict)
    changes: dict[int, str] = field(default_factory=dict)
    restored: list[str] = field(default_factory=list)
    clean: bool = True
    versions: int = 0
    sources: list[sources.Link] = field(default_factory=list)

    @property
    def keys(self) -> list[int]:
        """The key of each session in the answer."""
        return list(self.by_id.values())


@dataclass(frozen=True, slots=True)
class Sighting:
    """How a session came to be seen.

    Parameters
    ----------
    asked_at, now : str
        When the answer was asked for and when it is written.
    pass_id : int | None
        The pass whose page it was; None for an operation or a look-up, which also are believed over listings.
    listed_from : str | None
        See `decide.weigh`.
    """

    asked_at: str
    now: str
    pass_id: int | None = None
    listed_from: str | None = None

    @property
    def observed_at(self) -> str | None:
        """When the row was learned by other means than a listing."""
        return self.now if self.pass_id is None else None


def apply(connection: Connection, rows: Sequence[Row], sighting: Sighting) -> Applied:
    """Write what an answer says of some sessions; an unchanged session costs no write.

    Parameters
    ----------
    rows : Sequence[Row]
        Each id at most once.
    """
    applied = Applied()
    known = _known(connection, rows)
    new: list[Row] = []
    changed: list[tuple[Known, Row, Change]] = []
    touched: list[Known] = []
    for row in rows:
        before = known.get(row[ID])
        if before is None:
            new.append(row)
            continue
        applied.by_id[row[ID]] = before.key
        change = weigh(
            before, row, asked_at=sighting.asked_at, now=sighting.now, listed_from=sighting.listed_from,
            look_up=sighting.pass_id is None,
        )  # fmt: skip
        if change in {Change.UPDATED, Change.RESTORED}:
            changed.append((before, row, change))
            continue
        applied.clean &= change is Change.UNCHANGED
        applied.versions += before.version
        if before.deleted_at is None and (before.missing_since or sighting.observed_at):
            touched.append(before)
    if new:
        _insert(connection, new, sighting, applied)
    if changed:
        _update(connection, changed, sighting, applied)
    if touched:
        connection.exec_driver_sql(_TOUCH, [(sighting.observed_at, before.key) for before in touched])
        found = {before.content[SOURCE] or "" for before in touched if before.missing_since}
        applied.sources += sources.refresh(connection, found, sighting.now)
    return applied


def _known(connection: Connection, rows: Sequence[Row]) -> dict[str | None, Known]:
    ids = json.dumps([row[ID] for row in rows])
    found = connection.exec_driver_sql(_SELECT, (ids,))
    return {row[7]: Known(row[0], row[1], row[2], row[3], row[4], row[5], row[6], tuple(row[7:])) for row in found}


def _insert(connection: Connection, rows: list[Row], sighting: Sighting, applied: Applied) -> None:
    first = (connection.exec_driver_sql("SELECT max(key) FROM sessions").scalar() or 0) + 1
    tail = (sighting.now, sighting.pass_id, sighting.now, sighting.observed_at)
    connection.exec_driver_sql(_INSERT, [(key, *row, *tail) for key, row in enumerate(rows, first)])
    keys = range(first, first + len(rows))
    applied.by_id.update(zip((row[ID] for row in rows), keys, strict=True))
    applied.changes.update(dict.fromkeys(keys, "inserted"))
    applied.versions += len(rows)
    applied.sources += sources.link_new(connection, rows, first, sighting.now)


def _update(
    connection: Connection, changed: list[tuple[Known, Row, Change]], sighting: Sighting, applied: Applied
) -> None:
    archive, update = [], []
    moved: set[str] = set()
    for before, row, change in changed:
        at = max(sighting.now, before.valid_from)  # a clock that was set back must not turn a version inside out
        archive.append((at, before.key))
        update.append((*row, change.value, at, sighting.pass_id, sighting.observed_at, before.key))
        applied.changes[before.key] = change.value
        applied.before[before.key] = before.pass_id
        applied.versions += before.version + 1
        if change is Change.RESTORED:
            applied.restored.append(row[ID] or "")
        if change is Change.RESTORED or before.missing_since or before.content[SOURCE] != row[SOURCE]:
            moved |= {before.content[SOURCE] or "", row[SOURCE] or ""}
    connection.exec_driver_sql(_ARCHIVE, archive)
    connection.exec_driver_sql(_UPDATE, update)
    applied.sources += sources.refresh(connection, moved, sighting.now)


def bury(connection: Connection, keys: Iterable[int], *, now: str, pass_id: int | None = None) -> list[str]:
    """Make tombstones of live sessions.

    Returns
    -------
    list[str]
        The ids of the sessions that were live until now.
    """
    buried: list[str] = []
    carried: set[str] = set()
    for key in keys:
        row = connection.execute(
            sa.select(sessions.c.id, sessions.c.source_session_id, sa.type_coerce(sessions.c.valid_from, sa.Text))
            .where(sessions.c.key == key, sessions.c.deleted_at.is_(None))
        ).first()  # fmt: skip
        if row is None:
            continue
        at = max(now, row[2])
        connection.exec_driver_sql(_ARCHIVE, (at, key))
        connection.exec_driver_sql(
            "UPDATE sessions SET version = version + 1, change = 'deleted', valid_from = ?, deleted_at = ?, "
            "pass_id = ?, observed_at = coalesce(?, observed_at), missing_since = coalesce(missing_since, ?) "
            "WHERE key = ?",
            (at, at, pass_id, now if pass_id is None else None, at, key),
        )
        buried.append(row.id)
        carried.add(row.source_session_id)
    sources.refresh(connection, carried, now)
    return buried


def lags(connection: Connection, source_id: str, found: Row | None, *, since: datetime, now: datetime) -> str | None:
    """Say why a look-up by source id is older than what the mirror knows; None when it may be believed.

    Parameters
    ----------
    found : Row | None
        The session that the look-up brought; None when it found nothing.
    since : datetime
        What the mirror learned before this moment every look-up shows by now.
    """
    window = sessions.c.source_session_id == source_id
    if found is None:
        fresh = sa.and_(sessions.c.deleted_at.is_(None), sessions.c.first_seen_at.between(since, now))
        words = "the look-up finds nothing and the mirror has just seen {}: look-ups lag"
    else:
        window = sessions.c.id == found[ID]
        fresh = sessions.c.deleted_at.between(since, now)  # a newer version too: it may be from before the deletion
        words = "the look-up finds {}, which has just been deleted: look-ups lag"
    session_id = connection.execute(sa.select(sessions.c.id).where(window, fresh).limit(1)).scalar()
    return None if session_id is None else words.format(session_id)


def buried(connection: Connection, session_id: str) -> bool:
    """Whether the mirror holds a session as deleted."""
    query = sa.select(sessions.c.deleted_at).where(sessions.c.id == session_id, sessions.c.deleted_at.is_not(None))
    return connection.execute(query).first() is not None


def key_of(connection: Connection, session_id: str) -> int | None:
    """Return the key of a session; None when the mirror never saw it."""
    return connection.execute(sa.select(sessions.c.key).where(sessions.c.id == session_id)).scalar()
