"""The target of `migrate_store`: what happens to it before the first row and after the last one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.dialects import by_dialect
from syncd.mirror.schema import migrate
from syncd.mirror.schema.revisions import HEAD
from syncd.mirror.schema.tables import metadata, writers
from syncd.mirror.store import initial_load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

TABLES = tuple(table for table in metadata.sorted_tables if table is not writers)
"""The tables that are moved. `writers` describes the processes of one database."""
_NUMBERED = {table.name: column.name for table in TABLES for column in table.columns if column.identity is not None}
"""The tables that number their rows, and the columns with the numbers."""
_TRIGGERS = "SELECT sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"


def make_ready(connection: Connection) -> bool:
    """Bring an empty target to head and mark it as half moved.

    Returns
    -------
    bool
        Whether the target is half moved already, so that an interrupted move continues.

    Raises
    ------
    DatabaseUnusableError
        The target contains rows.
    """
    if migrate.is_half_moved(connection):
        return True
    migrate.migrate(connection)
    if full := _with_rows(connection):
        raise DatabaseUnusableError(
            f"the target is not empty: it has rows in {', '.join(full)}; name an empty database, or use this one if a "
            "move to it is complete"
        )
    migrate.mark_half_moved(connection)
    _disable_triggers(connection)
    return False


def _with_rows(connection: Connection) -> list[str]:
    return [table.name for table in TABLES if connection.execute(sa.select(1).select_from(table)).first()]


def is_complete(connection: Connection) -> bool:
    """Whether a database that a source names in its mark was filled and released."""
    if migrate.is_half_moved(connection) or migrate.revision(connection) != HEAD:
        return False
    return bool(_with_rows(connection))


def is_half_moved(connection: Connection) -> bool:
    """Whether the target is half moved, once a transaction that may still be finishing it has ended."""
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
    return migrate.is_half_moved(connection)


def finish(connection: Connection, *, link_sources: bool, numbers: Mapping[str, int]) -> None:
    """Make a database of the complete target that a daemon may open.

    Parameters
    ----------
    link_sources : bool
        Whether the source was interrupted in its first pass, which links the source ids at its end.
    numbers : Mapping[str, int]
        The `last_numbers` of the source.
    """
    _enable_triggers(connection)
    _continue_numbering(connection, numbers)
    if link_sources:
        initial_load.link_all(connection, utc_text(datetime.now(UTC)))
    migrate.unmark_half_moved(connection)


def _drop_triggers(connection: Connection) -> None:
    for name in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all():
        connection.exec_driver_sql(f"DROP TRIGGER {name}")


def _disable_user_triggers(connection: Connection) -> None:
    for table in TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")


_disable_triggers = by_dialect(sqlite=_drop_triggers, postgresql=_disable_user_triggers)
"""Keep the triggers for new rows from acting on moved ones."""


def _create_triggers(connection: Connection) -> None:
    with migrate.empty_mirror() as pattern:  # the move may have been interrupted since they were dropped
        statements = pattern.exec_driver_sql(_TRIGGERS).scalars().all()
    for statement in statements:
        connection.exec_driver_sql(statement)


def _enable_user_triggers(connection: Connection) -> None:
    for table in TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ENABLE TRIGGER USER")


_enable_triggers = by_dialect(sqlite=_create_triggers, postgresql=_enable_user_triggers)


def _last_of_sqlite(connection: Connection) -> dict[str, int]:
    rows = connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")
    return {name: seq for name, seq in rows if name in _NUMBERED}


def _last_of_postgresql(connection: Connection) -> dict[str, int]:
    query = "SELECT pg_sequence_last_value(pg_get_serial_sequence($1, $2)::regclass)"
    numbers = {
        table: connection.exec_driver_sql(query, (table, column)).scalar() for table, column in _NUMBERED.items()
    }
    return {table: number for table, number in numbers.items() if number is not None}


last_numbers = by_dialect(sqlite=_last_of_sqlite, postgresql=_last_of_postgresql)
"""Return the number of the last row that each table was given, also if the row was removed since."""


def _raise_sqlite(connection: Connection, numbers: Mapping[str, int]) -> None:
    moved = _last_of_sqlite(connection)
    connection.exec_driver_sql("DELETE FROM sqlite_sequence")
    rows = [
        (name, max(numbers.get(name, 0), moved.get(name, 0)))
        for name in _NUMBERED
        if metadata.tables[name].dialect_options["sqlite"]["autoincrement"]
    ]
    connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", rows)


def _set_sequences(connection: Connection, numbers: Mapping[str, int]) -> None:
    for table, column in _NUMBERED.items():
        moved = connection.exec_driver_sql(f"SELECT max({column}) FROM {table}").scalar()  # noqa: S608
        last = max(numbers.get(table, 0), moved or 0)
        if last:
            connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence($1, $2), $3)", (table, column, last))


_continue_numbering = by_dialect(sqlite=_raise_sqlite, postgresql=_set_sequences)
"""Give no new row the number of a row that the source had."""
