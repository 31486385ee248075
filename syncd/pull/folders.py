"""The mirror of chat folders: Albert → `chat_folders`, after each pass over the sessions.

::

    pages ──► missing folders, each requested by its id ──► one transaction

Folders are few, so that a listing is read as a whole and begins at its first page each time. A listing whose last page
was not read adds and changes folders, and finds none missing. A folder is deleted after as many listings in a row that
miss it as a session needs, each confirmed by a 404 or 410 of its own, while another folder answers 200. An item without
an id makes such a listing partial and does not prevent deletions, because each of them has its own 404.

An empty listing may be an error, no folder can be its witness, and no operator can approve deletions of folders.
Therefore `EMPTY_CONFIRMATIONS` of them in a row delete the folders that are left, and not the first one.

A 403 or 404 for the listing itself changes nothing, and is logged once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from syncd.albert import AlbertException, AlbertHTTPError, ChatFolderCollection
from syncd.clock import utc_text
from syncd.mirror.store import folders
from syncd.mirror.store.folders import Begun, FoldersRead, FoldersWritten, ListingLostError
from syncd.pull.retries import is_final, requested_wait
from syncd.records.enums import FolderListingState
from syncd.records.fields import FOLDERS, FolderRow
from syncd.records.parse import GarbledError, Page, Unreadable, read_page, read_record
from syncd.rules.deletion import GONE

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Database
    from syncd.rules.deletion import Guard
    from syncd.rules.retry import Backoff

PAGE_ATTEMPTS = 3
"""Requests for one page before the listing fails; the next listing comes with the next pass."""
LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer wait ends the listing, so that it does not delay the next pass."""
PAGES_WITHOUT_NEW = 20
"""Pages in a row without a new folder after which a listing ends: a server may give new keys forever."""
NOT_SERVED = frozenset({403, 404, 405, 410, 501})
"""Statuses of a tenant or server without folders, or of credentials that may not read them."""
EMPTY_CONFIRMATIONS = 12
"""Empty listings in a row after which folders are deleted: an hour of passes, with the default pause."""
EMPTY = (
    "no folder is listed, which may be an error: those of the mirror ({live}) are deleted after {most} such listings "
    "in a row, if each answers 404"
)
TOO_MANY_MISSING = "{missing} of {live} folders are not listed, more than SYNCD_DELETE_MAX_COUNT allows; all are kept"


@dataclass(frozen=True, kw_only=True)
class FolderSettings:
    """The limits of a listing of folders: pages, the waits between requests, and deletions."""

    max_pages: int
    backoff: Backoff
    guard: Guard


@dataclass(slots=True)
class _Listing:
    """The pages that were read so far."""

    rows: dict[str, FolderRow] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    pages: int = 0

    def add(self, page: Page[FolderRow]) -> bool:
        """Add a page; return whether it has a folder that no earlier page had."""
        before = len(self.rows)
        self.rows |= {row.id: row for row in page.rows}
        self.unreadable += page.unreadable
        self.pages += 1
        return len(self.rows) > before

    @property
    def present(self) -> set[str]:
        """Return the ids of unreadable folders: they exist."""
        return {item.record_id for item in self.unreadable if item.record_id is not None}


