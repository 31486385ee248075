"""Group commit: writes that wait at the same time share one transaction, and so one fsync.

The first that comes leads: it commits all that waits by then. Who comes meanwhile waits, and one of those leads next.
Jobs of one kind may also share their statements: their work takes the items of all of them at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

if TYPE_CHECKING:
    from sqlalchemy import Connection


Each = Callable[["Connection", list[Any]], list[Any]]
"""Work on some items, with a result for each in their order."""


@dataclass(eq=False, slots=True)
class Job:
    """Work that waits for its transaction, and what became of it; `item` is what it is about, of its kind of work."""

    work: Each
    item: Any = None
    begun: bool = False
    done: bool = False
    abandoned: bool = False
    result: Any = None
    error: BaseException | None = None
    _woken: asyncio.Future[None] | None = None
    _wait: anyio.CancelScope | None = None

    def end(self) -> None:
        """Note that it is over, and tell who waits for it."""
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Wake who waits for it."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def wait_until_done(self) -> None:
        """Wait for the bell; cancellation does not end the wait while somebody works on the job."""
        self._woken = asyncio.get_running_loop().create_future()
        with anyio.CancelScope(shield=self.begun) as self._wait:
            await self._woken

    @property
    def alive(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.abandoned and (self._woken is None or not self._woken.cancelled())

    def begin(self, *, begun: bool = True) -> None:
        """Note that it is worked on, or no more: who waits for it learns what became of it, cancelled or not."""
        self.begun = begun
        if self._wait is not None:
            self._wait.shield = begun


def one_by_one(connection: Connection, works: list[Callable[[Connection], Any]]) -> list[Any]:
    """Do work that has nothing to share: the items are functions of the connection."""
    return [work(connection) for work in works]


def run(connection: Connection, jobs: Iterable[Job]) -> None:
    """Run jobs, those of one kind together, in the place of the first of them."""
    kinds: dict[Each, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(job.work, []).append(job)
    for work, same in kinds.items():
        for job, result in zip(same, work(connection, [job.item for job in same]), strict=True):
            job.result, job.error = result, None


class Group:
    """The jobs that wait for a transaction."""

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._led = False

    async def join(self, job: Job, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait until a job is done; `lead` does all that wait, this one with them, and is called when nobody does it.

        A job whose caller is cancelled, or whose `lead` failed, before it is done is never done later: cancellation
        waits while the job is worked on.
        """
        self._waiting.append(job)
        try:
            while self._led and not job.done:
                await job.wait_until_done()
            if not job.done:
                await checkpoint_if_cancelled()
                await self._lead(lead)
        finally:
            job.abandoned = not job.done
            if not self._led and (heir := next(self._alive(), None)):
                heir.wake()

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        self._led = True
        try:
            await lead()
        finally:
            self._led = False

    def take(self) -> list[Job]:
        """Take all that wait, to work on them."""
        taken, self._waiting = list(self._alive()), []
        for job in taken:
            job.begin()
        return taken

    def put_back(self, jobs: list[Job]) -> None:
        """Let jobs that were taken wait again, before all others."""
        self._waiting[:0] = jobs
        for job in jobs:
            job.begin(begun=False)

    def _alive(self) -> Iterator[Job]:
        return (job for job in self._waiting if job.alive)
