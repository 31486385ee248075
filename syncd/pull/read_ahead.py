"""Requests pages before the listing has given their keys. `pull.fetch` takes every page of a listing from here.

A listing is a chain, because each page gives the key of the next one, and its time is the latency times the pages. Most
listings have the keys of the last complete pass again. A few of those pages are requested at once::

    the listing gives K3 ──► K3, K4, K5 and K6 are requested ──► K3 gives K4 ──► K4 is there, K7 is requested

A page counts only if the page before it gave its key in this pass too. It is the page that the chain would have
requested a moment later, and its own time of request belongs to it. Other requested pages are dropped. Pages are
used in the order of their requests: `rules.versions` depends on that.

Without reading ahead, only the next page is requested early: while the page before it is read (`ReadAhead.begin`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import anyio

from syncd.albert import AlbertException
from syncd.clock import Clock
from syncd.pull.retries import asks_for_wait, is_final

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


@dataclass(frozen=True, slots=True)
class PageBody:
    """The body of a page, and when it was requested."""

    asked_at: datetime
    body: bytes


@dataclass
class _Early:
    """A page that was requested before `page` was called for it, and its answer or the error of its request.

    `is_next` is whether the page before it had been received.
    """

    is_next: bool = False
    answer: PageBody | None = None
    error: AlbertException | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def refusal(self) -> AlbertException | None:
        """The error, if it counts as that of the page: the chain would have had it too, or Albert asks for a wait."""
        error = self.error
        return error if error is not None and (self.is_next or (asks_for_wait(error) and not is_final(error))) else None


class ReadAhead:
    """The requests of one listing.

    Parameters
    ----------
    request : Callable[[str | None], Awaitable[bytes]]
        Requests the page of a key once.
    keys : Sequence[str]
        The page keys of the last complete pass, in their order.
    pages : int
        How many pages are requested by the keys of the last pass; 0 for none.
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
        self._is_repeated = False

    async def page(self, key: str | None) -> PageBody:
        """Return the page of a key that the listing has just given; None stands for the first page.

        A key that is requested again, because its page could not be had or read, ends the reading ahead.

        Raises
        ------
        AlbertException
            The request failed.
        """
        self._is_repeated = key == self._last
        if self._is_repeated:
            self._stop()
        self._last = key
        early = self._take(key)
        if early is None or early.error is None:
            self._request_after(key)
        if early is not None:
            await early.done.wait()
            if early.answer is not None:
                return early.answer
            self._stop()
            if (refusal := early.refusal) is not None:
                raise refusal
        return await self._ask(key)

    async def _ask(self, key: str | None) -> PageBody:
        asked_at = self._clock.now()
        return PageBody(asked_at, await self._request(key))

    def begin(self, key: str) -> None:
        """Request the next page while the page before it is read; `page` returns it, or raises the error.

        Nothing happens if the page before it was requested more than once: Albert fails, or it cannot be read.
        """
        if key not in self._early and not self._is_repeated and not self._has_failed():
            self._request_early(key, is_next=True)

    def _has_failed(self) -> bool:
        """Whether the request of a page ahead has failed: Albert may fail, or have asked for a wait."""
        return any(early.error is not None for early in self._early.values())

    def _take(self, key: str | None) -> _Early | None:
        """Remove the early page of a key, and drop those that were requested before it; all if there is none."""
        if key is None or key not in self._early:
            self._drop()
            return None
        while (first := next(iter(self._early))) != key:
            self._early.pop(first).scope.cancel()
        return self._early.pop(key)

    def _request_early(self, key: str, *, is_next: bool = False) -> None:
        early = self._early[key] = _Early(is_next)
        self._group.start_soon(self._run, key, early)

    def _request_after(self, key: str | None) -> None:
        """Request the pages that followed a key in the last pass, as far as they are not requested yet."""
        place = self._places.get(key) if key is not None else None
        if place is None or self._has_failed():
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
