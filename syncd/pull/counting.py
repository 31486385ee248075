"""The counts of a pass and its unreadable items. `pull.write_pages` calls it for each page, inside the transaction.

Each session counts once in a pass, by its last result: inserted, updated, restored, unchanged, or unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pyroaring import BitMap64

from syncd.mirror.store import missing, quarantine, sessions
from syncd.mirror.store.passes import Progress
from syncd.records.fields import SessionRow
from syncd.records.ids import SessionId
from syncd.records.parse import Page, Unreadable
from syncd.rules.versions import Change

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.mirror.store.pages import ReadPage
    from syncd.mirror.store.sessions import ApplyResult


@dataclass(slots=True)
class PageItems:
    """The items of a page that the quarantine knows.

    Parameters
    ----------
    news : list[Unreadable]
        Unreadable items that are new, or that have changed since an operator accepted them.
    sessions : BitMap64
        The keys of sessions that only an unreadable item names.
    counted, repeated : BitMap64
        Rows of the quarantine: see `MetItems`.
    """

    news: list[Unreadable] = field(default_factory=list)
    sessions: BitMap64 = field(default_factory=BitMap64)
    counted: BitMap64 = field(default_factory=BitMap64)
    repeated: BitMap64 = field(default_factory=BitMap64)


@dataclass(slots=True)
class Counting:
    """Counts the pages of one transaction.

    Attributes
    ----------
    new : int
        Sessions, and items without an id, that the last page was the first of the pass to bring.
    suspicious : bool
        Whether anything may be in quarantine.
    """

    connection: Connection
    progress: Progress
    now: datetime
    new: int = 0
    suspicious: bool = field(init=False)

    def __post_init__(self) -> None:
        self.suspicious = quarantine.any_open(self.connection)

    def suspects(self) -> BitMap64:
        """Return the sessions with an item in quarantine."""
        return quarantine.open_keys(self.connection) if self.suspicious else BitMap64()

    def count_known(self, page: ReadPage) -> None:
        """Count a page whose sessions are all unchanged."""
        self._count(page.sessions, {}, BitMap64())

    def count_read(self, page: Page[SessionRow], applied: ApplyResult) -> PageItems:
        """Count a page that was read and written; store and resolve its items in quarantine."""
        page_items = PageItems()
        recovered = self._resolve(page, applied.keys, page_items) if self.suspicious else BitMap64()
        self._count(BitMap64(applied.keys), applied.changes, recovered)
        if page.unreadable:
            self._count_unreadable(page.unreadable, page_items)
        return page_items

    def _count(self, keys: BitMap64, changes: Mapping[int, Change], recovered: BitMap64) -> None:
        """Count readable sessions; the recovered ones were counted as unreadable before."""
        counts = self.progress.counts
        again = (keys & self.progress.seen) | recovered
        for key in again:
            self._count_again(key, changes.get(key, Change.UNCHANGED), recovered=key in recovered)
        self.progress.seen |= keys
        first = [change for key, change in changes.items() if key not in again]
        self.new = len(keys) - len(again)
        counts["seen"] += self.new
        counts[Change.UNCHANGED] += self.new - len(first)
        for change in first:
            counts[change] += 1

    def _count_again(self, key: int, change: Change, *, recovered: bool) -> None:
        counts = self.progress.counts
        if recovered:
            counts["quarantined"] -= 1
            counts[change] += 1
        elif change is not Change.UNCHANGED and not sessions.archived_from(self.connection, key, self.progress.id):
            counts[Change.UNCHANGED] -= 1
            counts[change] += 1

    def _resolve(self, page: Page[SessionRow], keys: Sequence[int], page_items: PageItems) -> BitMap64:
        """Resolve the items of a page's readable sessions; return the sessions that counted as unreadable until now."""
        unreadable = {item.record_id for item in page.unreadable}
        items = quarantine.open_sessions(self.connection, [row.id for row in page.rows])
        quarantine.resolve_sessions(self.connection, items.keys() - unreadable, self.now)
        met = self.progress.met
        recovered = {row_id for row_id in items.values() if row_id in met.counted}
        page_items.repeated |= BitMap64(recovered)
        met.repeat(page_items.repeated)
        return BitMap64(key for row, key in zip(page.rows, keys, strict=True) if items.get(row.id) in recovered)

    def _count_unreadable(self, items: Sequence[Unreadable], page_items: PageItems) -> None:
        """Store unreadable items and count those that the pass has not met."""
        counts, met, seen = self.progress.counts, self.progress.met, self.progress.seen
        self.suspicious = True
        stored = quarantine.put(self.connection, items, now=self.now, pass_id=self.progress.id)
        for item, (row_id, is_new) in zip(items, stored, strict=True):
            if is_new:
                page_items.news.append(item)
            if row_id in met:
                continue
            key = None if item.record_id is None else sessions.key_of(self.connection, SessionId(item.record_id))
            if key is not None and key in seen:
                page_items.repeated.add(row_id)
                met.repeated.add(row_id)
                continue
            page_items.counted.add(row_id)
            met.counted.add(row_id)
            self.new += 1
            counts["quarantined"] += 1
            counts["without_id" if item.record_id is None else "seen"] += 1
            if key is not None:
                page_items.sessions.add(key)
                seen.add(key)
        missing.clear(self.connection, list(page_items.sessions), self.now)
