"""The operators' view: freshness, counts and the last passes, as `syncd status` and the status server show them.

Each statement exists once. `overview` runs them on a connection of SQLAlchemy, for a process that has imported it.
`overview_of` runs them on the bare driver, because `syncd status` would spend most of its time on that import.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from syncd.mirror.schema import enums
from syncd.mirror.schema.revisions import HEAD, SELECT_REVISION
from syncd.mirror.store import bare_sqlite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from syncd.mirror.db.sqlite_module import sqlite3
    from syncd.records.ids import PassId

PASSES_SHOWN = 5
CONNECT_SECONDS, COMMAND_SECONDS = 5.0, 30.0
"""`syncd status` is run by probes: it fails rather than wait longer for a server."""

_TIMES = ("last_complete_pass_at", "last_listed_at", "started_at", "finished_at", "copied_at", "moved_at", "since")
_IDENTITY = """
SELECT i.origin, i.tenant_id, i.copied_at, i.moved_to, i.moved_at, (
    SELECT count(*) FROM operations WHERE state IN ('pending', 'unknown') AND on_hold_at IS NOT NULL
) AS operations_on_hold
FROM (SELECT 1 AS id) AS one LEFT JOIN mirror_identity AS i ON i.id = one.id
"""
_FRESHNESS = "SELECT * FROM mirror_freshness"
_RETRYING = """
SELECT count(*) AS operations, min(CASE WHEN not_before > requested_at THEN not_before ELSE requested_at END) AS since
FROM operations
WHERE state = 'pending' AND (state = 'pending' OR state = 'unknown') AND blocked_by IS NULL AND on_hold_at IS NULL
    AND next_attempt_at IS NOT NULL AND last_error IS NOT NULL
"""
"""Operations that were tried without success, from the index `ix_operations_due`."""
_COUNT = "SELECT state, count(*) AS rows FROM {table} GROUP BY state"
# SQLite counts a whole table a hundred times faster than it groups it: the rows in the usual state are the rest.
_COUNT_ALL_BUT_USUAL = """
WITH unusual AS MATERIALIZED (SELECT state, count(*) AS rows FROM {table} WHERE {unusual} GROUP BY state)
SELECT * FROM unusual
UNION ALL SELECT '{usual}', (SELECT count(*) FROM {table}) - (SELECT coalesce(sum(rows), 0) FROM unusual)
"""
_UNUSUAL = f"state IN ({', '.join(repr(state) for state in enums.OPERATIONS if state != 'succeeded')})"
_COUNTS = {
    "sqlite": (
        _COUNT_ALL_BUT_USUAL.format(table="operations", unusual=_UNUSUAL, usual="succeeded"),
        _COUNT_ALL_BUT_USUAL.format(table="source_sessions", unusual="state <> 'linked'", usual="linked"),
    ),
    "postgresql": (_COUNT.format(table="operations"), _COUNT.format(table="source_sessions")),
}
"""The statements that count operations and source ids by state, by the name of SQLAlchemy's dialect."""
_PASSES = f"SELECT {', '.join(enums.PASS_SHOWN)} FROM passes"  # noqa: S608 - constants

Row = dict[str, Any]


def _statements(counts: tuple[str, str], passes_shown: int = PASSES_SHOWN) -> tuple[str, ...]:
    """Return the statements whose rows `_assemble` takes, in its order; `counts` is a version of `_COUNTS`."""
    operations, sources = counts
    return _IDENTITY, _FRESHNESS, operations, _RETRYING, sources, f"{_PASSES} ORDER BY id DESC LIMIT {passes_shown:d}"


def _assemble(
    identity: Sequence[Row],
    freshness: Sequence[Row],
    operations: Sequence[Row],
    retrying: Sequence[Row],
    sources: Sequence[Row],
    passes: Sequence[Row],
) -> Row:
    return {
        "identity": identity[0],
        "freshness": freshness[0],
        "operations": dict.fromkeys(enums.OPERATIONS, 0) | {row["state"]: row["rows"] for row in operations},
        "retrying": retrying[0],
        "sources": dict.fromkeys(enums.SOURCES, 0) | {row["state"]: row["rows"] for row in sources},
        "passes": list(passes),
    }


def _read_row(row: Any) -> Row:  # noqa: ANN401 - of three drivers
    """Return a row with its times as `datetime`; drivers give them as text or as `datetime`."""
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 - iterating some drivers' rows gives the values
    for name in _TIMES:
        if isinstance(values.get(name), str):
            values[name] = datetime.fromisoformat(values[name])
    return values


def _rows(connection: Connection, statement: str, *parameters: object) -> list[Row]:
    return [_read_row(row) for row in connection.exec_driver_sql(statement, parameters).mappings()]


def overview(connection: Connection, *, passes_shown: int = PASSES_SHOWN) -> Row:
    """Return what `syncd status` shows, in the snapshot of a transaction.

    Returns
    -------
    dict[str, Any]
        `identity` (the tenant, the marks of copies and moves),
        `freshness` (the row of `mirror_freshness`), `operations` and `sources` (rows by state, each state named),
        `retrying` (pending operations that were tried, and since when the first of them could be sent), and `passes`
        (the newest first, with `enums.PASS_SHOWN`). Times are `datetime`.
    """
    statements = _statements(_COUNTS[connection.dialect.name], passes_shown)
    return _assemble(*(_rows(connection, statement) for statement in statements))


def freshness(connection: Connection) -> Row:
    """Return the row of `mirror_freshness`."""
    return _rows(connection, _FRESHNESS)[0]


def one_pass(connection: Connection, pass_id: PassId) -> Row:
    """Return a pass, with `enums.PASS_SHOWN`."""
    return _rows(connection, f"{_PASSES} WHERE id = ?", pass_id)[0]


def overview_of(url: str) -> Row | None:
    """Return what `overview` returns, read by the bare driver from the database at a URL.

    Returns
    -------
    dict[str, Any] | None
        None if the database cannot be read this way, or its schema is not at head. The caller then opens the database
        the general way, which raises an error with an explanation.
    """
    if url.startswith("sqlite"):
        return _overview_of_sqlite(url)
    # SQLAlchemy reads the options after the ?
    return None if "?" in url else _overview_of_postgresql(url.replace("+asyncpg", "", 1))


def _overview_of_sqlite(url: str) -> Row | None:
    def work(connection: sqlite3.Connection) -> Row:
        row_lists = [connection.execute(statement).fetchall() for statement in _statements(_COUNTS["sqlite"])]
        return _assemble(*(list(map(_read_row, rows)) for rows in row_lists))

    return bare_sqlite.read(url, work)


def _overview_of_postgresql(dsn: str) -> Row | None:
    import asyncio  # noqa: PLC0415 - a mirror in SQLite needs neither

    import asyncpg  # noqa: PLC0415

    async def ask() -> list[list[Row]] | None:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                if [row[0] for row in await connection.fetch(SELECT_REVISION)] != [HEAD]:
                    return None
                return [
                    list(map(_read_row, await connection.fetch(statement)))
                    for statement in _statements(_COUNTS["postgresql"])
                ]
        finally:
            await connection.close(timeout=CONNECT_SECONDS)

    try:
        row_lists = asyncio.run(ask())
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    return None if row_lists is None else _assemble(*row_lists)