@dataclass(kw_only=True)
class MirrorFolders:
    """The flow of folders; `run` is one listing."""

    database: Database
    albert: ChatFolderCollection
    clock: Clock
    log: FilteringBoundLogger
    settings: FolderSettings
    jitter: Callable[[], float] = field(default=random.random)

    async def run(self) -> FolderListingState | None:
        """List the folders and mirror the result; return its state, None if another listing began meanwhile.

        Raises
        ------
        DatabaseUnusableError
            The mirror cannot be used.
        """
        begun = await self.database.write(folders.begin)
        read = await self._read()
        now, confirmations = utc_text(self.clock.now()), self._confirmations(read)

        def work(connection: Connection) -> FoldersWritten:
            return folders.write(connection, begun.fence, read, now=now, confirmations=confirmations)

        try:
            written = await self.database.write(work)
        except ListingLostError as error:
            self.log.debug("folders.lost", reason=str(error))
            return None
        self._report(begun, read, written)
        return read.state

    def _confirmations(self, read: FoldersRead) -> int:
        """Return the number of absences in a row after which a folder is deleted."""
        enough = self.settings.guard.confirmations
        return enough if read.rows else max(enough, EMPTY_CONFIRMATIONS)

    async def _read(self) -> FoldersRead:
        """Read the whole listing, and request the folders that it misses."""
        listing = _Listing()
        try:
            reason = await self._list(listing)
        except (AlbertException, GarbledError) as error:
            served = not (isinstance(error, AlbertHTTPError) and error.status_code in NOT_SERVED and not listing.pages)
            state = FolderListingState.FAILED if served else FolderListingState.UNAVAILABLE
            return FoldersRead(state=state, error=str(error), rows=listing.rows, present=listing.present)
        if reason is not None:
            return FoldersRead(
                state=FolderListingState.PARTIAL, error=reason, rows=listing.rows, present=listing.present
            )
        read = await self._confirm_missing(listing)
        nameless = [item.reason for item in listing.unreadable if item.record_id is None]
        if nameless and read.error is None:  # a missing folder answers 404 nevertheless, so it is deleted
            text = f"{len(nameless)} items have no readable id: {nameless[-1]}"
            return replace(read, state=FolderListingState.PARTIAL, error=text)
        return read

    async def _list(self, listing: _Listing) -> str | None:
        """Read page after page; return why the listing is not complete, None if it is.

        Raises
        ------
        AlbertException, GarbledError
            A page could not be read.
        """
        key, without_new = None, 0
        while listing.pages < self.settings.max_pages:
            page = await self._page(key)
            is_new = listing.add(page)
            without_new = 0 if is_new else without_new + 1
            if without_new >= PAGES_WITHOUT_NEW and page.next_key is not None:
                return f"stopped after {PAGES_WITHOUT_NEW} pages in a row without a new folder"
            if page.next_key is None:
                return None
            if page.next_key in listing.keys:
                return "the server gave a page key twice" if is_new else None
            key = page.next_key
            listing.keys.add(key)
        return f"stopped at the ceiling of {self.settings.max_pages} pages"

    async def _page(self, key: str | None) -> Page[FolderRow]:
        """Request one page, at most `PAGE_ATTEMPTS` times.

        Raises
        ------
        AlbertException, GarbledError
            The last failure.
        """
        attempt = 1
        while True:
            self.clock.now()  # a heartbeat for the watchdog
            try:
                return read_page(await self.albert.list_raw(start_key=key), FOLDERS)
            except (AlbertException, GarbledError) as error:
                wait = self.settings.backoff.wait(attempt, jitter=self.jitter(), retry_after=requested_wait(error))
                if attempt >= PAGE_ATTEMPTS or is_final(error) or wait > LONGEST_WAIT:
                    raise
                await self.clock.sleep(wait)
            attempt += 1

    async def _confirm_missing(self, listing: _Listing) -> FoldersRead:
        """Request each folder that a listing missed although every page was read, and return its result."""
        stored = await self.database.read(folders.live)
        seen = listing.rows.keys() | listing.present
        missing = [folder_id for folder_id in stored if folder_id not in seen]
        read = FoldersRead(state=FolderListingState.COMPLETE, rows=listing.rows, present=listing.present)
        if len(missing) > self.settings.guard.larger_limit(len(stored)):
            error = TOO_MANY_MISSING.format(missing=len(missing), live=len(stored))
            return replace(read, state=FolderListingState.PARTIAL, error=error)
        if missing and not listing.rows:
            error = EMPTY.format(live=len(stored), most=EMPTY_CONFIRMATIONS)
            read = replace(read, state=FolderListingState.PARTIAL, error=error)
        rows, absent = dict(listing.rows), set()
        for folder_id in missing:
            answer = await self._request(folder_id)
            if isinstance(answer, FolderRow):
                rows[folder_id] = answer
            elif answer is not None and (listing.rows or _is_json(answer)):
                absent.add(folder_id)
        if absent and listing.rows and not await self._witness(listing):
            absent = set()
        return replace(read, rows=rows, absent=absent)

    async def _request(self, folder_id: str) -> FolderRow | AlbertHTTPError | None:
        """Return a folder, or the 404 or 410 that shows that it is absent; None if neither is certain."""
        self.clock.now()  # a heartbeat for the watchdog
        try:
            row = read_record(await self.albert.get_raw(id=folder_id), FOLDERS)
        except AlbertHTTPError as error:
            return error if error.status_code in GONE else None
        except (AlbertException, GarbledError):
            return None
        return row if row.id == folder_id else None

    async def _witness(self, listing: _Listing) -> bool:
        """Return whether a listed folder answers 200: then the 404s of others come from Albert, not from a gateway."""
        return isinstance(await self._request(next(iter(listing.rows))), FolderRow)

    def _report(self, begun: Begun, read: FoldersRead, written: FoldersWritten) -> None:
        """Log the result; a problem that was logged before is logged at debug."""
        if read.state is FolderListingState.COMPLETE:
            is_news = written.changed or written.deleted or begun.last_state is not FolderListingState.COMPLETE
            log = self.log.info if is_news else self.log.debug
            log("folders.mirrored", folders=written.live, changed=len(written.changed), deleted=len(written.deleted))
        elif read.state is FolderListingState.UNAVAILABLE:
            log = self.log.debug if begun.last_state is read.state else self.log.warning
            log("folders.unavailable", reason=read.error, hint="sessions are mirrored; SYNCD_FOLDERS=false ends this")
        else:
            is_known = (begun.last_state, begun.last_error) == (read.state, read.error)
            log = self.log.debug if is_known else self.log.warning
            log("folders.failed", state=read.state.value, reason=read.error, hint="the next pass lists them again")


def _is_json(error: AlbertHTTPError) -> bool:
    try:
        return isinstance(json.loads(error.body), dict)
    except (ValueError, RecursionError):
        return False
