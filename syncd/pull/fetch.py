"""Requests the pages of a listing while earlier pages are being written. `pull.flow` reads the queue.

::

    Fetching.run ─────────► PageQueue ──────────► pull.flow
    request, retry, parse   at most 32 pages      writes all waiting pages
    or recognize a page     or 2 MB               in one transaction

The next page is requested before a page is read, if its key is found at the end of the body; with reading ahead it is
requested even earlier (`pull.read_ahead`). Pages that arrive faster than they are written share a transaction. A single
page waits at most `LINGER` for others, or `KNOWN_LINGER` if its content has not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.lowlevel

from syncd.aio import task_group
from syncd.albert import ChatSessionCollection
from syncd.clock import Clock
from syncd.mirror.store import pages
from syncd.pull.page_cache import PageCache
from syncd.pull.read_ahead import ReadAhead
from syncd.pull.retries import CeilingError, ListingError, RefusedError, RequestRetries
from syncd.pull.write_pages import Fetched
from syncd.records.enums import PassReason
from syncd.records.fields import SESSIONS, SessionRow
from syncd.records.parse import Page, next_key_at_end, read_page, reader_of

LINGER = 0.02
"""Seconds that a page waits for other pages of its transaction: a fast server sends several in this time."""
KNOWN_LINGER = 1.0
"""The same for pages without a change. Only their counts are written, so they can wait longer."""
MOST_PAGES = 32
MOST_BYTES = 2_000_000
"""Limits of one transaction. A page without a change counts as a quarter of its bytes."""


class KeyRefusedError(ListingError):
    """Albert refuses a page key of its own."""

    def __init__(self, text: str) -> None:
        super().__init__(PassReason.PAGE_KEY_REFUSED, text)


@dataclass
class PageQueue:
    """Pages that were requested and are not written yet, bounded by number and size."""

    _pages: list[Fetched] = field(default_factory=list)
    _weight: float = 0.0
    _done: bool = False
    _error: ListingError | None = None
    _filled: anyio.Event = field(default_factory=anyio.Event)
    _changed: anyio.Event = field(default_factory=anyio.Event)
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
            self._changed.set()
        if page.last or self._full:
            self._make_ready()

    def end(self, error: ListingError | None = None) -> None:
        """Close the queue. `error` is the reason if pages are absent."""
        self._done, self._error = True, error
        self._filled.set()
        self._make_ready()

    async def take(self) -> list[Fetched]:
        """Return all waiting pages, at least one; an empty list after the last page.

        Raises
        ------
        ListingError
            The reason of `end`, after all pages before it were taken.
        """
        await self._filled.wait()
        for event, seconds in ((self._changed, KNOWN_LINGER), (self._ready, LINGER)):
            if not event.is_set():
                with anyio.move_on_after(seconds):
                    await event.wait()
        taken, self._pages, self._weight = self._pages, [], 0.0
        if not self._done:
            self._filled, self._changed, self._ready = anyio.Event(), anyio.Event(), anyio.Event()
        elif not taken and self._error is not None:
            raise self._error
        self._emptied.set()
        return taken

    def _make_ready(self) -> None:
        self._changed.set()
        self._ready.set()

    @property
    def _full(self) -> bool:
        return len(self._pages) >= MOST_PAGES or self._weight >= MOST_BYTES


@dataclass(kw_only=True)
class Fetching:
    """The reading of one listing from a page key on.

    Parameters
    ----------
    retries : RequestRetries
        Repeats the request of a page that failed.
    ceiling : Callable[[int], str | None]
        Returns why a pass of this many pages exceeds its ceiling; None if it does not.
    given : set[str]
        The page keys that were given before.
    read_ahead : int
        How many pages are requested by the keys of the last pass.
    last_keys : Sequence[str]
        The page keys of the last complete pass, in their order.
    """

    albert: ChatSessionCollection
    clock: Clock
    retries: RequestRetries
    ceiling: Callable[[int], str | None]
    known: PageCache
    given: set[str]
    read_ahead: int = 0
    last_keys: Sequence[str] = ()

    async def run(self, page_queue: PageQueue, *, key: str | None, number: int) -> None:
        """Put all pages from a key on into a queue; `number` pages were read before."""
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
            page = await self._page(ahead, key, number)
            await page_queue.put(page)
            if page.last:
                return
            key, number = page.next_key, number + 1
            self.given.add(key or "")

    async def _page(self, ahead: ReadAhead, key: str | None, number: int) -> Fetched:
        """Request one page until it is answered, and parse it unless the page cache has it.

        Raises
        ------
        KeyRefusedError
            Albert refuses the key.
        ListingError
            See `RequestRetries.run`.
        """
        try:
            return await self.retries.run(partial(self._try, ahead, key, number), "a page")
        except RefusedError as error:
            if key is None:
                raise
            raise KeyRefusedError(str(error)) from error

    async def _try(self, ahead: ReadAhead, key: str | None, number: int) -> Fetched:
        answer = await ahead.page(key)
        body = answer.body
        mark = pages.digest(body, reader_of(SESSIONS))
        known = await self.known.find(mark)
        page = await self._read(ahead, body, number) if known is None else None
        content = page or known
        next_key = content.next_key if content is not None else None
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

    async def _read(self, ahead: ReadAhead, body: bytes, number: int) -> Page[SessionRow]:
        """Read a page while the next one is requested, if its key is where Albert writes it."""
        key = next_key_at_end(body)
        if key is not None and key not in self.given and self.ceiling(number + 1) is None:
            ahead.begin(key)
            await anyio.lowlevel.checkpoint()  # the request is sent before the page is read
        return read_page(body, SESSIONS)
