"""What `backup` and `restore` share: SQLite files that are copied, verified and put in place by one rename."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from syncd.errors import DatabaseUnusableError, SyncdError, UsageError
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema.tables import metadata

BUSY_SECONDS = 30.0
"""Seconds that SQLite waits for a lock of another program; a daemon's transaction takes far less."""
PRIVATE = 0o600
"""The mode of new files: session names are confidential."""
SIDE_FILES = ("-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps beside a database."""
MAGIC = b"SQLite format 3\0"
_HEADER = 100
"""Bytes of a database file's header."""
COUNTED = ("sessions", "session_versions", "passes", "operations", "source_sessions", "quarantine")
"""The tables whose row counts are reported and compared."""


def make_empty(path: Path) -> None:
    """Make a new file with a private mode; SQLite takes an empty file for a new database.

    Raises
    ------
    OSError
        The file exists, or cannot be made.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PRIVATE))


def require_sqlite(path: Path, *, what: str, refusal: type[Exception], why: str) -> None:
    """Refuse a file whose content is not a SQLite database; an empty file counts as one.

    Parameters
    ----------
    what : str
        How a message calls the file.

    Raises
    ------
    Exception
        `refusal`, with `why` at its end.
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) not in {MAGIC, b""}:
            raise refusal(f"{what} is not a SQLite database{why}")


def require_whole(path: Path, *, what: str) -> None:
    """Refuse a file that was cut off: it is shorter than its header says. SQLite would read zeros in its last page.

    Raises
    ------
    DatabaseUnusableError
        It is shorter.
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER)
    size, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    expected = (65536 if size == 1 else size) * pages  # 65,536 does not fit into the two bytes
    if len(header) == _HEADER and (length := path.stat().st_size) < expected:
        raise DatabaseUnusableError(f"{what} is cut off: it has {length} of {expected} bytes")


def require_other_file(database: Path, path: Path) -> None:
    """Refuse a path that is the mirror itself, or one of the files that belong to it.

    Raises
    ------
    UsageError
        It is one of them, also by a link.
    """
    real = os.path.realpath(database)
    parts = {real, *(f"{real}{ending}" for ending in (*SIDE_FILES, ".lock"))}
    same = path.exists() and database.exists() and path.samefile(database)
    if same or os.path.realpath(path) in parts:
        raise UsageError(f"{path} is the mirror itself; name another file")


def require_room(error: sqlite3.Error, folder: Path, what: str) -> None:
    """Name the folder if SQLite failed because a disk is full.

    Raises
    ------
    SyncdError
        The disk is full; the message begins with `what`.
    """
    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_FULL:
        raise SyncdError(f"{what}: no space is left in {folder}; make room, see: df -h") from error


def count_rows(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of rows of each table in `COUNTED`, as far as the database has it."""
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    known = [name for name in COUNTED if name in metadata.tables and name in names]
    return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in known}  # noqa: S608


def require_sound(path: Path, *, what: str) -> None:
    """Read a database file through, and make sure that it is one of syncd.

    Parameters
    ----------
    what : str
        How a message calls the file, such as `the copy`.

    Raises
    ------
    DatabaseUnusableError
        The file is damaged, or has no schema version of syncd.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise DatabaseUnusableError(f"{what} is damaged ({verdict})")
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" not in tables or not connection.execute("SELECT 1 FROM alembic_version").fetchall():
            raise DatabaseUnusableError(f"{what} is not a database of syncd")


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, durable.

    Raises
    ------
    OSError
        It cannot be opened or written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
