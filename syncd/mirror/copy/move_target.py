"""The target of `migrate_store`: what happens to it before the first row and after the last one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.dialects import by_dialect, do_nothing
from syncd.mirror.schema import migrate
from syncd.mirror.schema.tables import metadata, writers
from syncd.mirror.store import initial_load

if TYPE_CHECKING:
    from sqlalchemy import Connection

TABLES = tuple(table for table in metadata.sorted_tables if table is not writers)
"""The tables that are moved. `writers` describes the processes of one database."""
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
    full = [table.name for table in TABLES if connection.execute(sa.select(1).select_from(table)).first()]
    if full:
        raise DatabaseUnusableError(
            f"the target is not empty: it has rows in {', '.join(full)}; name an empty database"
        )
    migrate.mark_half_moved(connection)
    _disable_triggers(connection)
    return False


def finish(connection: Connection, *, link_sources: bool) -> None:
    """Make a database of the complete target that a daemon may open.

    Parameters
    ----------
    link_sources : bool
        Whether the source was interrupted in its first pass, which links the source ids at its end.
    """
    _enable_triggers(connection)
    _continue_numbering(connection)
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


def _set_sequences(connection: Connection) -> None:
    for table in TABLES:
        for column in table.columns:
            if column.identity is not None:
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), "  # noqa: S608
                    f"coalesce(max({column.name}), 1), max({column.name}) IS NOT NULL) FROM {table.name}"
                )


_continue_numbering = by_dialect(sqlite=do_nothing, postgresql=_set_sequences)
"""Continue the identity columns after the moved rows; SQLite does that by itself."""
