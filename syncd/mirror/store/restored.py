"""Puts the open operations of a restored database on hold: their changes may be applied already.

`syncd restore` calls it for the file that it places. For a copy that was placed by other means, the first start or the
first command that writes to it does. `syncd operations release` or `cancel` ends the hold. Operations that are inserted
later are not on hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.schema.tables import operations
from syncd.mirror.store import identity, operator_actions, totals
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
    connection.execute(sa.update(operations).where(fresh).values(on_hold_at=now, settle_for=None))
    return count_on_hold(connection)


def hold_operations_of_copy(connection: Connection, now: datetime) -> int | None:
    """Put the open operations on hold if the database is a copy that was not started yet.

    The mark of the copy is removed in the same transaction, so that this happens once for each copy.

    Returns
    -------
    int | None
        The number of operations on hold; None if the database is not such a copy.
    """
    copied_at = identity.forget_copy(connection)
    if copied_at is None:
        return None
    on_hold = hold_open_operations(connection, now)
    operator_actions.record(
        connection, now=not_before_any_result(connection, now), by="syncd", action="restore", subject="database",
        detail=f"started as the backup of {copied_at:%Y-%m-%d %H:%M:%S} UTC, {on_hold} operations on hold",
    )  # fmt: skip
    return on_hold


def not_before_any_result(connection: Connection, now: datetime) -> datetime:
    """Return a time for the entry of a restore, or of another tenant, in the log of operator actions.

    Deletes that finished before the entry are not repeated. Therefore it is not before any of them, also if the clock
    was set back since.
    """
    newest = connection.execute(sa.select(sa.func.max(operations.c.finished_at))).scalar()
    return now if newest is None else max(now, newest)


def count_on_hold(connection: Connection) -> int:
    """Return the number of operations on hold."""
    on_hold = operations.c.state.in_(OPEN) & operations.c.on_hold_at.is_not(None)
    return int(connection.execute(sa.select(sa.func.count()).where(on_hold)).scalar_one())
