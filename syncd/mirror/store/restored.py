"""Puts the open operations of a restored database on hold: what they asked for may be done already.

`syncd restore` calls it for the file that it places, and the first start of a copy for a copy that was placed by other
means. `syncd operations release` or `cancel` ends the hold. Operations that are inserted later are not on hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.schema.tables import operations
from syncd.mirror.store import identity, totals
from syncd.mirror.store.operations import recover
from syncd.records.enums import OperationState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

OPEN = (OperationState.PENDING, OperationState.UNKNOWN)
"""The states of operations that syncd would continue by itself; running ones are made unknown first."""


def hold_open_operations(connection: Connection, now: datetime) -> int:
    """Put all open operations on hold, in a database that no daemon works on; return how many are on hold now.

    The numbers of the change feed continue after a gap. The claims of running operations belong to a daemon of another
    time, so these operations become unknown.
    """
    recover(connection, now=now, abandoned=True)
    totals.skip_numbers(connection)
    fresh = operations.c.state.in_(OPEN) & operations.c.on_hold_at.is_(None)
    connection.execute(sa.update(operations).where(fresh).values(on_hold_at=now))
    return count_on_hold(connection)


def hold_operations_of_copy(connection: Connection, now: datetime) -> int | None:
    """Put the open operations on hold if the database is a copy that was not started yet.

    The mark of the copy is removed in the same transaction, so that this happens once for each copy.

    Returns
    -------
    int | None
        The number of operations on hold; None if the database is not such a copy.
    """
    if identity.forget_copy(connection) is None:
        return None
    return hold_open_operations(connection, now)


def count_on_hold(connection: Connection) -> int:
    """Return the number of operations on hold."""
    on_hold = operations.c.state.in_(OPEN) & operations.c.on_hold_at.is_not(None)
    return int(connection.execute(sa.select(sa.func.count()).where(on_hold)).scalar_one())
