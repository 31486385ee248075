"""Sessions: what a sighting does to the rows. The hot path of a pass.

A page is one SELECT of the rows it names and, for what is new or changed only, statements written once. A session's
current version is its row in `sessions`; a change moves the old one to `session_versions` first. Whatever changes a row
keeps `source_sessions` true in the same transaction.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.db import raw
from syncd.mirror.db.dialects import EARLIEST, ConcurrentChangeError, is_postgresql
from syncd.mirror.schema.tables import CONTENT, session_versions, sessions
from syncd.mirror.store import operations, sessions_pg, sources, totals
from syncd.records.parse import ID, SOURCE, Row
from syncd.rules.versions import Change, StoredSession, classify_change

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_COLUMNS = ", ".join(CONTENT)
_CREATED_AT, _LAST_MESSAGE_AT = CONTENT.index("created_at"), CONTENT.index("last_message_at")
CONTENT_FROM = 7
"""Where the content begins in a row of `_SELECT`."""
_SELECT = f"""
SELECT key, version, valid_from, pass_id, observed_at, missing_since, deleted_at, {_COLUMNS}
FROM sessions WHERE id IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - constants
_ROWS_AT_ONCE = 50
"""Rows of one INSERT: the driver gives up the interpreter's lock, and must get it again, for each statement it runs."""
_ARCHIVED = f"{_COLUMNS}, change, seq, changed_fields, first_seen_at, pass_id, valid_from"
"""What the history copies of a session."""
_ARCHIVE = f"""
INSERT INTO session_versions (session_key, version, {_ARCHIVED}, valid_to)
SELECT key, version, {_ARCHIVED}, ? FROM sessions WHERE key = ?
"""  # noqa: S608 - constants
_UPDATE = f"""
UPDATE sessions SET {", ".join(f"{name} = ?{place}" for place, name in enumerate(CONTENT, 1))},
    created_date = substr(?{_CREATED_AT + 1}, 1, 10), last_message_date = substr(?{_LAST_MESSAGE_AT + 1}, 1, 10),
    version = version + 1, change = ?, valid_from = ?, pass_id = ?, observed_at = coalesce(?, observed_at),
    missing_since = NULL, absences = 0, deleted_at = NULL, seq = ?, changed_fields = ?
WHERE key = ?
"""  # noqa: S608 - constants
_TOUCH = """
UPDATE sessions SET observed_at = coalesce(?, observed_at), missing_since = NULL, absences = 0 WHERE key = ?
"""
_LIVE = """
SELECT key, id, source_session_id FROM sessions WHERE key IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
"""
# A clock that was set back must not turn a version inside out.
_BURY_ARCHIVE = f"""
INSERT INTO session_versions (session_key, version, {_ARCHIVED}, valid_to)
SELECT key, version, {_ARCHIVED}, {{later}}(?, valid_from) FROM sessions WHERE key IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - constants
_BURY = """
UPDATE sessions SET version = version + 1, change = 'deleted', valid_from = {later}(?, valid_from),
    deleted_at = {later}(?, valid_from), pass_id = ?, observed_at = coalesce(?, observed_at), missing_since = NULL,
    seq = ?, changed_fields = '[]'
