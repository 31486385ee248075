"""What anyio leaves to its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

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
        family = set.intersection(*(set(type(one).__mro__) for one in errors)) - {Exception, BaseException, object}
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
    """Call `work` with each item, so many at once, and return the results in the items' order."""
    limiter = anyio.CapacityLimiter(at_once)
    results: dict[int, R] = {}

    async def one(place: int, item: T) -> None:
        async with limiter:
            results[place] = await work(item)

    async with task_group() as group:
        for place, item in enumerate(items):
            group.start_soon(one, place, item)
    return [results[place] for place in range(len(results))]
