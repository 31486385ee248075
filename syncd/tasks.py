"""What anyio leaves to its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from syncd.errors import DatabaseUnusableError

T = TypeVar("T")
R = TypeVar("R")


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """Open a task group that raises the error of its one failed task as it is, not in a group.

    Where several failed because the database cannot be used, the first such error stands for all: it ends the
    program, and whoever looks for it must find it.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as error:
        single: BaseException = error
        while isinstance(single, BaseExceptionGroup) and len(single.exceptions) == 1:
            single = single.exceptions[0]
        unusable = next((one for one in _leaves(error) if isinstance(one, DatabaseUnusableError)), None)
        single = unusable if unusable is not None else single
        raise single from single.__cause__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group, in groups in it too."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
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
