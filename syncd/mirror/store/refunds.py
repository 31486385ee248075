"""Gives operations back the attempts that they used in an outage before it was recognized. `push.runner` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.mirror.schema.tables import operations
from syncd.records.enums import OPEN_STATES

if TYPE_CHECKING:
    from sqlalchemy import Connection


def refund(connection: Connection, attempts: Mapping[int, int]) -> set[int]:
    """Lower the number of attempts of operations that wait; those in a final state are left as they are.

    Parameters
    ----------
    attempts : Mapping[int, int]
        How many attempts do not count, by operation.

    Returns
    -------
    set[int]
        The operations that are claimed now. They are not changed, because their holder will write the number.
    """
    o, claimed = operations.c, set[int]()
    for operation_id, count in sorted(attempts.items()):
        query = sa.select(o.state, o.attempts, o.lease_owner).where(o.id == operation_id).with_for_update()
        row = connection.execute(query).first()
        if row is None or row.state not in OPEN_STATES:
            continue
        if row.lease_owner is not None:
            claimed.add(operation_id)
            continue
        left = max(row.attempts - count, 0)
        connection.execute(sa.update(operations).where(o.id == operation_id).values(attempts=left))
    return claimed
