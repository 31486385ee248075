"""One database, one writer: how a transaction gets in, and what happens when it cannot.

`Database.write` takes a function of a `Connection` and runs it in a transaction. Writes that wait at the same time are
committed together (`group.py`); when one of them fails, all run again, each inside a savepoint of its own, so that it
does not take the others along. A transaction runs in one piece, in a worker thread on SQLite and behind a shield
on PostgreSQL: cancellation comes before it or after it, never in its middle.

A lock that another program holds, a full disk, or a lost connection is waited for (`patience`); a file that is
corrupt, foreign or not the one that was opened ends the program (`DatabaseUnusableError`).
"""

from __future__ import annotations

import os
import random
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from syncd.errors import DatabaseBusyError, DatabaseReplacedError, DatabaseUnusableError
from syncd.mirror import driver, group, postgres
from syncd.mirror.group import Each, Group, Job

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")
Work = Callable[["Connection"], T]

_WAITED_FOR = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)
_FATAL = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
BUSY_SECONDS = 1.0
"""How long one try for SQLite's lock lasts inside the driver, where nothing can cancel it."""
LONGEST_PAUSE = 2.0
CONFLICT_SECONDS = 0.02
"""At most so long after a deadlock or a lost race the transaction runs again."""
LOW_ROOM = 16 * 1024 * 1024
"""Bytes left on the disk below which the write-ahead log is emptied after every transaction."""
WRITER_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-16384",
    "journal_size_limit=16777216",
)
READER_PRAGMAS = ("query_only=ON", "cache_size=-4096")


