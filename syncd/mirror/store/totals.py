"""Numbers of the change feed, and counts of sessions, in the one row of `mirror_totals`.

`sessions` calls `reserve` for each transaction that writes versions. The row stays locked until the transaction ends,
so that on PostgreSQL the numbers of several replicas are in the order of their commits. A reader that has read up to
the highest number that it sees has missed nothing. The same statement keeps the counts of live and deleted sessions,
because a count over a million rows takes longer than a reader of `mirror_freshness` should wait.

Every transaction locks this row before it locks sessions or source ids: two replicas that lock in one order cannot
block each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from syncd.mirror.db import raw
from syncd.mirror.db.dialects import by_dialect, do_nothing

if TYPE_CHECKING:
    from sqlalchemy import Connection

SKIPPED_NUMBERS = 1_000_000_000
"""More than the versions that can be written after a backup was made."""
_RESERVE = """
INSERT INTO mirror_totals AS t (id, last_seq, live_sessions, deleted_sessions) VALUES (1, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET last_seq = t.last_seq + excluded.last_seq,
    live_sessions = t.live_sessions + excluded.live_sessions,
    deleted_sessions = t.deleted_sessions + excluded.deleted_sessions
RETURNING last_seq
"""


def reserve(connection: Connection, versions: int, *, live: int = 0, deleted: int = 0) -> int:
    """Reserve numbers for new versions until the transaction ends, and change the counts of sessions.

    Parameters
    ----------
    versions : int
        Versions that the transaction is about to write; numbers that it does not use stay unused.
    live, deleted : int
        Sessions that the transaction adds to the live and to the deleted ones; negative where it removes some.

    Returns
    -------
    int
        The first of the reserved numbers.
    """
    row = raw.execute(connection, _RESERVE, (versions, live, deleted)).fetchone()
    return int(row[0]) - versions + 1


def skip_numbers(connection: Connection) -> None:
    """Continue with numbers that no version had before, in a database that was set back to a backup.

    A reader of the change feed has already read numbers that the backup does not know. If they were given again, it
    would miss the versions that have them.
    """
    reserve(connection, SKIPPED_NUMBERS)


def _lock(connection: Connection) -> None:
    raw.execute(connection, "SELECT 1 FROM mirror_totals FOR UPDATE").fetchall()


lock = by_dialect(sqlite=do_nothing, postgresql=_lock)
"""Lock the row before a transaction locks sessions or source ids and writes versions later."""
