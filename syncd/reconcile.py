"""Source ids ↔ sessions: the mirror answers what it can, Albert is asked for the rest.

A source id that a live session carries is linked where that session is written. What is left for this flow is what no
session in the mirror can tell: ids that nobody carries, or carried until lately, or that were missing or contradictory
when they were last asked for, long ago.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from syncd.aio import gather
from syncd.albert import (
    AlbertAuthError,
    AlbertException,
    AlbertHTTPError,
    InvalidIdError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.clock import utc_text
from syncd.logs import log_link
from syncd.mirror.store import initial_load, sessions, sources
from syncd.mirror.store.sources import Link
from syncd.records.parse import SOURCE, GarbledError, Row, read_session
from syncd.rules.deletion import GONE
from syncd.rules.versions import listed_from

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database

AT_ONCE = 8
CHUNK = 500
FIRST_CHUNK = 3
"""Source ids that are asked for before all others: where none of them gets an answer, no other would."""
RECHECK = 3600.0
"""Seconds after which a missing or contradictory source id is asked for again."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Albert said of a source id: a session, nothing (`absent`), that it can never be asked, or no answer."""

    source_id: str
    asked_at: str
    row: Row | None = None
    absent: bool = False
    unsendable: str | None = None
    trouble: Exception | None = None


@dataclass(kw_only=True)
class Reconcile:
    """The flow that keeps `source_sessions` true; `run` is one round.

    Parameters
    ----------
    settle : float
        Seconds by which look-ups may lag.
    """

    database: Database
    albert: ChatSessionCollection
    clock: Clock
    log: FilteringBoundLogger
    settle: float
    _after: str | None = None
    """Where the next round begins: behind those that got no answer in the last one."""

    async def run(self) -> int:
        """Ask Albert for what the mirror cannot answer.

        Returns
        -------
        int
            The number of source ids that got no answer and will be asked for again.
        """
        if not await self.database.read(initial_load.has_index):
            return 0  # the end of the first pass links all at once; until then each look would go through all sessions
        await self._resolve()
        before = self.clock.now() - timedelta(seconds=RECHECK)
        after, self._after = self._after, None
        began_at, limit, unanswered = after, FIRST_CHUNK, 0
        while True:
            chunk = await self.database.read(partial(sources.to_ask, checked_before=before, limit=limit, after=after))
            if not chunk and began_at is None:
                return unanswered
            if not chunk:  # the round goes on with those before the place where it began
                after = began_at = None
                continue
            answers = await gather(self._ask, chunk, at_once=AT_ONCE)
            await self._settle(answers)
            unanswered += sum(answer.trouble is not None for answer in answers)
            after, limit = chunk[-1], CHUNK
            if (trouble := _hopeless(answers)) is not None:
                self._after = after
                self.log.warning("reconcile.stopped", error=str(trouble), unanswered=unanswered)
                return unanswered

    async def _resolve(self) -> None:
        """Let the mirror answer what it can, without a request and, when there is nothing, without a write."""
        more = await self.database.read(sources.unresolved)
        while more:
            at = utc_text(self.clock.now())
            links, more = await self.database.write(partial(sources.resolve, limit=CHUNK, now=at))
            for link in links:
                log_link(self.log, link)

    async def _ask(self, source_id: str) -> _Answer:
        asked_at = utc_text(self.clock.now())
        try:
            row = read_session(await self.albert.get_raw_by_source_session_id(source_session_id=source_id))
        except InvalidIdError as error:
            return _Answer(source_id, asked_at, unsendable=str(error))
        except (AlbertException, GarbledError) as error:
            if isinstance(error, AlbertHTTPError) and error.status_code in GONE:
                return _Answer(source_id, asked_at, absent=True)
            return _Answer(source_id, asked_at, trouble=error)
        if row[SOURCE] != source_id:
            return _Answer(source_id, asked_at, trouble=GarbledError("a session with another sourceSessionId"))
        return _Answer(source_id, asked_at, row)

    async def _settle(self, answers: list[_Answer]) -> None:
        now = self.clock.now()

        def work(connection: Connection) -> list[Link]:
            return [link for answer in answers for link in _write(connection, answer, now, self.settle)]

        for link in await self.database.write(work):
            log_link(self.log, link)


def _write(connection: Connection, answer: _Answer, now: datetime, settle: float) -> list[Link]:
    """Write one answer; a session that it brought is as good as one from a page."""
    source_id, at = answer.source_id, utc_text(now)
    if answer.trouble is not None:
        return []
    if answer.unsendable is not None:
        sources.unaskable(connection, source_id, answer.unsendable, at)
        return []
    links: list[Link] = []
    if answer.row is not None:
        observation = sessions.Observation(answer.asked_at, at, listed_from=listed_from(answer.asked_at, now, settle))
        links += sessions.apply(connection, [answer.row], observation).sources
        links += sources.refresh(connection, {source_id}, at, albert=answer.row[0])
    elif sources.carriers(connection, source_id):
        links += sources.refresh(connection, {source_id}, at)
    else:
        links += sources.set_state(connection, Link(source_id, "missing", None, None))
    sources.mark_checked(connection, source_id, at)
    return links


def _hopeless(answers: list[_Answer]) -> Exception | None:
    """Return why it is no use to go on in this round: refused credentials, a limit, or nothing but trouble."""
    troubles = [answer.trouble for answer in answers if answer.trouble is not None]
    for trouble in troubles:
        if isinstance(trouble, AlbertAuthError | UnauthorizedError | TooManyRequestsError):
            return trouble
    return troubles[0] if troubles and len(troubles) == len(answers) else None
