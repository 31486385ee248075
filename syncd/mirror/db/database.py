"""One database, one writer: how a transaction gets in, and what happens when it cannot.

`Database.write` takes a function of a `Connection` and runs it in a transaction. Writes that wait at the same time are
committed together (`group.py`); when one of them fails, all run again, each inside a savepoint of its own, so that it
does not take the others along. A transaction runs in one piece, in a worker thread on SQLite and behind a shield
on PostgreSQL: cancellation comes before it or after it, never in its middle.

A lock that another program holds, a full disk, or a lost connection is waited for (`busy_timeout`); a file that is
corrupt, foreign or not the one that was opened ends the program (`DatabaseUnusableError`).
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import anyio
import sqlalchemy as sa

from syncd.errors import DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db import group_commit, postgresql, raw, sqlite
from syncd.mirror.db.group_commit import Each, Group, Job

Connection: TypeAlias = sa.Connection
"""A transaction, as it is given to what reads and writes in it."""
T = TypeVar("T")
Work = Callable[[Connection], T]

LONGEST_PAUSE = 2.0
CONFLICT_SECONDS = 0.02
"""At most so long after a deadlock or a lost race the transaction runs again."""


class Store(Protocol):
    """What a database does when `Database` says so: `sqlite.Store` or `postgres.Store`."""

    async def read(self, work: Work[T], /) -> T:
        """Run a function of a connection in a transaction that sees one snapshot and writes nothing."""

    async def read_batched(self, work: Work[T], /) -> T:
        """Run a function of a connection that reads by one statement."""

    async def transact(self, work: Work[None], /) -> None:
        """Run a function of a connection in one transaction and commit it."""

    def read_inline(self, statement: str, parameters: Sequence[Any], /) -> list[tuple[Any, ...]] | None:
        """Look at what an index answers at once; None where there is no looking."""

    def check_identity(self) -> None:
        """Raise `DatabaseReplacedError` when another database stands in the place of the one that is open."""

    async def aclose(self) -> None:
        """Close every connection."""


@dataclass(eq=False)
class Database:
    """The mirror's database.

    Parameters
    ----------
    url : sqlalchemy.URL
        `sqlite+aiosqlite` or `postgresql+asyncpg`.
    busy_timeout : float
        Seconds that a write waits for a lock, a disk or a server before it gives up with `DatabaseBusyError`.
    on_wait : Callable[[str], None] | None
        Told why, once each time a write begins to wait.
    """

    url: sa.URL
    busy_timeout: float = float("inf")
    on_wait: Callable[[str], None] | None = None
    waiting: bool = field(default=False, init=False)
    """Whether a write waits for a lock, room on the disk or a server, and tries again and again."""
    _group: Group = field(default_factory=Group, init=False)
    _reads: Group = field(default_factory=Group, init=False)
    _uncertain_commit: tuple[postgresql.CommitUnknownError, list[Job]] | None = field(default=None, init=False)
    """A commit that broke off, and its work."""

    def __post_init__(self) -> None:
        self.store: Store = (sqlite if self.dialect == "sqlite" else postgresql).Store(self.url)

    @classmethod
    def create(cls, url: sa.URL, **options: Any) -> Self:  # noqa: ANN401 - the class's own
        """Open the database, and make the SQLite file first when there is none: mode 0600, for its owner alone.

        Raises
        ------
        DatabaseUnusableError
            The file cannot be made, or used.
        """
        if url.get_backend_name() == "sqlite":
            sqlite.make_file(url)
        return cls(url, **options)

    @property
    def dialect(self) -> str:
        """Return `sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    @cached_property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(self.url.database or "")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        with anyio.CancelScope(shield=True):
            await self.store.aclose()

    async def read(self, work: Work[T]) -> T:
        """Run a function of a connection in a read transaction: one snapshot, nothing written.

        Raises
        ------
        DatabaseReplacedError
            The SQLite file is not the one that was opened; opening it again would make an empty one.
        """
        return await self._patiently(partial(self.store.read, work))

    async def read_batched(self, work: Each, item: Any) -> Any:  # noqa: ANN401 - the work's
        """Ask about an item, by one statement for all that are asked about at the same time; raises what `read` does.

        On PostgreSQL outside of any transaction, which would be two round trips more.
        """
        job = Job(work, item)
        await self._reads.join(job, partial(self._patiently, self._run_reads))
        return job.result

    async def _run_reads(self) -> None:
        batch = self._reads.take()
        try:
            await self.store.read_batched(partial(group_commit.run, jobs=batch))
        except BaseException:
            self._reads.put_back(batch)
            raise
        for job in batch:
            job.end()

    async def write(self, work: Work[T]) -> T:
        """Run a function of a connection in a write transaction and return what it returned, once that is durable.

        The function may run more than once (a transaction that could not commit is begun anew), so it must change
        nothing outside of the database.

        Raises
        ------
        DatabaseBusyError
            The database stayed out of reach for longer than `busy_timeout`.
        DatabaseUnusableError
            It is corrupt, read-only or not the one that was opened.
        """
        result: T = await self._write(Job(group_commit.one_by_one, work))
        return result

    async def write_batched(self, work: Each, item: Any) -> Any:  # noqa: ANN401 - the work's
        """Do what `write` does with an item, together with others that wait for the same work: see `group.run`.

        The work is one and the same function for all of them. When it fails it runs again with each item by itself.
        """
        return await self._write(Job(work, item))

    async def _write(self, job: Job) -> Any:  # noqa: ANN401 - the work's
        await self._group.join(job, self._lead)
        if job.error is not None:
            raise job.error
        return job.result

    def data_version(self) -> int:
        """Return a number that changes when any connection, of this or another program, has committed.

        SQLite's `PRAGMA data_version`: it looks at shared memory and takes no lock, so it may be called on the event
        loop, and often. A look that fails counts as a change.

        Raises
        ------
        DatabaseReplacedError
            The file is not the one that was opened.
        """
        self.check_identity()
        found = self.read_inline("PRAGMA data_version")
        return int(found[0][0]) if found else -1

    def read_inline(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]] | None:
        """Ask SQLite for what an index answers at once, on the event loop: a thread and a transaction cost far more.

        Returns
        -------
        list[tuple] | None
            The rows; None where there is no looking just now, or none without `read`.

        Raises
        ------
        DatabaseReplacedError
            The file is not the one that was opened: told by the first look alone, the file is not looked at each time.
        """
        return self.store.read_inline(statement, parameters)

    def check_identity(self) -> None:
        """Notice that the file was replaced or removed, before anyone acts on what was "committed" to it.

        Raises
        ------
        DatabaseReplacedError
            Another file, or none, stands in the place of the one that is open.
        """
        self.store.check_identity()

    async def _lead(self) -> None:
        """Commit all that waits, this caller's work and that of those behind it, in one transaction."""
        try:
            await self._patiently(self._commit_waiting)
        except DatabaseUnusableError as reason:
            for job in self._group.take():  # all have waited: one try each would outlast the grace of a shutdown
                job.error = reason
                job.end()
            raise

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step; when the database is in the way, wait and do it again, for as long as `busy_timeout` allows."""
        began, pause, waited = anyio.current_time(), 0.05, False
        try:
            while True:
                try:
                    with anyio.CancelScope(shield=True):
                        return await step()
                except Exception as error:  # noqa: BLE001 - raised again when it is not worth a wait
                    reason = self._worth_a_wait(error, began)
                if reason is None:
                    await anyio.sleep(random.uniform(0, CONFLICT_SECONDS))  # noqa: S311 - no secret
                    continue
                if not waited and self.on_wait is not None:
                    self.on_wait(reason)
                self.waiting = waited = True
                await anyio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            if waited:  # and not by each read that goes well while a write waits
                self.waiting = False

    def _worth_a_wait(self, error: Exception, began: float) -> str | None:
        """Say why a step is to be done again later, None when at once; raise what is not to be waited for."""
        reason = classify_error(error)
        if reason is None:
            raise error
        if not isinstance(reason, DatabaseBusyError) or anyio.current_time() - began >= self.busy_timeout:
            raise reason from error
        return None if postgresql.is_conflict(error) else str(reason)

    async def _commit_waiting(self) -> None:
        if self._uncertain_commit is not None:
            await self._settle_doubt(*self._uncertain_commit)
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
        for job in batch:
            job.end()

    async def _settle_doubt(self, commit: postgresql.CommitUnknownError, batch: list[Job]) -> None:
        """Find out whether a commit that broke off has happened: then its work must not run a second time."""
        if await commit.has_happened():
            self._group.put_back([job for job in self._group.take() if job not in batch])
            for job in batch:
                job.end()
        self._uncertain_commit = None

    async def _run(self, batch: list[Job]) -> None:
        """Run a batch as one transaction; when a job of several fails, run it again with the jobs kept apart."""
        try:
            await self.store.transact(partial(group_commit.run, jobs=batch))
        except Exception as error:
            if len(batch) == 1 or classify_error(error) is not None:
                raise
        else:
            return
        await self.store.transact(partial(_run_apart, batch=batch))


def _run_apart(connection: Connection, batch: list[Job]) -> None:
    """Run each job in a savepoint; what it raises is its own, unless the database itself is in trouble."""
    for job in batch:
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


def classify_error(error: Exception) -> Exception | None:
    """Say what an error means for the database; None when the error is about the work and not the database."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return sqlite.classify_error(cause) if isinstance(cause, sqlite3.Error) else postgresql.classify_error(error)
