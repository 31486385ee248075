"""Copy a SQLite mirror: one snapshot, complete, verified, and put in its place in one step.

It uses SQLite's backup API inside one read transaction: the daemon writes meanwhile, and the copy never has to start
again because of that. The copy is one file without a WAL, so it can be moved, and read from a read-only place.
`syncd backup` calls `copy`.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from syncd.errors import DatabaseUnusableError, SyncdError, UsageError
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema.tables import metadata
from syncd.temp_dirs import temp_dir

BUSY_SECONDS = 30.0
MAGIC = b"SQLite format 3\0"
COUNTED = ("sessions", "session_versions", "passes", "operations", "source_sessions", "quarantine")


@dataclass(frozen=True)
class Copied:
    """What a backup holds: its size in bytes, the rows of its tables, and the seconds it took."""

    size: int
    rows: dict[str, int]
    seconds: float


def copy(database: Path, target: Path) -> Copied:
    """Copy a mirror to a file, replacing what is there only when the copy is whole and good.

    Raises
    ------
    UsageError
        The file is the mirror itself, a part of it, or anything else that is no SQLite database.
    DatabaseUnusableError
        The mirror cannot be read, or what was read is damaged.
    SyncdError
        The copy cannot be written.
    """
    began = time.monotonic()
    sqlite_file.require_single_name(database)
    try:
        target = _require_replaceable(database, target)
        with temp_dir(target.parent, "syncd-backup") as unfinished:
            partial = unfinished / "copy"
            _make_empty(partial)
            rows = _copy_snapshot(database, partial)
            _verify(partial, rows)
            _sync(partial)
            partial.replace(target)
            _sync(target.parent)
    except sqlite3.Error as error:
        raise DatabaseUnusableError(f"no backup was made: {error}") from error
    except OSError as error:
        raise SyncdError(f"no backup was made: {target}: {error.strerror}") from error
    return Copied(target.stat().st_size, rows, time.monotonic() - began)


def _require_replaceable(database: Path, target: Path) -> Path:
    """Return where the copy goes, links followed; what is no database is somebody's, and a device the machine's."""
    _refuse_the_mirror_itself(database, target)
    if not target.name:
        raise UsageError("name the file to write")
    target = Path(os.path.realpath(target))
    if target.exists():
        if not target.is_file():
            raise UsageError(f"{target} is not a regular file; name another")
        with target.open("rb") as there:
            if there.read(len(MAGIC)) not in {MAGIC, b""}:
                raise UsageError(f"{target} is no SQLite database, and would be lost; name another file")
    return target


def _refuse_the_mirror_itself(database: Path, target: Path) -> None:
    real = os.path.realpath(database)
    parts = {real, *(f"{real}{suffix}" for suffix in ("-wal", "-shm", "-journal", ".lock"))}
    same = target.exists() and target.samefile(database)
    if same or os.path.realpath(target) in parts:
        raise UsageError(f"{target} is the mirror itself; name another file")


def _make_empty(partial: Path) -> None:
    """Make the file with its mode before anything is in it; SQLite takes an empty one for a new database."""
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _copy_snapshot(database: Path, partial: Path) -> dict[str, int]:
    """Write the copy, and return the rows that the very snapshot has which is copied."""
    uri = f"{database.resolve().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as source,
        closing(sqlite3.connect(partial, isolation_level=None)) as written,
    ):
        source.execute("BEGIN")
        rows = _counts(source)  # the first read fixes the snapshot for the rest of the transaction
        source.backup(written)
        source.execute("COMMIT")
        written.execute("PRAGMA journal_mode=DELETE").fetchall()
    return rows


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    known = [name for name in COUNTED if name in metadata.tables]
    return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in known}  # noqa: S608


def _verify(partial: Path, rows: dict[str, int]) -> None:
    """Open the copy as a restore would, and look it through."""
    with closing(sqlite3.connect(f"{partial.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as copied:
        verdict = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok" or not copied.execute("SELECT version_num FROM alembic_version").fetchall():
            raise DatabaseUnusableError(f"no backup was made: the copy is damaged ({verdict}); see: syncd doctor")
        if _counts(copied) != rows:
            raise DatabaseUnusableError("no backup was made: the copy does not hold what was read")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
