"""The operators' view of the queue; `cli/operations` and the status server call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.db.lossy_text import lossy_text
from syncd.mirror.schema import enums
from syncd.mirror.schema.tables import operations
from syncd.mirror.store.operation_statements import statements_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from syncd.records.ids import OperationId

_SHOWN = tuple(column for column in operations.c if column is not operations.c.blocked_by)


def _operations(connection: Connection) -> sa.Select[tuple[object, ...]]:
    """Select operations, each with `blocked_by`: the first operation that is not over on its key.

    The column of this name has the last one, which an operator cannot always act on.
    """
    first: sa.ColumnElement[int] = sa.literal_column(statements_of(connection).FIRST_BLOCKER, sa.Integer)
    return sa.select(*_SHOWN, first.label("blocked_by"))


def counts(connection: Connection) -> dict[str, int]:
    """Return how many operations are in each state."""
    query = sa.select(operations.c.state, sa.func.count().label("number")).group_by(operations.c.state)
    numbers = {row.state: row.number for row in connection.execute(query)}
    return {state: numbers.get(state, 0) for state in enums.OPERATIONS}


def listing(connection: Connection, *, state: str | None, limit: int, on_hold: bool = False) -> Sequence[sa.RowMapping]:
    """Return operations, newest first, each with the id of the first one that blocks it.

    Parameters
    ----------
    on_hold : bool
        Only those that wait for a release.
    """
    query = _operations(connection).order_by(operations.c.id.desc())
    if state is not None:
        query = query.where(operations.c.state == state)
    if on_hold:
        query = query.where(operations.c.on_hold_at.is_not(None))
    with lossy_text(connection):
        return connection.execute(query.limit(limit)).mappings().all()


def get(connection: Connection, operation_id: OperationId) -> sa.RowMapping | None:
    """Return one operation, with the id of the first one that blocks it."""
    with lossy_text(connection):
        return connection.execute(_operations(connection).where(operations.c.id == operation_id)).mappings().first()
