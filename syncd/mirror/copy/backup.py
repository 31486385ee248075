"""Copies a SQLite mirror while the daemon runs: one snapshot, verified, and put in place by one rename.

`syncd backup` calls it. SQLite's backup API reads inside one read transaction: the daemon can write meanwhile, and the
copy never has to start again. The copy is one file without a WAL, so it can be moved, and read on read-only storage.

The copy is marked (`mirror_identity.copied_at`). A database that starts with the mark puts its open operations on hold.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from syncd.clock import utc_text
from syncd.directories import make_directory
from syncd.errors import DatabaseUnusableError, SyncdError, UsageError
from syncd.mirror.copy.files import (
    BUSY_SECONDS,
    PRIVATE,
    SIDE_FILES,
    count_rows,
    make_empty,
    require_other_file,
    require_room,
    require_sound,
    require_sqlite,
    sync,
)
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.temp_dirs import temp_dir

if TYPE_CHECKING:
    from datetime import datetime

STREAM_CHUNK = 1 << 20
"""Bytes of the copy that are read into memory at once."""
_CONTENT_LOST = ", and its content would be lost; name another file"


@dataclass(frozen=True)
class Backup:
    """A finished backup: its size in bytes, the rows of its tables, and the seconds that it took."""

    size: int
    rows: dict[str, int]
    seconds: float


def back_up(database: Path, target: Path, *, now: datetime, mode: int | None = None) -> Backup:
    """Copy a mirror to a file; an existing backup is replaced only when the copy is complete and verified.

    Parameters
    ----------
    target : Path
        The file to write; its folder is made if it does not exist.
    now : datetime
        The time that the copy is marked with.
    mode : int | None
        The permission bits of the copy. None keeps those of the file that is replaced; a new file gets 0600.

    Raises
    ------
    UsageError
        The target is the mirror itself, a part of it, or another file that is not a backup.
    DatabaseUnusableError
        The mirror cannot be read, or the copy is damaged.
    SyncdError
        The copy cannot be written.
    """
    began = time.monotonic()
    sqlite_file.require_single_name(database)
    try:
        target = _require_replaceable(database, target)
        make_directory(target.parent, files=mode or PRIVATE)
        with temp_dir(target.parent, "syncd-backup") as unfinished:
            copy = unfinished / "copy"
            make_empty(copy)
            rows = _copy_snapshot(database, copy)
            _mark(copy, now)
            _verify(copy, rows)
            _set_permissions(copy, target, mode)
            sync(copy)
            _require_replaceable(database, target)  # once more: a program may have opened it meanwhile
            copy.replace(target)
            sync(target.parent)
    except sqlite3.Error as error:
        require_room(error, target.parent, "no backup was made")
        raise DatabaseUnusableError(f"no backup was made: {error}") from error
    except OSError as error:
        raise SyncdError(f"no backup was made: {error.filename or target}: {error.strerror}") from error
    return Backup(target.stat().st_size, rows, time.monotonic() - began)


def stream_backup(database: Path, stream: BinaryIO, *, now: datetime) -> Backup:
    """Write a copy of a mirror to a stream. The copy is made beside the mirror and verified before the first byte.

    Raises
    ------
    DatabaseUnusableError, SyncdError
        As `back_up`.
    OSError
        The stream cannot be written.
    """
    folder = Path(os.path.realpath(database)).parent
    with ExitStack() as stack:
        try:
            unfinished = stack.enter_context(temp_dir(folder, "syncd-backup-output"))
        except OSError as error:
            raise SyncdError(f"no backup was made: {folder}: {error.strerror}") from error
        done = back_up(database, unfinished / "copy", now=now)
        with (unfinished / "copy").open("rb") as copied:
            shutil.copyfileobj(copied, stream, STREAM_CHUNK)
        stream.flush()
    return done


def _require_replaceable(database: Path, target: Path) -> Path:
    """Return the real path of the target; refuse to replace anything but an earlier backup, or an empty file."""
    require_other_file(database, target)
    if not target.name:
        raise UsageError("name the file to write")
    target = Path(os.path.realpath(target))
    if target.exists():
        if not target.is_file():
            raise UsageError(f"{target} is not a regular file; name another file")
        require_sqlite(target, what=str(target), refusal=UsageError, why=_CONTENT_LOST)
    for beside in (Path(f"{target}{ending}") for ending in SIDE_FILES):
        if beside.exists():  # SQLite would apply it to the copy
            raise UsageError(
                f"{beside} exists: a program has the backup open, or was killed while it had; end the program and "
                "remove what it left, or name another file"
            )
    if target.exists() and target.stat().st_size and not _is_backup(target):
        raise UsageError(f"{target} is a database that is not a backup of syncd{_CONTENT_LOST}")
    return target


def _is_backup(target: Path) -> bool:
    """Whether a database carries the mark of a copy; of an older release, which made no mark, whether none used it."""
    uri = f"{target.as_uri()}?mode=ro&immutable=1"  # makes no file beside it
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "mirror_identity" in tables:
            return (
                connection.execute("SELECT 1 FROM mirror_identity WHERE copied_at IS NOT NULL").fetchone() is not None
            )
        return "alembic_version" in tables and not Path(f"{target}.lock").exists()
    return False


def _copy_snapshot(database: Path, partial: Path) -> dict[str, int]:
    """Write the copy; return the row counts of the same snapshot."""
    uri = f"{database.resolve().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as source,
        closing(sqlite3.connect(partial, isolation_level=None)) as written,
    ):
        source.execute("BEGIN")
        rows = count_rows(source)  # the first read fixes the snapshot for the rest of the transaction
        source.backup(written)
        source.execute("COMMIT")
        written.execute("PRAGMA journal_mode=DELETE").fetchall()
    return rows


def _mark(partial: Path, now: datetime) -> None:
    """Mark the file as a copy. A schema older than revision 0002 has no place for the mark."""
    with closing(sqlite3.connect(partial, isolation_level=None)) as copied:
        if copied.execute("SELECT 1 FROM sqlite_master WHERE name = 'mirror_identity'").fetchone():
            copied.execute(
                "INSERT INTO mirror_identity (id, copied_at) VALUES (1, ?) "
                "ON CONFLICT (id) DO UPDATE SET copied_at = excluded.copied_at",
                (utc_text(now),),
            )


def _verify(partial: Path, rows: dict[str, int]) -> None:
    """Open the copy as a restore would, and compare it with the snapshot."""
    try:
        require_sound(partial, what="the copy")
    except DatabaseUnusableError as error:
        raise DatabaseUnusableError(f"no backup was made: {error}; run: syncd doctor") from error
    with closing(sqlite3.connect(f"{partial.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as copied:
        if count_rows(copied) != rows:
            raise DatabaseUnusableError("no backup was made: the copy does not contain the rows that were read")


def _set_permissions(partial: Path, target: Path, mode: int | None) -> None:
    """Give the copy its mode; a file that takes the place of another keeps that one's mode, owner and group."""
    if target.exists():
        old = target.stat()
        mode = stat.S_IMODE(old.st_mode) if mode is None else mode
        for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
            with suppress(PermissionError):  # only root can give a file to another user
                os.chown(partial, owner, group)
    partial.chmod(PRIVATE if mode is None else mode)
