"""Finds the session that an operation by source id means. `kinds` calls it.

Look-ups by source id lag. If Albert answers 404 for a source id, the live sessions that carry it in the mirror are
requested by their ids. A session that was observed recently and answers 404 is taken to exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncd.lookups import Absent, Found
from syncd.mirror.store import sources
from syncd.push.outcomes import Effect
from syncd.records.fields import SessionRow
from syncd.records.ids import SessionId
from syncd.records.parse import GarbledError

if TYPE_CHECKING:
    from syncd.push.attempt import Attempt


class OtherSessionError(GarbledError):
    """Albert answers a request for a source id with a session that carries another one."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that has the source id. `found` is None if look-ups do not show it yet."""

    session_id: SessionId
    found: Found | None


@dataclass(frozen=True, slots=True)
class NoHolder:
    """No session has the source id: the status of the look-up, and what the look-ups by id showed."""

    status: int
    effect: Effect


async def resolve(attempt: Attempt) -> Holder | NoHolder:
    """Look an operation's source id up in Albert, and then in the mirror.

    Raises
    ------
    OtherSessionError
        It may be the wrong session to delete or change.
    AlbertException, GarbledError, AbsenceUnprovenError, DatabaseUnusableError
        As `Lookups.by_source` and `Lookups.by_id`.
    """
    source_id = attempt.operation.source_id
    answer = await attempt.lookups.by_source(source_id)
    if isinstance(answer, Absent):
        return await look_for_holder(attempt, answer)
    session_id = answer.row.id
    if answer.row.source_session_id != source_id:
        raise OtherSessionError(
            f"the answer to the request for the source id {source_id!r} is session {session_id!r}, which carries the "
            f"source id {answer.row.source_session_id!r}; to change that session, name it by its id"
        )
    return Holder(session_id, answer)


async def look_for_holder(attempt: Attempt, absent: Absent) -> Holder | NoHolder:
    """Find the session that has the source id although a look-up by source id answered 404.

    Raises
    ------
    AlbertException, GarbledError, AbsenceUnprovenError, DatabaseUnusableError
        As `Lookups.by_id`.
    """
    source_id = attempt.operation.source_id
    asked_at, rows, gone = "", list[SessionRow](), list[SessionId]()
    for session_id, observed_at in await sources.look_for_carriers(attempt.database, source_id):
        answer = await attempt.lookups.by_id(session_id)
        if isinstance(answer, Found):
            if answer.row.source_session_id == source_id:
                return Holder(session_id, answer)
            asked_at = asked_at or answer.asked_at
            rows.append(answer.row)
        elif attempt.recency.is_recent(session_id, observed_at):
            return Holder(session_id, None)
        else:
            gone.append(session_id)
    return NoHolder(absent.status, Effect(asked_at, tuple(rows), tuple(gone)))
