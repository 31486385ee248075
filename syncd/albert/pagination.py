"""Listings, by page or by item. `ChatSessionCollection.get_all` returns one."""

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
        The items, without those beyond ``max_items``.
    last_key : str | None
        The ``startKey`` of the next page; None if the server returned none.
    """

    items: list[T]
    last_key: str | None


class AsyncAlbertPaginator(AsyncIterator[T]):
    """Iterates over the items of a listing; ``pages()`` iterates by page. Use one of the two, once.

    Parameters
    ----------
    session : AsyncAlbertSession
        Sends the requests.
    path : str
        The endpoint.
    deserialize : Callable[[object], T]
        Turns an element of ``Items`` into an item.
    params : Params | None
        The query of every page. A ``startKey`` in it is the first page.
    max_items : int | None
        The number of items after which the iteration ends.

    Notes
    -----
    The listing ends at a page whose ``lastKey`` is absent, null or empty, or was already seen in this listing. The
    items of that page are returned, because some endpoints have a key on their last page too. A page without items but
    with a new key is *not* the end. The official SDK ends there, which truncates a filtered listing, and it has no
    guard against a cycle of keys.

    Raises
    ------
    AlbertResponseError
        During the iteration: a 200 that is not a listing (not JSON, ``Items`` is not a list, ``lastKey`` is not text),
        or an item that ``deserialize`` refuses.
    AlbertException
        During the iteration: any error that :meth:`AsyncAlbertSession.ask` lists.
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
        """Return whether the iteration was ended by ``max_items`` before the end of the listing."""
        return self._has_more

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the iteration."""
        await self._items.aclose()

    async def pages(self) -> AsyncGenerator[Page[T], None]:
        """Iterate by page, including empty pages.

        Raises
        ------
        AlbertException
            As the class says.
        """
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
    """Return the page in a 200.

    Raises
    ------
    AlbertResponseError
        The body is not a listing. It is never taken for an empty one.
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
    """Return the items and the key of a listing; None for the items and the reason if it is not one."""
    if not isinstance(body, dict):
        return None, None, "it is not a JSON object"
    items, key = body.get("Items"), body.get("lastKey")
    if not isinstance(items, list):
        return None, None, "its Items are not a list"
    if not isinstance(key, str | None):
        return None, None, "its lastKey is not text"
    return items, key, ""
