"""Queues deletes once more that Albert confirmed and a later listing contradicts. `pull.write_pages` calls it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.clock import utc_text
from syncd.mirror.db import raw
from syncd.mirror.db.dialects import EARLIEST
from syncd.mirror.schema.tables import operations, passes
from syncd.mirror.schema.types import new_id
from syncd.mirror.store import pages, sessions
from syncd.mirror.store.operation_statements import statements_of
from syncd.records.enums import OperationKind, PassState
from syncd.rules.versions import CLOCK_SLACK

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syncd.records.ids import OperationId, PassId, SessionId

MARK = "syncd: operation {} was contradicted by a listing"
"""`requested_by` of the delete that is queued once more. It is the durable note that this has been done."""
_SUCCEEDED = """
SELECT id, result_session_id, requested_by, finished_at > ? AS is_future FROM {deleted}
WHERE kind = 'delete' AND state = 'succeeded' AND finished_at > ? AND (finished_at <= ? OR finished_at > ?)
    AND result_session_id IN (SELECT value FROM json_each(?))
    AND NOT EXISTS (
        SELECT 1 FROM operator_actions AS started
        WHERE (started.action = 'restore' AND started.subject = 'database'
                OR started.action = 'accept' AND started.subject = 'tenant')
            AND started.at >= operations.finished_at
    )
ORDER BY id
"""
"""Deletes that a backup contains, or that were applied to another tenant, could remove sessions that came later."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A succeeded delete whose session is listed; `requeued_as` is the new operation, None after the second time."""

    operation_id: OperationId
    session_id: SessionId
    requeued_as: int | None


def queue_again(
    connection: Connection,
    session_ids: Iterable[SessionId | None],
    *,
    pass_id: PassId,
    asked_at: datetime,
    now: datetime,
    grace: float,
) -> list[Contradiction]:
    """Queue the deletes of listed sessions once more that succeeded longer ago than listings lag.

    A session that an earlier complete pass, requested after the grace, did not list was gone. If it is listed now, it
    has been restored in Albert, and stays.

    Parameters
    ----------
    session_ids : Iterable[str | None]
        Sessions that are new to the mirror or were deleted in it, and that a listing contains.
    asked_at, now : datetime
        When the page was requested, and when it is written.
    grace : float
        Seconds by which listings may lag behind a delete.
    """
    lag = timedelta(seconds=grace)
    proof = connection.execute(
        sa.select(sa.func.max(passes.c.started_at)).where(
            passes.c.state == PassState.COMPLETE.value, passes.c.id < pass_id
        )
    ).scalar()
    since = EARLIEST if proof is None else utc_text(proof - lag)
    future = utc_text(max(now, asked_at) + CLOCK_SLACK)
    parameters = (future, since, utc_text(asked_at - lag), future, json.dumps([*session_ids]))
    statement = _SUCCEEDED.format(deleted=statements_of(connection).DELETED)
    last: dict[SessionId, tuple[OperationId, str | None]] = {}
    for operation_id, session_id, requested_by, is_future in raw.execute(connection, statement, parameters).fetchall():
        if not is_future or _was_listed(connection, session_id):
            last[session_id] = operation_id, requested_by
    return [
        Contradiction(operation_id, session_id, _queue_once(connection, operation_id, session_id, requested_by))
        for session_id, (operation_id, requested_by) in last.items()
    ]


def _was_listed(connection: Connection, session_id: SessionId) -> bool:
    """Return whether the newest complete pass has listed a session.

    A delete in the future was before the clock was set back. Times cannot show then whether a pass after the grace
    missed the session. If one did, the session was gone and has been restored in Albert. The pass itself shows that.
    """
    key = sessions.key_of(connection, session_id)
    newest = pages.newest_complete(connection)
    return key is not None and any(key in page.sessions for page in pages.of_pass(connection, newest))


def _queue_once(
    connection: Connection, operation_id: OperationId, session_id: SessionId, requested_by: str | None
) -> int | None:
    """Queue a delete again unless it, or a repetition of it, has been queued again before."""
    if requested_by is not None and requested_by.startswith(MARK.partition("{}")[0]):
        return None
    mark = MARK.format(operation_id)
    if connection.execute(sa.select(operations.c.id).where(operations.c.requested_by == mark).limit(1)).first():
        return None
    row = {"kind": OperationKind.DELETE.value, "session_id": session_id, "requested_by": mark}
    return new_id(connection.execute(sa.insert(operations).values(row)))
