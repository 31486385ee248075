"""`SessionStatements` on PostgreSQL: one statement, and so one round trip, for all sessions of a page.

Rows that were read are compared again when they are written, so that two replicas cannot overwrite each
other's work: the later transaction raises `ConcurrentChangeError` and runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import astuple

from syncd.mirror.db import raw
from syncd.mirror.db.dialects import ConcurrentChangeError, as_lists, json_columns
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
from syncd.mirror.store.sources import Link
from syncd.records.fields import FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from syncd.mirror.store.session_statements import NewVersion
    from syncd.records.fields import FieldList, SessionRow
    from syncd.records.ids import PassId
    from syncd.rules.versions import StoredSession

_CASTS = {
    FieldType.TEXT: "",
    FieldType.TIME: "::timestamptz",
    FieldType.NUMBER: "::double precision",
    FieldType.BOOLEAN: "::boolean",
    FieldType.JSON: "::jsonb",
}
_LOCK = f"""
SELECT s.key FROM {json_columns(1, "key", "version", "observed_at")} JOIN sessions AS s ON s.key = r.key::bigint
WHERE s.key = ANY($4::bigint[]) AND s.version = r.version::int
    AND s.observed_at IS NOT DISTINCT FROM r.observed_at::timestamptz
ORDER BY s.key FOR UPDATE OF s
"""  # noqa: S608 - constants
_TOUCH = """
UPDATE sessions SET observed_at = coalesce($1, observed_at), missing_since = NULL, absences = 0
WHERE key = ANY($2::bigint[]) AND deleted_at IS NULL
"""
_LIVE = """
SELECT key, id, source_session_id FROM sessions WHERE key = ANY($1::bigint[]) AND deleted_at IS NULL
ORDER BY key FOR UPDATE
"""
_TOMBSTONE = f"""
UPDATE sessions AS s SET version = s.version + 1, change = 'deleted', valid_from = greatest($1, s.valid_from),
    deleted_at = greatest($1, s.valid_from), pass_id = $2, observed_at = coalesce($3, s.observed_at),
    missing_since = NULL, seq = r.seq::bigint, changed_fields = '[]'
FROM {json_columns(5, "key", "seq")}
WHERE s.key = r.key::bigint AND s.key = ANY($4::bigint[])
"""  # noqa: S608 - constants


class PostgresqlSessions:
    """See `SessionStatements`. A tombstone is not older than the version before it, even if the clock stepped back."""

    def __init__(self, fields: FieldList[SessionRow]) -> None:
        columns = fields.columns
        native = {column: f"r.{column}{_CASTS[field.type]}" for column, field in fields.by_column.items()}
        dates = ", ".join(f"left(r.{time}, 10)" for time in DATES.values())
        json_fields = tuple(column for column, field in fields.by_column.items() if field.type is FieldType.JSON)
        self._fields = fields
        self._json_fields = json_fields
        # OFFSET 0: without it the planner reads all sessions where it expects to look up a hundred.
        self._stored = f"""
SELECT {sql_list(STATE, "s.")},
    {", ".join(_own_text(column) if column in json_fields else f"s.{column}" for column in columns)}
FROM {json_columns(1, "id", *json_fields)}
CROSS JOIN LATERAL (SELECT * FROM sessions WHERE id = r.id OFFSET 0) AS s
"""  # noqa: S608 - constants
        # Every change that adds a carrier of a source id also changes the row of that source id from one of these two
        # states to another, in the same transaction. The row is read under its lock, and so is newer than the snapshot.
        self._insert = f"""
WITH numbers AS (
    INSERT INTO mirror_totals AS t (id, last_seq, live_sessions, deleted_sessions) VALUES (1, $4, $4, 0)
    ON CONFLICT (id) DO UPDATE SET last_seq = t.last_seq + excluded.last_seq,
        live_sessions = t.live_sessions + excluded.live_sessions
    RETURNING last_seq - $4 AS before
), made AS (
    INSERT INTO sessions ({sql_list(columns)}, version, change, valid_from, pass_id, first_seen_at, observed_at, seq,
        {sql_list(list(DATES))})
    SELECT {", ".join(native.values())}, 1, 'created', $1, $2, $1, $3,
        (SELECT before FROM numbers) + row_number() OVER (), {dates}
    FROM {json_columns(5, *columns)}
    ON CONFLICT (id) DO NOTHING RETURNING id, key, source_session_id
), linked AS (
    INSERT INTO source_sessions AS x (source_session_id, state, session_id, checked_at)
    SELECT DISTINCT ON (source_session_id) source_session_id, 'linked', id, $1::timestamptz FROM made
    ORDER BY source_session_id, key
    ON CONFLICT (source_session_id) DO UPDATE SET state = 'linked', session_id = excluded.session_id, note = NULL,
        checked_at = excluded.checked_at
    WHERE x.state IN ('unresolved', 'missing') AND NOT EXISTS (
        SELECT 1 FROM sessions AS s WHERE s.source_session_id = x.source_session_id AND s.deleted_at IS NULL OFFSET 0)
    RETURNING session_id, xmax <> 0 AS known
)
SELECT made.id, made.key, made.source_session_id, linked.known
FROM made LEFT JOIN linked ON linked.session_id = made.id
"""  # noqa: S608 - constants
        archive = f"""
