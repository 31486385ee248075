"""Operations of one key are claimed by one replica at a time, on PostgreSQL.

Rows that a claim has found are locked (`FOR UPDATE SKIP LOCKED`), which keeps two replicas from claiming one operation.
It does not keep them from claiming two operations of one key: an INSERT with a lower id may become visible after a
higher one was claimed. So each claim also takes a lock on the key, for its transaction, and looks again under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

KEY_LOCKS = 0x53594E44
"""The first half of the advisory locks that stand for keys of operations; the second is a hash of the key.

The schema's name is in the hash: tenants in one database have nothing to wait for from each other.
"""

_LOCK = """
WITH due AS MATERIALIZED (
    SELECT o.id, current_schema() || coalesce(' s ' || o.source_session_id, ' i ' || o.session_id) AS key
    FROM operations AS o WHERE o.id = ANY($1::bigint[])
)
SELECT id FROM due WHERE pg_try_advisory_xact_lock($2, hashtext(key))
"""
# MATERIALIZED: the planner may ask the cheaper of two conditions first, and would lock the keys of the whole table
_STILL_FREE = """
SELECT o.id FROM operations AS o
WHERE o.id = ANY($1::bigint[]) AND NOT EXISTS (
    SELECT 1 FROM operations AS other
    WHERE (other.source_session_id = o.source_session_id OR other.session_id = o.session_id) AND other.id <> o.id
        AND other.state IN ('pending', 'running', 'unknown', 'dead')
        AND (other.id < o.id OR other.state = 'running')
)
"""


def claimable(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Return those of some locked operations that nobody else can claim an operation of the same key beside.

    A key whose lock another replica holds is left to that replica; it is not waited for.
    """
    locked = list(connection.exec_driver_sql(_LOCK, (list(ids), KEY_LOCKS)).scalars())
    if not locked:
        return set()
    return set(connection.exec_driver_sql(_STILL_FREE, (locked,)).scalars())
