"""SQLite below `Database`: one file with one writing connection, and the meaning of its errors.

The writing connection lives in one thread, in which a transaction runs without interruption. Readers are separate,
read-only connections, each in a thread for the time of a transaction. A further connection on the event loop runs only
statements that an index answers immediately.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa

from syncd.errors import DatabaseAwayError, DatabaseBusyError, DatabaseUnusableError
from syncd.mirror.db import raw, sqlite_file
from syncd.mirror.db.file_access import missing_room
from syncd.mirror.db.shared_clock import HostClock, SharedClock
from syncd.mirror.db.sqlite_module import sqlite3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from syncd.clock import Clock

T = TypeVar("T")
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
_AWAY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
_MAYBE_NO_ROOM = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_UNWRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BROKEN_DISK = "; is the disk broken, or its file system read-only now? see: dmesg, findmnt"
BUSY_SECONDS = 1.0
"""Seconds that one try waits for SQLite's lock inside the driver, where it cannot be cancelled."""
WRITER_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-16384",
    "journal_size_limit=16777216",
)
READER_PRAGMAS = ("query_only=ON", "cache_size=-4096")
READERS = 4
"""Reading connections at once; each has a page cache of 4 MB."""
INTERRUPTIBLE_EVERY = 100_000
"""Instructions of SQLite's virtual machine after which a read checks whether it was cancelled: about a millisecond."""
_DRIVER_NAMES = (
    "DatabaseError", "Error", "IntegrityError", "NotSupportedError", "OperationalError", "ProgrammingError",
    "sqlite_version", "sqlite_version_info",
)  # fmt: skip
"""What SQLAlchemy reads from aiosqlite and must find as it is in syncd's SQLite."""


class Store:
    """The connections to one file.

    Raises
    ------
    DatabaseUnusableError
        The file has a second name (see `sqlite_file.require_single_name`).
    """

    def __init__(self, url: sa.URL) -> None:
        self.path = Path(url.database or "")
        sqlite_file.require_single_name(self.path)
        self._identity = sqlite_file.identity(self.path)
        self._reader = sync_engine(self.path, check_same_thread=False)
        prepare(self._reader, READER_PRAGMAS, begin="BEGIN")
        self._readers = anyio.CapacityLimiter(READERS)
        self.writer = sync_engine(self.path, poolclass=sa.pool.StaticPool, check_same_thread=False)
        prepare(self.writer, WRITER_PRAGMAS, begin="BEGIN IMMEDIATE")
        self._thread = anyio.CapacityLimiter(1)
        self._connection: Connection | None = None
        self._watcher: sqlite3.Connection | None = None

    async def aclose(self) -> None:
        """Close every connection; the last one that closes the file removes its write-ahead log."""
        if self._watcher is not None:
            self._watcher.close()
        await anyio.to_thread.run_sync(self._close_engines, limiter=self._thread)

    def _close_engines(self) -> None:
        self._reader.dispose()
        if self._connection is not None:
            self._connection.close()
        self.writer.dispose()

    def shared_clock(self, host: Clock) -> SharedClock:
        """Return the host's clock: the one daemon of the file is alone with it."""
        return HostClock(host)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function of a connection in a transaction that sees one snapshot and writes nothing."""
        self.check_identity()
        try:
            with _room_checked(self.path):
                return await self._read_in_thread(work)
        finally:
            self.check_identity()  # a connection that was opened just now may be to another file

    async def _read_in_thread(self, work: Callable[[Connection], T]) -> T:
        """Run a function in a thread. An interrupt from the keyboard interrupts SQLite too, and so ends the thread."""
        cancelled = threading.Event()

        def read() -> T:
            with self._reader.connect() as connection:
                raw.sqlite(connection).set_progress_handler(cancelled.is_set, INTERRUPTIBLE_EVERY)
                return work(connection)

        try:
            return await anyio.to_thread.run_sync(read, limiter=self._readers)
        except anyio.get_cancelled_exc_class():
            cancelled.set()
            raise

    async def read_batched(self, work: Callable[[Connection], T]) -> T:
        """Do the same as `read`: a transaction costs nothing here."""
        return await self.read(work)

    async def transact(self, work: Callable[[Connection], None]) -> None:
        """Run a function of a connection in one transaction of the writer and commit it."""
        self.check_identity()
        try:
            with _room_checked(self.path):
                await anyio.to_thread.run_sync(self._transact, work, limiter=self._thread)
        except Exception as error:
            if is_full(error):
                await self._checkpoint("TRUNCATE")
            raise
        if sqlite_file.room(self.path) < sqlite_file.LOW_ROOM:
            await self._checkpoint("PASSIVE")
        self.check_identity()

    def _transact(self, work: Callable[[Connection], None]) -> None:
        if self._connection is None:
            self._connection = self.writer.connect()
        with self._connection.begin():
            work(self._connection)

    async def _checkpoint(self, mode: str) -> None:
        """Move the write-ahead log into the database, as far as readers and the disk allow.

        On a disk that is nearly full the log must not grow: the checkpoint itself needs room for new pages of the
        database, and a log that has used the last of it can neither grow nor be checkpointed.
        """
        with suppress(sqlite3.Error):
            await anyio.to_thread.run_sync(_checkpoint, self.writer, mode, limiter=self._thread)

    def read_inline(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        """Run a query on the event loop; return None if it cannot run now."""
        try:
            if self._watcher is None:
                self.check_identity()
                self._watcher = sqlite3.connect(self.path, timeout=0, isolation_level=None)
                self._watcher.execute("PRAGMA query_only=ON")
            return self._watcher.execute(statement, parameters).fetchall()
        except sqlite3.Error:  # also of a damaged file: the caller's `read` finds out, and reports it
            return None

    def check_identity(self) -> None:
        """Check that the path still leads to the file that is open.

        Raises
        ------
        DatabaseReplacedError
            Another file, or none, is at the path.
        """
        sqlite_file.require_identity(self.path, self._identity)

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead log in bytes."""
        try:
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - called often, and no Path for it
        except OSError:
            return 0


