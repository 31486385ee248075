"""Replaces a SQLite mirror by a backup. `syncd restore` calls it; no daemon runs meanwhile.

::

    prepare ──────────────────► fold ─────────────────► keep ───────────────► replace
    a copy of the backup,       the WAL of the old      a copy of the old     one rename, after the
    beside the mirror:          mirror into its file;   mirror, beside it     side files are removed
    verify, migrate, hold       no other program has it open

A kill before the rename leaves the old mirror complete, a kill after it the new one. Operations that are open in the
backup are put on hold: they may be done already.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from syncd.errors import DatabaseBusyError, DatabaseUnusableError, SyncdError, UsageError
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
    require_whole,
    sync,
)
from syncd.mirror.db import sqlite, sqlite_file
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate
from syncd.mirror.store import identity, operator_actions, restored
from syncd.temp_dirs import temp_dir

if TYPE_CHECKING:
    from datetime import datetime

    from syncd.rules.identity import Identity

_PRAGMAS = ("synchronous=FULL", "foreign_keys=ON")
"""For the unfinished file: it is in no WAL mode, so that it stays one file."""
_NOT_A_BACKUP = "restore the file that syncd backup wrote"
_COPY_AGAIN = "if it was copied from another place, copy it again, or restore another backup"
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True)
class Restored:
    """A finished restore.

    Parameters
    ----------
    kept : Path | None
        The copy of the replaced mirror; None if there was none.
    revision : str
        The schema of the backup before it was brought to head.
    on_hold : int
        The number of operations on hold.
    pinned : Identity
        The tenant that the restored database mirrors.
    moved_to : str | None
        Where `migrate-store` moved the replaced mirror to; None if it did not, or if that cannot be read.
    rows : dict[str, int]
        The rows of its tables.
    seconds : float
        How long the restore took.
    """

    kept: Path | None
    revision: str
    on_hold: int
    pinned: Identity
    moved_to: str | None
    rows: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class _Prepared:
    revision: str
    on_hold: int
    pinned: Identity
    rows: dict[str, int]


def restore(database: Path, backup: Path, *, now: datetime, by: str, source: str | None = None) -> Restored:
    """Put a backup in the place of the mirror; the caller holds the daemon lock.

    Parameters
    ----------
    database : Path
        The mirror; it need not exist, and can be damaged.
    backup : Path
        A file that `back_up` made, or another copy of a mirror. It is not changed.
    by : str
        The person, for the log of operator actions.
    source : str | None
        How messages and the log of operator actions name the backup; None for its path.

    Raises
    ------
    UsageError
        The backup is not a file, or is the mirror itself.
    DatabaseUnusableError
        The backup is damaged, not of syncd, or of a newer syncd; or another program has the mirror open.
    SyncdError
        A file cannot be read or written.
    """
    began = time.monotonic()
    database = Path(os.path.realpath(database))
    source = source or str(backup)
    _require_backup(database, backup, source)
    try:
        _require_replaceable(database)
        with temp_dir(database.parent, "syncd-restore") as unfinished:
            new, old = unfinished / "new", unfinished / "old"
            prepared = _prepare(backup, new, now=now, by=by, source=source)
            kept, moved_to = None, None
            if database.exists():
                _fold_wal(database)
                moved_to = _moved_to(database)
                kept = _keep(database, old, now)
            _replace(database, new)
    except OSError as error:
        raise SyncdError(f"the restore failed: {error.filename or database}: {error.strerror}") from error
    seconds = time.monotonic() - began
    return Restored(kept, prepared.revision, prepared.on_hold, prepared.pinned, moved_to, prepared.rows, seconds)


def _require_backup(database: Path, backup: Path, source: str) -> None:
    """Refuse a backup that is not a file of SQLite, or that is the mirror itself."""
    if not backup.exists():
        raise UsageError(f"there is no file {backup}")
    if not backup.is_file():
        raise UsageError(f"{backup} is not a file; {_NOT_A_BACKUP}")
    require_other_file(database, backup)
    try:
        require_sqlite(backup, what=source, refusal=DatabaseUnusableError, why=f"; {_NOT_A_BACKUP}")
    except OSError as error:
        raise UsageError(f"{backup} cannot be read: {error.strerror}; fix its owner or mode") from error


def _require_replaceable(database: Path) -> None:
    """Refuse to replace a mount point, and a file of another user, whose daemon could not read the new one."""
    if not database.parent.is_dir():
        raise UsageError(f"there is no folder {database.parent}; create it, or fix SYNCD_DATABASE_URL")
    if sqlite_file.is_mount_point(database):
        raise DatabaseUnusableError(
            f"{database} is mounted as a single file; mount the folder that contains it instead"
        )
    if database.exists() and os.geteuid() not in {0, owner := database.stat().st_uid}:
        raise UsageError(f"{database} belongs to user {owner}; run the restore as that user, or as root")


def _prepare(backup: Path, new: Path, *, now: datetime, by: str, source: str) -> _Prepared:
    """Make the new database beside the mirror: copied, verified, at head, with its open operations on hold."""
    make_empty(new)
    try:
        if not _has_wal(backup):
            require_whole(backup, what=source)
        _copy(backup, new)
        require_sound(new, what=source)
    except sqlite3.Error as error:
        require_room(error, new.parent.parent, "the restore failed")
        raise DatabaseUnusableError(f"{source} cannot be restored: {error}; {_COPY_AGAIN}") from error
    except DatabaseUnusableError as error:
        raise DatabaseUnusableError(f"{error}; {_COPY_AGAIN}") from error
    engine = sqlite.sync_engine(new, poolclass=sa.pool.NullPool)
    sqlite.prepare(engine, _PRAGMAS, begin="BEGIN IMMEDIATE")
    try:
        with engine.begin() as connection:
            revision, _ = migrate.migrate(connection)
            on_hold = restored.hold_open_operations(connection, now)
            identity.forget_copy(connection)
            detail = f"{source}, schema {revision}, {on_hold} operations on hold"
            at = restored.not_before_any_result(connection, now)
            operator_actions.record(connection, now=at, by=by, action="restore", subject="database", detail=detail)
            pinned = identity.read(connection).pinned
    except sa.exc.DatabaseError as error:
        raise DatabaseUnusableError(f"{source} cannot be restored: {error.orig}") from error
    finally:
        engine.dispose()
    with closing(sqlite3.connect(new)) as written:
        rows = count_rows(written)
    sync(new)
    return _Prepared(str(revision), on_hold, pinned, rows)


def _has_wal(backup: Path) -> bool:
    """Whether files of SQLite beside the backup may contain a part of it."""
    return any(Path(f"{backup}{ending}").exists() for ending in SIDE_FILES)


def _copy(backup: Path, new: Path) -> None:
    """Copy a database with SQLite's backup API: its WAL is included, and a program may have it open.

    Without a WAL the file is opened as immutable: reading a WAL-mode file otherwise needs write access to its folder.
    """
    uri = f"{backup.resolve().as_uri()}?{'mode=ro' if _has_wal(backup) else 'immutable=1'}"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as read,
        closing(sqlite3.connect(new, isolation_level=None)) as written,
    ):
        read.backup(written)
        written.execute("PRAGMA journal_mode=DELETE").fetchall()


def _fold_wal(database: Path) -> None:
    """Make the old mirror one file again; a damaged one stays as it is, with its side files.

    Leaving WAL mode needs the file for this connection alone, so it also shows that no other program has it open.

    Raises
    ------
    DatabaseBusyError
        Another program has the mirror open.
    """
    code = sqlite3.SQLITE_OK
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if connection.execute("PRAGMA journal_mode=DELETE").fetchone() != ("delete",):
                code = sqlite3.SQLITE_BUSY
    except sqlite3.Error as error:
        code = int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)) & 0xFF
        if code not in _LOCKED | _DAMAGED:
            raise SyncdError(
                f"the replaced mirror cannot be kept: {database}: {error}; nothing was changed. "
                "To restore without keeping it, remove the file first"
            ) from error
    if code in _LOCKED:
        raise DatabaseBusyError(
            f"another program has {database} open; end it and run the restore again (fuser {database} names it). "
            "Nothing was changed"
        )


def _moved_to(database: Path) -> str | None:
    uri = f"{database.as_uri()}?mode=ro"
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as old:
        return next((row[0] for row in old.execute("SELECT moved_to FROM mirror_identity")), None)
    return None


def _keep(database: Path, old: Path, now: datetime) -> Path:
    """Copy the old mirror, with a WAL that could not be folded, to a name beside it; return that name."""
    kept = _free_name(database, f".before-restore-{now:%Y%m%dT%H%M%SZ}")
    for ending in ("-wal", ""):
        source = Path(f"{database}{ending}")
        if source.exists():
            make_empty(old)
            shutil.copyfile(source, old)
            _give_to_owner(old, like=database)
            sync(old)
            old.replace(f"{kept}{ending}")
    sync(database.parent)
    return kept


def _free_name(database: Path, ending: str) -> Path:
    number, name = 1, Path(f"{database}{ending}")
    while name.exists():
        number += 1
        name = Path(f"{database}{ending}-{number}")
    return name


def _replace(database: Path, new: Path) -> None:
    """Put the new file in place. A side file of the old mirror would be applied to the new one, so it goes first."""
    new.chmod(PRIVATE)
    _give_to_owner(new, like=database if database.exists() else database.parent)
    sync(new)
    for ending in SIDE_FILES:
        Path(f"{database}{ending}").unlink(missing_ok=True)
    new.replace(database)
    sync(database.parent)


def _give_to_owner(path: Path, *, like: Path) -> None:
    """Give a file the owner of another one. Only root makes files of another owner than that of the mirror."""
    status = like.stat()
    if os.geteuid() == 0:
        os.chown(path, status.st_uid, status.st_gid)
