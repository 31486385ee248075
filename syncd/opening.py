"""Open the mirror: the part of the composition root that commands without a client need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from syncd.mirror.db.backends import Backend, backend_of
from syncd.mirror.db.database import Database
from syncd.mirror.db.retries import Retries
from syncd.mirror.schema import migrate
from syncd.mirror.schema.privileges import require_rights
from syncd.mirror.schema.revisions import HEAD

if TYPE_CHECKING:
    from syncd.clock import Clock
    from syncd.mirror.db.database import Connection, Reader
    from syncd.settings import Settings

T = TypeVar("T")
COMMAND_BUSY_TIMEOUT = 30.0
"""Seconds that a command waits for a database that another program holds; the daemon waits without a limit."""


def database_url(settings: Settings) -> sa.URL:
    """Return the database's URL."""
    return sa.make_url(settings.syncd_database_url.get_secret_value())


def database_backend(settings: Settings) -> Backend:
    """Return the backend of the database."""
    return backend_of(database_url(settings))


@asynccontextmanager
async def open_database(
    settings: Settings,
    *,
    make: bool = False,
    retries: Retries | None = None,
    host_clock: Clock | None = None,
    inspect: Callable[[Database], Awaitable[None]] | None = None,
    held: bool = False,
    reads_only: bool = False,
) -> AsyncIterator[Database]:
    """Open the mirror with its schema at head.

    Parameters
    ----------
    make : bool
        Create an empty database and bring the schema to head, if `SYNCD_AUTO_MIGRATE` allows it. Otherwise a database
        that does not exist, or whose schema is not at head, is refused.
    retries : Retries | None
        How to wait for a database that cannot be used now; by default for `COMMAND_BUSY_TIMEOUT` seconds.
    host_clock : Clock | None
        The clock of this host, by default the real one.
    inspect : Callable[[Database], Awaitable[None]] | None
        Called with the open database before anything is written to it; raises to refuse it.
    held : bool
        The caller holds the database for a daemon.
    reads_only : bool
        The caller writes nothing, so that a backup may be on read-only storage.

    Raises
    ------
    DatabaseBusyError
        The database could not be used for as long as that.
    DatabaseUnusableError
        The database does not exist, is not at head, or cannot be used; or see `bring_to_head`.
    """
    url = database_url(settings)
    backend = backend_of(url)
    migrates = make and settings.syncd_auto_migrate
    if not migrates:
        backend.require_exists()
    retries = retries or Retries(COMMAND_BUSY_TIMEOUT)

    async def check() -> None:
        if reads_only:
            backend.require_readable()
        else:
            backend.create()

    await retries.run(lambda: "create", check)
    async with Database(url, retries=retries, host_clock=host_clock) as database:
        if inspect is not None:
            await inspect(database)
        if migrates:
            await bring_to_head(database, held=held)
        else:
            await database.read(migrate.require_head)
        if make:
            await database.write(require_rights)
        yield database


async def read_before_it_is_made(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Read the mirror as it is; if it was not created yet, read an empty one, and create none.

    Raises
    ------
    DatabaseUnusableError
        The database is not at head, or cannot be used.
    """
    async with open_before_it_is_made(settings) as mirror:
        return await mirror.read(work)


@dataclass(frozen=True, slots=True)
class _EmptyMirror:
    """A mirror in memory that contains no session."""

    connection: Connection

    async def read(self, work: Callable[[Connection], T]) -> T:
        return work(self.connection)


@asynccontextmanager
async def open_before_it_is_made(settings: Settings) -> AsyncIterator[Reader]:
    """Open the mirror as it is for reading, or an empty one if it was not created yet.

    Raises
    ------
    DatabaseUnusableError
        The database is not at head, or cannot be used.
    """
    url = database_url(settings)
    if backend_of(url).exists():
        async with Database(url, busy_timeout=COMMAND_BUSY_TIMEOUT) as database:
            if await database.read(migrate.revision) is not None:
                await database.read(migrate.require_head)
                yield database
                return
    with migrate.empty_mirror() as connection:
        yield _EmptyMirror(connection)


async def bring_to_head(database: Database, *, held: bool = False) -> tuple[str | None, str]:
    """Migrate if that is needed; return the revision before and the one after.

    A running daemon of an older release would write rows that do not fit the schema. So only a daemon's own start
    migrates a file that it holds. The revision is read on a read-only connection first: opening the writer switches a
    file to WAL, and a file of another program must stay as it is, byte by byte.

    Raises
    ------
    DatabaseUnusableError
        The database belongs to another program, or to a newer syncd; or a daemon holds the file.
    """
    revision = await database.read(migrate.revision)
    if revision == HEAD:
        return revision, revision
    if revision is not None and not held:
        database.backend.require_free()
    return await database.write(migrate.migrate)
