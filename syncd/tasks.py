"""What anyio leaves to its users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")
R = TypeVar("R")


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """Open a task group that raises the error of its one failed task as it is, not in a group."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as error:
        single: BaseException = error
        while isinstance(single, BaseExceptionGroup) and len(single.exceptions) == 1:
            single = single.exceptions[0]
        raise single from single.__cause__


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
