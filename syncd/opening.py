"""Opening the mirror: what every command needs of the composition root, without the client that most do not need."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.database import Database
from syncd.mirror.db.file_access import file_error
from syncd.mirror.schema import migrate
from syncd.mirror.schema.privileges import require_rights
from syncd.mirror.schema.revisions import HEAD

if TYPE_CHECKING:
    from syncd.mirror.db.database import Connection
    from syncd.settings import Settings

T = TypeVar("T")
COMMAND_BUSY_TIMEOUT = 30.0
"""Seconds that a command waits for a database that another program holds; the daemon waits for as long as it takes."""


def database_url(settings: Settings) -> sa.URL:
    """Return the database's URL."""
    return sa.make_url(settings.syncd_database_url.get_secret_value())


@asynccontextmanager
async def open_database(
    settings: Settings,
    *,
    make: bool = False,
    busy_timeout: float = COMMAND_BUSY_TIMEOUT,
    on_wait: Callable[[str], None] | None = None,
    inspect: Callable[[Database], Awaitable[None]] | None = None,
) -> AsyncIterator[Database]:
    """Open the mirror with its schema at head.

    Parameters
    ----------
    make : bool
        Make an empty database and bring the schema to head, where `SYNCD_AUTO_MIGRATE` allows; otherwise a database
        that is not there, or not at head, is refused.
    inspect : Callable[[Database], Awaitable[None]] | None
        Called with the open database before anything is written to it; raises to refuse it.

    Raises
    ------
    DatabaseUnusableError
        The database is not there, not at head, or not to be used.
    """
    url = database_url(settings)
    migrates = make and settings.syncd_auto_migrate
    if not migrates:
        require_file(url)
    async with Database.create(url, busy_timeout=busy_timeout, on_wait=on_wait) as database:
        if inspect is not None:
            await inspect(database)
        if migrates:
            await bring_to_head(database)
        else:
            await database.read(migrate.require_head)
        if make and database.dialect == "postgresql":
            await database.write(require_rights)
        yield database


async def read_before_it_is_made(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Read the mirror as it is; when it has not been made yet, read an empty one, and make none.

    Raises
    ------
    DatabaseUnusableError
        The database is not at head, or not to be used.
    """
    url = database_url(settings)
    if url.get_backend_name() != "sqlite" or is_there(url):
        async with Database(url, busy_timeout=COMMAND_BUSY_TIMEOUT) as database:
            if await database.read(migrate.revision) is not None:
                await database.read(migrate.require_head)
                return await database.read(work)
    with migrate.empty_mirror() as connection:
        return work(connection)


async def bring_to_head(database: Database) -> tuple[str | None, str]:
    """Migrate where that is needed; return the revision before and the one after.

    The file is looked at on a reading connection first: opening the writer switches a file to WAL, and a file that is
    not syncd's must stay as it is to the last byte.

    Raises
    ------
    DatabaseUnusableError
        The database is not syncd's, or a newer syncd's.
    """
    found = await database.read(migrate.revision)
    if found == HEAD:
        return found, found
    return await database.write(migrate.migrate)


def require_file(url: sa.URL) -> None:
    """Refuse a SQLite file that is not there, instead of making an empty one; a server is asked when it is opened.

    Raises
    ------
    DatabaseUnusableError
        There is no such file.
    """
    if url.get_backend_name() == "sqlite" and not is_there(url):
        raise DatabaseUnusableError(
            f"there is no database {url.database}; syncd once, syncd run or syncd migrate makes it "
            "(SYNCD_DATABASE_URL says where)"
        )


def is_there(url: sa.URL) -> bool:
    """Whether the SQLite file has been made.

    Raises
    ------
    DatabaseUnusableError
        It cannot be looked at, or is no file.
    """
    path = Path(url.database or "")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise file_error(path, error) from error
    if not stat.S_ISREG(mode):
        raise DatabaseUnusableError(f"the database {path} is not a file; SYNCD_DATABASE_URL names the file")
    return True