WHERE key = ?
"""


@dataclass(slots=True)
class ApplyResult:
    """What an answer did to the mirror.

    `keys` holds the key of each session in it, in its order; `changes` what became of those that changed; `deleted` are
    those that were new and that an operation had deleted before the answer could know it; `clean` tells
    that the mirror now holds just what the answer says; `versions` is the sum of their versions; `sources` are the
    links that changed.
    """

    keys: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    changes: dict[int, str] = field(default_factory=dict)
    restored: list[str] = field(default_factory=list)
    clean: bool = True
    versions: int = 0
    sources: list[sources.Link] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Observation:
    """How a session came to be seen.

    Parameters
    ----------
    asked_at, now : str
        When the answer was asked for and when it is written.
    pass_id : int | None
        The pass whose page it was; None for an operation or a look-up, which also are believed over listings.
    listed_from : str | None
        See `rules.versions.classify_change`.
    new : bool
        Most of what the answer tells of is new to the mirror: it is inserted, and what was left out is looked up then.
    deletions : bool
        Operations may have deleted sessions of which the answer does not know it yet, nor does the mirror.
    loading : bool
        The source ids of new sessions are linked later, all at once: see `mirror.loading`.
    """

    asked_at: str
    now: str
    pass_id: int | None = None
    listed_from: str | None = None
    new: bool = False
    deletions: bool = True
    loading: bool = False

    @property
    def observed_at(self) -> str | None:
        """When the row was learned by other means than a listing."""
        return self.now if self.pass_id is None else None


def apply(connection: Connection, rows: Sequence[Row], observation: Observation) -> ApplyResult:
    """Write what an answer says of some sessions; an unchanged session costs no write.

    Parameters
    ----------
    rows : Sequence[Row]
        Each id at most once.
    """
    applied = ApplyResult()
    keys = _insert(connection, rows, observation, applied) if observation.new and rows else {}
    if len(keys) == len(rows):
        applied.keys = list(keys.values())
        _bury_deleted(connection, keys, observation, applied)
        return applied
    rest = [row for row in rows if row[ID] not in keys]
    known = _known(connection, rest)
    new: list[Row] = []
    changed: list[tuple[StoredSession, Row, Change]] = []
    touched: list[StoredSession] = []
    for row in rest:
        found = known.get(row[ID])
        if found is None:
            new.append(row)
            continue
        keys[row[ID]] = found[0]
        if found[CONTENT_FROM:] == row and observation.observed_at is None and found[5] is None and found[6] is None:
            applied.versions += found[1]  # as it was, neither missing nor deleted: what most rows are
            continue
        before = _read_known(found)
        change = classify_change(
            before, row, asked_at=observation.asked_at, now=observation.now, listed_from=observation.listed_from,
            paged=observation.pass_id is not None,
        )  # fmt: skip
        if change in {Change.UPDATED, Change.RESTORED}:
            changed.append((before, row, change))
            continue
        applied.clean &= change is Change.UNCHANGED
        applied.versions += before.version
        if before.deleted_at is None and (before.missing_since or observation.observed_at):
            touched.append(before)
    if new:
        keys |= _insert(connection, new, observation, applied)
    if changed:
        _update(connection, changed, observation, applied)
    if touched:
        totals.hold(connection)
        _touch(connection, [before.key for before in touched], observation.observed_at)
        moved = {before.content[SOURCE] or "" for before in touched if before.missing_since}
        applied.sources += sources.refresh(connection, moved, observation.now)
    applied.keys = [keys[row[ID]] for row in rows]
    _bury_deleted(connection, keys, observation, applied)
    return applied


def _bury_deleted(
    connection: Connection, keys: dict[str | None, int], observation: Observation, applied: ApplyResult
) -> None:
    """Make tombstones of new sessions that an operation has deleted since the answer may have been true."""
    if observation.listed_from is None or not observation.deletions:
        return
    new = {session_id: key for session_id, key in keys.items() if applied.changes.get(key) == "inserted"}
    if not new:
        return
    gone = operations.deleted_since(connection, new, observation.listed_from or EARLIEST)
    applied.deleted = tombstone(connection, [new[session_id] for session_id in gone], now=observation.now)
    applied.clean &= not gone


def _known(connection: Connection, rows: Sequence[Row]) -> dict[str | None, tuple[Any, ...]]:
    """Return the stored rows of some sessions, as the fields of `StoredSession`, content last."""
    if is_postgresql(connection):
        return sessions_pg.known(connection, rows)
    found = raw.execute(connection, _SELECT, (json.dumps([row[ID] for row in rows]),))
    return {row[CONTENT_FROM]: row for row in found}


def _read_known(row: tuple[Any, ...]) -> StoredSession:
    fields = [*row[:CONTENT_FROM], row[CONTENT_FROM:]]
    return StoredSession(*fields)


def _insert(
    connection: Connection, rows: Sequence[Row], observation: Observation, applied: ApplyResult
) -> dict[str | None, int]:
    """Insert sessions; return the key of each that was new."""
    if is_postgresql(connection):
        return _insert_bulk(connection, rows, observation, applied)
    first = (raw.execute(connection, "SELECT max(key) FROM sessions").fetchone()[0] or 0) + 1
    seq = totals.reserve(connection, len(rows), live=len(rows))
    inserted = 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        bound = [observation.now, observation.pass_id, observation.observed_at, seq + start]
        inserted += raw.execute(connection, _inserting(len(some)), [*bound, *chain.from_iterable(some)]).rowcount
    if inserted < len(rows):
        totals.reserve(connection, 0, live=inserted - len(rows))
    if not inserted:
        return {}
    if inserted == len(rows):
        keys = dict(zip((row[ID] for row in rows), range(first, first + inserted), strict=True))
    else:
        keys = dict(raw.execute(connection, "SELECT id, key FROM sessions WHERE key >= ?", (first,)).fetchall())
    applied.changes.update(dict.fromkeys(keys.values(), "inserted"))
    applied.versions += inserted
    if not observation.loading:
        applied.sources += sources.link_new(connection, rows, first, observation.now)
    return keys


@functools.cache
def _inserting(count: int) -> str:
    """Write the INSERT of so many sessions; what is the same for all of them is bound once."""
    width = len(CONTENT)
    rows = (
        f"({', '.join(f'?{place}' for place in range(first, first + width))}, 1, 'created', ?1, ?2, ?1, ?3, "
        f"?4 + {number}, substr(?{first + _CREATED_AT}, 1, 10), substr(?{first + _LAST_MESSAGE_AT}, 1, 10))"
        for number, first in enumerate(range(5, 5 + count * width, width))
    )
    return (
        f"INSERT INTO sessions ({_COLUMNS}, version, change, valid_from, pass_id, first_seen_at, observed_at, "  # noqa: S608
        f"seq, created_date, last_message_date) VALUES {', '.join(rows)} ON CONFLICT (id) DO NOTHING"
    )


def _insert_bulk(
    connection: Connection, rows: Sequence[Row], observation: Observation, applied: ApplyResult
) -> dict[str | None, int]:
    keys, links, others = sessions_pg.insert(
        connection, rows, now=observation.now, pass_id=observation.pass_id, observed_at=observation.observed_at
    )
    if len(keys) != len(rows) and not observation.new:
        raise ConcurrentChangeError("another replica has written one of these sessions first")
    applied.changes.update(dict.fromkeys(keys.values(), "inserted"))
    applied.versions += len(keys)
    applied.sources += links + sources.refresh(connection, set(others), observation.now)
    return keys


@dataclass(frozen=True, slots=True)
class NewSessions:
    """The key of each session that was inserted, by its id, and the links that changed."""

    inserted: dict[str | None, int]
    links: list[sources.Link]


def insert_new(connection: Connection, rows: Sequence[Row], *, now: str) -> NewSessions:
    """Insert sessions that answers to creates showed; a session that the mirror has already is left as it is."""
    applied = ApplyResult()
    inserted = _insert(connection, rows, Observation(now, now, new=True), applied)
    return NewSessions(inserted, applied.sources)


def _touch(connection: Connection, keys: list[int], observed_at: str | None) -> None:
    if is_postgresql(connection):
        sessions_pg.touch(connection, keys, observed_at)
        return
    raw.executemany(connection, _TOUCH, [(observed_at, key) for key in keys])


def _update(
    connection: Connection,
    changed: list[tuple[StoredSession, Row, Change]],
    observation: Observation,
    applied: ApplyResult,
) -> None:
    archive, update = [], []
    changes: list[sessions_pg.Changed] = []
    moved: set[str] = set()
    restored = sum(change is Change.RESTORED for *_, change in changed)
    first = totals.reserve(connection, len(changed), live=restored, deleted=-restored)
    for seq, (before, row, change) in enumerate(changed, first):
        at = max(observation.now, before.valid_from)  # a clock that was set back must not turn a version inside out
        fields = _changed_fields(before, row)
        changes.append(sessions_pg.Changed(before, row, change.value, at, seq, fields))
        archive.append((at, before.key))
        written = (change.value, at, observation.pass_id, observation.observed_at, seq, fields, before.key)
        update.append((*row, *written))
        applied.changes[before.key] = change.value
        applied.versions += before.version + 1
        if change is Change.RESTORED:
            applied.restored.append(row[ID] or "")
        if change is Change.RESTORED or before.missing_since or before.content[SOURCE] != row[SOURCE]:
            moved |= {before.content[SOURCE] or "", row[SOURCE] or ""}
    if is_postgresql(connection):
        sessions_pg.update(connection, changes, pass_id=observation.pass_id, observed_at=observation.observed_at)
    else:
        raw.executemany(connection, _ARCHIVE, archive)
        raw.executemany(connection, _UPDATE, update)
    applied.sources += sources.refresh(connection, moved, observation.now)


def _changed_fields(before: StoredSession, row: Row) -> str:
    """Return the JSON list of the columns in which a session differs from its last version."""
    pairs = zip(CONTENT, before.content, row, strict=True)
    return json.dumps([name for name, old, new in pairs if old != new])


def tombstone(connection: Connection, keys: Iterable[int], *, now: str, pass_id: int | None = None) -> list[str]:
    """Make tombstones of live sessions.

    Returns
    -------
    list[str]
        The ids of the sessions that were live until now.
    """
    to_delete = sorted(keys)
    if not to_delete:
        return []
    postgresql = is_postgresql(connection)
    lock, later = ("ORDER BY key FOR UPDATE", "greatest") if postgresql else ("ORDER BY key", "max")
    totals.hold(connection)
    live = raw.execute(connection, _LIVE + lock, (json.dumps(to_delete),)).fetchall()
    if not live:
        return []
    first = totals.reserve(connection, len(live), live=-len(live), deleted=len(live))
    raw.execute(connection, _BURY_ARCHIVE.format(later=later), (now, json.dumps([row[0] for row in live])))
    observed_at = now if pass_id is None else None
    buried = [(now, now, pass_id, observed_at, seq, row[0]) for seq, row in enumerate(live, first)]
    raw.executemany(connection, _BURY.format(later=later), buried)
    sources.refresh(connection, {row[2] for row in live}, now)
    return [row[1] for row in live]


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


def observed_at(connection: Connection, session_id: str) -> datetime | None:
    """Return when something other than a listing last showed a session; None if nothing did."""
    return connection.execute(sa.select(sessions.c.observed_at).where(sessions.c.id == session_id)).scalar()


def source_of(connection: Connection, session_id: str) -> str | None:
    """Return the source id of a session; None if the mirror has no such session."""
    return connection.execute(sa.select(sessions.c.source_session_id).where(sessions.c.id == session_id)).scalar()


def is_live(connection: Connection, session_id: str) -> bool:
    """Whether the mirror has a session that is not deleted."""
    query = "SELECT 1 FROM sessions WHERE id = ? AND deleted_at IS NULL"
    return raw.execute(connection, query, (session_id,)).fetchone() is not None
