"""Writes waiting pages to the mirror, with their counts and the checkpoint, in one transaction.

A page with the same bytes as one in the last complete pass, whose sessions have not changed since, is only counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from pyroaring import BitMap64

from syncd.clock import utc_text
from syncd.mirror.db.dialects import EARLIEST
from syncd.mirror.store import contradictions, operations, pages, passes, quarantine, sessions
from syncd.mirror.store.contradictions import Contradiction
from syncd.mirror.store.pages import ReadPage
from syncd.mirror.store.passes import Ending, Progress
from syncd.pull.counting import Counting
from syncd.records.enums import PassReason, PassState
from syncd.records.fields import SESSIONS, SessionRow
from syncd.records.parse import Page, Unreadable, read_page
from syncd.records.reasons import Reason
from syncd.rules.versions import Change, listed_from

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.sessions import ApplyResult
    from syncd.mirror.store.sources import Link

LISTED_ITEMS = 10
"""Items that the reason of a pass names; `syncd quarantine list` shows all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A page as it was received.

    Parameters
    ----------
    body : bytes
        Kept only where it may have to be read after all: of a page that is `known`.
    mark : bytes
        The digest of its bytes, of which there are `size`.
    next_key : str | None
        The key that it gives for the page after it.
    known : ReadPage | None
        The page with these bytes in the last complete pass; otherwise `page` has the content.
    last, repeated : bool
        Whether the listing ends with it, and whether that is because its key was given before.
    """

    asked_at: datetime
    mark: bytes
    size: int
    next_key: str | None
    body: bytes = b""
    page: Page[SessionRow] | None = None
    known: ReadPage | None = None
    last: bool = False
    repeated: bool = False


@dataclass(slots=True)
class PageWritten:
    """The result of one page, for its log events."""

    number: int
    sessions: int
    changed: int = 0
    quarantined: list[Unreadable] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    @property
    def is_unchanged(self) -> bool:
        """Whether the page changed nothing in the mirror except the checkpoint."""
        return not (self.changed or self.quarantined or self.restored or self.contradictions or self.links)


def mirror(
    connection: Connection,
    before: Progress,
    fetched: Sequence[Fetched],
    *,
    now: datetime,
    grace: float,
    set_back: float = 0.0,
) -> tuple[Progress, list[PageWritten], Reason | None]:
    """Write pages that follow each other, and move the checkpoint after them.

    Parameters
    ----------
    before : Progress
        The state of the pass. It is not changed, since the transaction may have to run again.
    grace : float
        Seconds of the shared clock by which listings may lag behind a deletion.
    set_back : float
        Seconds by which that clock was set back during the grace.

    Returns
    -------
    tuple[Progress, list[PageWritten], Reason | None]
        The state of the pass after them, the result of each page, and why the listing that ended with them is not
        complete.

    Raises
    ------
    PassLostError
        The pass is not this holder's any more.
    """
    writing = _Writing(connection, before.copy(), fetched[0].asked_at, now, grace, set_back)
    for _, successive in groupby(fetched, key=lambda page: page.known is not None):
        writing.write(list(successive))
    last, progress = fetched[-1], writing.progress
    shortfall = None
    if last.last:
        not_accepted = quarantine.not_accepted(connection, progress.met) if progress.counts["without_id"] else []
        shortfall = _shortfall(last, writing.counting.new, not_accepted)
    read_at = now if last.last and shortfall is None else None
    every_page_was_read = last.last and (shortfall is None or shortfall.code is not PassReason.PAGE_KEY_REPEATED)
    listed_at = now if every_page_was_read else None
    passes.checkpoint(connection, progress, writing.read, read_at=read_at, listed_at=listed_at)
    if shortfall is not None:
        passes.finish(connection, progress, Ending(PassState.PARTIAL, shortfall), now=now)
    return progress, writing.written, shortfall


def _shortfall(last: Fetched, new: int, not_accepted: Sequence[int]) -> Reason | None:
    """Return why the listing that ended with this page is not complete; None if it is.

    Parameters
    ----------
    new : int
        Sessions that the last page was the first to bring.
    not_accepted : Sequence[int]
        The quarantine rows of items without a readable id.
    """
    if last.repeated and new:
        text = "a page key was repeated, on a page with new sessions: the listing may go on"
        return Reason(PassReason.PAGE_KEY_REPEATED, text)
    if not_accepted:
        rows = " ".join(map(str, not_accepted[:LISTED_ITEMS])) + (" ..." if len(not_accepted) > LISTED_ITEMS else "")
        count = f"{len(not_accepted)} item{'s' if len(not_accepted) > 1 else ''}"
        text = f"{count} had no readable id; if what they are does not matter, run: syncd quarantine accept {rows}"
        return Reason(PassReason.ITEM_WITHOUT_ID, text)
    return None


@dataclass(slots=True)
class _Writing:
    """The writing of pages in one transaction."""

    connection: Connection
    progress: Progress
    asked_at: datetime
    """When the first of the pages was requested."""
    now: datetime
    grace: float
    set_back: float
    read: list[ReadPage] = field(default_factory=list)
    written: list[PageWritten] = field(default_factory=list)
    counting: Counting = field(init=False)
    deleted_lately: bool = field(init=False)
    """Whether operations have deleted anything that may still be listed."""
    deleted_ever: bool = field(init=False)
    """Whether operations have deleted anything at all."""

    def __post_init__(self) -> None:
        self.counting = Counting(self.connection, self.progress, self.now)
        since = listed_from(self.asked_at, self.now, self.grace)
        self.deleted_lately = operations.any_deleted_since(self.connection, since)
        self.deleted_ever = self.deleted_lately or operations.any_deleted_since(self.connection, EARLIEST)

    def write(self, successive: Sequence[Fetched]) -> None:
        """Write successive pages, of which all are known, or none. Known pages are checked together."""
        known = [page.known for page in successive if page.known is not None]
        if known and self._are_unchanged(known):
            for page in known:
                self._count_known(page)
        else:
            for fetched in successive:
                self._write_page(fetched)

    def _write_page(self, fetched: Fetched) -> None:
        if fetched.known is not None and self._are_unchanged([fetched.known]):
            self._count_known(fetched.known)
        else:
            self._write_read(fetched, fetched.page or read_page(fetched.body, SESSIONS))

    def _are_unchanged(self, known: Sequence[ReadPage]) -> bool:
        return pages.unchanged(self.connection, known, self.counting.suspects())

    def _count_known(self, page: ReadPage) -> None:
        self.counting.count_known(page)
        self._done(page, PageWritten(self._number(), len(page.sessions)))

    def _number(self) -> int:
        """Count the next page of the pass and return its number."""
        self.progress.counts["pages"] += 1
        return self.progress.counts["pages"]

    def _write_read(self, fetched: Fetched, page: Page[SessionRow]) -> None:
        observation = sessions.Observation(
            utc_text(fetched.asked_at),
            utc_text(self.now),
            self.progress.id,
            listed_from(fetched.asked_at, self.now, self.grace),
            seen=self.progress.seen,
            deletions=self.deleted_lately,
            new=self.progress.loading or self.progress.filling,
            loading=self.progress.loading,
            set_back=self.set_back,
        )
        applied = sessions.apply(self.connection, page.rows, observation)
        inserted = sum(change is Change.INSERTED for change in applied.changes.values())
        self.progress.filling = inserted == len(page.rows) > 0
        items = self.counting.count_read(page, applied)
        read = ReadPage(
            next_key=page.next_key,
            sessions=BitMap64(applied.keys) | items.sessions,
            unreadable=items.counted,
            repeated=items.repeated,
            digest=fetched.mark if applied.clean and not page.unreadable else None,
            versions=applied.versions,
        )
        written = PageWritten(
            self._number(),
            len(page.rows),
            len(applied.changes),
            quarantined=items.news,
            restored=applied.restored,
            links=applied.sources,
        )
        if self.deleted_ever and (inserted or applied.restored):
            written.contradictions = self._contradictions(page, applied, fetched.asked_at)
        self._done(read, written)

    def _contradictions(self, page: Page[SessionRow], applied: ApplyResult, asked_at: datetime) -> list[Contradiction]:
        """Queue the deletes again whose sessions this page lists although the grace is over."""
        pairs = zip(page.rows, applied.keys, strict=True)
        listed = [row.id for row, key in pairs if applied.changes.get(key) in {Change.INSERTED, Change.RESTORED}]
        return contradictions.queue_again(
            self.connection, listed, pass_id=self.progress.id, asked_at=asked_at, now=self.now, grace=self.grace
        )

    def _done(self, read: ReadPage, written: PageWritten) -> None:
        self.progress.page_key = read.next_key
        self.read.append(read)
        self.written.append(written)
