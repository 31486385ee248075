"""Sessions that syncd itself may have deleted: the answer to their delete was lost, or the process was killed.

Their absence proves nothing about a gateway or another tenant. Without this rule, the last deletes of a tenant would
wait for each other: each would ask for a session that another one has deleted.
"""

from __future__ import annotations

from syncd.mirror.schema.enums import ACTIVE

_LOST = f"{ACTIVE} AND kind = 'delete' AND unknown_since IS NOT NULL"
_BY_ID = "operations.session_id = sessions.id"
_BY_SOURCE = "operations.source_session_id = sessions.source_session_id AND target_session_id = sessions.id"
SURELY_NOT_DELETED = " AND ".join(
    f"NOT EXISTS (SELECT 1 FROM operations WHERE {condition} AND {_LOST} LIMIT 1 OFFSET 0)"  # noqa: S608 - constants
    for condition in (_BY_ID, _BY_SOURCE)
)
"""A condition on the table `sessions`, for both databases. Each of its two parts uses an index.

OFFSET keeps PostgreSQL from turning a part into a join with all active operations.
"""
