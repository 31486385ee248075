"""SQLite's side of `Database`: one file with one writing connection, and what an error means.

The writer's connection lives in one thread, in which a transaction runs in one piece; readers are others and read-only.
A third, on the event loop, only ever looks at what an index answers at once.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from syncd.errors import DatabaseBusyError, DatabaseReplacedError, DatabaseUnusableError
from syncd.mirror.db.file_access import file_error, folder_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

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
_FATAL = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
BUSY_SECONDS = 1.0
"""How long one try for SQLite's lock lasts inside the driver, where nothing can cancel it."""
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


class Store:
    """The file, and the connections to it."""

    def __init__(self, url: sa.URL) -> None:
        self.path = Path(url.database or "")
        self._identity = _identity(self.path)
        # What is sorted beyond the page cache goes into files beside the database, the one place that is surely
        # writable: an index over a million sessions took 80 MB of memory.
        os.environ.setdefault("SQLITE_TMPDIR", str(self.path.parent))
        self._reader = engine(url, write=False)
        self.writer = sa.create_engine(
            url.set(drivername="sqlite"),
            poolclass=sa.pool.StaticPool,
            hide_parameters=True,  # names of sessions are in them, and tracebacks go to the log
            connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
        )
        prepare(self.writer, WRITER_PRAGMAS, begin="BEGIN IMMEDIATE")
        self._thread = anyio.CapacityLimiter(1)
        self._connection: Connection | None = None
        self._watcher: sqlite3.Connection | None = None

    async def aclose(self) -> None:
        """Close every connection; the last one to leave the file takes its write-ahead log along."""
        if self._watcher is not None:
            self._watcher.close()
        await self._reader.dispose()
        await anyio.to_thread.run_sync(self._close_writer, limiter=self._thread)

    def _close_writer(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self.writer.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function of a connection in a transaction that sees one snapshot and writes nothing."""
        self.check_identity()
        try:
            async with self._reader.connect() as connection:
                return await connection.run_sync(work)
        finally:
            self.check_identity()  # a connection that was opened just now may be to another file

    async def read_batched(self, work: Callable[[Connection], T]) -> T:
        """Do what `read` does: a transaction costs nothing here."""
        return await self.read(work)

    async def transact(self, work: Callable[[Connection], None]) -> None:
        """Run a function of a connection in one transaction of the writer and commit it."""
        self.check_identity()
        try:
            await anyio.to_thread.run_sync(self._transact, work, limiter=self._thread)
        except Exception as error:
            if is_full(error):
                await self._checkpoint("TRUNCATE")
            raise
        if _room(self.path) < LOW_ROOM:
            await self._checkpoint("PASSIVE")
        self.check_identity()

    def _transact(self, work: Callable[[Connection], None]) -> None:
        if self._connection is None:
            self._connection = self.writer.connect()
        with self._connection.begin():
            work(self._connection)

    async def _checkpoint(self, mode: str) -> None:
        """Move the write-ahead log into the database, as far as readers and the disk allow.

        On a disk that is nearly full it must not be left to grow: the move itself needs room for the pages that the
        database does not have yet, and a log that has taken the last of it can neither grow nor be moved.
        """
        with suppress(sqlite3.Error):
            await anyio.to_thread.run_sync(_checkpoint, self.writer, mode, limiter=self._thread)

    def read_inline(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        """Look, on the event loop; None where there is no looking just now."""
        try:
            if self._watcher is None:
                self.check_identity()
                self._watcher = sqlite3.connect(self.path, timeout=0, isolation_level=None)
                self._watcher.execute("PRAGMA query_only=ON")
            return self._watcher.execute(statement, parameters).fetchall()
        except sqlite3.OperationalError:
            return None

    def check_identity(self) -> None:
        """Notice that the file was replaced or removed, before anyone acts on what was "committed" to it.

        Raises
        ------
        DatabaseReplacedError
            Another file, or none, stands in the place of the one that is open.
        """
        if _identity(self.path) != self._identity:
            raise DatabaseReplacedError(
                f"{self.path} was replaced or removed while syncd had it open; nothing more is sent to Albert. "
                "Put the file back, or start syncd anew on the file that is there"
            )


def make_file(url: sa.URL) -> None:
    """Make the file when there is none: mode 0600, for its owner alone.

    Raises
    ------
    DatabaseUnusableError
        The file cannot be made, or used.
    """
    path = url.database or ""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:  # and not opened: closing a descriptor of it would drop SQLite's locks on it
        if (problem := _problem(path)) is not None:
            raise DatabaseUnusableError(f"the database {path} {problem}") from None
    except OSError as error:
        raise file_error(path, error) from error


def _problem(path: str) -> str | None:
    """Say why what stands in the place of the file cannot be used; None when it can."""
    if os.path.isdir(path):  # noqa: PTH112 - it is text
        return "is a directory; SYNCD_DATABASE_URL names the file"
    if not os.path.exists(path):  # noqa: PTH110
        return f"is a link to {os.path.realpath(path)}, which is not there; is its disk mounted?"
    if not os.access(path, os.R_OK | os.W_OK):
        return "may not be read and written by this user; change its owner or mode, or set SYNCD_DATABASE_URL"
    return folder_problem(path)


def engine(url: sa.URL, *, write: bool) -> AsyncEngine:
    """Make an engine of connections that are not the daemon's writer."""
    made = create_async_engine(url, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True)
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    prepare(made.sync_engine, WRITER_PRAGMAS if write else READER_PRAGMAS, begin=begin)
    return made


def prepare(made: Engine, pragmas: tuple[str, ...], *, begin: str) -> None:
    """Set an engine's connections up as `semantics.md` says.

    The driver's own transaction handling is switched off: it begins transactions late and DEFERRED, which loses
    read-modify-writes.
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


def classify_error(error: sqlite3.Error) -> Exception | None:
    """Say what an error means for the database; None when the error is about the work and not the database."""
    code = _code(error)
    if code in _WAITED_FOR:
        return DatabaseBusyError(f"the database cannot be used right now: {error}")
    if code in _FATAL:
        return DatabaseUnusableError(
            f"the database cannot be used: {error}; restore a backup or point SYNCD_DATABASE_URL elsewhere. "
            "syncd does not repair or replace it"
        )
    return None


def is_full(error: Exception) -> bool:
    """Whether an error says that the disk is full."""
    return _code(error.orig if isinstance(error, sa.exc.DBAPIError) else error) == sqlite3.SQLITE_FULL


def _code(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - on the hot path
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _checkpoint(made: Engine, mode: str) -> None:
    with closing(made.raw_connection()) as connection:
        connection.driver_connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()  # type: ignore[union-attr]


def _room(path: Path) -> int:
    """Return the bytes that are left on a file's disk."""
    try:
        room = os.statvfs(path.parent)
    except OSError:
        return LOW_ROOM
    return room.f_bavail * room.f_frsize
