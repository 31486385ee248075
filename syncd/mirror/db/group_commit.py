"""Group commit: writes that wait at the same time share one transaction, and so one fsync.

The first waiter commits all queued jobs. Jobs that arrive meanwhile wait, and the next waiter takes over. Jobs with the
same work share its statements: the work receives the items of all of them at once. When a job of several fails, all run
again, each in a savepoint of its own. `Database` has one `Writer`, and one `BatchedReads` for queries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import postgresql, raw
from syncd.mirror.db.retries import Failures, Retries, classify_error, work_name

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from syncd.mirror.db.backends import Store


Each = Callable[["Connection", list[Any]], list[Any]]
"""Work on several items: returns a result for each, in their order."""


@dataclass(eq=False, slots=True)
class Job:
    """Work on one item that waits for a transaction, and its result."""

    work: Each
    item: Any = None
    begun: bool = False
    done: bool = False
    abandoned: bool = False
    result: Any = None
    error: BaseException | None = None
    _woken: asyncio.Future[None] | None = None
    _wait: anyio.CancelScope | None = None

    @property
    def name(self) -> str:
        """The name by which failures of the work are counted."""
        return work_name(self.item if self.work is one_by_one else self.work)

    def end(self) -> None:
        """Mark the job as done and wake its caller."""
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Wake the caller that waits for the job."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def wait_until_done(self) -> None:
        """Wait until the job is woken; cancellation does not end the wait while the job is in a transaction."""
        self._woken = asyncio.get_running_loop().create_future()
        with anyio.CancelScope(shield=self.begun) as self._wait:
            await self._woken

    @property
    def alive(self) -> bool:
        """Whether a caller still waits for the job."""
        return not self.abandoned and (self._woken is None or not self._woken.cancelled())

    def begin(self, *, begun: bool = True) -> None:
        """Mark the job as being in a transaction, or not; meanwhile its caller is shielded from cancellation."""
        self.begun = begun
        if self._wait is not None:
            self._wait.shield = begun


def one_by_one(connection: Connection, works: list[Callable[[Connection], Any]]) -> list[Any]:
    """Run work that shares nothing: each item is a function of the connection."""
    return [work(connection) for work in works]


def run(connection: Connection, jobs: Iterable[Job]) -> None:
    """Run jobs; those with the same work run together, in the place of the first of them."""
    kinds: dict[Each, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(job.work, []).append(job)
    for work, same in kinds.items():
        for job, result in zip(same, work(connection, [job.item for job in same]), strict=True):
            job.result, job.error = result, None


def run_apart(connection: Connection, jobs: Iterable[Job]) -> None:
    """Run each job in a savepoint and keep its error; an error of the database itself is raised."""
    for job in jobs:
        job.result, job.error = None, None
        savepoint = raw.savepoint(connection)
        try:
            (job.result,) = job.work(connection, [job.item])
        except Exception as error:
            if classify_error(error) is not None:
                raise
            savepoint.rollback()
            job.error = error
        else:
            savepoint.commit()


def end(jobs: Iterable[Job], failures: Failures) -> None:
    """Mark jobs as done, and forget earlier failures of their work."""
    for job in jobs:
        if failures.any():
            failures.succeeded(job.name)
        job.end()


class Group:
    """The jobs that wait for a transaction."""

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._led = False

    async def join(self, job: Job, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait until a job is done; `lead` runs all waiting jobs and is called if no other caller does so already.

        A job whose caller is cancelled, or whose `lead` failed, before it is done is never run later. Cancellation is
        delayed while the job is in a transaction.
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
            if not self._led and (successor := next(self._alive(), None)):
                successor.wake()

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        self._led = True
        try:
            await lead()
        finally:
            self._led = False

    def take(self) -> list[Job]:
        """Return all waiting jobs, to run them."""
        taken, self._waiting = list(self._alive()), []
        for job in taken:
            job.begin()
        return taken

    def put_back(self, jobs: list[Job]) -> None:
        """Let jobs that were taken wait again, before all others."""
        self._waiting[:0] = jobs
        for job in jobs:
            job.begin(begun=False)

    def first_name(self) -> str:
        """Return the name of the job that has waited longest."""
        return next((job.name for job in self._alive()), "write")

    def _alive(self) -> Iterator[Job]:
        return (job for job in self._waiting if job.alive)


class Writer:
    """The one writer of a database."""

    def __init__(self, store: Store, retries: Retries) -> None:
        self._store, self._retries = store, retries
        self._group = Group()
        self._uncertain_commit: tuple[postgresql.CommitUnknownError, list[Job]] | None = None
        """A commit that was interrupted, and its jobs."""

    async def write(self, job: Job) -> Any:  # noqa: ANN401 - the work's result
        """Run a job, in one transaction with others that wait, and return its result once that is durable.

        Raises
        ------
        DatabaseBusyError, DatabaseUnusableError
            See `Retries.run`.
        Exception
            The work's own error.
        """
        await self._group.join(job, self._lead)
        if job.error is not None:
            raise job.error
        return job.result

    async def _lead(self) -> None:
        try:
            await self._retries.run(self._group.first_name, self._commit_waiting)
        except DatabaseUnusableError as reason:
            for job in self._group.take():  # all have waited: a try for each would outlast the grace of a shutdown
                job.error = reason
                job.end()
            raise

    async def _commit_waiting(self) -> None:
        if self._uncertain_commit is not None:
            await self._settle_uncertain(*self._uncertain_commit)
        batch = self._group.take()
        if not batch:
            return
        try:
            await self._run(batch)
        except BaseException as error:
            self._group.put_back(batch)
            if isinstance(error, postgresql.CommitUnknownError):
                self._uncertain_commit = error, batch
            raise
        end(batch, self._retries.failures)

    async def _settle_uncertain(self, commit: postgresql.CommitUnknownError, batch: list[Job]) -> None:
        """Find out whether an interrupted commit was applied: then its jobs must not run a second time."""
        if await commit.has_happened():
            self._group.put_back([job for job in self._group.take() if job not in batch])
            end(batch, self._retries.failures)
        self._uncertain_commit = None

    async def _run(self, batch: list[Job]) -> None:
        """Run a batch as one transaction; when a job of several fails, run it again with the jobs kept apart."""
        try:
            await self._store.transact(partial(run, jobs=batch))
        except Exception as error:
            if len(batch) == 1 or classify_error(error) is not None:
                raise
        else:
            return
        await self._store.transact(partial(run_apart, jobs=batch))


class BatchedReads:
    """Queries for one item that are asked at the same time, and so share a statement."""

    def __init__(self, store: Store, retries: Retries) -> None:
        self._store, self._retries = store, retries
        self._group = Group()

    async def read(self, job: Job) -> Any:  # noqa: ANN401 - the work's result
        """Run a job together with others that wait, and return its result; raises what `Retries.run` does."""
        await self._group.join(job, self._lead)
        return job.result

    async def _lead(self) -> None:
        await self._retries.run(self._group.first_name, self._run)

    async def _run(self) -> None:
        batch = self._group.take()
        try:
            await self._store.read_batched(partial(run, jobs=batch))
        except BaseException:
            self._group.put_back(batch)
            raise
        end(batch, self._retries.failures)
