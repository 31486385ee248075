"""Names the row that ends a move, and the SQL statement that corrects it. `migrate_store` calls it.

Other programs insert rows too, and SQLite stores any bytes as text. Text that is not UTF-8 cannot be read, and
PostgreSQL stores no text with a NUL.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from syncd.errors import SyncdError
from syncd.mirror.db.lossy_text import lossy_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    Row = tuple[Any, ...]

CHUNK = 1000
"""Rows that a search holds in memory."""


async def unreadable(
    source: AsyncEngine, table: sa.Table, query: sa.Select[Any], error: sa.exc.DBAPIError
) -> SyncdError:
    """Return the error for a table with a row that cannot be read; the query reads all its columns."""
    text = f"nothing more was moved: the source has a row of {table.name} that cannot be read"
    async with source.connect() as connection:
        row = await connection.run_sync(partial(_first_unreadable, query=query))
    if row is None:
        return SyncdError(f"{text}: {error.orig}")
    return SyncdError(f"{text} ({_key(table, row)}): it has text that is not UTF-8; {_remedy(table, row)}")


async def refused(
    target: AsyncEngine, table: sa.Table, insert: str, rows: Sequence[Row], error: sa.exc.DBAPIError
) -> SyncdError:
    """Return the error for rows of a table that the target does not store all; the statement inserts one."""
    text = f"nothing more was moved: the target cannot hold a row of {table.name}"
    async with target.connect() as connection:  # rolled back at its end
        for row in rows:
            try:
                await connection.exec_driver_sql(insert, row)
            except sa.exc.DBAPIError as cause:
                return SyncdError(f"{text} ({_key(table, row)}): {cause.orig}; {_remedy(table, row)}")
    return SyncdError(f"{text}: {error.orig}")


def _first_unreadable(connection: Connection, query: sa.Select[Any]) -> Row | None:
    with lossy_text(connection):
        for rows in connection.execute(query.execution_options(yield_per=CHUNK)).partitions():
            for row in rows:
                if any(isinstance(value, str) and not _is_utf8(value) for value in row):
                    return tuple(row)
    return None


def _key(table: sa.Table, row: Row) -> str:
    """Return the condition of a WHERE clause that selects a row."""
    values = zip(table.columns, row, strict=True)
    return " AND ".join(f"{column.name} = {_literal(value)}" for column, value in values if column.primary_key)


def _remedy(table: sa.Table, row: Row) -> str:
    """Return what to do about a row of the source, with the statements to type."""
    where = _key(table, row)
    wrong = [
        f"{column.name} = 'TEXT'"
        for column, value in zip(table.columns, row, strict=True)
        if isinstance(value, str) and not _fits_everywhere(value) and not column.primary_key
    ]
    correct = f"UPDATE {table.name} SET {', '.join(wrong)} WHERE {where}"  # noqa: S608
    remove = f"DELETE FROM {table.name} WHERE {where}"  # noqa: S608 - text of a message
    either = f"correct it there: {correct}; or remove it: {remove}" if wrong else f"remove it there: {remove}"
    return f"{either}; then run the same command again"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # read with `lossy_text`
        return False
    return True


def _fits_everywhere(text: str) -> bool:
    return "\0" not in text and _is_utf8(text)


def _literal(value: Any) -> str:  # noqa: ANN401 - a value of a row
    """Return a value as SQL; text that cannot be typed in the form of SQLite, which alone stores such text."""
    if not isinstance(value, str):
        return str(value)
    if value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return f"CAST(X'{value.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
