"""Operations of one key are claimed by one replica at a time, on PostgreSQL.

Rows that a claim has found are locked (`FOR UPDATE SKIP LOCKED`), which keeps two replicas from claiming one operation.
It does not keep them from claiming two operations of one key: an INSERT with a lower id may become visible after a
higher one was claimed. So each claim also takes a lock on the key, for its transaction, and looks again under it, in
the statement that claims.
"""

from __future__ import annotations

from syncd.mirror.db.dialects import json_columns

KEY_LOCKS = 0x53594E44
"""The first half of the advisory locks that stand for keys of operations; the second is a hash of the key.

The schema's name is in the hash: tenants in one database have nothing to wait for from each other.
"""

# MATERIALIZED: the planner may ask the cheaper of two conditions first, and would lock the keys of the whole table.
_FREE = """
WITH waited AS MATERIALIZED ({waited} FOR UPDATE OF o SKIP LOCKED),
    fresh AS MATERIALIZED ({fresh} FOR UPDATE OF o SKIP LOCKED),
    due AS MATERIALIZED (SELECT * FROM waited UNION ALL SELECT * FROM fresh LIMIT ?)
SELECT due.* FROM due WHERE pg_try_advisory_xact_lock(
    {locks}, hashtext(current_schema() || coalesce(' s ' || source_session_id, ' i ' || session_id)))
"""
CLAIM = f"""
UPDATE operations AS o SET state = r.state, attempts = r.attempts::int, fence = r.fence::bigint, lease_until = $1,
    lease_owner = $2
FROM {json_columns(3, "id", "state", "attempts", "fence")}
WHERE o.id = r.id::bigint AND o.id = ANY($7::bigint[]) AND NOT EXISTS (
    SELECT 1 FROM operations AS other
    WHERE (other.source_session_id = o.source_session_id OR other.session_id = o.session_id) AND other.id <> o.id
        AND other.state IN ('pending', 'running', 'unknown', 'dead')
        AND (other.id < o.id OR other.state = 'running')
)
RETURNING o.id
"""  # noqa: S608 - constants
"""Claims those of some locked operations that nobody else can claim an operation of the same key beside."""


FINISH = f"""
UPDATE operations AS o SET state = 'succeeded', result_session_id = r.session_id, finished_at = r.at::timestamptz,
    last_error = r.note, last_status = r.status::int, next_attempt_at = NULL, unknown_since = NULL,
    lease_until = NULL, lease_owner = NULL
FROM {json_columns(1, "id", "fence", "session_id", "at", "note", "status")}
WHERE o.id = r.id::bigint AND o.id = ANY($7::bigint[]) AND o.fence = r.fence::bigint
    AND o.state IN ('running', 'unknown')
"""  # noqa: S608 - constants
"""Writes that claimed operations succeeded, in one statement."""


def free(waited: str, fresh: str) -> str:
    """Make statements for due operations find those alone whose key no other replica is claiming.

    A key whose lock another replica holds is left to that replica; it is not waited for. Those whose time has come and
    those that never had to wait are looked for apart: each is in the order of an index then, and the first ones are
    all that is read, where both together would be sorted first, a million of them too.
    """
    return _FREE.format(waited=waited, fresh=fresh, locks=KEY_LOCKS)
