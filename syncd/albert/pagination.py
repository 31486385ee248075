"""Listings, by item or by page. A listing ends on evidence and never follows a cycle of page keys.

`ChatSessionCollection.get_all` returns an `AsyncAlbertPaginator`; programs iterate over it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from syncd.albert.errors import AlbertResponseError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from syncd.albert.session import AsyncAlbertSession
    from syncd.albert.urls import Params
    from syncd.albert.wire import Answer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing.

    Attributes
    ----------
    items : list[T]
        The items, up to the limit ``max_items``.
    last_key : str | None
        The ``startKey`` of the next page; None at the end of the listing, also if the server named a key there.
    """

    items: list[T]
    last_key: str | None


class AsyncAlbertPaginator(AsyncIterator[T]):
    """Iterates over the items of a listing that is paged by keys; ``pages()`` iterates by page.

    One task iterates at a time. A listing that raised, or whose task was cancelled, can be iterated again: it continues
    with the item or the page that failed. It never ends silently before the end.

    Parameters
    ----------
    session : AsyncAlbertSession
        Sends the requests.
    path : str
        The endpoint.
    deserialize : Callable[[object], T]
        Reads one item. It raises :class:`AlbertResponseError` if the item is unreadable.
    params : Params | None
        The query of every page; a ``startKey`` in it is the same as `start_key`.
    max_items : int | None
        The number of items after which the listing ends; None for no limit.
    start_key : str | None
        The key of the page to begin with, such as an earlier listing's ``last_key``; None for the first page.
    on_error : Callable[[object, AlbertResponseError], None] | None
        Called with each unreadable item and its error; the listing goes on with the next item. Without it, the error
        is raised, and an iteration that is continued goes on after that item.
    deserialize_page : Callable[[list[object]], list[T]] | None
        Reads all items of a page in one call, which is faster. If it raises :class:`AlbertResponseError`, the items are
        read one by one.

    Notes
    -----
    The listing ends at a page whose ``lastKey`` is absent, null or empty, or was seen before in this listing. The items
    of that page still count, because some endpoints name a key on their last page too. A page without items and with a
    new key is *not* the end. The official SDK stops there, which ends a filtered listing early, and it has no guard
    against a cycle of keys.

    Raises
    ------
    AlbertResponseError
        While iterating: a 200 that is not a listing (not JSON, no ``Items`` list, a ``lastKey`` that is not text), or
        an unreadable item without ``on_error``.
    InvalidRequestError
        While iterating: another task iterates over the same listing.
    AlbertException
        While iterating: any error of the session.
    """

    def __init__(
        self,
        *,
        session: AsyncAlbertSession,
        path: str,
        deserialize: Callable[[object], T],
        params: Params | None = None,
        max_items: int | None = None,
        start_key: str | None = None,
        on_error: Callable[[object, AlbertResponseError], None] | None = None,
        deserialize_page: Callable[[list[object]], list[T]] | None = None,
    ) -> None:
        self._session = session
        self._path = path
        self._deserialize = deserialize
        self._deserialize_page = deserialize_page
        self._params = dict(params or {})
        begin = self._params.pop("startKey", None)
        start_key = start_key if begin is None else str(begin)
        self._on_error = on_error
        self._left = max_items
        self._key = start_key
        self._seen = {start_key}
        self._items: deque[object] = deque()
        self._read: deque[T] = deque()
        self._last_key: str | None = None
        self._ended = False
        self._has_more = False
        self._running = False

    @property
    def has_more(self) -> bool:
        """Whether ``max_items`` ended the listing although more items, or another page, are there."""
        return self._has_more

    @property
    def last_key(self) -> str | None:
        """The ``startKey`` of the page after the last page that was fetched; None before the first and at the end.

        A new listing with this ``start_key`` begins after that page. Items of the page that were not yet consumed are
        not repeated.
        """
        return self._last_key

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        with self._alone():
            while not self._read:
                if self._items:
                    self._read_one()
                elif self._ended:
                    raise StopAsyncIteration
                else:
                    await self._fetch()
            return self._read.popleft()

    async def aclose(self) -> None:
        """End the listing; further iteration ends immediately."""
        self._ended = True
        self._items.clear()
        self._read.clear()

    async def pages(self) -> AsyncGenerator[Page[T], None]:
        """Iterate by page, empty pages included; raises the same errors as the iteration by item."""
        while True:
            with self._alone():
                if self._ended and not self._items and not self._read:
                    return
                if not self._items and not self._read:
                    await self._fetch()
                while self._items:
                    self._read_one()
                items = list(self._read)
                self._read.clear()
            yield Page(items, self._last_key)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a second task that iterates at the same time: each would get a part of the items."""
        if self._running:
            raise InvalidRequestError("another task iterates over this listing; call get_all once for each task")
        self._running = True
        try:
            yield
        finally:
            self._running = False

    async def _fetch(self) -> None:
        """Fetch the next page. State changes only after its answer is there, so that a failure can be repeated."""
        params = self._params if self._key is None else {**self._params, "startKey": self._key}
        page = parsed_page(await self._session.ask("GET", self._path, params=params))
        is_new = page.last_key is not None and page.last_key not in self._seen
        items, self._ended = page.items, not is_new
        if self._left is not None and self._left <= len(items):
            self._has_more = is_new or self._left < len(items)
            items, self._ended = items[: self._left], True
        if self._left is not None:
            self._left -= len(items)
        self._last_key = page.last_key if is_new else None
        self._key = page.last_key
        self._seen.add(page.last_key)
        if self._deserialize_page is not None:
            try:
                self._read.extend(self._deserialize_page(items))
            except AlbertResponseError:
                pass  # one of them is unreadable: they are read one by one
            else:
                return
        self._items.extend(items)

    def _read_one(self) -> None:
        """Read the next item by itself; report an unreadable one."""
        item = self._items.popleft()
        try:
            self._read.append(self._deserialize(item))
        except AlbertResponseError as error:
            if self._on_error is None:
                raise
            self._on_error(item, error)


def parsed_page(answer: Answer) -> Page[object]:
    """Return the page in a 200.

    Raises
    ------
    AlbertResponseError
        The body is not a listing. It is never treated as an empty listing.
    """
    reason = "it is not JSON"
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        body = None
    else:
        items, key, reason = _shape(body)
        if items is not None:
            return Page(items, key or None)
    raise AlbertResponseError(
        f"the answer is not a listing: {reason}",
        method=answer.request.method,
        path=answer.request.path,
    )


def _shape(body: object) -> tuple[list[object] | None, str | None, str]:
    """Return the items and the key of a listing, or None and the reason why it is not one."""
    if not isinstance(body, dict):
        return None, None, "it is not a JSON object"
    items, key = body.get("Items"), body.get("lastKey")
    if not isinstance(items, list):
        return None, None, "its Items are not a list"
    if not isinstance(key, str | None):
        return None, None, "its lastKey is not text"
    return items, key, ""
