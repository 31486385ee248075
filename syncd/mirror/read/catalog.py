"""What may be read of the mirror: the analysts' views and tables with their columns, types and meanings.

One source for `docs/schema.md`, for `syncd export` and for `syncd browse`; the words are those of `tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.mirror.db.dialects import PerDialect, by_dialect, do_nothing
from syncd.mirror.read import views
from syncd.mirror.schema import enums, tables
from syncd.mirror.schema.comments import VIEW_COMMENTS
from syncd.mirror.schema.types import JsonText, Key, UtcDateTime
from syncd.records.fields import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

_VIEW_TYPES: dict[str, Any] = {
    "valid_to": UtcDateTime(),
    "age_seconds": sa.Double(),
    **{column.name: column.type for column in tables.content_columns(SESSIONS)},
}
_NAMES_OF_TIMES = ("_at", "_from", "_since")
_COUNTS = tuple(VIEW_COMMENTS["mirror_freshness"][1])[2:]
_TIME_AS_TEXT = PerDialect(
    sqlite="{}", postgresql="""to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
)
ROWS_AT_ONCE = 5000
"""Rows that a stream holds in memory."""


def _view(name: str) -> sa.Table:
    """Describe a view as a table, in a `MetaData` of its own: no migration must ever try to make it."""

    def kind(column: str) -> Any:  # noqa: ANN401 - a type or a type's instance
        if column in _VIEW_TYPES:
            return _VIEW_TYPES[column]
        if column.endswith(_NAMES_OF_TIMES):
            return UtcDateTime()
        return Key if column == "pass_id" or column in _COUNTS else sa.Text()

    comment, columns = VIEW_COMMENTS[name]
    described = (sa.Column(column, kind(column), comment=words) for column, words in columns.items())
    return sa.Table(name, sa.MetaData(), *described, comment=comment)


VIEWS = {name: _view(name) for name in VIEW_COMMENTS}
TABLES = {table.name: table for table in (tables.passes, tables.operations, tables.source_sessions, tables.quarantine)}
"""The tables that `interface.md` promises."""
INTERNAL = {
    table.name: table
    for table in (
        tables.sessions,
        tables.session_versions,
        tables.pages,
        tables.holds,
        tables.hold_sessions,
        tables.elapsed_time,
        tables.writers,
        tables.mirror_identity,
        tables.operator_actions,
    )
}
"""The tables that may change from one release to the next: read the views instead."""

OPERATION_COLUMNS = (
    "id", "kind", "source_session_id", "session_id", "name", "parent_id", "requested_by", "requested_at", "not_before",
    "state", "attempts", "next_attempt_at", "last_error", "last_status", "result_session_id", "finished_at",
)  # fmt: skip
PROMISED = {
    "passes": enums.PASS_COLUMNS,
    "operations": OPERATION_COLUMNS,
    "source_sessions": tuple(tables.source_sessions.c.keys()),
    "quarantine": ("id", "pass_id", "session_id", "reason", "payload", "seen_at", "resolved_at"),
}
"""The columns of the tables that `interface.md` promises; the others are internal."""
EXPORTED: dict[str, Sequence[str]] = {
    **{name: tuple(VIEWS[name].c.keys()) for name in ("chat_sessions", "chat_sessions_all", "chat_session_history")},
    **{name: PROMISED[name] for name in ("passes", "operations", "source_sessions")},
}
"""What an export holds, and the columns of each."""


def columns(name: str) -> list[sa.Column[Any]]:
    """Return the columns that an export has of a view or a table."""
    table = VIEWS.get(name)
    return [(TABLES[name] if table is None else table).c[column] for column in EXPORTED[name]]


def freeze(connection: Connection) -> dict[str, Any]:
    """Make all that the connection reads from now on one snapshot, and return the `mirror_freshness` of it.

    SQLite's read transactions are snapshots by themselves; PostgreSQL is asked for one.
    """
    _one_snapshot(connection)
    return dict(views.freshness(connection))


def _repeatable_read(connection: Connection) -> None:
    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


_one_snapshot = by_dialect(sqlite=do_nothing, postgresql=_repeatable_read)


def count(connection: Connection, name: str) -> int:
    """Return how many rows a view or a table has."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one())


def stream(connection: Connection, name: str) -> Iterator[Sequence[Sequence[Any]]]:
    """Read a view or a table in chunks, in bounded memory.

    Each value is text, a number or None; a time is text in the one form that syncd writes, from either database: to
    read it into a `datetime`, and mostly to write it out again, would take most of an export's time.
    """
    time_as_text = _TIME_AS_TEXT.on(connection)

    def plain(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        named = sa.column(column.name, column.type)
        if isinstance(column.type, UtcDateTime):
            return sa.literal_column(time_as_text.format(column.name), sa.Text())
        return sa.cast(named, sa.Text()) if column.type is JsonText else named

    query = sa.select(*map(plain, columns(name))).select_from(sa.table(name))
    yield from connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).partitions()
