"""Statements of the hot path, executed by the driver without SQLAlchemy's layers.

A Core statement costs ten times as much as SQLite needs to run it. The few statements that run for each page and each
operation go to the driver's connection, inside the transaction that SQLAlchemy began on it. All others use Core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, NestedTransaction

    from syncd.mirror.db.sqlite_module import sqlite3


def sqlite(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection to SQLite, in the same transaction."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


def execute(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> Any:  # noqa: ANN401
    """Run one statement and return a cursor: SQLite's own, or SQLAlchemy's result on PostgreSQL."""
    if connection.dialect.is_async:
        return connection.exec_driver_sql(statement, tuple(parameters))
    return sqlite(connection).execute(statement, parameters)


def executemany(connection: Connection, statement: str, rows: Iterable[Sequence[Any]]) -> None:
    """Run one statement for each row."""
    if connection.dialect.is_async:
        connection.exec_driver_sql(statement, [tuple(row) for row in rows])
        return
    sqlite(connection).executemany(statement, rows)


def cursor(connection: Connection) -> Any:  # noqa: ANN401 - the driver's
    """Return a cursor of the driver that computes rows while they are read."""
    if connection.dialect.is_async:
        return connection.connection.cursor(server_side=True)
    return sqlite(connection).cursor()


class _Savepoint:
    """A savepoint of SQLite; SQLAlchemy's own costs as much as the statements of a small job."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver = driver
        driver.execute("SAVEPOINT job")

    def commit(self) -> None:
        """Keep the changes since the savepoint."""
        self._driver.execute("RELEASE job")

    def rollback(self) -> None:
        """Undo the changes since the savepoint."""
        self._driver.execute("ROLLBACK TO job")
        self._driver.execute("RELEASE job")


def savepoint(connection: Connection) -> _Savepoint | NestedTransaction:
    """Begin a part of the transaction that can be undone by itself."""
    return connection.begin_nested() if connection.dialect.is_async else _Savepoint(sqlite(connection))
