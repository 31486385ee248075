"""`SessionStatements` on SQLite: prepared statements, run for each row by the driver."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple

from syncd.mirror.db import raw
from syncd.mirror.store import sources, totals
from syncd.mirror.store.session_statements import (
    ARCHIVED,
    DATES,
    STATE,
    LiveSession,
    NewSessions,
    read_stored,
    sql_list,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from syncd.mirror.store.session_statements import NewVersion
    from syncd.records.fields import FieldList, SessionRow
    from syncd.records.ids import PassId
    from syncd.rules.versions import StoredSession

_ROWS_AT_ONCE = 50
"""Rows of one INSERT. For each statement the driver releases the interpreter's lock and has to acquire it again."""
_TOUCH = """
UPDATE sessions SET observed_at = coalesce(?, observed_at), missing_since = NULL, absences = 0 WHERE key = ?
"""
_LIVE = """
SELECT key, id, source_session_id FROM sessions WHERE key IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
ORDER BY key
"""
_TOMBSTONE = """
UPDATE sessions SET version = version + 1, change = 'deleted', valid_from = max(?, valid_from),
    deleted_at = max(?, valid_from), pass_id = ?, observed_at = coalesce(?, observed_at),
    missing_since = NULL, seq = ?, changed_fields = '[]'
WHERE key = ?
"""


class SqliteSessions:
    """See `SessionStatements`. A tombstone is not older than the version before it, even if the clock stepped back."""

    def __init__(self, fields: FieldList[SessionRow]) -> None:
        columns = sql_list(fields.columns)
        self._fields = fields
        self._stored = f"""
SELECT {sql_list(STATE)}, {columns}
FROM sessions WHERE id IN (SELECT value FROM json_each(?))
"""  # noqa: S608 - constants
        archive = f"""
INSERT INTO session_versions (session_key, version, {columns}, {sql_list(ARCHIVED)}, valid_to)
SELECT key, version, {columns}, {sql_list(ARCHIVED)}, {{valid_to}} FROM sessions WHERE {{keys}}
"""  # noqa: S608 - constants
        self._archive = archive.format(valid_to="?", keys="key = ?")
        self._archive_live = archive.format(
            valid_to="max(?, valid_from)", keys="key IN (SELECT value FROM json_each(?))"
        )
        self._update = f"""
UPDATE sessions SET {", ".join(f"{column} = ?{place}" for place, column in enumerate(fields.columns, 1))},
    {", ".join(f"{date} = substr(?{place}, 1, 10)" for date, place in _dates(fields.columns).items())},
    version = version + 1, change = ?, valid_from = ?, pass_id = ?, observed_at = coalesce(?, observed_at),
    missing_since = NULL, absences = 0, deleted_at = NULL, seq = ?, changed_fields = ?
WHERE key = ?
"""  # noqa: S608 - constants
        self._insert = lru_cache(maxsize=_ROWS_AT_ONCE)(lambda count: _insert(fields.columns, count))

    def stored(self, connection: Connection, rows: Sequence[SessionRow]) -> dict[str, StoredSession]:
        """See `SessionStatements`."""
        wanted = json.dumps([row.id for row in rows])
        return read_stored(raw.execute(connection, self._stored, (wanted,)).fetchall(), self._fields)

    def insert(
        self,
        connection: Connection,
        rows: Sequence[SessionRow],
        *,
        now: str,
        pass_id: PassId | None,
        observed_at: str | None,
        link: bool,
    ) -> NewSessions:
        """See `SessionStatements`."""
        (last,) = raw.execute(connection, "SELECT max(key) FROM sessions").fetchone()
        first = (last or 0) + 1
        seq = totals.reserve(connection, len(rows), live=len(rows))
        count = 0
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            bound: list[Any] = [now, pass_id, observed_at, seq + start, *chain.from_iterable(map(astuple, some))]
            count += raw.execute(connection, self._insert(len(some)), bound).rowcount
        if count < len(rows):
            totals.reserve(connection, 0, live=count - len(rows))
        if not count:
            return NewSessions({}, [])
        if count == len(rows):
            keys = dict(zip((row.id for row in rows), range(first, first + count), strict=True))
        else:
            keys = dict(raw.execute(connection, "SELECT id, key FROM sessions WHERE key >= ?", (first,)).fetchall())
        return NewSessions(keys, sources.link_new(connection, rows, first, now) if link else [])

    def update(
        self, connection: Connection, versions: Sequence[NewVersion], *, pass_id: PassId | None, observed_at: str | None
    ) -> None:
        """See `SessionStatements`."""
        raw.executemany(connection, self._archive, [(version.valid_from, version.before.key) for version in versions])
        rows = [
            (
                *astuple(version.row),
                version.change.value,
                version.valid_from,
                pass_id,
                observed_at,
                version.seq,
                version.changed_fields,
                version.before.key,
            )
            for version in versions
        ]
        raw.executemany(connection, self._update, rows)

    def touch(self, connection: Connection, keys: Sequence[int], observed_at: str | None) -> None:
        """See `SessionStatements`."""
        raw.executemany(connection, _TOUCH, [(observed_at, key) for key in keys])

    def lock_live(self, connection: Connection, keys: Sequence[int]) -> list[LiveSession]:
        """See `SessionStatements`. SQLite has one writer, so that nothing needs to be locked."""
        return [LiveSession(*row) for row in raw.execute(connection, _LIVE, (json.dumps(keys),))]

    def tombstone(
        self,
        connection: Connection,
        numbers: Mapping[int, int],
        *,
        now: str,
        pass_id: PassId | None,
        observed_at: str | None,
    ) -> None:
        """See `SessionStatements`."""
        raw.execute(connection, self._archive_live, (now, json.dumps(list(numbers))))
        rows = [(now, now, pass_id, observed_at, seq, key) for key, seq in numbers.items()]
        raw.executemany(connection, _TOMBSTONE, rows)


def _insert(columns: Sequence[str], count: int) -> str:
    """Write the INSERT of some sessions. Values that all of them share are bound once."""
    width, dates = len(columns), _dates(columns)
    rows = (
        f"({', '.join(f'?{place}' for place in range(first, first + width))}, 1, 'created', ?1, ?2, ?1, ?3, "
        f"?4 + {number}, {', '.join(f'substr(?{first + place - 1}, 1, 10)' for place in dates.values())})"
        for number, first in enumerate(range(5, 5 + count * width, width))
    )
    return (
        f"INSERT INTO sessions ({sql_list(columns)}, version, change, valid_from, pass_id, first_seen_at, observed_at, "  # noqa: S608
        f"seq, {sql_list(list(dates))}) VALUES {', '.join(rows)} ON CONFLICT (id) DO NOTHING"
    )


def _dates(columns: Sequence[str]) -> dict[str, int]:
    """Return the place among the columns, from 1, of the time that each date is the beginning of."""
    return {date: columns.index(time) + 1 for date, time in DATES.items()}
