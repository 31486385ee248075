"""Pages into the mirror: some that wait together, with their counts and the checkpoint, in one transaction.

A page with the very bytes of one in the last complete pass, whose sessions have not changed since, is only counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from syncd.clock import utc_text
from syncd.mirror.db.dialects import EARLIEST
from syncd.mirror.store import contradictions, missing, operations, pages, passes, quarantine, sessions
from syncd.mirror.store.contradictions import Contradiction
from syncd.mirror.store.pages import ReadPage
from syncd.mirror.store.passes import Progress
from syncd.records.parse import ID, Page, Unreadable, read_page
from syncd.rules.versions import listed_from

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.sessions import ApplyResult
    from syncd.mirror.store.sources import Link

KEY_TWICE = "the server gave a page key twice"
WITHOUT_ID = "had no readable id"
"""What the reasons say why a listing is not whole; the status page tells their kinds by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A page as it came.

    Parameters
    ----------
    body : bytes
        Kept only where it may have to be read after all: of a page that is `known`.
    mark : bytes
        The digest of its bytes, of which there are `size`.
    next_key : str | None
        The key that it gives for the page after it.
    known : ReadPage | None
        What the last complete pass knew of the page with these bytes; `page` is what it says otherwise.
    last, repeated : bool
        Whether the listing ends with it, and whether that is because its key was given before.
    """

    asked_at: datetime
    mark: bytes
    size: int
    next_key: str | None
    body: bytes = b""
    page: Page | None = None
    known: ReadPage | None = None
    last: bool = False
    repeated: bool = False


@dataclass(slots=True)
class PageWritten:
    """What became of one page: what its log events tell."""

    number: int
    sessions: int
    changed: int = 0
    quarantined: list[Unreadable] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


def mirror(
    connection: Connection, before: Progress, fetched: Sequence[Fetched], *, now: datetime, grace: float
) -> tuple[Progress, list[PageWritten], str | None]:
    """Write pages that follow each other, and move the checkpoint behind them.

    Parameters
    ----------
    before : Progress
        The pass as it stands; it is left as it is, since the transaction may have to run again.
    grace : float
        Seconds by which listings may lag behind a deletion.

    Returns
    -------
    tuple[Progress, list[Mirrored], str | None]
        The pass as it stands then, what became of each page, and why the listing that ended with them is not whole.

    Raises
    ------
    PassLostError
        The pass is not this holder's any more.
    """
    writing = _Writing(connection, before.copy(), fetched[0].asked_at, now, grace)
    for one in fetched:
        writing.write(one)
    last, progress = fetched[-1], writing.progress
    verdict = _verdict(last, progress, writing.new) if last.last else None
    read_at = now if last.last and verdict is None else None
    passes.checkpoint(connection, progress, writing.read, read_at=read_at)
    if verdict is not None:
        passes.finish(connection, progress, "partial", now=now, error=verdict)
    return progress, writing.mirrored, verdict


def _verdict(last: Fetched, progress: Progress, new: int) -> str | None:
    """Say why the listing that ended with this page, of so many new sessions, is not whole; None when it is."""
    if last.repeated and new:
        return f"{KEY_TWICE}, on a page with sessions that were new: the listing may go on"
    if progress.counts["without_id"]:
        return f"{progress.counts['without_id']} items {WITHOUT_ID}: nobody can tell which sessions they are"
    return None


@dataclass(slots=True)
class _Writing:
    """The writing of some pages: each session counts once in a pass, as what became of it in the end."""

    connection: Connection
    progress: Progress
    asked_at: datetime
    """When the first of the pages was asked for."""
    now: datetime
    grace: float
    read: list[ReadPage] = field(default_factory=list)
    mirrored: list[PageWritten] = field(default_factory=list)
    new: int = 0
    """Sessions, and items without an id, that the last page was the first of this pass to bring."""
    suspect: bool = field(init=False)
    """Whether something may be in quarantine."""
    deletions: bool = field(init=False)
    """Whether operations have deleted anything that may not be listed yet."""
    deletes: bool = field(init=False)
    """Whether operations have deleted anything at all."""

    def __post_init__(self) -> None:
        self.suspect = quarantine.any_open(self.connection)
        since = listed_from(self.asked_at, self.now, self.grace)
        self.deletions = operations.any_deleted_since(self.connection, since)
        self.deletes = self.deletions or operations.any_deleted_since(self.connection, EARLIEST)

    def write(self, fetched: Fetched) -> None:
        self.progress.counts["pages"] += 1
        known = fetched.known
        if known is not None and self._unchanged(known):
            self._count(known.session_keys, {})
            self._done(known, len(known.session_keys))
        else:
            self._mirror(fetched, fetched.page or read_page(fetched.body))

    def _unchanged(self, known: ReadPage) -> bool:
        suspects = quarantine.open_keys(self.connection) if self.suspect else frozenset()
        return pages.unchanged(self.connection, known, suspects)

    def _mirror(self, fetched: Fetched, page: Page) -> None:
        observation = sessions.Observation(
            utc_text(fetched.asked_at),
            utc_text(self.now),
            self.progress.id,
            listed_from(fetched.asked_at, self.now, self.grace),
            deletions=self.deletions,
            new=self.progress.loading or self.progress.filling,
            loading=self.progress.loading,
        )
        applied = sessions.apply(self.connection, page.rows, observation)
        inserted = list(applied.changes.values()).count("inserted")
        self.progress.filling = inserted == len(page.rows) > 0
        self._count(applied.keys, applied.changes, self._recovered(page, applied.keys))
        unreadable = _Unreadable()
        if page.unreadable:
            unreadable = self._count_unreadable(page.unreadable)
        keys = array("q", [*applied.keys, *unreadable.keys])
        mark = fetched.mark if applied.clean and not page.unreadable else None
        read = ReadPage(page.next_key, keys, unreadable.met, mark, applied.versions)
        self._done(read, len(page.rows), len(applied.changes))
        done = self.mirrored[-1]
        done.quarantined, done.restored, done.links = unreadable.new, applied.restored, applied.sources
        if self.deletes and (inserted or applied.restored):
            done.contradictions = self._contradictions(page, applied, fetched.asked_at)

    def _contradictions(self, page: Page, applied: ApplyResult, asked_at: datetime) -> list[Contradiction]:
        """Queue the deletes again whose sessions this page lists although the grace is over."""
        appeared = {"inserted", "restored"}
        pairs = zip(page.rows, applied.keys, strict=True)
        listed = [row[ID] for row, key in pairs if applied.changes.get(key) in appeared]
        return contradictions.queue_again(
            self.connection, listed, pass_id=self.progress.id, asked_at=asked_at, grace=self.grace
        )

    def _done(self, read: ReadPage, count: int, changed: int = 0) -> None:
        self.progress.page_key = read.next_key
        self.read.append(read)
        self.mirrored.append(PageWritten(self.progress.counts["pages"], count, changed))

    def _count(self, keys: Sequence[int], changes: dict[int, str], recovered: frozenset[int] = frozenset()) -> None:
        """Count the sessions of a page, of which some were counted as unreadable before."""
        counts, seen = self.progress.counts, self.progress.seen
        again: set[int] = set()
        if recovered or not seen.isdisjoint(keys):
            again = {key for key in keys if key in seen or key in recovered}
            for key in again:
                self._count_again(key, changes.get(key, "unchanged"), recovered=key in recovered)
        seen.update(keys)
        first = [change for key, change in changes.items() if key not in again]
        self.new = len(keys) - len(again)
        counts["seen"] += self.new
        counts["unchanged"] += self.new - len(first)
        for change in first:
            counts[change] += 1

    def _count_again(self, key: int, change: str, *, recovered: bool) -> None:
        counts = self.progress.counts
        if recovered:
            counts["quarantined"] -= 1
            counts[change] += 1
        elif change != "unchanged" and not sessions.archived_from(self.connection, key, self.progress.id):
            counts["unchanged"] -= 1
            counts[change] += 1

    def _recovered(self, page: Page, keys: Sequence[int]) -> frozenset[int]:
        """Resolve what was in quarantine of a page's sessions; return those that this pass counted as unreadable."""
        if not self.suspect:
            return frozenset()
        met = self.progress.met
        unreadable = {item.session_id for item in page.unreadable}
        items = quarantine.open_sessions(self.connection, [row[ID] for row in page.rows])
        resolved = [one for one, item in items.items() if one not in unreadable or item in met]
        quarantine.resolve_sessions(self.connection, resolved, self.now)
        return frozenset(key for row, key in zip(page.rows, keys, strict=True) if items.get(row[ID]) in met)

    def _count_unreadable(self, items: Sequence[Unreadable]) -> _Unreadable:
        """Put items into quarantine and count them; `met` has those with a minus that count as sessions already."""
        found = _Unreadable()
        counts, met = self.progress.counts, self.progress.met
        self.suspect = True
        put = quarantine.put(self.connection, items, now=self.now, pass_id=self.progress.id)
        for item, (row_id, is_new) in zip(items, put, strict=True):
            if is_new:
                found.new.append(item)
            key = sessions.key_of(self.connection, item.session_id) if item.session_id is not None else None
            if row_id in met or -row_id in met:
                continue
            if key is not None and key in self.progress.seen:
                found.met.append(-row_id)
                met.add(-row_id)
                continue
            found.met.append(row_id)
            met.add(row_id)
            self.new += 1
            counts["quarantined"] += 1
            counts["without_id" if item.session_id is None else "seen"] += 1
            if key is not None:
                found.keys.append(key)
                self.progress.seen.update([key])
        missing.clear(self.connection, found.keys, self.now)
        return found


@dataclass(slots=True)
class _Unreadable:
    """The items of a page that could not be read: those new in quarantine, the rows met first, their sessions' keys."""

    new: list[Unreadable] = field(default_factory=list)
    met: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
