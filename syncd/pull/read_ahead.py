"""Requests pages before the listing has given their keys. `pull.fetch` takes every page of a listing from here.

A listing is a chain, because each page gives the key of the next one, and its time is the latency times the pages. Most
listings have the keys of the last complete pass again. A few of those pages are requested at once::

    the listing gives K3 ──► K3, K4, K5 and K6 are requested ──► K3 gives K4 ──► K4 is there, K7 is requested

A page counts only if the page before it gave its key in this pass too. It is the page that the chain would have
requested a moment later, and its own time of request belongs to it. Other requested pages are dropped. Pages are
used in the order of their requests: `rules.versions` depends on that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from syncd.albert import AlbertException
from syncd.clock import Clock

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


@dataclass(frozen=True, slots=True)
class PageBody:
    """The body of a page, and when it was requested."""

    asked_at: datetime
    body: bytes


@dataclass
class _Early:
    """A page that was requested before its key was given, and its answer or the error of the request.

    `is_given` is whether the page before it had been received: then its key was only not read yet.
    """

    is_given: bool = False
    error: AlbertException | None = None
    answer: PageBody | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class ReadAhead:
    """The requests of one listing.

    Parameters
    ----------
    request : Callable[[str | None], Awaitable[bytes]]
        Requests the page of a key once.
    keys : Sequence[str]
        The page keys of the last complete pass, in their order.
    pages : int
        How many pages are requested before their keys are given; 0 for none.
    group : TaskGroup
        Runs these requests. Cancelling it ends them.
    """

    def __init__(
        self,
        request: Callable[[str | None], Awaitable[bytes]],
        clock: Clock,
        *,
        keys: Sequence[str],
        pages: int,
        group: TaskGroup,
    ) -> None:
        self._request, self._clock, self._group = request, clock, group
        self._keys, self._pages = keys, pages
        self._places = {key: place for place, key in enumerate(keys)} if pages else {}
        self._early: dict[str, _Early] = {}
        self._last: str | None = ""  # no key is empty

    async def page(self, key: str | None) -> PageBody:
        """Return the page of a key that the listing has just given; None stands for the first page.

        A key that is requested again, because its page could not be had or read, ends the reading ahead.

        Raises
        ------
        AlbertException
            The request failed.
        """
        if key == self._last:
            self._stop()
        self._last = key
        early = self._early.pop(key, None) if key is not None else None
        if early is None:
            self._drop()
        self._request_after(key)
        if early is not None:
            await early.done.wait()
            if early.answer is not None:
                return early.answer
            if early.is_given and early.error is not None:
                raise early.error
            self._stop()  # the listing requests it again, and handles that answer
        return await self._ask(key)

    async def _ask(self, key: str | None) -> PageBody:
        asked_at = self._clock.now()
        return PageBody(asked_at, await self._request(key))

    def begin(self, key: str) -> None:
        """Request the page of a key that the listing is about to give; `page` returns it, or raises its error."""
        if key not in self._early:
            self._drop()  # they were requested before this page, which comes first
            self._request_early(key, is_given=True)

    def _request_early(self, key: str, *, is_given: bool = False) -> None:
        early = self._early[key] = _Early(is_given)
        self._group.start_soon(self._run, key, early)

    def _request_after(self, key: str | None) -> None:
        """Request the pages that followed a key in the last pass, as far as they are not requested yet."""
        place = self._places.get(key) if key is not None else None
        if place is None:
            return
        for following in self._keys[place + 1 : place + 1 + self._pages]:
            if following not in self._early:
                self._request_early(following)

    async def _run(self, key: str, early: _Early) -> None:
        with early.scope:
            try:
                early.answer = await self._ask(key)
            except AlbertException as error:
                early.error = error
            finally:
                early.done.set()

    def _stop(self) -> None:
        """Return to the chain for the rest of this listing: Albert fails, or these keys are not valid any more."""
        self._places = {}
        self._drop()

    def _drop(self) -> None:
        for early in self._early.values():
            early.scope.cancel()
        self._early = {}
