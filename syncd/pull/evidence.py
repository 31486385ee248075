"""Asks Albert about sessions that a pass did not list. `pull.sweep` uses it.

Absence from a listing proves nothing. Each session is requested by its id, and, after a 404, by its source id, which
another session may carry by now. A 404 counts only when a session that the pass has listed answers 200.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from syncd.aio import gather
from syncd.albert import AlbertException
from syncd.lookups import Absent, Found, Lookups
from syncd.mirror.store import missing
from syncd.records.parse import GarbledError
from syncd.witness import AbsenceUnprovenError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.mirror.db.database import Reader
    from syncd.mirror.store.missing import Unlisted

AT_ONCE = 8
"""Requests at the same time."""
CHUNK = 200
"""Sessions whose answers are collected before the results are written: it bounds memory and lost work."""


class Verdict(StrEnum):
    """The meaning of an answer for a session that was not listed."""

    EXISTS = "exists"
    GONE = "gone"
    UNPROVEN = "unproven"
    """A 404 that may come from a gateway."""
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The answer about one session.

    `found` is the session, or another one that carries its source id by now; None if no session could be read.
    """

    session: Unlisted
    verdict: Verdict
    found: Found | None = None


@dataclass(slots=True)
class Answers:
    """All answers of a sweep."""

    existing: set[int] = field(default_factory=set)
    """Keys of the sessions that exist; their answers are written as they come."""
    others: list[Evidence] = field(default_factory=list)

    def keys(self, *verdicts: Verdict) -> frozenset[int]:
        """Return the keys of the sessions with one of these verdicts."""
        return frozenset(answer.session.key for answer in self.others if answer.verdict in verdicts)


@dataclass(kw_only=True)
class Asking:
    """Asks about unlisted sessions.

    Parameters
    ----------
    write_existing : Callable[[list[Evidence]], Awaitable[None]]
        Receives the answers of sessions that exist, some at a time.
    """

    database: Reader
    lookups: Lookups
    log: FilteringBoundLogger
    write_existing: Callable[[list[Evidence]], Awaitable[None]]
    answers: Answers = field(default_factory=Answers)

    async def ask(self, keys: Sequence[int], *, most_gone: int | None = None) -> None:
        """Ask about sessions, in their order.

        Parameters
        ----------
        keys : Sequence[int]
            The sessions.
        most_gone : int | None
            Stop when more sessions than this answered 404; None for no limit.

        Raises
        ------
        DatabaseUnusableError
            The mirror cannot be read or written.
        """
        first = 0
        while first < len(keys):
            size = CHUNK
            if most_gone is not None:
                answered_404 = max(len(self.answers.keys(verdict)) for verdict in (Verdict.GONE, Verdict.UNPROVEN))
                size = min(size, most_gone + 1 - answered_404)
            if size <= 0:
                return
            await self._ask_some(keys[first : first + size])
            first += size

    async def _ask_some(self, keys: Sequence[int]) -> None:
        rows = await self.database.read(partial(missing.read, keys=keys))
        evidence = await gather(self._ask_one, rows, at_once=AT_ONCE)
        existing = [answer for answer in evidence if answer.verdict is Verdict.EXISTS]
        if existing:
            await self.write_existing(existing)
        self.answers.existing.update(answer.session.key for answer in existing)
        self.answers.others += [answer for answer in evidence if answer.verdict is not Verdict.EXISTS]

    async def _ask_one(self, session: Unlisted) -> Evidence:
        try:
            answer = await self.lookups.by_id(session.session_id)
        except GarbledError as error:  # a session that exists and cannot be read, as in a listing
            exists = error.record_id == session.session_id
            return Evidence(session, Verdict.EXISTS if exists else Verdict.UNDECIDED)
        except AbsenceUnprovenError:
            return Evidence(session, Verdict.UNPROVEN)
        except AlbertException:
            return Evidence(session, Verdict.UNDECIDED)
        if isinstance(answer, Found):
            return Evidence(session, Verdict.EXISTS, answer)
        return await self._ask_by_source(session)

    async def _ask_by_source(self, session: Unlisted) -> Evidence:
        """Find the session that carries the source id by now, if there is one."""
        try:
            answer = await self.lookups.by_source(session.source_session_id)
        except (AlbertException, GarbledError, AbsenceUnprovenError) as error:
            self.log.debug("sweep.asked", session_id=session.session_id, error=str(error), unknown=True)
            return Evidence(session, Verdict.GONE)
        if isinstance(answer, Absent):
            self.log.debug("sweep.asked", session_id=session.session_id, status=answer.status, unknown=False)
            return Evidence(session, Verdict.GONE)
        if answer.row.id == session.session_id:
            return Evidence(session, Verdict.UNDECIDED)  # absent by its id and present by its source id
        return Evidence(session, Verdict.GONE, answer)
