"""One pass: Albert → mirror.

::

    _fetch_pages ──(one page ahead)──► _mirror_page ──► verdict ──► sweep
    ask, retry, read, or               rows, history, quarantine,     missing, confirmed,
    know that nothing changed          counts and checkpoint          guarded, deleted
                                       in one transaction

A pass is taken up at its checkpoint after a restart. It is complete only when the keys ended, every page was read and
every item had an id; everything else is partial or failed, and finds nothing missing.

A page with the very bytes of one in the last complete pass is not even parsed (`known.KnownPages`); such pages are
confirmed and written some at a time (`_mirror_known`).
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from syncd.albert import (
    AlbertAuthError,
    AlbertClientError,
    AlbertException,
    AlbertHTTPError,
    ChatSessionCollection,
    ForbiddenError,
    TooManyRequestsError,
    UnauthorizedError,
)
from syncd.clock import Clock, utc_text
from syncd.decide import Backoff, listed_from
from syncd.known import KnownPages
from syncd.listing import ID, GarbledError, Page, read_page
from syncd.logs import log_link
from syncd.mirror import absences, loading, pages, passes, quarantine, sessions
from syncd.mirror.pages import ReadPage
from syncd.mirror.passes import PassLostError, Progress
from syncd.sweep import Guard, sweep
from syncd.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import ObjectSendStream
    from sqlalchemy import Connection
    from structlog.typing import FilteringBoundLogger

    from syncd.mirror.database import Database

PAGE_ATTEMPTS = 5
"""Failed tries of one page before the pass fails; the next pass comes anyway."""
PAGE_WAITS = 60
"""Times that one page may be told to wait (429) before the pass fails."""
REFUSED_KEYS = 2
"""Passes begun anew in one cycle because the server refused a page key."""
REQUEST_TIMEOUT_STATUS = 408
KNOWN_AT_ONCE = 32
"""Pages that are as before and wait to be written together, at the most."""
KNOWN_BYTES = 4_000_000
"""Bytes of such pages that are held meanwhile, at the most."""
NEVER = datetime.min.replace(tzinfo=UTC)


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


class _PassFailedError(Exception):
    """The listing cannot go on."""


class _CeilingError(_PassFailedError):
    """Waiting any longer would pass the ceiling on time."""


class _KeyRefusedError(_PassFailedError):
    """The server does not take its own page key any more."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A page on its way to the mirror: read, or `known` to be as before; or why there is none."""

    body: bytes = b""
    asked_at: datetime = NEVER
    page: Page | None = None
    known: ReadPage | None = None
    last: bool = False
    repeated: bool = False
    error: _PassFailedError | None = None
    ceiling: str | None = None


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
    chance: Callable[[], float] = field(default=random.random)

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
                except _KeyRefusedError as error:
                    outcome = await self._end(progress, "failed", str(error))
            except PassLostError as error:
                return await self._lost(progress, error)
            if (refused := refused + 1) > REFUSED_KEYS:
                return outcome

    async def _begin(self) -> Progress:
        now = self.clock.now()

        def work(connection: Connection) -> tuple[Progress, Progress | None]:
            progress = passes.running(connection)
            if progress is None or progress.read or (ceiling := self._ceiling(progress, 0)) is None:
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
        self.log.warning("pass.failed", pass_id=progress.id, state=state, error=str(error))
        return PassOutcome(progress.id, state, str(error))

    async def _run(self, progress: Progress) -> PassOutcome:
        error: str | None = None
        if not progress.read:
            try:
                error = await self._read(progress)
            except _KeyRefusedError:
                raise
            except _PassFailedError as failed:
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
            for link in await loading.finish(self.database, self.clock.now()):
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
        send, receive = anyio.create_memory_object_stream[_Fetched](1)
        known: list[_Fetched] = []
        verdict: str | None = None
        async with task_group() as group:
            group.start_soon(self._fetch_pages, progress, send)
            async with receive:
                async for fetched in receive:
                    if fetched.known is not None:
                        known.append(fetched)
                        if len(known) < KNOWN_AT_ONCE and sum(len(one.body) for one in known) < KNOWN_BYTES:
                            continue
                    await self._mirror_known(progress, known)
                    known = []
                    if fetched.error is not None:
                        raise fetched.error
                    if fetched.ceiling is not None:
                        return fetched.ceiling
                    if fetched.known is None:
                        verdict = await self._mirror_page(progress, fetched)
        return verdict

    async def _fetch_pages(self, progress: Progress, send: ObjectSendStream[_Fetched]) -> None:
        """Ask for page after page, one ahead of the one that is being written."""
        key, number, given = progress.page_key, progress.counts["pages"], set(progress.keys)
        known = await KnownPages.load(self.database)
        # Nobody takes the pages any more when the writing of one failed: then that is the error to tell, not this.
        with suppress(anyio.BrokenResourceError):
            async with send:
                await self._send_pages(progress, send, known, key, number, given)

    async def _send_pages(
        self,
        progress: Progress,
        send: ObjectSendStream[_Fetched],
        known: KnownPages,
        key: str | None,
        number: int,
        given: set[str],
    ) -> None:
        while True:
            if (ceiling := self._ceiling(progress, number)) is not None:
                await send.send(_Fetched(ceiling=ceiling))
                return
            asked_at = self.clock.now()
            try:
                body, page, before = await self._ask(progress, key, known)
            except _CeilingError as error:
                await send.send(_Fetched(ceiling=str(error)))
                return
            except _PassFailedError as error:
                await send.send(_Fetched(error=error))
                return
            number += 1
            next_key = before.next_key if before is not None else page.next_key if page is not None else None
            repeated = next_key in given
            last = next_key is None or repeated
            await send.send(_Fetched(body, asked_at, page, None if last else before, last, repeated))
            if last:
                return
            key = next_key
            given.add(key or "")

    def _ceiling(self, progress: Progress, number: int, wait: float = 0.0) -> str | None:
        if number >= self.settings.max_pages:
            return f"stopped at the ceiling of {self.settings.max_pages} pages"
        if (self.clock.now() - progress.started_at).total_seconds() + wait > self.settings.max_seconds:
            return f"stopped at the ceiling of {self.settings.max_seconds:g} seconds"
        return None

    async def _ask(
        self, progress: Progress, key: str | None, known: KnownPages
    ) -> tuple[bytes, Page | None, ReadPage | None]:
        """Ask for one page until it is there; read it, unless it is known.

        Raises
        ------
        _CeilingError
            The time of the pass would run out before the next try.
        _KeyRefusedError
            The server refuses the key.
        _PassFailedError
            It refuses the listing, or failed too often.
        """
        failures = waits = 0
        while True:
            retry_after = None
            try:
                body = await self.albert.list_raw(start_key=key)
                before = await known.find(body)
                return body, None if before is not None else read_page(body), before
            except (AlbertAuthError, UnauthorizedError) as error:
                raise _PassFailedError(f"Albert refuses the credentials: {error}") from error
            except (AlbertException, GarbledError) as error:
                if _is_final(error):
                    kind = _PassFailedError if key is None else _KeyRefusedError
                    raise kind(str(error)) from error
                retry_after = error.retry_after if isinstance(error, AlbertHTTPError) else None
                told = isinstance(error, TooManyRequestsError) or retry_after is not None
                waits, failures = waits + told, failures + (not told)
                if failures >= PAGE_ATTEMPTS or waits >= PAGE_WAITS:
                    raise _PassFailedError(f"gave up on a page after {failures + waits} tries: {error}") from error
                wait = self.settings.backoff.wait(max(failures, 1), chance=self.chance(), retry_after=retry_after)
                if (ceiling := self._ceiling(progress, 0, wait)) is not None:
                    raise _CeilingError(f"{ceiling}, waiting for a page: {error}") from error
                self.log.debug("page.retrying", error=str(error), seconds=round(wait, 3))
                await self.clock.sleep(wait)

    async def _mirror_known(self, progress: Progress, fetched: list[_Fetched]) -> None:
        """Confirm pages that are as before, and move the checkpoint behind them; read those that are not after all."""
        while fetched:
            confirmed = await self._confirm(progress, fetched)
            if confirmed < len(fetched):
                await self._mirror_page(progress, fetched[confirmed])
            fetched = fetched[confirmed + 1 :]

    async def _confirm(self, progress: Progress, fetched: list[_Fetched]) -> int:
        """Count the pages, up to the first whose sessions have changed in the mirror meanwhile; return how many."""
        read = [one.known for one in fetched if one.known is not None]

        def work(connection: Connection) -> tuple[list[ReadPage], dict[str, int]]:
            suspects = quarantine.open_keys(connection) if quarantine.any_open(connection) else frozenset()
            good = list(itertools.takewhile(lambda page: pages.unchanged(connection, page, suspects), read))
            counts = dict(progress.counts)
            counts["pages"] += len(good)
            fresh = {key for page in good for key in page.session_keys if key not in progress.seen}
            counts["seen"] += len(fresh)
            counts["unchanged"] += len(fresh)
            if good:
                passes.checkpoint(connection, progress, counts, good, read_at=None)
            return good, counts

        good, counts = await self.database.write(work)
        for number, page in enumerate(good, progress.counts["pages"] + 1):
            progress.seen.update(page.session_keys)
            progress.keys.add(page.next_key or "")
            progress.page_key = page.next_key
            self.log.info("page.mirrored", pass_id=progress.id, page=number, sessions=len(page.session_keys), changed=0)
        progress.counts = counts
        if self.on_page is not None:
            self.on_page(counts)
        return len(good)

    async def _mirror_page(self, progress: Progress, fetched: _Fetched) -> str | None:
        """Write a page and its checkpoint in one transaction; return the verdict when it is the last one."""
        page = fetched.page or read_page(fetched.body)
        now = self.clock.now()
        sighting = sessions.Sighting(
            utc_text(fetched.asked_at),
            utc_text(now),
            progress.id,
            listed_from(now, self.settings.guard.grace),
            progress.loading,
        )
        mark = pages.digest(fetched.body)

        def work(connection: Connection) -> tuple[_Tally, sessions.Applied, str | None]:
            applied = sessions.apply(connection, page.rows, sighting)
            tally = _Tally(progress, dict(progress.counts))
            tally.count_page(connection, page, applied, now)
            verdict = _verdict(fetched, tally) if fetched.last else None
            done = now if fetched.last and verdict is None else None
            clean = applied.clean and not page.unreadable
            keys = array("q", [*applied.keys, *tally.unreadable_keys])
            read = ReadPage(page.next_key, keys, tally.met, mark if clean else None, applied.versions)
            passes.checkpoint(connection, progress, tally.counts, [read], read_at=done)
            if verdict is not None:
                passes.finish(connection, progress, "partial", now=now, error=verdict)
            return tally, applied, verdict

        tally, applied, verdict = await self.database.write(work)
        progress.counts = tally.counts
        progress.page_key = page.next_key
        progress.seen.update(applied.keys)
        progress.seen.update(tally.unreadable_keys)
        progress.met.update(tally.met)
        progress.keys.add(page.next_key or "")
        self._report(progress, page, applied, tally)
        return verdict

    def _report(self, progress: Progress, page: Page, applied: sessions.Applied, tally: _Tally) -> None:
        log = self.log.bind(pass_id=progress.id)
        log.info(
            "page.mirrored",
            page=progress.counts["pages"],
            sessions=len(page.rows),
            changed=len(applied.changes),
        )
        for item, new in zip(page.unreadable, tally.unreadable_new, strict=True):
            if new:
                log.warning("item.quarantined", session_id=item.session_id, reason=item.reason)
        for session_id in applied.restored:
            log.info("session.restored", session_id=session_id)
        for link in applied.sources:
            log_link(log, link)
        if self.on_page is not None:
            self.on_page(progress.counts)


