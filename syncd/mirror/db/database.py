"""The mirror's database: reads, and writes through one writer.

`Database.write` runs a function of a `Connection` in a transaction. Writes that wait at the same time are committed
together (`group_commit`). A transaction runs without interruption, in a worker thread on SQLite and behind a shield on
PostgreSQL: cancellation takes effect before or after it.

A lock of another program, a full disk or a lost connection is waited for (`retries`). A file that is corrupt, foreign
or not the one that was opened ends the program (`DatabaseUnusableError`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import anyio
import sqlalchemy as sa

from syncd.clock import Clock, SystemClock
from syncd.mirror.db import group_commit
from syncd.mirror.db.backends import Store, backend_of
from syncd.mirror.db.group_commit import BatchedReads, Each, Job, Writer
from syncd.mirror.db.retries import Failures, Retries, work_name
from syncd.mirror.db.shared_clock import SharedClock

Connection: TypeAlias = sa.Connection
"""A transaction, as the functions that read and write in it receive it."""
T = TypeVar("T")
Work = Callable[[Connection], T]


class Reader(Protocol):
    """Reads a mirror: a `Database`, or an empty substitute for one that was not created yet."""

    async def read(self, work: Work[T]) -> T:
        """See `Database.read`."""
        ...


class Database:
    """The mirror's database.

    Parameters
    ----------
    url : sqlalchemy.URL
        `sqlite+aiosqlite` or `postgresql+asyncpg`.
    busy_timeout : float
        Seconds that a transaction waits for a lock, a disk or a server before it fails with `DatabaseBusyError`.
    on_wait : Callable[[str], None] | None
        Called with the reason when transactions begin to wait.
    on_resume : Callable[[float], None] | None
        Called with the seconds that were waited when they continue.
    retries : Retries | None
        Instead of the last three: shared with the code that waited for the same database before it was opened.
    store : Store | None
        Instead of connections of its own, for tests that control each step.
    host_clock : Clock | None
        The clock of this host, by default the real one. `clock` is the one by which all daemons of the database judge
        times.

    Raises
    ------
    DatabaseUnusableError
        The SQLite file has a second name: a hard link, or it is mounted as a single file.
    """

    def __init__(
        self,
        url: sa.URL,
        *,
        busy_timeout: float = float("inf"),
        on_wait: Callable[[str], None] | None = None,
        on_resume: Callable[[float], None] | None = None,
        retries: Retries | None = None,
        store: Store | None = None,
        host_clock: Clock | None = None,
    ) -> None:
        self.url = url
        self.backend = backend_of(url)
        self.retries = retries or Retries(busy_timeout, on_wait, on_resume)
        self.store: Store = store or self.backend.open()
        self.clock: SharedClock = self.store.shared_clock(host_clock or SystemClock())
        self._writer = Writer(self.store, self.retries)
        self._reads = BatchedReads(self.store, self.retries)

    @classmethod
    def create(cls, url: sa.URL, **options: Any) -> Self:  # noqa: ANN401 - the class's own
        """Open the database, and create the SQLite file first if there is none, with mode 0600.

        Raises
        ------
        DatabaseBusyError
            The disk is full.
        DatabaseUnusableError
            The file cannot be created or used.
        """
        backend_of(url).create()
        return cls(url, **options)

    @property
    def dialect(self) -> str:
        """The name of the database's kind, for logs: `sqlite` or `postgresql`."""
        return self.backend.name

    @property
    def path(self) -> Path:
        """The SQLite file; an empty path for PostgreSQL."""
        return self.backend.file or Path()

    @property
    def waiting(self) -> bool:
        """Whether a transaction waits for a lock, room on the disk or a server."""
        return self.retries.waiting

    @property
    def wait_reason(self) -> str | None:
        """Why a transaction waits; None if none does."""
        return self.retries.wait_reason

    @property
    def failures(self) -> Failures:
        """The work that failed since it last succeeded."""
        return self.retries.failures

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        with anyio.CancelScope(shield=True):
            await self.store.aclose()

    def now(self, connection: Connection) -> datetime:
        """Read the shared clock inside a transaction, which may have waited long for its turn."""
        return self.clock.read(connection)

    async def read(self, work: Work[T]) -> T:
        """Run a function of a connection in a read transaction: one snapshot, nothing written.

        Raises
        ------
        DatabaseBusyError, DatabaseUnusableError
            As `write`; in particular `DatabaseReplacedError`: the SQLite file is not the one that was opened.
        """
        return await self.retries.run(partial(work_name, work), partial(self.store.read, work))

    async def read_batched(self, work: Each, item: Any) -> Any:  # noqa: ANN401 - the work's result
        """Query one item, in one statement with the items of other callers; raises what `read` does.

        On PostgreSQL the statement runs without a transaction, which would be two more round trips.
        """
        return await self._reads.read(Job(work, item))

    async def write(self, work: Work[T]) -> T:
        """Run a function of a connection in a write transaction and return its result once that is durable.

        The function may run more than once: a transaction that could not be committed runs again. It must change
        nothing outside of the database.

        Raises
        ------
        DatabaseBusyError
            The database could not be used for longer than `busy_timeout`.
        DatabaseUnusableError
            It is corrupt, read-only or not the one that was opened.
        """
        result: T = await self._writer.write(Job(group_commit.one_by_one, work))
        return result

    async def write_batched(self, work: Each, item: Any) -> Any:  # noqa: ANN401 - the work's result
        """Do the same as `write` for one item, together with other callers of the same work (see `group_commit.run`).

        The work is the same function for all of them. When it fails, it runs again with each item by itself.
        """
        return await self._writer.write(Job(work, item))

    def data_version(self) -> int:
        """Return a number that changes when any connection, of this or another program, has committed.

        SQLite's `PRAGMA data_version` reads shared memory and takes no lock, so it may be called on the event loop,
        and often. -1 if the query fails: another program holds the
        file, or it is damaged.

        Raises
        ------
        DatabaseReplacedError
            The file is not the one that was opened.
        """
        self.check_identity()
        rows = self.read_inline("PRAGMA data_version")
        return int(rows[0][0]) if rows else -1

    def read_inline(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]] | None:
        """Query SQLite on the event loop, for what an index answers immediately: a thread would cost far more.

        Returns
        -------
        list[tuple] | None
            The rows. None if the query cannot run now, or always on PostgreSQL: then use `read`.

        Raises
        ------
        DatabaseReplacedError
            The file is not the one that was opened; only the first call checks this.
        """
        return self.store.read_inline(statement, parameters)

    def check_identity(self) -> None:
        """Check that the file was not replaced or removed, before anything is done because of a commit to it.

        Raises
        ------
        DatabaseReplacedError
            Another file, or none, is in the place of the one that is open.
        """
        self.store.check_identity()