INSERT INTO session_versions (session_key, version, {sql_list((*columns, *ARCHIVED))}, valid_to)
SELECT s.key, s.version, {sql_list((*columns, *ARCHIVED), "s.")}, {{valid_to}} FROM {{rows}}
"""  # noqa: S608 - constants
        self._archive = archive.format(
            valid_to="r.at::timestamptz",
            rows=f"{json_columns(1, 'key', 'at')} JOIN sessions AS s ON s.key = r.key::bigint "
            "WHERE s.key = ANY($3::bigint[])",
        )
        self._archive_live = archive.format(
            valid_to="greatest($1, s.valid_from)", rows="sessions AS s WHERE s.key = ANY($2::bigint[])"
        )
        self._update = f"""
UPDATE sessions AS s SET {", ".join(f"{column} = {value}" for column, value in native.items())},
    version = s.version + 1, change = r.change, valid_from = r.at::timestamptz, pass_id = $1,
    observed_at = coalesce($2, s.observed_at), missing_since = NULL, absences = 0, deleted_at = NULL,
    seq = r.seq::bigint, changed_fields = r.changed_fields,
    {", ".join(f"{date} = left(r.{time}, 10)" for date, time in DATES.items())}
FROM {json_columns(4, "key", "change", "at", "seq", "changed_fields", *columns)}
WHERE s.key = r.key::bigint AND s.key = ANY($3::bigint[])
"""  # noqa: S608 - constants

    def stored(self, connection: Connection, rows: Sequence[SessionRow]) -> dict[str, StoredSession]:
        """See `SessionStatements`."""
        columns = as_lists([getattr(row, column) for row in rows] for column in ("id", *self._json_fields))
        return read_stored(raw.execute(connection, self._stored, columns).fetchall(), self._fields)

    def insert(
        self,
        connection: Connection,
        rows: Sequence[SessionRow],
        *,
        now: str,
        pass_id: PassId | None,
        observed_at: str | None,
        link: bool,  # noqa: ARG002 - here all are linked in the same statement
    ) -> NewSessions:
        """See `SessionStatements`."""
        columns = as_lists(zip(*map(astuple, rows), strict=True))
        inserted = raw.execute(connection, self._insert, (now, pass_id, observed_at, len(rows), *columns)).fetchall()
        keys = {session_id: key for session_id, key, _, _ in inserted}
        if len(keys) < len(rows):
            totals.reserve(connection, 0, live=len(keys) - len(rows))
        links = [Link(source_id, "linked", session_id, None) for session_id, _, source_id, known in inserted if known]
        # Other sessions carry these source ids too, or an operator should know something about them.
        others = {source_id for _, _, source_id, known in inserted if known is None}
        links += sources.refresh(connection, others, now)
        return NewSessions({row.id: keys[row.id] for row in rows if row.id in keys}, links)

    def update(
        self, connection: Connection, versions: Sequence[NewVersion], *, pass_id: PassId | None, observed_at: str | None
    ) -> None:
        """See `SessionStatements`."""
        before = [version.before for version in versions]
        keys = [stored.key for stored in before]
        states = as_lists((keys, [stored.version for stored in before], [stored.observed_at for stored in before]))
        if len(raw.execute(connection, _LOCK, (*states, keys)).fetchall()) != len(versions):
            raise ConcurrentChangeError("another replica has changed one of these sessions first")
        times = [version.valid_from for version in versions]
        raw.execute(connection, self._archive, (*as_lists((keys, times)), keys))
        content = zip(*(astuple(version.row) for version in versions), strict=True)
        columns = as_lists(
            (
                keys,
                [version.change.value for version in versions],
                times,
                [version.seq for version in versions],
                [version.changed_fields for version in versions],
                *content,
            )
        )
        raw.execute(connection, self._update, (pass_id, observed_at, keys, *columns))

    def touch(self, connection: Connection, keys: Sequence[int], observed_at: str | None) -> None:
        """See `SessionStatements`."""
        raw.execute(connection, _TOUCH, (observed_at, list(keys)))

    def lock_live(self, connection: Connection, keys: Sequence[int]) -> list[LiveSession]:
        """See `SessionStatements`."""
        return [LiveSession(*row) for row in raw.execute(connection, _LIVE, (list(keys),))]

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
        keys = list(numbers)
        raw.execute(connection, self._archive_live, (now, keys))
        pairs = as_lists((keys, list(numbers.values())))
        raw.execute(connection, _TOMBSTONE, (now, pass_id, observed_at, keys, *pairs))


def _own_text(column: str) -> str:
    """Return the stored JSON, in the given row's text if both mean the same."""
    return f"CASE WHEN s.{column} = r.{column}::jsonb THEN r.{column} ELSE s.{column}::text END"
