"""Links source ids to sessions: from the mirror where possible, otherwise by requests to Albert. `app` runs it.

Every write of a session also links its source id. This flow handles the source ids that no session in the mirror
explains: ids that no session carries, ids that a session carried until recently, and ids that were missing or
contradictory at the last request, long ago.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from syncd.aio import gather
from syncd.albert import (
    AlbertAuthError,
    AlbertException,
    InvalidIdError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.clock import utc_text
from syncd.logs import log_link
from syncd.lookups import Found, Lookups
from syncd.mirror.store import initial_load, passes, sessions, sources, totals
from syncd.mirror.store.sources import Link
from syncd.records.enums import LinkState
from syncd.records.ids import SourceId
from syncd.records.parse import GarbledError
from syncd.rules.versions import listed_from
from syncd.witness import AbsenceUnprovenError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.tenant import TenantCheck

T = TypeVar("T")

AT_ONCE = 8
"""Requests that run at the same time."""
CHUNK = 500
"""Source ids of one query and one transaction."""
FIRST_CHUNK = 3
"""Source ids of the first chunk: if none of them gets an answer, the round ends without further requests."""
MOST_ANSWERS = 10_000
"""Source ids whose last answer is remembered."""
RECHECK = 3600.0
"""Seconds after which Albert is asked again about a missing or contradictory source id."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Albert's answer about a source id: exactly one of the last four fields is set."""

    source_id: SourceId
    found: Found | None = None
    absent: bool = False
    undecidable: str | None = None
    """Why no answer decides it: the source id cannot be sent, or the session that carries it cannot be read."""
    trouble: Exception | None = None


@dataclass(kw_only=True)
class Reconcile:
    """The flow that keeps `source_sessions` up to date; `run` is one round.

    Parameters
    ----------
    settle : float
        Seconds by which look-ups may lag.
    known_tenant : TenantCheck | None
        Whether Albert is known to be the tenant that the database mirrors; None if that is not asked.
    """

    database: Database
    lookups: Lookups
    clock: Clock
    log: FilteringBoundLogger
    settle: float
    known_tenant: TenantCheck | None = None
    query_seconds: float = field(default=0.0, init=False)
    """How long the queries of the last round took that find what to do."""
    _after: SourceId | None = None
    """Where the next round begins: after the source ids that got no answer in the last round."""
    _answered_at: dict[SourceId, float] = field(default_factory=dict)
    """When Albert last answered, in monotonic seconds: while look-ups may lag, another request shows nothing new."""

    async def run(self) -> int:
        """Ask Albert about the source ids that the mirror cannot explain.

        Returns
        -------
        int
            The number of source ids that got no answer; the next round asks again.

        Raises
        ------
        DatabaseUnusableError
            The mirror cannot be read or written.
        """
        if not await self.database.read(initial_load.has_index):
            return 0  # the end of the first pass links all source ids; until then each look-up would scan the table
        self.query_seconds = 0.0
        await self._resolve()
        before = self.clock.now() - timedelta(seconds=RECHECK)
        after, self._after = self._after, None
        began_at, limit, unanswered = after, FIRST_CHUNK, set[SourceId]()
        while True:
            chunk = await self._query(partial(sources.to_ask, checked_before=before, limit=CHUNK, after=after))
            if not chunk and began_at is None:
                return len(unanswered)
            if not chunk:  # begin again at the first one, for those before the place where this round began
                after = began_at = None
                continue
            due = [source_id for source_id in chunk if source_id not in unanswered and self._is_due(source_id)][:limit]
            after = due[-1] if len(due) == limit else chunk[-1]
            if not due:
                continue
            if not await self._may_ask():
                return len(unanswered)
            answers = await gather(self._ask, due, at_once=AT_ONCE)
            await self._record(answers)
            unanswered.update(answer.source_id for answer in answers if answer.trouble is not None)
            limit = CHUNK
            if (trouble := _reason_to_stop(answers)) is not None:
                self._after = after
                self.log.warning("reconcile.stopped", error=str(trouble), unanswered=len(unanswered))
                return len(unanswered)

    async def _query(self, work: Callable[[Connection], T]) -> T:
        began = self.clock.monotonic()
        result = await self.database.read(work)
        self.query_seconds += self.clock.monotonic() - began
        return result

    async def _resolve(self) -> None:
        """Link the source ids that live sessions carry, without a request. Nothing is written if there are none."""
        more = await self._query(sources.any_carried)
        while more:
            at = utc_text(self.clock.now())
            links, more = await self.database.write(partial(sources.resolve, limit=CHUNK, now=at))
            for link in links:
                log_link(self.log, link)

    async def _may_ask(self) -> bool:
        """Whether Albert is known to be the mirror's tenant."""
        held = await self.database.read(passes.doubtful_pass)
        if self.known_tenant is None:
            return held is None
        if held is not None:
            self.known_tenant.doubt(held)
        return await self.known_tenant.may_act()

    def _is_due(self, source_id: SourceId) -> bool:
        answered_at = self._answered_at.get(source_id)
        return answered_at is None or self.clock.monotonic() - answered_at >= self.settle

    async def _ask(self, source_id: SourceId) -> _Answer:
        try:
            look_up = await self.lookups.by_source(source_id)
        except InvalidIdError as error:
            return _Answer(source_id, undecidable=str(error))
        except GarbledError as error:
            if error.record_id is None:
                return _Answer(source_id, trouble=error)
            return _Answer(source_id, undecidable=f"Albert answers with {error.record_id}: {error}")
        except (AlbertException, AbsenceUnprovenError) as error:
            return _Answer(source_id, trouble=error)
        return _Answer(source_id, look_up) if isinstance(look_up, Found) else _Answer(source_id, absent=True)

    async def _record(self, answers: list[_Answer]) -> None:
        now, lag = self.clock.now(), self.database.clock.span(self.settle)

        def work(connection: Connection) -> list[Link]:
            if any(answer.found is not None for answer in answers):
                totals.lock(connection)
            return [link for answer in answers for link in _write(connection, answer, now, lag)]

        for link in await self.database.write(work):
            log_link(self.log, link)
        answered = [answer.source_id for answer in answers if answer.trouble is None]
        self._answered_at |= dict.fromkeys(answered, self.clock.monotonic())
        while len(self._answered_at) > MOST_ANSWERS:
            del self._answered_at[next(iter(self._answered_at))]


