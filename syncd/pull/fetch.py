"""The listing's pages, requested while those before them are being written.

::

    Fetching.run ──(PageQueue: some pages, or 2 MB)──► the writer of pages
    request, retry, read, or
    know that nothing changed

The next page is requested as soon as the key of the last one is known, or before that (`pull.read_ahead`). Pages that
come faster than they are written wait together and share a transaction. A page that comes alone waits for no other
longer than `LINGER`, or `KNOWN_LINGER` if nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio

from syncd.aio import task_group
from syncd.albert import ChatSessionCollection
from syncd.clock import Clock
from syncd.mirror.store import pages
from syncd.pull.page_cache import PageCache
from syncd.pull.read_ahead import ReadAhead
from syncd.pull.retries import CeilingError, ListingError, RefusedError, Retries
from syncd.pull.write_pages import Fetched
from syncd.records.enums import PassReason
from syncd.records.fields import SESSIONS
from syncd.records.parse import read_page, reader_of

LINGER = 0.02
"""Seconds that a page waits for others to be written with it; a fast server gives some in that time."""
KNOWN_LINGER = 1.0
"""The same for pages that are as before: their content is known."""
MOST_PAGES = 32
MOST_BYTES = 2_000_000
"""The most that is written together; pages that are as before, which only are counted, weigh a quarter."""


class KeyRefusedError(ListingError):
    """Albert refuses a page key that it gave."""

    def __init__(self, text: str) -> None:
        super().__init__(PassReason.PAGE_KEY_REFUSED, text)


@dataclass
class PageQueue:
    """Pages between who fetches and who writes, bounded by number and size."""

    _pages: list[Fetched] = field(default_factory=list)
    _weight: float = 0.0
    _done: bool = False
    _error: ListingError | None = None
    _filled: anyio.Event = field(default_factory=anyio.Event)
    _pressing: anyio.Event = field(default_factory=anyio.Event)
    _ready: anyio.Event = field(default_factory=anyio.Event)
    _emptied: anyio.Event = field(default_factory=anyio.Event)

    async def put(self, page: Fetched) -> None:
        """Put a page in; wait while the queue is full."""
        while self._full:
            self._emptied = anyio.Event()
            await self._emptied.wait()
        self._pages.append(page)
        self._weight += page.size / 4 if page.known is not None else page.size
        self._filled.set()
        if page.known is None:
            self._pressing.set()
        if page.last or self._full:
            self._make_ready()

    def end(self, error: ListingError | None = None) -> None:
        """Say that no page comes any more, and why if that is before the last one."""
        self._done, self._error = True, error
        self._filled.set()
        self._make_ready()

    async def take(self) -> list[Fetched]:
        """Take all pages that are there: one at least; none when there are no more.

        Raises
        ------
        ListingError
            No page comes any more, and those before have been taken.
        """
        await self._filled.wait()
        for event, seconds in ((self._pressing, KNOWN_LINGER), (self._ready, LINGER)):
            if not event.is_set():
                with anyio.move_on_after(seconds):
                    await event.wait()
        taken, self._pages, self._weight = self._pages, [], 0.0
        if not self._done:
            self._filled, self._pressing, self._ready = anyio.Event(), anyio.Event(), anyio.Event()
        elif not taken and self._error is not None:
            raise self._error
        self._emptied.set()
        return taken

    def _make_ready(self) -> None:
        self._pressing.set()
        self._ready.set()

    @property
    def _full(self) -> bool:
        return len(self._pages) >= MOST_PAGES or self._weight >= MOST_BYTES


@dataclass(kw_only=True)
class Fetching:
    """The reading of one listing from a page key on.

    Parameters
    ----------
    retries : Retries
        Repeats the request of a page that failed.
    ceiling : Callable[[int], str | None]
        Returns why a pass of this many pages exceeds its ceiling; None if it does not.
    given : set[str]
        The page keys that were given before.
    read_ahead : int
        How many pages are requested before their keys are given.
    last_keys : Sequence[str]
        The page keys of the last complete pass, in their order.
    """

    albert: ChatSessionCollection
    clock: Clock
    retries: Retries
    ceiling: Callable[[int], str | None]
    known: PageCache
    given: set[str]
    read_ahead: int = 0
    last_keys: Sequence[str] = ()

    async def run(self, page_queue: PageQueue, *, key: str | None, number: int) -> None:
        """Put page after page into a queue, from a key on, behind a number of pages."""
        async with task_group() as group:
            ahead = ReadAhead(
                lambda start_key: self.albert.list_raw(start_key=start_key),
                self.clock,
                keys=self.last_keys,
                pages=self.read_ahead,
                group=group,
            )
            try:
                await self._run(ahead, page_queue, key, number)
                page_queue.end()
            except ListingError as error:
                page_queue.end(error)
            group.cancel_scope.cancel()

    async def _run(self, ahead: ReadAhead, page_queue: PageQueue, key: str | None, number: int) -> None:
        while True:
            if (reason := self.ceiling(number)) is not None:
                raise CeilingError(reason)
            page = await self._page(ahead, key)
            await page_queue.put(page)
            if page.last:
                return
            key, number = page.next_key, number + 1
            self.given.add(key or "")

    async def _page(self, ahead: ReadAhead, key: str | None) -> Fetched:
        """Request one page until it is answered, and read it unless it is known.

        Raises
        ------
        KeyRefusedError
            Albert refuses the key.
        ListingError
            See `Retries.run`.
        """
        try:
            return await self.retries.run(partial(self._try, ahead, key), "a page")
        except RefusedError as error:
            if key is None:
                raise
            raise KeyRefusedError(str(error)) from error

    async def _try(self, ahead: ReadAhead, key: str | None) -> Fetched:
        answer = await ahead.page(key)
        body = answer.body
        mark = pages.digest(body, reader_of(SESSIONS))
        known = await self.known.find(mark)
        page = read_page(body, SESSIONS) if known is None else None
        said = page or known
        next_key = said.next_key if said is not None else None
        repeated = next_key in self.given
        return Fetched(
            asked_at=answer.asked_at,
            mark=mark,
            size=len(body),
            next_key=next_key,
            body=b"" if known is None else body,
            page=page,
            known=known,
            last=next_key is None or repeated,
            repeated=repeated,
        )
