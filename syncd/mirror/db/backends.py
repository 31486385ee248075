"""The two kinds of database, as commands and the composition root see them: one interface, two implementations.

`backend_of` returns the one for a URL. Code that needs something that differs between SQLite and PostgreSQL calls
a method here instead of asking which database is in use::

    backend = backend_of(url)
    backend.require_exists()                        # a SQLite file; a server is contacted later
    async with backend.hold("run", ...) as leadership:  # the lock beside the file, or one replica of several
        ...

Statements that differ are in `dialects`.
"""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from syncd.mirror.db import change_feed, leader, pg_pool, postgresql, sqlite, sqlite_file
from syncd.mirror.db.daemon_lock import DaemonLock, daemon_lock, require_free

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    import sqlalchemy as sa
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from syncd.clock import Clock
    from syncd.mirror.db.change_feed import ChangeFeed
    from syncd.mirror.db.database import Database
    from syncd.mirror.db.leader import Leadership
    from syncd.mirror.db.retries import Retries
    from syncd.mirror.db.shared_clock import SharedClock

T = TypeVar("T")


class Store(Protocol):
    """The connections of a `Database`: `sqlite.Store` or `postgresql.Store`."""

    async def read(self, work: Callable[[Connection], T], /) -> T:
        """Run a function of a connection in a transaction that sees one snapshot and writes nothing."""

    async def read_batched(self, work: Callable[[Connection], T], /) -> T:
        """Run a function of a connection that executes one query."""

    async def transact(self, work: Callable[[Connection], None], /) -> None:
        """Run a function of a connection in one transaction and commit it."""

    def read_inline(self, statement: str, parameters: Sequence[Any], /) -> list[tuple[Any, ...]] | None:
        """Run a query on the event loop; return None if that is not possible."""

    def check_identity(self) -> None:
        """Raise `DatabaseReplacedError` if another database is in the place of the one that is open."""

    def wal_bytes(self) -> int | None:
        """Return the size of the write-ahead log in bytes; None if the database manages it by itself."""

    def shared_clock(self, host: Clock, /) -> SharedClock:
        """Return the clock by which all daemons of the database judge times."""

    async def aclose(self) -> None:
        """Close every connection."""


class Backend(Protocol):
    """A place for a mirror."""

    @property
    def url(self) -> sa.URL:
        """The URL of the settings."""

    @property
    def name(self) -> str:
        """The name of its kind, for logs and for documentation: `sqlite` or `postgresql`."""

    @property
    def file(self) -> Path | None:
        """The database file; None for a server."""

    def exists(self) -> bool:
        """Return whether the database exists, as far as that can be seen without a connection.

        Raises
        ------
        DatabaseUnusableError
            The path cannot be examined, or is not a file.
        """

    def require_exists(self) -> None:
        """Refuse a database of which `exists` is false.

        Raises
        ------
        DatabaseUnusableError
            There is no such file.
        """

    def create(self) -> None:
        """Create an empty file with mode 0600 if there is none; a server's databases are created by their owner.

        Raises
        ------
        DatabaseBusyError
            The disk is full.
        DatabaseUnusableError
            The file cannot be created or used.
        """

    def require_readable(self) -> None:
        """Check a SQLite file as `create` does, but for a reader: a backup may be on read-only storage.

        Raises
        ------
        DatabaseBusyError, DatabaseUnusableError
            As `create` says.
        """

    def require_free(self) -> None:
        """Check, without waiting, that no daemon holds the database; replicas on a server do not exclude each other.

        Raises
        ------
        DatabaseUnusableError
            A daemon holds it; the message names the daemon.
        """

    def open(self) -> Store:
        """Return the connections of a `Database`; raises `DatabaseUnusableError` for a file with a second name."""

    def engine(self, *, write: bool) -> AsyncEngine:
        """Return an engine for long transactions outside of a `Database`, such as a move to another database."""

    async def check_connections(self) -> str:
        """Check that each connection is a session of its own, which LISTEN and the leader's lock need.

        Raises
        ------
        DatabaseUnusableError
            A proxy shares sessions between clients, and the URL does not say so; or there is no connection.
        """

    def change_feed(self, database: Database, clock: Clock) -> ChangeFeed:
        """Return the feed that notices commits of other programs."""

    def hold(self, command: str, clock: Clock, retries: Retries) -> AbstractAsyncContextManager[Leadership]:
        """Hold the database for a daemon while the context lasts; gives the right to take passes.

        Raises
        ------
        DatabaseUnusableError
            Another daemon holds it, a move between databases is under way, or it cannot be used.
        """

    def keep_others_out(self, command: str) -> AbstractAsyncContextManager[None]:
        """Hold the database alone while the context lasts, without any replica.

        Raises
        ------
        DatabaseUnusableError
            A daemon holds it; the message names the daemon.
        """