@dataclass(eq=False)
class Database:
    """The mirror's database.

    Parameters
    ----------
    url : sqlalchemy.URL
        `sqlite+aiosqlite` or `postgresql+asyncpg`.
    patience : float
        Seconds that a write waits for a lock, a disk or a server before it gives up with `DatabaseBusyError`.
    on_wait : Callable[[str], None] | None
        Told why, once each time a write begins to wait.
    """

    url: sa.URL
    patience: float = float("inf")
    on_wait: Callable[[str], None] | None = None
    _group: Group = field(default_factory=Group)
    _asking: Group = field(default_factory=Group)
    waiting: bool = field(default=False, init=False)
    """Whether a write waits for a lock, room on the disk or a server, and tries again and again."""
    _doubt: tuple[int, list[Job]] | None = None
    """The number and the work of a transaction whose commit broke off on PostgreSQL."""
    _writer_id: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    _transactions: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._writer: Engine | None = None
        self._connection: Connection | None = None
        self._watcher: sqlite3.Connection | None = None
        if self.dialect == "sqlite":
            self._identity = _identity(self.path)
            # What is sorted beyond the page cache goes into files beside the database, the one place that is surely
            # writable: an index over a million sessions took 80 MB of memory.
            os.environ.setdefault("SQLITE_TMPDIR", str(self.path.parent))
            self._reader = create_async_engine(self.url, connect_args={"timeout": BUSY_SECONDS})
            self._writer = sa.create_engine(
                self.url.set(drivername="sqlite"),
                poolclass=sa.pool.StaticPool,
                connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
            )
            prepare_sqlite(self._writer, WRITER_PRAGMAS, begin="BEGIN IMMEDIATE")
            prepare_sqlite(self._reader.sync_engine, READER_PRAGMAS, begin="BEGIN")
        else:
            self._reader = postgres.engine(self.url)
        self._thread = anyio.CapacityLimiter(1)

    @classmethod
    def create(cls, url: sa.URL, **options: Any) -> Self:  # noqa: ANN401 - the class's own
        """Open the database, and make the SQLite file first when there is none: mode 0600, for its owner alone.

        Raises
        ------
        DatabaseUnusableError
            The file cannot be made.
        """
        if url.get_backend_name() == "sqlite":
            path = url.database or ""
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            except FileExistsError:  # and not opened: closing a descriptor of it would drop SQLite's locks on it
                if os.path.isdir(path) or not os.access(path, os.R_OK | os.W_OK):  # noqa: PTH112 - it is text
                    raise DatabaseUnusableError(
                        f"the database {path} is a directory, or this user may not read and write it; "
                        "SYNCD_DATABASE_URL names the file"
                    ) from None
            except OSError as error:
                raise DatabaseUnusableError(f"cannot open the database {path}: {error.strerror}") from error
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
        """Close every connection; the last one to leave a SQLite file takes its WAL along."""
        with anyio.CancelScope(shield=True):
            if self._watcher is not None:
                self._watcher.close()
            await self._reader.dispose()
            if self._writer is not None:
                await anyio.to_thread.run_sync(self._close_writer, self._writer, limiter=self._thread)

    def _close_writer(self, writer: Engine) -> None:
        if self._connection is not None:
            self._connection.close()
        writer.dispose()

    async def read(self, work: Work[T]) -> T:
        """Run a function of a connection in a read transaction: one snapshot, nothing written.

        Raises
        ------
        DatabaseReplacedError
            The SQLite file is not the one that was opened; opening it again would make an empty one.
        """
        if self.dialect == "postgresql":
            return await self._patiently(partial(postgres.read, self._reader, work))
        self.check_identity()
        try:
            with anyio.CancelScope(shield=True):
                async with self._reader.connect() as connection:
                    result = await connection.run_sync(work)
        except Exception as error:
            reason = translated(error)
            if reason is None:
                raise
            raise reason from error
        return result

    async def ask(self, work: Each, item: Any) -> Any:  # noqa: ANN401 - the work's
        """Ask about an item, by one statement for all that are asked about at the same time; raises what `read` does.

        On PostgreSQL outside of any transaction, which would be two round trips more.
        """
        if self.dialect == "sqlite":
            return (await self.read(lambda connection: work(connection, [item])))[0]
        job = Job(work, item)
        await self._asking.join(job, partial(self._patiently, self._ask_waiting))
        return job.result

    async def _ask_waiting(self) -> None:
        batch = self._asking.take()
        try:
            await postgres.ask(self._reader, partial(group.run, jobs=batch))
        except Exception:
            self._asking.put_back(batch)
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
            The database stayed out of reach for longer than `patience`.
        DatabaseUnusableError
            It is corrupt, read-only or not the one that was opened.
        """
        result: T = await self._write(Job(group.one_by_one, work))
        return result

    async def write_each(self, work: Each, item: Any) -> Any:  # noqa: ANN401 - the work's
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
        found = self.peek("PRAGMA data_version")
        return int(found[0][0]) if found else -1

    def peek(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]] | None:
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
        if self._writer is None:
            return None
        try:
            if self._watcher is None:
                self.check_identity()
                self._watcher = sqlite3.connect(self.path, timeout=0, isolation_level=None)
                self._watcher.execute("PRAGMA query_only=ON")
            return self._watcher.execute(statement, parameters).fetchall()
        except sqlite3.OperationalError:
            return None

    async def _lead(self) -> None:
        """Commit all that waits, this caller's work and that of those behind it, in one transaction."""
        try:
            await self._patiently(self._commit_waiting)
        except DatabaseUnusableError as reason:
            for job in self._group.take():  # all have waited: one try each would outlast the grace of a shutdown
                job.error = reason
                job.end()
            raise
        finally:
            self.waiting = False

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step; when the database is in the way, wait and do it again, for as long as `patience` allows."""
        began, pause, told = anyio.current_time(), 0.05, False
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    return await step()
            except Exception as error:
                reason = translated(error)
                if reason is None:
                    raise
                if not isinstance(reason, DatabaseBusyError) or anyio.current_time() - began >= self.patience:
                    raise reason from error
                if postgres.is_conflict(error):
                    await anyio.sleep(random.uniform(0, CONFLICT_SECONDS))  # noqa: S311 - no secret
                    continue
                if not told and self.on_wait is not None:
                    self.on_wait(str(reason))
                    told = True
                self.waiting = True
                if _is_full(error):
                    await self._checkpoint("TRUNCATE")
                await anyio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _commit_waiting(self) -> None:
        if self._doubt is not None:
            await self._settle_doubt(*self._doubt)
        batch = self._group.take()
        if not batch:
            return
        try:
            await self._run(batch)
        except Exception as error:
            self._group.put_back(batch)
            if isinstance(error, postgres.CommitUnknownError):
                self._doubt = self._transactions, batch
            raise
        for job in batch:
            job.end()

    async def _settle_doubt(self, number: int, batch: list[Job]) -> None:
        """Find out whether a commit that broke off has happened: then its work must not run a second time."""
        if await postgres.committed(self._reader, writer=self._writer_id, number=number):
            self._group.put_back([job for job in self._group.take() if job not in batch])
            for job in batch:
                job.end()
        self._doubt = None

    async def _checkpoint(self, mode: str) -> None:
        """Move the write-ahead log into the database, as far as readers and the disk allow.

        On a disk that is nearly full it must not be left to grow: the move itself needs room for the pages that the
        database does not have yet, and a log that has taken the last of it can neither grow nor be moved.
        """
        if self._writer is not None:
            with anyio.CancelScope(shield=True), suppress(sqlite3.Error):
                await anyio.to_thread.run_sync(_checkpoint, self._writer, mode, limiter=self._thread)

    async def _run(self, batch: list[Job]) -> None:
        """Run a batch as one transaction; when a job of several fails, run it again with the jobs kept apart."""
        try:
            await self._transaction(partial(group.run, jobs=batch))
        except Exception as error:
            if len(batch) == 1 or translated(error) is not None:
                raise
        else:
            return
        await self._transaction(partial(_run_apart, batch=batch))

    async def _transaction(self, work: Callable[[Connection], None]) -> None:
        if self._writer is None:
            self._transactions += 1
            await postgres.transact(self._reader, work, writer=self._writer_id, number=self._transactions)
            return
        self.check_identity()
        await anyio.to_thread.run_sync(self._transact, self._writer, work, limiter=self._thread)
        if _room(self.path) < LOW_ROOM:
            await self._checkpoint("PASSIVE")
        self.check_identity()

    def _transact(self, writer: Engine, work: Callable[[Connection], None]) -> None:
        """Work in a transaction on the writer's one connection, in its thread."""
        if self._connection is None:
            self._connection = writer.connect()
        with self._connection.begin():
            work(self._connection)

    def check_identity(self) -> None:
        """Notice that the file was replaced or removed, before anyone acts on what was "committed" to it.

        Raises
        ------
        DatabaseReplacedError
            Another file, or none, stands in the place of the one that is open.
        """
        if self._writer is None:
            return
        identity = _identity(self.path)
        if identity != self._identity:
            raise DatabaseReplacedError(
                f"{self.path} was replaced or removed while syncd had it open; nothing more is sent to Albert. "
                "Put the file back, or start syncd anew on the file that is there"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - on the hot path
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def prepare_sqlite(engine: Engine, pragmas: tuple[str, ...], *, begin: str) -> None:
    """Set a SQLite engine's connections up as `semantics.md` says.

    The driver's own transaction handling is switched off: it begins transactions late and DEFERRED, which loses
    read-modify-writes.
    """

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:  # noqa: ANN401 - pysqlite's or aiosqlite's
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _checkpoint(engine: Engine, mode: str) -> None:
    with closing(engine.raw_connection()) as connection:
        connection.driver_connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()  # type: ignore[union-attr]


def _room(path: Path) -> int:
    """Return the bytes that are left on a file's disk."""
    try:
        room = os.statvfs(path.parent)
    except OSError:
        return LOW_ROOM
    return room.f_bavail * room.f_frsize


def _is_full(error: Exception) -> bool:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _run_apart(connection: Connection, batch: list[Job]) -> None:
    """Run each job in a savepoint; what it raises is its own, unless the database itself is in trouble."""
    for job in batch:
        job.result, job.error = None, None
        savepoint = driver.savepoint(connection)
        try:
            (job.result,) = job.work(connection, [job.item])
        except Exception as error:
            if translated(error) is not None:
                raise
            savepoint.rollback()
            job.error = error
        else:
            savepoint.commit()


def translated(error: Exception) -> Exception | None:
    """Say what an error means for the database; None when the error is about the work and not the database."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in _WAITED_FOR:
            return DatabaseBusyError(f"the database cannot be used right now: {cause}")
        if code in _FATAL:
            return DatabaseUnusableError(
                f"the database cannot be used: {cause}; restore a backup or point SYNCD_DATABASE_URL elsewhere. "
                "syncd does not repair or replace it"
            )
        return None
    return postgres.translated(error)
