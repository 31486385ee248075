"""Statements on PostgreSQL for many rows: one round trip for all sessions of a page, or for all claims of a moment.

What was read before it is written is compared again where it is written, so that two replicas cannot undo each other's
work: a transaction that comes too late raises `ConcurrentChangeError` and runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from syncd.mirror.db import raw
from syncd.mirror.db.dialects import ConcurrentChangeError, as_lists, json_columns
from syncd.mirror.schema.tables import CONTENT
from syncd.mirror.store import totals
from syncd.mirror.store.sources import Link
from syncd.records.parse import ID, Row
from syncd.rules.versions import StoredSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

EXTRA = len(CONTENT) - 1
_TIMES = frozenset(name for name in CONTENT if name.endswith("_at"))


def _native(name: str) -> str:
    """Turn a column of text into what its table has."""
    if name in _TIMES:
        return f"r.{name}::timestamptz"
    return "r.extra::jsonb" if name == "extra" else f"r.{name}"


_COLUMNS = ", ".join(CONTENT)
_DATES = "created_date, last_message_date"
_ARCHIVED = ("change", "seq", "changed_fields", "first_seen_at", "pass_id", "valid_from")
_KNOWN = f"""
SELECT s.key, s.version, s.valid_from, s.pass_id, s.observed_at, s.missing_since, s.deleted_at,
    {", ".join(f"s.{name}" for name in CONTENT[:EXTRA])},
    CASE WHEN s.extra = r.extra::jsonb THEN r.extra ELSE s.extra::text END
FROM {json_columns(1, "id", "extra")} CROSS JOIN LATERAL (SELECT * FROM sessions WHERE id = r.id OFFSET 0) AS s
"""  # noqa: S608 - constants
# Whoever adds a carrier of a source id also changes its row, in the same transaction, from these two states to another:
# the row as it is when this statement has its lock tells what the snapshot of the statement does not. OFFSET 0 keeps
# the planner from gathering all live sessions first, where it expects to look for a hundred.
_INSERT = f"""
WITH numbers AS (
    INSERT INTO mirror_totals AS t (id, last_seq, live_sessions, deleted_sessions) VALUES (1, $4, $4, 0)
    ON CONFLICT (id) DO UPDATE SET last_seq = t.last_seq + excluded.last_seq,
        live_sessions = t.live_sessions + excluded.live_sessions
    RETURNING last_seq - $4 AS before
), made AS (
    INSERT INTO sessions ({_COLUMNS}, version, change, valid_from, pass_id, first_seen_at, observed_at, seq, {_DATES})
    SELECT {", ".join(map(_native, CONTENT))}, 1, 'created', $1, $2, $1, $3,
        (SELECT before FROM numbers) + row_number() OVER (), left(r.created_at, 10), left(r.last_message_at, 10)
    FROM {json_columns(5, *CONTENT)}
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
_LOCK = f"""
SELECT s.key FROM {json_columns(1, "key", "version", "observed_at")} JOIN sessions AS s ON s.key = r.key::bigint
WHERE s.key = ANY($4::bigint[]) AND s.version = r.version::int
    AND s.observed_at IS NOT DISTINCT FROM r.observed_at::timestamptz
ORDER BY s.key FOR UPDATE OF s
"""  # noqa: S608 - constants
_ARCHIVE = f"""
INSERT INTO session_versions (session_key, version, {_COLUMNS}, {", ".join(_ARCHIVED)}, valid_to)
SELECT s.key, s.version, {", ".join(f"s.{name}" for name in (*CONTENT, *_ARCHIVED))}, r.at::timestamptz
FROM {json_columns(1, "key", "at")} JOIN sessions AS s ON s.key = r.key::bigint
WHERE s.key = ANY($3::bigint[])
"""  # noqa: S608 - constants
_UPDATE = f"""
UPDATE sessions AS s SET {", ".join(f"{name} = {_native(name)}" for name in CONTENT)},
    version = s.version + 1, change = r.change, valid_from = r.at::timestamptz, pass_id = $1,
    observed_at = coalesce($2, s.observed_at), missing_since = NULL, absences = 0, deleted_at = NULL,
    seq = r.seq::bigint, changed_fields = r.changed_fields,
    created_date = left(r.created_at, 10), last_message_date = left(r.last_message_at, 10)
FROM {json_columns(4, "key", "change", "at", "seq", "changed_fields", *CONTENT)}
WHERE s.key = r.key::bigint AND s.key = ANY($3::bigint[])
"""  # noqa: S608 - constants
_TOUCH = """
UPDATE sessions SET observed_at = coalesce($1, observed_at), missing_since = NULL, absences = 0
WHERE key = ANY($2::bigint[]) AND deleted_at IS NULL
"""


class Changed(NamedTuple):
    """A new version of a session: the stored session, the new content, the change, its time, number and fields."""

    before: StoredSession
    row: Row
    change: str
    at: str
    seq: int
    changed_fields: str


def known(connection: Connection, rows: Sequence[Row]) -> dict[str | None, tuple[Any, ...]]:
    """Return the rows of these sessions; an `extra` that means the same comes back in the row's own words."""
    parameters = as_lists(([row[ID] for row in rows], [row[EXTRA] for row in rows]))
    return {row[7]: tuple(row) for row in raw.execute(connection, _KNOWN, parameters)}


def insert(
    connection: Connection, rows: Sequence[Row], *, now: str, pass_id: int | None, observed_at: str | None
) -> tuple[dict[str | None, int], list[Link], list[str]]:
    """Insert those of some sessions that are new, and link their source ids.

    Returns
    -------
    tuple[dict[str | None, int], list[Link], list[str]]
        The key of each, in the order of the rows; the links of source ids that were known before; and the source ids
        that are not simply linked to one of them, because others carry them or they stand otherwise.
    """
    columns = as_lists(zip(*rows, strict=True))
    found = raw.execute(connection, _INSERT, (now, pass_id, observed_at, len(rows), *columns)).fetchall()
    keys = {row[0]: row[1] for row in found}
    if len(keys) < len(rows):
        totals.reserve(connection, 0, live=len(keys) - len(rows))
    links = [Link(source_id, "linked", session_id, None) for session_id, _, source_id, known in found if known]
    others = [source_id for _, _, source_id, known in found if known is None]
    return {row[ID]: keys[row[ID]] for row in rows if row[ID] in keys}, links, others


def update(
    connection: Connection,
    changed: Sequence[Changed],
    *,
    pass_id: int | None,
    observed_at: str | None,
) -> None:
    """Move the current versions to the history and write the new ones.

    Parameters
    ----------
    changed : Sequence[Changed]
        The new versions, whose numbers are reserved.

    Raises
    ------
    ConcurrentChangeError
        Another replica has changed one of them since it was looked up.
    """
    known, rows, changes, times, numbers, fields = zip(*changed, strict=True)
    keys = [before.key for before in known]
    versions = as_lists((keys, [before.version for before in known], [before.observed_at for before in known]))
    if len(raw.execute(connection, _LOCK, (*versions, keys)).fetchall()) != len(changed):
        raise ConcurrentChangeError("another replica has changed one of these sessions first")
    raw.execute(connection, _ARCHIVE, (*as_lists((keys, times)), keys))
    columns = as_lists((keys, changes, times, numbers, fields, *zip(*rows, strict=True)))
    raw.execute(connection, _UPDATE, (pass_id, observed_at, keys, *columns))


def touch(connection: Connection, keys: list[int], observed_at: str | None) -> None:
    """Note that live sessions were seen."""
    raw.execute(connection, _TOUCH, (observed_at, keys))
