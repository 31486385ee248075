"""Reads the items in quarantine again, with the reader of this release. `syncd quarantine replay` calls it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from syncd.clock import utc_text
from syncd.mirror.store import quarantine, sessions
from syncd.records.fields import SESSIONS
from syncd.records.items import UnreadableError, read_item

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


class Replayed(NamedTuple):
    """The result of `replay`, in numbers of items."""

    resolved: int
    left: int


def replay(connection: Connection, now: datetime) -> Replayed:
    """Read every item in quarantine again, and write the readable ones to the mirror.

    An item is compared with the mirror as an answer of the time when it was first seen.

    Returns
    -------
    Replayed
        The counts of items that could be read and were resolved, and of those left in quarantine.
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
            seen_at = utc_text(item.seen_at)
            # A new session counts as observed now: the running pass has seen it as an item, and not as a session.
            pass_id = None if sessions.key_of(connection, row.id) is None else item.pass_id
            observation = sessions.Observation(seen_at, utc_text(now), pass_id, listed_from=seen_at)
            sessions.apply(connection, [row], observation)
            quarantine.resolve(connection, item.id, now)
            resolved += 1
    return Replayed(resolved, left)
