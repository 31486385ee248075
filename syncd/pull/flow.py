"""One pass: Albert → mirror.

::

    fetching ──(some pages at a time)──► mirroring ──► verdict ──► sweep
    ask, retry, read, or know            rows, history,            missing, confirmed,
    that nothing changed                 quarantine, counts        guarded, deleted
                                         and checkpoint

A pass is taken up at its checkpoint after a restart. It is complete only when the keys ended, every page was read and
every item had an id; everything else is partial or failed, and finds nothing missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from syncd.aio import task_group
from syncd.albert import ChatSessionCollection
from syncd.clock import Clock
from syncd.logs import log_link
from syncd.mirror.store import initial_load, passes
from syncd.mirror.store.passes import PassLostError, Progress
from syncd.pull.fetch import CeilingError, Fetching, KeyRefusedError, ListingError, PageQueue
from syncd.pull.page_cache import PageCache
from syncd.pull.sweep import Guard, sweep
from syncd.pull.write_pages import Fetched, PageWritten, mirror
from syncd.rules.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import FilteringBoundLogger

    from syncd.mirror.db.database import Connection, Database

REFUSED_KEYS = 2
"""Passes begun anew in one cycle because the server refused a page key."""


@dataclass(frozen=True, kw_only=True)
class PullSettings:
    """What bounds a pass.

    Parameters
    ----------
    max_pages : int
        Pages after which a pass ends as partial.
    max_seconds : float
        Seconds since its start after which a pass ends as partial, restarts included.
    backoff : Backoff
        Between tries of one page.
    guard : Guard
        What the sweep may delete, and when.
    """

    max_pages: int
    max_seconds: float
    backoff: Backoff
    guard: Guard


@dataclass(frozen=True)
class PassOutcome:
    """How a pass ended: its id, its final state, and why when that is not `complete`."""

    pass_id: int
    state: str
    error: str | None = None


@dataclass(kw_only=True)
class Pull:
    """The flow that passes run in; `run` is one pass.

    Parameters
    ----------
    on_page : Callable[[Mapping[str, int]], None] | None
        Told the pass's counts after each page, for a progress bar.
    """

    database: Database
    albert: ChatSessionCollection
    clock: Clock
    log: FilteringBoundLogger
    settings: PullSettings
    on_page: Callable[[Mapping[str, int]], None] | None = None
    jitter: Callable[[], float] = field(default=random.random)

    async def run(self) -> PassOutcome:
        """Take up the running pass or begin one, and bring it to its end.

        A refused page key begins a new pass, `REFUSED_KEYS` times at the most.
        """
        refused = 0
        while True:
            progress = await self._begin()
            try:
                try:
                    return await self._run(progress)
                except KeyRefusedError as error:
                    outcome = await self._end(progress, "failed", str(error))
            except PassLostError as error:
                return await self._lost(progress, error)
            if (refused := refused + 1) > REFUSED_KEYS:
                return outcome

    async def _begin(self) -> Progress:
        now = self.clock.now()

        def work(connection: Connection) -> tuple[Progress, Progress | None]:
            progress = passes.running(connection)
            if progress is None or (ceiling := self._ceiling(progress, 0)) is None:
                return progress or passes.begin(connection, now), None
            passes.finish(connection, progress, "partial", now=now, error=f"{ceiling}: its checkpoint is too old")
            return passes.begin(connection, now), progress

        progress, old = await self.database.write(work)
        if old is not None:
            self.log.warning("pass.failed", pass_id=old.id, state="partial", error="its checkpoint is too old")
        self.log.info("pass.started", pass_id=progress.id, resumed=progress.resumed, pages=progress.counts["pages"])
        return progress

    async def _lost(self, progress: Progress, error: PassLostError) -> PassOutcome:
        """Tell how a pass ended that somebody else ended."""
        state = await self.database.read(lambda c: passes.state(c, progress.id)) or "failed"
        self.log.warning("pass.lost", pass_id=progress.id, state=state, reason=str(error))
        return PassOutcome(progress.id, state, str(error))

    async def _run(self, progress: Progress) -> PassOutcome:
        error: str | None = None
        if not progress.read:
            try:
                error = await self._read(progress)
            except CeilingError as reached:
                error = str(reached)
            except KeyRefusedError:
                raise
            except ListingError as failed:
                return await self._end(progress, "failed", str(failed))
        if error is not None:
            return await self._end(progress, "partial", error)
        await self._link_loaded(progress)
        swept = await sweep(
            progress,
            database=self.database,
            albert=self.albert,
            clock=self.clock,
            log=self.log.bind(pass_id=progress.id),
            guard=self.settings.guard,
        )
        if swept.held is not None:
            self.log.warning(
                "pass.held", pass_id=progress.id, reason=swept.held, candidates=swept.missing,
                hint=f"syncd deletions approve {progress.id}, or reject {progress.id}",
            )  # fmt: skip
            return PassOutcome(progress.id, "held", swept.held)
        counts = {name: count for name, count in progress.counts.items() if name != "without_id"}
        self.log.info(
            "pass.complete", pass_id=progress.id, **counts, missing=swept.missing, deleted=swept.deleted,
            seconds=round((self.clock.now() - progress.started_at).total_seconds(), 3),
        )  # fmt: skip
        return PassOutcome(progress.id, "complete")

    async def _link_loaded(self, progress: Progress) -> None:
        """Build what a first pass leaves to its end."""
        if progress.loading:
            for link in await initial_load.finish(self.database, self.clock.now()):
                log_link(self.log.bind(pass_id=progress.id), link)

    async def _end(self, progress: Progress, state: str, error: str) -> PassOutcome:
        await self._link_loaded(progress)
        now = self.clock.now()

        def work(connection: Connection) -> None:
            # A partial verdict may have been written with the last page.
            if state != "partial" or passes.state(connection, progress.id) == "running":
                passes.finish(connection, progress, state, now=now, error=error)

        await self.database.write(work)
        self.log.warning("pass.failed", pass_id=progress.id, state=state, error=error)
        return PassOutcome(progress.id, state, error)

    async def _read(self, progress: Progress) -> str | None:
        """Read the listing from the checkpoint to its end; return why it is not whole, None when it is."""
        verdict: str | None = None
        page_queue = PageQueue()
        fetching = Fetching(
            albert=self.albert,
            clock=self.clock,
            backoff=self.settings.backoff,
            jitter=self.jitter,
            ceiling=lambda number, wait: self._ceiling(progress, number, wait),
            retrying=lambda error, wait: self.log.debug("page.retrying", error=str(error), seconds=round(wait, 3)),
            known=await PageCache.load(self.database),
            given=progress.keys,
        )
        async with task_group() as group:
            group.start_soon(partial(fetching.run, page_queue, key=progress.page_key, number=progress.counts["pages"]))
            while fetched := await page_queue.take():
                verdict = await self._mirror(progress, fetched)
        return verdict

    def _ceiling(self, progress: Progress, number: int, wait: float = 0.0) -> str | None:
        if number >= self.settings.max_pages:
            return f"stopped at the ceiling of {self.settings.max_pages} pages"
        if (self.clock.now() - progress.started_at).total_seconds() + wait > self.settings.max_seconds:
            return f"stopped at the ceiling of {self.settings.max_seconds:g} seconds"
        return None

    async def _mirror(self, progress: Progress, fetched: list[Fetched]) -> str | None:
        """Write pages and the checkpoint behind them in one transaction; return the verdict when one is the last."""
        now, grace = self.clock.now(), self.settings.guard.grace

        def work(connection: Connection) -> tuple[Progress, list[PageWritten], str | None]:
            return mirror(connection, progress, fetched, now=now, grace=grace)

        after, mirrored, verdict = await self.database.write(work)
        progress.adopt(after)
        for page in mirrored:
            self._report(progress, page)
        if self.on_page is not None:
            self.on_page(progress.counts)
        return verdict

    def _report(self, progress: Progress, page: PageWritten) -> None:
        self.log.info(
            "page.mirrored", pass_id=progress.id, page=page.number, sessions=page.sessions, changed=page.changed
        )
        log = self.log.bind(pass_id=progress.id) if page.quarantined or page.restored or page.links else self.log
        for item in page.quarantined:
            log.warning("item.quarantined", session_id=item.session_id, reason=item.reason)
        for session_id in page.restored:
            log.info("session.restored", session_id=session_id)
        for one in page.contradictions:
            log.warning(
                "operation.contradicted",
                operation_id=one.operation_id,
                session_id=one.session_id,
                requeued_as=one.requeued_as,
                hint="the delete succeeded, and Albert still lists the session",
            )
        for link in page.links:
            log_link(log, link)
