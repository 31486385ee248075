"""A page's statements on PostgreSQL: one round trip for all of its sessions, through `unnest` of columns.

What was read before it is written is compared again where it is written, so that two replicas cannot undo each other's
work: a transaction that comes too late raises `ConcurrentChangeError` and runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syncd.decide import Known
from syncd.listing import ID, SOURCE, Row
from syncd.mirror.dialects import ConcurrentChangeError
from syncd.mirror.tables import CONTENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

EXTRA = len(CONTENT) - 1
_TIMES = frozenset(name for name in CONTENT if name.endswith("_at"))


def _native(name: str) -> str:
    """Turn a column of text of `unnest` into what its table has."""
    if name in _TIMES:
        return f"r.{name}::timestamptz"
    return "r.extra::jsonb" if name == "extra" else f"r.{name}"


def _texts(first: int, count: int) -> str:
    return ", ".join(f"${number}::text[]" for number in range(first, first + count))


_COLUMNS = ", ".join(CONTENT)
_KNOWN = f"""
SELECT s.key, s.version, s.valid_from, s.pass_id, s.observed_at, s.missing_since, s.deleted_at,
    {", ".join(f"s.{name}" for name in CONTENT[:EXTRA])},
    CASE WHEN s.extra = r.extra::jsonb THEN r.extra ELSE s.extra::text END
FROM unnest($1::text[], $2::text[]) AS r(id, extra) JOIN sessions AS s ON s.id = r.id
"""  # noqa: S608 - constants
_INSERT = f"""
INSERT INTO sessions ({_COLUMNS}, version, change, valid_from, pass_id, first_seen_at, observed_at)
SELECT {", ".join(map(_native, CONTENT))}, 1, 'created', $1, $2, $1, $3
FROM unnest({_texts(4, len(CONTENT))}) AS r({_COLUMNS})
ON CONFLICT (id) DO NOTHING RETURNING id, key
"""  # noqa: S608 - constants
_LINK_NEW = """
INSERT INTO source_sessions (source_session_id, state, session_id, checked_at)
SELECT r.source_id, 'linked', r.id, $1 FROM unnest($2::text[], $3::text[]) AS r(source_id, id) ORDER BY 1
ON CONFLICT (source_session_id) DO NOTHING
"""
_LOCK = """
SELECT s.key FROM unnest($1::bigint[], $2::int[], $3::text[]) AS r(key, version, observed_at)
JOIN sessions AS s ON s.key = r.key
WHERE s.version = r.version AND s.observed_at IS NOT DISTINCT FROM r.observed_at::timestamptz
ORDER BY s.key FOR UPDATE OF s
"""
_ARCHIVE = f"""
INSERT INTO session_versions (session_key, version, {_COLUMNS}, change, valid_from, valid_to, pass_id)
SELECT s.key, s.version, {", ".join(f"s.{name}" for name in CONTENT)}, s.change, s.valid_from, r.at::timestamptz, s.pass_id
FROM unnest($1::bigint[], $2::text[]) AS r(key, at) JOIN sessions AS s ON s.key = r.key
"""  # noqa: S608, E501 - constants
_UPDATE = f"""
UPDATE sessions AS s SET {", ".join(f"{name} = {_native(name)}" for name in CONTENT)},
    version = s.version + 1, change = r.change, valid_from = r.at::timestamptz, pass_id = $1,
    observed_at = coalesce($2, s.observed_at), missing_since = NULL, absences = 0, deleted_at = NULL
FROM unnest($3::bigint[], $4::text[], $5::text[], {_texts(6, len(CONTENT))}) AS r(key, change, at, {_COLUMNS})
WHERE s.key = r.key
"""  # noqa: S608 - constants
_TOUCH = """
UPDATE sessions SET observed_at = coalesce($1, observed_at), missing_since = NULL, absences = 0
WHERE key = ANY($2::bigint[]) AND deleted_at IS NULL
"""


def known(connection: Connection, rows: Sequence[Row]) -> dict[str | None, tuple[Any, ...]]:
    """Return the rows of these sessions; an `extra` that means the same comes back in the row's own words."""
    found = connection.exec_driver_sql(_KNOWN, ([row[ID] for row in rows], [row[EXTRA] for row in rows]))
    return {row[7]: tuple(row) for row in found}


def insert(
    connection: Connection, rows: Sequence[Row], *, now: str, pass_id: int | None, observed_at: str | None
) -> dict[str | None, int]:
    """Insert sessions that were new when they were looked up; return the key of each.

    Raises
    ------
    ConcurrentChangeError
        Another replica has inserted one of them meanwhile.
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    found = connection.exec_driver_sql(_INSERT, (now, pass_id, observed_at, *columns)).all()
    if len(found) != len(rows):
        raise ConcurrentChangeError("another replica has written one of these sessions first")
    keys = {row[0]: row[1] for row in found}
    return {row[ID]: keys[row[ID]] for row in rows}


def link_new(connection: Connection, rows: Sequence[Row], now: str) -> int:
    """Link the source ids of new sessions; return how many were not known yet."""
    parameters = (now, [row[SOURCE] for row in rows], [row[ID] for row in rows])
    return connection.exec_driver_sql(_LINK_NEW, parameters).rowcount


def update(
    connection: Connection,
    changed: Sequence[tuple[Known, Row, str, str]],
    *,
    pass_id: int | None,
    observed_at: str | None,
) -> None:
    """Move the current versions to the history and write the new ones.

    Parameters
    ----------
    changed : Sequence[tuple[Known, Row, str, str]]
        What was known, what is true now, the change, and the time of the new version.

    Raises
    ------
    ConcurrentChangeError
        Another replica has changed one of them since it was looked up.
    """
    keys = [before.key for before, _, _, _ in changed]
    parameters = (keys, [one[0].version for one in changed], [one[0].observed_at for one in changed])
    if len(connection.exec_driver_sql(_LOCK, parameters).all()) != len(changed):
        raise ConcurrentChangeError("another replica has changed one of these sessions first")
    at = [one[3] for one in changed]
    connection.exec_driver_sql(_ARCHIVE, (keys, at))
    columns = [list(column) for column in zip(*(one[1] for one in changed), strict=True)]
    connection.exec_driver_sql(_UPDATE, (pass_id, observed_at, keys, [one[2] for one in changed], at, *columns))


def touch(connection: Connection, keys: list[int], observed_at: str | None) -> None:
    """Note that live sessions were seen."""
    connection.exec_driver_sql(_TOUCH, (observed_at, keys))
