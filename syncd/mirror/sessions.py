"""Sessions: what a sighting does to the rows. The hot path of a pass.

A page is one SELECT of the rows it names and, for what is new or changed only, executemany with statements written
once. A session's current version is its row in `sessions`; a change moves the old one to `session_versions` first.
Whatever changes a row keeps `source_sessions` true in the same transaction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.decide import Change, Known, weigh
from syncd.listing import ID, SOURCE, Row
from syncd.mirror import bulk, driver, sources
from syncd.mirror.dialects import is_postgresql
from syncd.mirror.tables import CONTENT, session_versions, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

_COLUMNS = ", ".join(CONTENT)
_SELECT = f"""
SELECT key, version, valid_from, pass_id, observed_at, missing_since, deleted_at, {_COLUMNS}
FROM sessions WHERE id IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - constants
_INSERT = f"""
INSERT INTO sessions (key, {_COLUMNS}, version, change, valid_from, pass_id, first_seen_at, observed_at) VALUES
"""  # noqa: S608 - constants
_VALUES = f"(?, {', '.join('?' * len(CONTENT))}, 1, 'created', ?, ?, ?, ?)"
_ROWS_AT_ONCE = 50
"""Rows of one INSERT: the driver gives up the interpreter's lock, and must get it again, for each statement it runs."""
_INSERT_MANY = _INSERT + ", ".join([_VALUES] * _ROWS_AT_ONCE)
_INSERT_ONE = _INSERT + _VALUES
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

    `by_id` holds the key of each session in it; `changes` what became of those that changed; `clean` tells that the
    mirror now holds just what the answer says; `sources` are the links that changed.
    """

    by_id: dict[str | None, int] = field(default_factory=dict)
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
    loading : bool
        The source ids of new sessions are linked later, all at once: see `mirror.loading`.
    """

    asked_at: str
    now: str
    pass_id: int | None = None
    listed_from: str | None = None
    loading: bool = False

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
        change = weigh(before, row, asked_at=sighting.asked_at, now=sighting.now, listed_from=sighting.listed_from)
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
        _touch(connection, [before.key for before in touched], sighting.observed_at)
        found = {before.content[SOURCE] or "" for before in touched if before.missing_since}
        applied.sources += sources.refresh(connection, found, sighting.now)
    return applied


def _known(connection: Connection, rows: Sequence[Row]) -> dict[str | None, Known]:
    if is_postgresql(connection):
        return bulk.known(connection, rows)
    ids = json.dumps([row[ID] for row in rows])
    found = driver.execute(connection, _SELECT, (ids,))
    return {row[7]: Known(row[0], row[1], row[2], row[3], row[4], row[5], row[6], tuple(row[7:])) for row in found}


def _insert(connection: Connection, rows: list[Row], sighting: Sighting, applied: Applied) -> None:
    if is_postgresql(connection):
        _insert_bulk(connection, rows, sighting, applied)
        return
    first = (driver.execute(connection, "SELECT max(key) FROM sessions").fetchone()[0] or 0) + 1
    tail = (sighting.now, sighting.pass_id, sighting.now, sighting.observed_at)
    bound = [(key, *row, *tail) for key, row in enumerate(rows, first)]
    whole = len(bound) - len(bound) % _ROWS_AT_ONCE
    for start in range(0, whole, _ROWS_AT_ONCE):
        many = tuple(chain.from_iterable(bound[start : start + _ROWS_AT_ONCE]))
        driver.execute(connection, _INSERT_MANY, many)
    driver.executemany(connection, _INSERT_ONE, bound[whole:])
    keys = range(first, first + len(rows))
    applied.by_id.update(zip((row[ID] for row in rows), keys, strict=True))
    applied.changes.update(dict.fromkeys(keys, "inserted"))
    applied.versions += len(rows)
    if not sighting.loading:
        applied.sources += sources.link_new(connection, rows, first, sighting.now)


def _insert_bulk(connection: Connection, rows: list[Row], sighting: Sighting, applied: Applied) -> None:
    keys = bulk.insert(connection, rows, now=sighting.now, pass_id=sighting.pass_id, observed_at=sighting.observed_at)
    applied.by_id.update(keys)
    applied.changes.update(dict.fromkeys(keys.values(), "inserted"))
    applied.versions += len(rows)
    if bulk.link_new(connection, rows, sighting.now) != len(rows):
        applied.sources += sources.refresh(connection, {row[SOURCE] or "" for row in rows}, sighting.now)


def _touch(connection: Connection, keys: list[int], observed_at: str | None) -> None:
    if is_postgresql(connection):
        bulk.touch(connection, keys, observed_at)
        return
    driver.executemany(connection, _TOUCH, [(observed_at, key) for key in keys])


def _update(
    connection: Connection, changed: list[tuple[Known, Row, Change]], sighting: Sighting, applied: Applied
) -> None:
    archive, update = [], []
    changes: list[tuple[Known, Row, str, str]] = []
    moved: set[str] = set()
    for before, row, change in changed:
        at = max(sighting.now, before.valid_from)  # a clock that was set back must not turn a version inside out
        changes.append((before, row, change.value, at))
        archive.append((at, before.key))
        update.append((*row, change.value, at, sighting.pass_id, sighting.observed_at, before.key))
        applied.changes[before.key] = change.value
        applied.versions += before.version + 1
        if change is Change.RESTORED:
            applied.restored.append(row[ID] or "")
        if change is Change.RESTORED or before.missing_since or before.content[SOURCE] != row[SOURCE]:
            moved |= {before.content[SOURCE] or "", row[SOURCE] or ""}
    if is_postgresql(connection):
        bulk.update(connection, changes, pass_id=sighting.pass_id, observed_at=sighting.observed_at)
    else:
        driver.executemany(connection, _ARCHIVE, archive)
        driver.executemany(connection, _UPDATE, update)
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
            .with_for_update()
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


def archived_from(connection: Connection, key: int, pass_id: int) -> bool:
    """Whether a pass has written a version of a session that is past by now."""
    found = connection.execute(
        sa.select(session_versions.c.version)
        .where(session_versions.c.session_key == key, session_versions.c.pass_id == pass_id)
        .limit(1)
    )  # fmt: skip
    return found.first() is not None


def key_of(connection: Connection, session_id: str) -> int | None:
    """Return the key of a session; None when the mirror never saw it."""
    return connection.execute(sa.select(sessions.c.key).where(sessions.c.id == session_id)).scalar()


def is_live(connection: Connection, session_id: str) -> bool:
    """Whether the mirror has a session that is not deleted."""
    query = "SELECT 1 FROM sessions WHERE id = ? AND deleted_at IS NULL"
    return driver.execute(connection, query, (session_id,)).fetchone() is not None
