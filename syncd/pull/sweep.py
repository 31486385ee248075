"""The end of a pass whose listing was read whole: which sessions are missing, and which of them are gone.

Absence is never proof. A session that the pass did not see is asked for by its id, and by its source id, which may
live on in another session; it becomes a tombstone only after enough 404s over enough time, and never more of them at
once than the guard allows, unless an operator has approved it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from syncd.aio import gather
from syncd.albert import AlbertException, AlbertHTTPError
from syncd.clock import utc_text
from syncd.logs import log_link
from syncd.mirror.store import missing, passes, quarantine, sessions, totals
from syncd.records.parse import ID, GarbledError, Row, read_session
from syncd.rules.deletion import GONE, guard_limit, may_delete

if TYPE_CHECKING:
    from datetime import datetime

    from structlog.typing import FilteringBoundLogger

    from syncd.albert import ChatSessionCollection
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.missing import Candidate
    from syncd.mirror.store.passes import Progress

AT_ONCE = 8
"""Sessions that are asked for at the same time."""
WITNESSES = 3
"""Listed sessions that are tried until one answers 200."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What a pass may delete, and when; see the settings `SYNCD_DELETE_*`. `grace` is in seconds."""

    grace: float
    confirmations: int
    max_count: int
    max_fraction: float


@dataclass(frozen=True)
class Swept:
    """What a sweep did: sessions missed, sessions deleted, and why it is held if it is."""

    missing: int = 0
    deleted: int = 0
    held: str | None = None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What Albert says of a missing session: `alive`, `gone`, or nothing that decides (`None`).

    `row` is the session, or the other one that its source id lives on in.
    """

    verdict: Literal["alive", "gone"] | None
    row: Row | None = None
    asked_at: str = ""


@dataclass(kw_only=True)
class _Sweep:
    progress: Progress
    database: Database
    albert: ChatSessionCollection
    clock: Clock
    log: FilteringBoundLogger
    guard: Guard
    approved: set[int] = field(default_factory=set)

    async def run(self) -> Swept:
        candidates, missed, held = await self._find()
        if held is not None:
            return Swept(missed, 0, held)
        evidence: list[_Evidence] = []
        if candidates:
            trusted = await self._witness()
            evidence = await gather(lambda c: self._ask(c, trusted=trusted), candidates, at_once=AT_ONCE)
        deleted = await self._conclude(candidates, evidence)
        return Swept(len(candidates), deleted)

    async def _find(self) -> tuple[list[Candidate], int, str | None]:
        """Mark what the pass missed, or hold the sweep when that is too much."""
        progress, now = self.progress, self.clock.now()

        def work(connection: Connection) -> tuple[list[Candidate], int, str | None, set[int], list[str]]:
            passes.check(connection, progress)
            keys = array("q", passes.unseen(connection, progress, now))  # all there are when the listing was empty
            approved = passes.approved(connection)
            live = passes.live_count(connection)
            held = self._too_many(live, len(keys), sum(key not in approved for key in keys))
            if held is not None:
                passes.hold(connection, progress, keys, now=now, error=held)
                return [], len(keys), held, approved, []
            candidates, newly = missing.mark(connection, list(keys), now)
            return candidates, len(keys), None, approved, newly

        candidates, missed, held, self.approved, newly = await self.database.write(work)
        for session_id in newly:
            self.log.info("session.missing", session_id=session_id)
        return candidates, missed, held

    def _too_many(self, live: int, missed: int, unapproved: int) -> str | None:
        """Say why the sweep must wait for an operator; None when it need not."""
        if not unapproved:
            return None
        if not self.progress.counts["seen"]:
            return f"the listing was empty, and {live} sessions are live in the mirror"
        limit = guard_limit(live, max_count=self.guard.max_count, max_fraction=self.guard.max_fraction)
        if unapproved > limit:
            return f"{missed} of {live} live sessions are not listed any more, and at most {limit} may go at once"
        return None

    async def _witness(self) -> bool:
        """See one session that was just listed answer 200, so that a wrong tenant or a broken route deletes nothing.

        With an empty listing there is none to ask: only what an operator approved comes here then.
        """
        if not self.progress.counts["seen"]:
            return True
        witnesses = await self.database.read(lambda c: missing.listed(c, self.progress, WITNESSES))
        for session_id in witnesses:
            if (await self._look(session_id)).verdict == "alive":
                return True
        self.log.warning("sweep.untrusted", reason="no listed session answers 200; its 404s prove nothing")
        return False

    async def _ask(self, candidate: Candidate, *, trusted: bool) -> _Evidence:
        by_id = await self._look(candidate.session_id)
        if by_id.verdict != "gone":
            return by_id
        asked_at = utc_text(self.clock.now())
        try:
            body = await self.albert.get_raw_by_source_session_id(source_session_id=candidate.source_session_id)
            other = read_session(body)
        except (AlbertException, GarbledError) as error:
            absent = isinstance(error, AlbertHTTPError) and error.status_code in GONE
            self.log.debug("sweep.asked", session_id=candidate.session_id, error=str(error), unknown=not absent)
            return _Evidence("gone" if trusted else None)
        if other[ID] == candidate.session_id:
            return _Evidence(None)  # gone by its id, there by its source id: that decides nothing
        return _Evidence("gone" if trusted else None, other, asked_at)

    async def _look(self, session_id: str) -> _Evidence:
        asked_at = utc_text(self.clock.now())
        try:
            row = read_session(await self.albert.get_raw(id=session_id))
        except AlbertHTTPError as error:
            return _Evidence("gone" if error.status_code in GONE else None)
        except GarbledError as error:  # a session that cannot be read is there all the same, as in a listing
            return _Evidence("alive" if error.session_id == session_id else None)
        except AlbertException:
            return _Evidence(None)
        return _Evidence("alive", row, asked_at) if row[ID] == session_id else _Evidence(None)

    async def _conclude(self, candidates: list[Candidate], evidence: list[_Evidence]) -> int:
        """Write what was learned and end the pass as complete, in one transaction."""
        progress, now = self.progress, self.clock.now()
        pairs = list(zip(candidates, evidence, strict=True))

        def work(connection: Connection) -> tuple[list[str], sessions.ApplyResult]:
            totals.hold(connection)
            applied = sessions.ApplyResult()
            for _, found in pairs:
                if found.row is not None:
                    # look-ups lag: nothing is restored here, what is back from the dead is listed
                    observation = sessions.Observation(found.asked_at, utc_text(now), listed_from="")
                    one = sessions.apply(connection, [found.row], observation)
                    applied.sources += one.sources
                    applied.restored += one.restored
            unread = [one.key for one, found in pairs if found.verdict == "alive" and found.row is None]
            missing.clear(connection, unread, now)
            gone = [candidate.key for candidate, found in pairs if found.verdict == "gone"]
            counted = missing.count(connection, gone, progress, now)
            to_delete = [one.key for one in counted if self._may_go(one, now)]
            deleted = sessions.tombstone(connection, to_delete, now=utc_text(now), pass_id=progress.id)
            passes.forget_approved(connection, self._settled(pairs))
            quarantine.resolve_unseen(connection, progress.met, now)
            passes.finish(connection, progress, "complete", now=now, missing=len(pairs), deleted=len(deleted))
            return deleted, applied

        deleted, applied = await self.database.write(work)
        for session_id in deleted:
            self.log.info("session.deleted", session_id=session_id)
        for session_id in applied.restored:
            self.log.info("session.restored", session_id=session_id)
        for link in applied.sources:
            log_link(self.log, link)
        return len(deleted)

    def _may_go(self, absent: missing.Absent, now: datetime) -> bool:
        return absent.key in self.approved or may_delete(
            absences=absent.absences,
            missing_since=absent.missing_since,
            now=now,
            confirmations=self.guard.confirmations,
            grace=self.guard.grace,
        )

    def _settled(self, pairs: list[tuple[Candidate, _Evidence]]) -> set[int]:
        """Return the approved sessions that need no approval any more: all but those of which nothing was learned.

        They are gone, or were seen again: then they are missing anew, and not approved, when they are missed next.
        """
        return self.approved - {candidate.key for candidate, found in pairs if found.verdict is None}


async def sweep(
    progress: Progress,
    *,
    database: Database,
    albert: ChatSessionCollection,
    clock: Clock,
    log: FilteringBoundLogger,
    guard: Guard,
) -> Swept:
    """Conclude a pass whose listing was read whole: complete, or held by the guard."""
    return await _Sweep(progress=progress, database=database, albert=albert, clock=clock, log=log, guard=guard).run()