def _write(connection: Connection, answer: _Answer, now: datetime, lag: float) -> list[Link]:
    """Write one answer. A session in it is written like one from a page of a listing."""
    source_id, at = answer.source_id, utc_text(now)
    if answer.trouble is not None:
        return []
    if answer.undecidable is not None:
        sources.note_undecidable(connection, source_id, answer.undecidable, at)
        return []
    links: list[Link] = []
    if answer.found is not None:
        links += _write_found(connection, source_id, answer.found, now, lag)
    elif sources.carriers(connection, source_id):
        links += sources.refresh(connection, {source_id}, at)
    else:
        links += sources.set_state(connection, Link(source_id, LinkState.MISSING, None, None))
    sources.mark_checked(connection, source_id, at)
    return links


def _write_found(connection: Connection, source_id: SourceId, session: Found, now: datetime, lag: float) -> list[Link]:
    row, at = session.row, utc_text(now)
    observation = sessions.Observation(
        session.asked_at, at, listed_from=listed_from(session.asked_at, now, lag), lifts=False
    )
    links = sessions.apply(connection, [row], observation).sources
    if row.source_session_id != source_id and not sources.carriers(connection, source_id):
        note = f"Albert answers with {row.id}, which carries the source id {row.source_session_id!r}"
        return links + sources.set_state(connection, Link(source_id, LinkState.CONFLICT, None, note))
    return links + sources.refresh(connection, {source_id}, at, albert=row.id)


def _reason_to_stop(answers: list[_Answer]) -> Exception | None:
    """Return the reason to end this round: refused credentials, a rate limit, or a chunk with no answer at all."""
    troubles = [answer.trouble for answer in answers if answer.trouble is not None]
    for trouble in troubles:
        if isinstance(trouble, AlbertAuthError | UnauthorizedError | TooManyRequestsError):
            return trouble
    return troubles[0] if troubles and len(troubles) == len(answers) else None
