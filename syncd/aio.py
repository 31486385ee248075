"""Helpers on anyio: task groups that raise plain errors, gather, an auto-reset event, a rate limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.abc import TaskGroup

if TYPE_CHECKING:
    from syncd.clock import Clock

T = TypeVar("T")
R = TypeVar("R")


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """Open a task group that raises a task's error as it is, not in a group; of several of one family, the first."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as error:
        errors = list(_leaves(error))
        family = set.intersection(*(set(type(leaf).__mro__) for leaf in errors)) - {Exception, BaseException, object}
        if not family:
            raise
        raise errors[0] from errors[0].__cause__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def gather(work: Callable[[T], Awaitable[R]], items: Iterable[T], *, at_once: int) -> list[R]:
    """Call `work` with each item, a number of them at once, and return the results in the items' order."""
    limiter = anyio.CapacityLimiter(at_once)
    results: dict[int, R] = {}

    async def call(place: int, item: T) -> None:
        async with limiter:
            results[place] = await work(item)

    async with task_group() as group:
        for place, item in enumerate(items):
            group.start_soon(call, place, item)
    return [results[place] for place in range(len(results))]


class AutoResetEvent:
    """An event that is reset when a task has waited for it. It can be set any number of times before that.

    If it is set while no task waits, the next task to wait returns immediately.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the task that waits, or the next one to wait."""
        self._event.set()

    async def wait(
        self, seconds: float | None = None, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        """Wait until it is set, for at most some seconds; `sleep` is that of the clock."""
        event = self._event
        if seconds is None:
            await event.wait()
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(_alarm, sleep, seconds, group.cancel_scope)
                await event.wait()
                group.cancel_scope.cancel()
        # another task that waits may have reset it already, and it may have been set since
        if event.is_set() and self._event is event:
            self._event = anyio.Event()


async def _alarm(sleep: Callable[[float], Awaitable[None]], seconds: float, scope: anyio.CancelScope) -> None:
    await sleep(seconds)
    scope.cancel()


class RateLimit:
    """Space requests evenly, so that no second sees more than `per_second` of them."""

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._gap = 1.0 / per_second
        self._clock = clock
        self._next = clock.monotonic()
        self._waiting = anyio.Lock()

    async def __call__(self) -> None:
        """Wait for this request's turn; a request that is cancelled meanwhile takes none."""
        async with self._waiting:
            wait = self._next - self._clock.monotonic()
            if wait > 0:
                await self._clock.sleep(wait)
            self._next = max(self._next, self._clock.monotonic()) + self._gap