@dataclass(frozen=True)
class SqliteBackend:
    """A file, with the write-ahead log and syncd's lock beside it."""

    url: sa.URL
    name = "sqlite"

    @property
    def file(self) -> Path:
        """The database file."""
        return Path(self.url.database or "")

    def exists(self) -> bool:
        """Return whether the file exists."""
        return sqlite_file.exists(self.file)

    def require_exists(self) -> None:
        """Refuse a path without a file."""
        sqlite_file.require_exists(self.file)

    def create(self) -> None:
        """Create an empty file with mode 0600 if there is none."""
        sqlite_file.create(self.file)

    def require_readable(self) -> None:
        """Check the file for a reader."""
        sqlite_file.require_readable(self.file)

    def require_free(self) -> None:
        """Check that no daemon holds the file."""
        require_free(self.file)

    def open(self) -> Store:
        """Return the connections to the file."""
        return sqlite.Store(self.url)

    def engine(self, *, write: bool) -> AsyncEngine:
        """Return an engine on the file."""
        return sqlite.engine(self.url, write=write)

    async def check_connections(self) -> str:
        """Return: a file has no proxy."""
        return "each connection opens the file"

    def change_feed(self, database: Database, clock: Clock) -> ChangeFeed:
        """Return a feed that watches the file and its write-ahead log."""
        return change_feed.PollingFeed(database, clock, Path(f"{self.file.resolve()}-wal"))

    @asynccontextmanager
    async def hold(self, command: str, clock: Clock, retries: Retries) -> AsyncIterator[Leadership]:  # noqa: ARG002
        """Lock the file; waits while the disk has no room for the lock file."""
        with ExitStack() as stack:

            async def lock() -> DaemonLock:
                return stack.enter_context(daemon_lock(self.file, command))

            yield leader.SingleLeader((await retries.run(lambda: "daemon lock", lock)).keep)

    @asynccontextmanager
    async def keep_others_out(self, command: str) -> AsyncIterator[None]:
        """Lock the file."""
        with daemon_lock(self.file, command):
            yield


@dataclass(frozen=True)
class PostgresqlBackend:
    """A database of a server, on which several replicas may run."""

    url: sa.URL
    name = "postgresql"
    file = None

    def exists(self) -> bool:
        """Return True: only a connection can show whether it exists."""
        return True

    def require_exists(self) -> None:
        """Return: the first connection reports a missing database."""

    def create(self) -> None:
        """Return: an administrator creates databases."""

    def require_readable(self) -> None:
        """Check nothing: the server checks it."""

    def require_free(self) -> None:
        """Return: replicas share a server."""

    def open(self) -> Store:
        """Return the connections to the server."""
        return postgresql.Store(self.url)

    def engine(self, *, write: bool) -> AsyncEngine:  # noqa: ARG002 - its transactions state what they are
        """Return an engine without time limits."""
        from syncd.mirror.db.pg_session import UNLIMITED  # noqa: PLC0415 - imports asyncpg

        return postgresql.engine(self.url, limits=UNLIMITED)

    async def check_connections(self) -> str:
        """Check that each connection is a session of its own."""
        return await pg_pool.check_connections(self.url)

    def change_feed(self, database: Database, clock: Clock) -> ChangeFeed:  # noqa: ARG002 - it waits in anyio alone
        """Return a feed that listens to the server's notifications."""
        return change_feed.NotifyFeed(database)

    @asynccontextmanager
    async def hold(self, command: str, clock: Clock, retries: Retries) -> AsyncIterator[Leadership]:  # noqa: ARG002
        """Join the replicas."""
        async with leader.replica(self.url, clock, retries) as replica:
            yield replica

    @asynccontextmanager
    async def keep_others_out(self, command: str) -> AsyncIterator[None]:  # noqa: ARG002 - its locks have no text
        """Take the lock that each replica shares."""
        async with leader.exclusive(self.url):
            yield


def backend_of(url: sa.URL) -> Backend:
    """Return the backend for a database URL."""
    return PostgresqlBackend(url) if url.get_backend_name() == "postgresql" else SqliteBackend(url)
