"""Listings, page by page or item by item, that end on evidence and never go round in circles."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from syncd.albert.errors import AlbertResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

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
        The items, cut off where ``max_items`` was reached.
    last_key : str | None
        The ``startKey`` of the next page; None when the server named none.
    """

    items: list[T]
    last_key: str | None


class AsyncAlbertPaginator(AsyncIterator[T]):
    """Iterates over the items of a key-based listing; ``pages()`` does so by page. Use one of the two, once.

    Parameters
    ----------
    session : AsyncAlbertSession
        Sends the requests.
    path : str
        The endpoint.
    deserialize : Callable[[object], T]
        Makes an item of what stands in ``Items``.
    params : Params | None
        The query of every page; ``startKey`` in it is where to begin.
    max_items : int | None
        Stop after as many items.

    Notes
    -----
    The listing ends at a page whose ``lastKey`` is absent, null or empty, or was seen before in this listing
    (the items of that page are still given out: some endpoints name a key on their last page too). A page
    with no items and a new key is *not* the end. The official SDK stops there, which ends a filtered listing
    early, and it has no guard against a cycle of keys.

    Raises
    ------
    AlbertResponseError
        While iterating: a 200 that is not a listing (not JSON, no ``Items`` list, a ``lastKey`` that is not
        text).
    AlbertException
        Whatever the session raises.
    """

    def __init__(
        self,
        *,
        session: AsyncAlbertSession,
        path: str,
        deserialize: Callable[[object], T],
        params: Params | None = None,
        max_items: int | None = None,
    ) -> None:
        self._session = session
        self._path = path
        self._deserialize = deserialize
        self._params = dict(params or {})
        self._max_items = max_items
        self._has_more = False
        self._items = self._by_item()

    @property
    def has_more(self) -> bool:
        """True once iteration was ended by ``max_items`` and more items are there, or another page is."""
        return self._has_more

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the iteration."""
        await self._items.aclose()

    async def pages(self) -> AsyncGenerator[Page[T], None]:
        """Iterate by page, empty ones included."""
        async for page in self._raw_pages():
            yield Page([self._deserialize(item) for item in page.items], page.last_key)

    async def _by_item(self) -> AsyncGenerator[T, None]:
        async for page in self._raw_pages():
            for item in page.items:
                yield self._deserialize(item)

    async def _raw_pages(self) -> AsyncGenerator[Page[object], None]:
        params = dict(self._params)
        seen = {params.get("startKey")}
        left = self._max_items
        while True:
            page = parsed_page(await self._session.ask("GET", self._path, params=params))
            another = page.last_key is not None and page.last_key not in seen
            if left is not None and left <= len(page.items):
                self._has_more = another or left < len(page.items)
                yield Page(page.items[:left], page.last_key)
                return
            yield page
            if not another:
                return
            left = None if left is None else left - len(page.items)
            params["startKey"] = page.last_key
            seen.add(page.last_key)


def parsed_page(answer: Answer) -> Page[object]:
    """Return the page in a 200; anything that is not a listing is an error, never an empty listing."""
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
    """Return the items and the key of a listing, or None and what is wrong with it."""
    if not isinstance(body, dict):
        return None, None, "it is no JSON object"
    items, key = body.get("Items"), body.get("lastKey")
    if not isinstance(items, list):
        return None, None, "its Items are no list"
    if not isinstance(key, str | None):
        return None, None, "its lastKey is no text"
    return items, key, ""
