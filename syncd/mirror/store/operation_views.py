"""The operators' view of the queue; `cli/operations`, `cli/dry_run` and `daemon/once` call it.

Each statement exists once. `listing` and `get` run them on a connection of SQLAlchemy. `listing_of` runs them on the
bare driver, because `syncd operations list` would spend most of its time on that import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syncd.clock import read_stored_time
from syncd.mirror.db.dialects import PerDialect
from syncd.mirror.schema import enums
from syncd.mirror.store import bare_sqlite
from syncd.mirror.store.operation_keys import blocker

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syncd.records.ids import OperationId

Row = dict[str, Any]
_COUNTS = "SELECT state, count(*) FROM operations GROUP BY state"
# The column blocked_by has the last operation on the key that is not over. An operator can act on the first one.
_SELECT = f"SELECT {', '.join(enums.OPERATION_SHOWN)}, {{blocker}} AS blocked_by FROM operations"  # noqa: S608 - constants
_OPERATIONS = PerDialect(
    sqlite=_SELECT.format(blocker=blocker("operations", "first", "sqlite")),
    postgresql=_SELECT.format(blocker=blocker("operations", "first", "postgresql")),
)


def counts(connection: Connection) -> dict[str, int]:
    """Return how many operations are in each state."""
    rows = connection.exec_driver_sql(_COUNTS).all()
    return dict.fromkeys(enums.OPERATIONS, 0) | {state: int(number) for state, number in rows}


def listing(connection: Connection, *, state: str | None, limit: int, on_hold: bool = False) -> list[Row]:
    """Return operations, newest first, each with the id of the first one that blocks it.

    Parameters
    ----------
    on_hold : bool
        Only those that wait for a release.
    """
    ending, parameters = _ending(state, limit, on_hold=on_hold)
    return _rows(connection, ending, parameters)


def listing_of(url: str, *, state: str | None, limit: int, on_hold: bool = False) -> list[Row] | None:
    """Return what `listing` returns, for the SQLite file at a URL; None if `bare_sqlite` cannot read it."""
    ending, parameters = _ending(state, limit, on_hold=on_hold)
    statement = f"{_OPERATIONS.sqlite}{ending}"
    return bare_sqlite.read(url, lambda connection: list(map(_row, connection.execute(statement, parameters))))


def get(connection: Connection, operation_id: OperationId) -> Row | None:
    """Return one operation, with the id of the first one that blocks it."""
    rows = _rows(connection, " WHERE id = ?", (operation_id,))
    return rows[0] if rows else None


def _ending(state: str | None, limit: int, *, on_hold: bool) -> tuple[str, tuple[str | int, ...]]:
    """Write the rest of the statement; return it with its parameters."""
    conditions = [
        *(() if state is None else ("state = ?",)),
        *(("on_hold_at IS NOT NULL",) if on_hold else ()),
    ]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"{where} ORDER BY id DESC LIMIT ?", (*(() if state is None else (state,)), limit)


def _rows(connection: Connection, ending: str, parameters: tuple[str | int, ...]) -> list[Row]:
    from syncd.mirror.db.lossy_text import lossy_text  # noqa: PLC0415 - imports SQLAlchemy

    with lossy_text(connection):
        result = connection.exec_driver_sql(_OPERATIONS.on(connection) + ending, parameters)
        return list(map(_row, result.mappings()))


def _row(stored: Any) -> Row:  # noqa: ANN401 - of two drivers
    """Return a row with its times as `datetime`; on both databases they are read as text."""
    row = {name: stored[name] for name in (*enums.OPERATION_SHOWN, "blocked_by")}
    return row | {name: read_stored_time(row[name]) for name in enums.OPERATION_TIMES}
