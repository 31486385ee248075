"""Runs one pass: Albert → mirror. `syncd.daemon.loops` and `syncd once` call `Pull.run`.

::

    first request ──► fetch ──(some pages at a time)──► write pages ──► sweep
    is it the same    request, retry, read,             rows, history,   missing, confirmed,
    tenant?           or recognize by digest            quarantine,      guarded, deleted
                                                        checkpoint

A pass resumes at its checkpoint after a restart. It is complete only if the keys ended, every page was read and every
item had an id. Otherwise it is partial, failed or held, and finds nothing missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from syncd.aio import task_group
from syncd.clock import Clock, machine_boot
from syncd.logs import log_link
from syncd.lookups import Lookups
from syncd.mirror.store import holds, initial_load, pages, passes
from syncd.mirror.store.passes import Ending, PassLostError, Progress
from syncd.pull.fetch import Fetching, KeyRefusedError, PageQueue
from syncd.pull.first_request import FirstRequest, sessions_to_request
from syncd.pull.page_cache import PageCache
from syncd.pull.retries import CeilingError, ListingError, RequestRetries
from syncd.pull.sweep import Sweep, undecided_keys
from syncd.pull.write_pages import Fetched, PageWritten, mirror
from syncd.records.enums import PassReason, PassState
from syncd.records.reasons import Reason
from syncd.rules.deletion import Guard
from syncd.rules.retry import Backoff

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.mirror.db.database import Connection, Database
    from syncd.mirror.store.holds import Decisions, Placed
    from syncd.records.ids import PassId

REFUSED_KEYS = 2
"""Passes that begin again in one cycle because Albert refused a page key: more often, the next cycle tries."""
TENANT_HINT = "syncd tenant show; if the tenant was emptied: syncd deletions approve {0}"
GUARD_HINT = "syncd deletions show {0}, then syncd deletions approve {0} or syncd deletions reject {0}"


@dataclass(frozen=True, kw_only=True)
class PullSettings:
    """The bounds of a pass.

    Parameters
    ----------
    max_pages : int
        Pages after which a pass ends as partial.
    read_ahead : int
        Pages that are requested before the listing has given their keys.
    max_seconds : float
        Seconds since its start after which a pass ends as partial, restarts included.
    backoff : Backoff
        Waits between attempts of one request.
    guard : Guard
        What the sweep may delete, and when.
    settle : float
        Seconds by which a look-up of the sweep may lag.
    """

    max_pages: int
    max_seconds: float
    backoff: Backoff
    guard: Guard
    settle: float
    read_ahead: int = 0


@dataclass(frozen=True, slots=True)
class PassOutcome:
    """How a pass ended: its id, its state, and the reason unless it is complete."""

    pass_id: PassId
    state: PassState
    error: str | None = None
    reason: PassReason | None = None


@dataclass(kw_only=True)
class Pull:
    """The flow that passes run in.

    Parameters
    ----------
    on_page : Callable[[Mapping[str, int]], None] | None
        Receives the counts of the pass after each page, for a progress bar.
    jitter : Callable[[], float]
        Draws a number from 0 to 1 that spreads waits.
    machine : str
        Names the machine whose monotonic clock `clock` reads.
    """

    database: Database
    lookups: Lookups
    clock: Clock
    log: FilteringBoundLogger
    settings: PullSettings
    on_page: Callable[[Mapping[str, int]], None] | None = None
    jitter: Callable[[], float] = field(default=random.random)
    machine: str = field(default_factory=machine_boot)

    async def run(self) -> PassOutcome:
        """Resume the running pass or begin one, and bring it to its end.

        A refused page key begins a new pass, at most `REFUSED_KEYS` times.

        Raises
        ------
        DatabaseUnusableError
            The mirror cannot be read or written.
        """
        refused = 0
        while True:
            progress = await self._begin()
            try:
                try:
                    return await self._run(progress)
                except KeyRefusedError as error:
                    outcome = await self._end(progress, Ending(PassState.FAILED, error.reason))
            except PassLostError as error:
                return await self._lost(progress, error)
            if (refused := refused + 1) > REFUSED_KEYS:
                return outcome

    async def _begin(self) -> Progress:
        now = self.clock.now()

        def work(connection: Connection) -> tuple[Progress, Progress | None]:
            progress = passes.resume(connection)
            if progress is None or (ceiling := self._ceiling(progress, 0)) is None:
                return progress or passes.begin(connection, now), None
            reason = Reason(PassReason.CHECKPOINT_EXPIRED, f"{ceiling}: its checkpoint is too old")
            passes.finish(connection, progress, Ending(PassState.PARTIAL, reason), now=now)
            return passes.begin(connection, now), progress

        progress, old = await self.database.write(work)
        if old is not None:
            self.log.warning("pass.failed", pass_id=old.id, state="partial", error="its checkpoint is too old")
        self.log.info("pass.started", pass_id=progress.id, resumed=progress.resumed, pages=progress.counts["pages"])
        return progress

    async def _lost(self, progress: Progress, error: PassLostError) -> PassOutcome:
        """Report the end of a pass that another process ended."""
        state = await self.database.read(lambda c: passes.state(c, progress.id)) or PassState.FAILED
        self.log.warning("pass.lost", pass_id=progress.id, state=state, reason=str(error))
        return PassOutcome(progress.id, state, str(error))

    async def _run(self, progress: Progress) -> PassOutcome:
        try:
            if (held := await self._hold_if_unknown(progress)) is not None:
                return held
            shortfall = None if progress.read else await self._read(progress)
        except KeyRefusedError:
            raise
        except CeilingError as reached:
            return await self._end(progress, Ending(PassState.PARTIAL, reached.reason))
        except ListingError as failed:
            return await self._end(progress, Ending(PassState.FAILED, failed.reason))
        if shortfall is not None:
            return await self._end(progress, Ending(PassState.PARTIAL, shortfall))
        await self._link_loaded(progress)
        return await self._sweep(progress)

    async def _hold_if_unknown(self, progress: Progress) -> PassOutcome | None:
        """Make the first requests of a pass; end it as held if Albert knows none of the sessions."""
        request = FirstRequest(albert=self.lookups.albert, retries=self._retries(progress))
        while True:
            known, decisions = await self.database.read(partial(sessions_to_request, now=self.clock.now()))
            reason = await request.unknown(known)
            if reason is None:
                return None
            placed = await self._hold(progress, reason, decisions)
            if placed is not None:
                return self._held(progress, reason, placed)

    async def _hold(self, progress: Progress, reason: Reason, before: Decisions) -> Placed | None:
        """End a pass as held before it has read anything; return None if an operator decided meanwhile."""
        now = self.clock.now()

        def work(connection: Connection) -> Placed | None:
            passes.check(connection, progress)
            decisions = holds.decisions(connection, lock=True)
            if decisions.holds != before.holds:
                return None
            keys = undecided_keys(connection, decisions, now)
            placed = holds.place(connection, progress.id, keys, reason, now)
            passes.finish(connection, progress, Ending(PassState.HELD, reason), now=now, hold_id=placed.hold_id)
            return placed

        return await self.database.write(work)

    async def _sweep(self, progress: Progress) -> PassOutcome:
        sweep = Sweep(
            progress=progress,
            database=self.database,
            lookups=self.lookups,
            clock=self.clock,
            log=self.log.bind(pass_id=progress.id),
            guard=self.settings.guard,
            settle=self.settings.settle,
            machine=self.machine,
        )
        swept = await sweep.run()
        if swept.hold is not None and swept.ending.reason is not None:
            return self._held(progress, swept.ending.reason, swept.hold)
        counts = {name: count for name, count in progress.counts.items() if name != "without_id"}
        self.log.info(
            "pass.complete", pass_id=progress.id, **counts, missing=swept.missing, deleted=swept.deleted,
            seconds=round((self.clock.now() - progress.started_at).total_seconds(), 3),
        )  # fmt: skip
        return PassOutcome(progress.id, PassState.COMPLETE)

    def _held(self, progress: Progress, reason: Reason, hold: Placed) -> PassOutcome:
        """Log a held pass: as a warning when its hold is new, at level info while the same sessions are held."""
        if hold.is_new:
            hint = TENANT_HINT if reason.code is PassReason.KNOWN_SESSIONS_GONE else GUARD_HINT
            self.log.warning(
                "pass.held", pass_id=progress.id, reason=reason.text, code=reason.code, candidates=hold.sessions,
                hint=hint.format(hold.pass_id),
            )  # fmt: skip
        else:
            self.log.info("pass.still_held", pass_id=progress.id, hold=hold.pass_id, candidates=hold.sessions)
        return PassOutcome(progress.id, PassState.HELD, reason.text, reason.code)

    async def _link_loaded(self, progress: Progress) -> None:
        """Build the index and the links that a first pass defers to its end."""
        if progress.loading:
            for link in await initial_load.finish(self.database, self.clock.now()):
                log_link(self.log.bind(pass_id=progress.id), link)
            progress.loading = False

    async def _end(self, progress: Progress, ending: Ending) -> PassOutcome:
        await self._link_loaded(progress)
        now = self.clock.now()

        def work(connection: Connection) -> None:
            # a partial listing may have ended the pass with its last page
            if ending.state is not PassState.PARTIAL or passes.state(connection, progress.id) is PassState.RUNNING:
                passes.finish(connection, progress, ending, now=now)

        await self.database.write(work)
        text, code = (None, None) if ending.reason is None else (ending.reason.text, ending.reason.code)
        self.log.warning("pass.failed", pass_id=progress.id, state=ending.state, error=text, code=code)
        return PassOutcome(progress.id, ending.state, text, code)

    async def _read(self, progress: Progress) -> Reason | None:
        """Read the listing from the checkpoint to its end; return why it is not complete, None if it is.

        Raises
        ------
        ListingError
            The listing cannot be read to its end.
        """
        shortfall: Reason | None = None
        page_queue, read_ahead = PageQueue(), self.settings.read_ahead
        fetching = Fetching(
            albert=self.lookups.albert,
            clock=self.clock,
            retries=self._retries(progress),
            ceiling=partial(self._ceiling, progress),
            known=await PageCache.load(self.database),
            given=progress.keys,
            read_ahead=read_ahead,
            last_keys=await self.database.read(pages.keys) if read_ahead else (),
        )
        async with task_group() as group:
            group.start_soon(partial(fetching.run, page_queue, key=progress.page_key, number=progress.counts["pages"]))
            while fetched := await page_queue.take():
                shortfall = await self._mirror(progress, fetched)
                if progress.counts["inserted"] >= initial_load.MOST_SESSIONS:
                    await self._link_loaded(progress)
        return shortfall

    def _retries(self, progress: Progress) -> RequestRetries:
        return RequestRetries(
            clock=self.clock,
            backoff=self.settings.backoff,
            jitter=self.jitter,
            ceiling=lambda wait: self._ceiling(progress, 0, wait),
            on_retry=lambda error, wait: self.log.debug("page.retrying", error=str(error), seconds=round(wait, 3)),
        )

    def _ceiling(self, progress: Progress, number: int, wait: float = 0.0) -> str | None:
        """Return why a pass of `number` pages that waits for some more seconds exceeds a ceiling; None if not."""
        if number >= self.settings.max_pages:
            return f"stopped at the ceiling of {self.settings.max_pages} pages"
        most = self.database.clock.span(self.settings.max_seconds)  # more if the clock was set forward meanwhile
        if (self.clock.now() - progress.started_at).total_seconds() + wait > most:
            return f"stopped at the ceiling of {self.settings.max_seconds:g} seconds"
        return None

    async def _mirror(self, progress: Progress, fetched: list[Fetched]) -> Reason | None:
        """Write pages and the checkpoint after them in one transaction; return why the listing is not complete."""
        now, clock = self.clock.now(), self.database.clock
        grace, set_back = clock.span(self.settings.guard.grace), clock.set_back(self.settings.guard.grace)

        def work(connection: Connection) -> tuple[Progress, list[PageWritten], Reason | None]:
            return mirror(connection, progress, fetched, now=now, grace=grace, set_back=set_back)

        after, mirrored, shortfall = await self.database.write(work)
        progress.adopt(after)
        for page in mirrored:
            self._report(progress, page)
        if self.on_page is not None:
            self.on_page(progress.counts)
        return shortfall

    def _report(self, progress: Progress, page: PageWritten) -> None:
        write = self.log.debug if page.is_unchanged else self.log.info
        write("page.mirrored", pass_id=progress.id, page=page.number, sessions=page.sessions, changed=page.changed)
        log = self.log.bind(pass_id=progress.id) if page.quarantined or page.restored or page.links else self.log
        for item in page.quarantined:
            log.warning("item.quarantined", session_id=item.record_id, reason=item.reason)
        for session_id in page.restored:
            log.info("session.restored", session_id=session_id)
        for contradiction in page.contradictions:
            log.warning(
                "operation.contradicted",
                operation_id=contradiction.operation_id,
                session_id=contradiction.session_id,
                requeued_as=contradiction.requeued_as,
                hint="the delete succeeded, and Albert still lists the session",
            )
        for link in page.links:
            log_link(log, link)
