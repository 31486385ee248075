"""Ends a pass whose listing is complete: finds the sessions that are missing, and those that are deleted.

::

    find ──────────► ask Albert ───────────────► record, in one transaction
    what the pass    each session, until more    complete: mark, count the 404s, delete what is confirmed
    did not list     are gone than allowed       held: more are gone than the guard allows; nothing is marked

`pull.flow` calls `sweep`. A session becomes a tombstone only after enough 404s over enough measured time. More of them
than the guard allows wait for an operator. Sessions that answer 200 are not missing, however many are not listed.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from anyio.lowlevel import cancel_shielded_checkpoint

from syncd.clock import utc_text
from syncd.logs import log_link
from syncd.mirror.store import elapsed, established, holds, missing, passes, quarantine, sessions, totals
from syncd.mirror.store.passes import COMPLETE, Ending
from syncd.pull.evidence import Asking, Evidence, Verdict
from syncd.records.enums import PassReason, PassState
from syncd.records.reasons import Reason
from syncd.rules.versions import listed_from

if TYPE_CHECKING:
    from datetime import datetime

    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.lookups import Lookups
    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.elapsed import Reading
    from syncd.mirror.store.holds import Decisions, Placed
    from syncd.mirror.store.missing import Unlisted
    from syncd.mirror.store.passes import Progress
    from syncd.pull.evidence import Answers
    from syncd.rules.deletion import Guard


LINES_AT_ONCE = 100
"""Lines of the log after which other tasks run: a sweep may delete tens of thousands of sessions."""


@dataclass(frozen=True, slots=True)
class Swept:
    """How a sweep ended: the end of its pass, the sessions it found missing and deleted, and its hold if it is held."""

    ending: Ending
    missing: int = 0
    deleted: int = 0
    hold: Placed | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """The sessions that a sweep must decide about, and the decisions of operators.

    Parameters
    ----------
    live : int
        Live sessions in the mirror.
    keys : array[int]
        Live sessions that the pass did not list and that nothing else explains.
    listed_before : array[int]
        If the listing was empty: the live sessions that it should have contained, without those already decided.
    """

    live: int
    keys: array[int]
    listed_before: array[int]
    decisions: Decisions

    @property
    def approved(self) -> list[int]:
        """The sessions that an operator has approved for deletion."""
        return [key for key in self.keys if key in self.decisions.approved]

    @property
    def undecided(self) -> list[int]:
        """The sessions on which no operator has decided."""
        return [key for key in self.keys if key not in self.decisions.approved and key not in self.decisions.kept]


@dataclass(frozen=True, slots=True)
class _Written:
    """The result of the transaction that ends a sweep, for the log."""

    swept: Swept
    newly_missing: list[str]
    deleted: list[str]
    applied: sessions.ApplyResult


def read_situation(connection: Connection, progress: Progress, now: datetime, reading: Reading) -> Situation:
    """Read the sessions that the sweep of a pass must decide about."""
    decisions = holds.decisions(connection)
    listed_before = array("q") if progress.counts["seen"] else undecided_keys(connection, decisions, now)
    unlisted = missing.unlisted(connection, progress, now, elapsed.measure(connection, reading))
    return Situation(passes.live_count(connection), unlisted, listed_before, decisions)


def undecided_keys(connection: Connection, decisions: Decisions, now: datetime) -> array[int]:
    """Return the established live sessions, without those already decided."""
    known = established.live_keys(connection, now)
    return array("q", (key for key in known if key not in decisions.approved and key not in decisions.kept))


def empty_listing(sessions_before: int) -> Reason:
    """Return the reason to hold a pass whose listing was empty although it should have contained sessions."""
    text = f"the listing was empty, and {sessions_before} sessions are live in the mirror"
    return Reason(PassReason.LISTING_EMPTY, text)


async def ask_albert(situation: Situation, guard: Guard, asking: Asking) -> Answers:
    """Ask about the unlisted sessions, as far as the guard allows, and then about all that are approved."""
    if situation.listed_before:
        return asking.answers
    limit = guard.limit(situation.live)
    await asking.ask(situation.undecided, most_gone=limit)
    if reason_to_hold(situation, asking.answers, limit) is None:
        await asking.ask(situation.approved)
    return asking.answers


def may_delete(row: Unlisted, decisions: Decisions, guard: Guard, elapsed_ms: int) -> bool:
    """Whether a missing session is deleted, after the 404 of this pass was counted in its row."""
    if row.key in decisions.approved:
        return True
    since = elapsed_ms if row.missing_elapsed_ms is None else row.missing_elapsed_ms
    return guard.may_delete(absences=row.absences, missing_for=(elapsed_ms - since) / 1000)


def reason_to_hold(situation: Situation, answers: Answers, limit: int) -> Reason | None:
    """Return why the guard holds a pass; None if it does not."""
    if situation.listed_before:
        return empty_listing(len(situation.listed_before))
    gone = len(answers.keys(Verdict.GONE) - frozenset(situation.approved))
    if gone <= limit:
        return None
    unlisted = len(situation.undecided) - len(answers.existing.intersection(situation.undecided))
    at_least = "" if gone == unlisted else "at least "
    text = (
        f"{unlisted} of {situation.live} live sessions are not listed, and Albert answers 404 for {at_least}{gone} of "
        f"them; one pass may delete {limit} without approval"
    )
    return Reason(PassReason.TOO_MANY_GONE, text)


@dataclass(kw_only=True)
class Sweep:
    """The end of a pass whose listing is complete.

    Parameters
    ----------
    settle : float
        Seconds by which a look-up may lag.
    machine : str
        Names the machine whose monotonic clock `clock` reads: see `clock.machine_boot`.
    """

    progress: Progress
    database: Database
    lookups: Lookups
    clock: Clock
    log: FilteringBoundLogger
    guard: Guard
    settle: float
    machine: str

    async def run(self) -> Swept:
        """Decide about the sessions that were not listed, and end the pass as complete or held.

        Raises
        ------
        PassLostError
            Another process ended the pass, or resumed it.
        DatabaseUnusableError
            The mirror cannot be read or written.
        """
        while True:
            now, reading = self.clock.now(), self._reading()
            situation = await self.database.read(
                partial(read_situation, progress=self.progress, now=now, reading=reading)
            )
            answers = await self._ask(situation)
            written = await self._record(situation, answers)
            if written is not None:
                await self._report(written)
                return written.swept

    async def _ask(self, situation: Situation) -> Answers:
        """Ask Albert about the unlisted sessions.

        The witnesses are sessions that the pass has listed. If it has listed nothing, there is no witness, and a 404
        with a JSON body is accepted as proof.
        """
        lookups = self.lookups.among(partial(missing.listed, progress=self.progress))
        asking = Asking(database=self.database, lookups=lookups, log=self.log, write_existing=self._write_existing)
        return await ask_albert(situation, self.guard, asking)

    async def _write_existing(self, existing: list[Evidence]) -> None:
        """Write sessions that are not listed and exist: they are not missing, and not requested again for an hour."""
        now, lag, reading = self.clock.now(), self.database.clock.span(self.settle), self._reading()
        grace = self.database.clock.span(self.guard.grace)

        def work(connection: Connection) -> sessions.ApplyResult:
            totals.lock(connection)
            passes.check(connection, self.progress)
            applied = _apply(connection, existing, now, lag)
            missing.clear(connection, [answer.session.key for answer in existing if answer.found is None], now)
            keys = [answer.session.key for answer in existing]
            missing.note_existing(connection, keys, now, elapsed.measure(connection, reading), grace=grace)
            return applied

        self._report_applied(await self.database.write(work))

    async def _record(self, situation: Situation, answers: Answers) -> _Written | None:
        """End the pass as complete or held, in one transaction; return None if an operator decided meanwhile."""
        now, lag, reading = self.clock.now(), self.database.clock.span(self.settle), self._reading()
        reason = reason_to_hold(situation, answers, self.guard.limit(situation.live))

        def work(connection: Connection) -> _Written | None:
            totals.lock(connection)
            passes.check(connection, self.progress)
            if holds.decisions(connection, lock=True).holds != situation.decisions.holds:
                return None
            if reason is not None:
                return _hold(connection, self.progress, reason, situation, answers, now)
            return _Completion(connection, self.progress, self.guard, lag, situation, answers, now).write(reading)

        return await self.database.write(work)

    def _reading(self) -> Reading:
        return elapsed.Reading(self.machine, self.clock.monotonic(), self.clock.now())

    async def _report(self, written: _Written) -> None:
        for number, session_id in enumerate(written.newly_missing, 1):
            self.log.info("session.missing", session_id=session_id)
            await self._pause(number)
        for number, session_id in enumerate(written.deleted, 1):
            self.log.info("session.deleted", session_id=session_id)
            await self._pause(number)
        self._report_applied(written.applied)

    async def _pause(self, lines: int) -> None:
        if lines % LINES_AT_ONCE == 0:
            await cancel_shielded_checkpoint()  # shielded: what is written is logged

    def _report_applied(self, applied: sessions.ApplyResult) -> None:
        for session_id in applied.restored:
            self.log.info("session.restored", session_id=session_id)
        for link in applied.sources:
            log_link(self.log, link)


def _apply(connection: Connection, evidence: list[Evidence], now: datetime, lag: float) -> sessions.ApplyResult:
    """Write the sessions that look-ups found.

    Look-ups lag by up to `lag` seconds, so none of them restores a tombstone; a listing does.
    """
    total = sessions.ApplyResult()
    for answer in evidence:
        if answer.found is not None:
            since = listed_from(answer.found.asked_at, now, lag)
            observation = sessions.Observation(answer.found.asked_at, utc_text(now), listed_from=since, lifts=False)
            applied = sessions.apply(connection, [answer.found.row], observation)
            total.sources += applied.sources
            total.restored += applied.restored
    return total


def _hold(
    connection: Connection, progress: Progress, reason: Reason, situation: Situation, answers: Answers, now: datetime
) -> _Written:
    """End a pass as held. Its candidates are all unlisted sessions that did not answer 200."""
    keys = situation.listed_before or array("q", (key for key in situation.undecided if key not in answers.existing))
    hold = holds.place(connection, progress.id, keys, reason, now)
    ending = Ending(PassState.HELD, reason)
    passes.finish(connection, progress, ending, now=now, missing=len(keys), hold_id=hold.hold_id)
    return _Written(Swept(ending, len(keys), 0, hold), [], [], sessions.ApplyResult())


@dataclass(frozen=True, slots=True)
class _Completion:
    """The end of a pass that is complete."""

    connection: Connection
    progress: Progress
    guard: Guard
    lag: float
    situation: Situation
    answers: Answers
    now: datetime

    def write(self, reading: Reading) -> _Written:
        """Mark missing sessions, count the 404s, delete the confirmed ones, and end the pass."""
        elapsed_ms = elapsed.advance(self.connection, reading)
        rows = self._not_observed()
        newly_missing = missing.mark(self.connection, rows, self.now, elapsed_ms)
        # after the mark: it moves source ids
        applied = _apply(self.connection, self.answers.others, self.now, self.lag)
        deleted = self._delete({row.key for row in rows}, elapsed_ms)
        self._remove_resolved()
        passes.finish(self.connection, self.progress, COMPLETE, now=self.now, missing=len(rows), deleted=len(deleted))
        return _Written(Swept(COMPLETE, len(rows), len(deleted)), newly_missing, deleted, applied)

    def _not_observed(self) -> list[Unlisted]:
        """Return the unlisted sessions that nothing has observed since they were asked about."""
        before = {answer.session.key: answer.session for answer in self.answers.others}
        keys = [key for key in self.situation.keys if key not in self.answers.existing]
        rows = missing.read(self.connection, keys)
        return [row for row in rows if row.key not in before or row.is_as(before[row.key])]

    def _delete(self, missing_keys: set[int], elapsed_ms: int) -> list[str]:
        gone = [key for key in self.answers.keys(Verdict.GONE) if key in missing_keys]
        counted = missing.count(self.connection, gone, self.progress)
        to_delete = [row.key for row in counted if may_delete(row, self.situation.decisions, self.guard, elapsed_ms)]
        return sessions.tombstone(self.connection, to_delete, now=utc_text(self.now), pass_id=self.progress.id)

    def _remove_resolved(self) -> None:
        """Remove what this pass has resolved: decisions, records of unlisted sessions, and items in quarantine."""
        no_answer = self.answers.keys(Verdict.UNPROVEN, Verdict.UNDECIDED)
        holds.complete(self.connection, unanswered=no_answer, now=self.now)
        missing.forget_existing(self.connection, self.progress.seen, self.answers.keys(Verdict.GONE))
        quarantine.resolve_unseen(self.connection, self.progress.met, self.now)
