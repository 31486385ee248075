"""Reading quarantined items again, after syncd has learned to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from syncd.clock import utc_text
from syncd.mirror.store import quarantine, sessions
from syncd.records.fields import SESSIONS
from syncd.records.items import UnreadableError, read_item

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


def replay(connection: Connection, now: datetime) -> tuple[int, int]:
    """Try every item in quarantine; what can be read is weighed as an answer of the time when it was met.

    Returns
    -------
    tuple[int, int]
        How many could be read, and how many could not.
    """
    resolved = left = after = 0
    while rows := quarantine.unresolved(connection, after=after):
        for item in rows:
            after = item.id
            try:
                row = read_item(json.loads(item.payload), SESSIONS)
            except (ValueError, RecursionError, UnreadableError):
                left += 1
                continue
            seen = utc_text(item.seen_at)
            # one that is new counts as seen now: the running pass has seen it as an item, and not as a session
            pass_id = None if sessions.key_of(connection, row.id) is None else item.pass_id
            sessions.apply(connection, [row], sessions.Observation(seen, utc_text(now), pass_id, listed_from=seen))
            quarantine.resolve(connection, item.id, now)
            resolved += 1
    return resolved, left