def sync_engine(path: Path | None, *, poolclass: type[sa.Pool] | None = None, check_same_thread: bool = True) -> Engine:
    """Return an engine that blocks its thread; without a path, of a database in memory."""
    url = sa.URL.create("sqlite", database=None if path is None else str(path))
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": check_same_thread}
    # parameters contain the names of sessions, and tracebacks go to the log
    return sa.create_engine(url, module=sqlite3, poolclass=poolclass, hide_parameters=True, connect_args=arguments)


def engine(url: sa.URL, *, write: bool) -> AsyncEngine:
    """Return an async engine, for transactions that last long."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - also imports SQLAlchemy's ORM

    made = create_async_engine(
        url, module=_async_driver(), connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True
    )
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    prepare(made.sync_engine, WRITER_PRAGMAS if write else READER_PRAGMAS, begin=begin)
    return made


def _async_driver() -> Any:  # noqa: ANN401 - a module, as SQLAlchemy expects it
    """Return aiosqlite on top of syncd's SQLite; by itself it opens files with Python's own."""
    import aiosqlite  # noqa: PLC0415 - a `Store` does not need it
    from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi  # noqa: PLC0415

    def connect(database: str, **options: Any) -> aiosqlite.Connection:  # noqa: ANN401 - sqlite3.connect's
        return aiosqlite.Connection(lambda: sqlite3.connect(database, **options), iter_chunk_size=64)

    ours = {name: getattr(sqlite3, name) for name in _DRIVER_NAMES}
    driver: Any = SimpleNamespace(**{**vars(aiosqlite), **ours, "connect": connect})
    library: Any = sqlite3
    return AsyncAdapt_aiosqlite_dbapi(driver, library)


def prepare(made: Engine, pragmas: tuple[str, ...], *, begin: str) -> None:
    """Set the pragmas of an engine's connections, and the statement that begins their transactions.

    The driver's own transactions are switched off: they begin late and DEFERRED, which loses read-modify-writes.
    """

    @sa.event.listens_for(made, "connect")
    def _(connection: Any, _record: object) -> None:  # noqa: ANN401 - pysqlite's or aiosqlite's
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(made, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


@contextmanager
def _room_checked(path: Path) -> Iterator[None]:
    """Raise an error as a `DatabaseAwayError` if the disk has no room for the files beside the database."""
    try:
        yield
    except (sqlite3.Error, sa.exc.DBAPIError) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if _code(cause) in _MAYBE_NO_ROOM and (room := missing_room(path)) is not None:
            raise DatabaseAwayError(f"the database cannot be used right now: {cause}: {room}") from error
        raise


def classify_error(error: BaseException) -> Exception | None:
    """Return the meaning of an error for the database; None if the error is the statement's own."""
    code = _code(error)
    if code in _WAITED_FOR:
        kind = DatabaseAwayError if code in _AWAY else DatabaseBusyError
        hint = _BROKEN_DISK if code == sqlite3.SQLITE_IOERR else ""
        return kind(f"the database cannot be used right now: {error}{hint}")
    if code in _UNWRITABLE:
        return DatabaseUnusableError(
            f"the database cannot be used: {error}; its file system may have become read-only: see dmesg and findmnt, "
            "then: mount -o remount,rw. If it is writable, change the owner or mode of the file"
        )
    if code in _DAMAGED:
        return DatabaseUnusableError(
            f"the database cannot be used: {error}; restore a backup, or point SYNCD_DATABASE_URL at another file. "
            "syncd does not repair or replace it"
        )
    return None


def is_full(error: Exception) -> bool:
    """Return whether an error says that the disk is full."""
    return _code(error.orig if isinstance(error, sa.exc.DBAPIError) else error) == sqlite3.SQLITE_FULL


def _code(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)) & 0xFF


def _checkpoint(made: Engine, mode: str) -> None:
    with closing(made.raw_connection()) as connection:
        connection.driver_connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()  # type: ignore[union-attr]
