"""The hot path's way to the driver: statements that are written once, run without SQLAlchemy's ceremony around them.

A Core statement costs ten times what SQLite needs to run it. The few statements that run for each page go straight to
the driver's connection, inside the transaction that SQLAlchemy began on it; all others stay with Core.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, NestedTransaction


def sqlite(connection: Connection) -> sqlite3.Connection:
    """Return the writer's own connection to SQLite, in the midst of the same transaction."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


def execute(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:  # noqa: ANN401
    """Run one statement and return a cursor: SQLite's own, or SQLAlchemy's over a driver that is async."""
    if connection.dialect.is_async:
        return connection.exec_driver_sql(statement, tuple(parameters))
    return sqlite(connection).execute(statement, parameters)


class _Savepoint:
    """A savepoint of SQLite, without SQLAlchemy's bookkeeping, which costs as much as a small job's own statements."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver = driver
        driver.execute("SAVEPOINT job")

    def commit(self) -> None:
        """Keep what was done since."""
        self._driver.execute("RELEASE job")

    def rollback(self) -> None:
        """Undo what was done since."""
        self._driver.execute("ROLLBACK TO job")
        self._driver.execute("RELEASE job")


def savepoint(connection: Connection) -> _Savepoint | NestedTransaction:
    """Begin a part of the transaction that can be undone by itself."""
    return connection.begin_nested() if connection.dialect.is_async else _Savepoint(sqlite(connection))


def executemany(connection: Connection, statement: str, rows: Iterable[Sequence[Any]]) -> None:
    """Run one statement for each row."""
    if connection.dialect.is_async:
        connection.exec_driver_sql(statement, [tuple(row) for row in rows])
        return
    sqlite(connection).executemany(statement, rows)
