"""Rows of views and tables for an export: one snapshot, in chunks, as text and numbers.

`files.exports` calls `freeze` first, so that all files are of one moment.
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.mirror.db import raw
from syncd.mirror.db.dialects import PerDialect, by_dialect, do_nothing
from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.read import views
from syncd.mirror.read.catalog import TABLES, columns
from syncd.mirror.schema.tables import mirror_identity, mirror_totals
from syncd.mirror.schema.types import Boolean, JsonText, UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sqlalchemy import Connection

ROWS_AT_ONCE = 2000
"""Rows that a stream holds in memory: about 2 MB. An export of Parquet takes 15 MB more with 5,000, and 7% more CPU."""
_TIME_AS_TEXT = PerDialect(
    sqlite="{}", postgresql="""to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
)


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What a snapshot of the mirror is of.

    Parameters
    ----------
    last_complete_pass_at : str | None
        When the last complete pass ended.
    last_seq : int
        The end of the change feed: a reader of the snapshot continues after it.
    origin : str | None
        The Albert that is mirrored, if it is known.
    """

    last_complete_pass_at: str | None
    last_seq: int
    origin: str | None


def freeze(connection: Connection) -> SnapshotInfo:
    """Let all that the connection reads from now on be one snapshot, and describe it."""
    _one_snapshot(connection)
    at = views.freshness(connection)["last_complete_pass_at"]
    return SnapshotInfo(
        None if at is None else utc_text(at),
        connection.execute(sa.select(mirror_totals.c.last_seq)).scalar() or 0,
        connection.execute(sa.select(mirror_identity.c.origin)).scalar(),
    )


def _repeatable_read(connection: Connection) -> None:
    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


_one_snapshot = by_dialect(sqlite=do_nothing, postgresql=_repeatable_read)
"""A read transaction of SQLite is a snapshot by itself."""


def count(connection: Connection, name: str, *, since: int | None = None) -> int:
    """Return the number of rows that `stream` yields."""
    return int(connection.exec_driver_sql(_select("count(*)", name, since)).scalar_one())


def stream(connection: Connection, name: str, *, since: int | None = None) -> Generator[Sequence[Sequence[Any]]]:
    """Read a view or a table in chunks, in bounded memory. Close the generator before the connection.

    Parameters
    ----------
    name : str
        One of `catalog.EXPORTED`.
    since : int | None
        Only the rows of `chat_session_changes` with a higher `seq`, in the order of `seq`.

    Yields
    ------
    Sequence[Sequence[Any]]
        At most `ROWS_AT_ONCE` rows with the columns of `catalog.columns`: text, numbers, booleans or None.
        Times are text of `clock.utc_text`, because reading and writing `datetime` would take most of an export's time.
    """
    time_template = _TIME_AS_TEXT.on(connection)
    selected = ", ".join(_plain(column, time_template) for column in columns(name))
    booleans = [place for place, column in enumerate(columns(name)) if isinstance(column.type, Boolean)]
    query = _select(selected, name, since) + ("" if since is None else " ORDER BY seq")
    lossy = name in TABLES  # other programs write to these, and SQLite stores text of theirs that is not UTF-8
    with (
        lossy_text(connection) if lossy else nullcontext(),
        closing(raw.cursor(connection)) as cursor,  # SQLAlchemy's rows would take a quarter of the time
    ):
        cursor.execute(query)
        while chunk := cursor.fetchmany(ROWS_AT_ONCE):
            if booleans:
                chunk = [_with_booleans(row, booleans) for row in chunk]
            yield [tuple(map(_valid, row)) for row in chunk] if lossy else chunk


def _select(selected: str, name: str, since: int | None) -> str:
    return f"SELECT {selected} FROM {name}" + ("" if since is None else f" WHERE seq > {since:d}")  # noqa: S608


def _plain(column: sa.Column[Any], time: str) -> str:
    if isinstance(column.type, UtcDateTime):
        return time.format(column.name)
    return f"CAST({column.name} AS TEXT)" if column.type is JsonText else column.name


def _with_booleans(row: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """Return a row whose booleans are not 0 and 1, as SQLite stores them."""
    values = list(row)
    for place in places:
        values[place] = None if values[place] is None else bool(values[place])
    return values


def _valid(value: Any) -> Any:  # noqa: ANN401 - a value of a row
    """Return text that UTF-8 can encode: bytes that are not UTF-8 become U+FFFD."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value