@dataclass
class _Tally:
    """The counts of a pass with one more page; each session counts once, as what became of it in the end."""

    progress: Progress
    counts: dict[str, int]
    unreadable_keys: list[int] = field(default_factory=list)
    unreadable_new: list[bool] = field(default_factory=list)
    met: list[int] = field(default_factory=list)
    new: int = 0

    def count_page(self, connection: Connection, page: Page, applied: sessions.Applied, now: datetime) -> None:
        """Count a page whose rows have been applied, and put what could not be read into quarantine."""
        self.counts["pages"] += 1
        before: dict[str | None, int] = {}
        if quarantine.any_open(connection):
            unreadable = {item.session_id for item in page.unreadable}
            before = quarantine.open_sessions(connection, [row[ID] for row in page.rows])
            met = self.progress.met
            quarantine.resolve_sessions(connection, (i for i in before if i not in unreadable or before[i] in met), now)
        recovered = {applied.by_id[row_id] for row_id, item in before.items() if item in self.progress.met}
        for key in applied.keys:
            self._count_session(connection, key, applied, recovered=key in recovered)
        if page.unreadable:
            self._count_unreadable(connection, page, applied, now)

    def _count_session(self, connection: Connection, key: int, applied: sessions.Applied, *, recovered: bool) -> None:
        change = applied.changes.get(key, "unchanged")
        if recovered:
            self.counts["quarantined"] -= 1
            self.counts[change] += 1
        elif key not in self.progress.seen:
            self.counts["seen"] += 1
            self.counts[change] += 1
            self.new += 1
        elif change != "unchanged" and not sessions.archived_from(connection, key, self.progress.id):
            self.counts["unchanged"] -= 1
            self.counts[change] += 1

    def _count_unreadable(self, connection: Connection, page: Page, applied: sessions.Applied, now: datetime) -> None:
        """Count items that are in quarantine now; `met` has those with a minus that count as sessions already."""
        put = quarantine.put(connection, page.unreadable, now=now, pass_id=self.progress.id)
        counted = set(self.progress.met)
        for item, (row_id, new) in zip(page.unreadable, put, strict=True):
            self.unreadable_new.append(new)
            key = sessions.key_of(connection, item.session_id) if item.session_id is not None else None
            if row_id in counted or -row_id in counted:
                continue
            if key is not None and (key in self.progress.seen or item.session_id in applied.by_id):
                counted.add(-row_id)
                self.met.append(-row_id)
                continue
            counted.add(row_id)
            self.met.append(row_id)
            self.new += 1
            self.counts["quarantined"] += 1
            if item.session_id is None:
                self.counts["without_id"] += 1
            else:
                self.counts["seen"] += 1
            if key is not None:
                self.unreadable_keys.append(key)
        absences.clear(connection, self.unreadable_keys, now)


def _verdict(fetched: _Fetched, tally: _Tally) -> str | None:
    """Say why the listing that ended with this page is not whole; None when it is."""
    if fetched.repeated and tally.new:
        return "the server gave a page key twice, on a page with sessions that were new: the listing may go on"
    if tally.counts["without_id"]:
        return f"{tally.counts['without_id']} items had no readable id: nobody can tell which sessions they are"
    return None


def _is_final(error: Exception) -> bool:
    """Whether asking again for the page cannot help."""
    if isinstance(error, ForbiddenError | TooManyRequestsError):
        return False  # Albert's 403 is sometimes transient
    if isinstance(error, AlbertHTTPError):
        client = isinstance(error, AlbertClientError) and error.status_code != REQUEST_TIMEOUT_STATUS
        return client or error.status_code < 400  # noqa: PLR2004 - a redirect
    return False
