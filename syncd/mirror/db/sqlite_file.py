"""The SQLite file itself: whether it exists, whether it may be used, how it is created, and its identity.

`sqlite` and `backends` use this module; `store/bare_sqlite` and `copy/backup`, which open the file themselves, check it
here first. It imports neither SQLAlchemy nor SQLite.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from syncd.errors import DatabaseReplacedError, DatabaseUnusableError
from syncd.mirror.db.file_access import file_error, file_problem, folder_problem

MOUNTS = Path("/proc/self/mountinfo")
LOW_ROOM = 16 * 1024 * 1024
"""Free bytes on the disk below which the write-ahead log is emptied after every transaction."""
_VERSIONS, _NO_WAL = slice(18, 20), b"\x01\x01"
"""Where the header of a file names the formats for writing and reading, and those of a file without a WAL."""
Identity = tuple[int, int]
"""Device and inode."""


def identity(path: Path) -> Identity | None:
    """Return the identity of the file at a path; None if there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - called for every transaction
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def require_identity(path: Path, opened: Identity | None) -> None:
    """Check that a path still leads to the file that was opened.

    Raises
    ------
    DatabaseReplacedError
        Another file, or none, is at the path.
    """
    if identity(path) != opened:
        raise DatabaseReplacedError(
            f"{path} was replaced or removed while syncd had it open; nothing more is sent to Albert. Put the file "
            "back, or start syncd again on the new file"
        )


def exists(path: Path) -> bool:
    """Return whether the file exists.

    Raises
    ------
    DatabaseUnusableError
        The path cannot be examined, or is not a regular file.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise file_error(path, error) from error
    if not stat.S_ISREG(mode):
        raise DatabaseUnusableError(f"the database {path} is not a file; SYNCD_DATABASE_URL must name a file")
    return True


def require_exists(path: Path) -> None:
    """Refuse a path without a file, so that no command creates an empty database by mistake.

    Raises
    ------
    DatabaseUnusableError
        There is no such file.
    """
    if not exists(path):
        raise DatabaseUnusableError(
            f"there is no database {path}; syncd migrate creates it, and so do syncd once and syncd run unless "
            "SYNCD_AUTO_MIGRATE is false (SYNCD_DATABASE_URL names it)"
        )


def create(path: Path) -> None:
    """Create an empty file with mode 0600 if there is none.

    Raises
    ------
    DatabaseBusyError
        The disk is full.
    DatabaseUnusableError
        The file cannot be created, or the file that exists cannot be used.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:  # not opened: closing a descriptor of the file would drop SQLite's locks on it
        if (problem := _problem(path)) is not None:
            raise DatabaseUnusableError(f"the database {path} {problem}") from None
    except OSError as error:
        raise file_error(path, error) from error


def require_readable(path: Path) -> None:
    """Check a file for a reader. A backup needs no write access: it is one file, and SQLite makes none beside it.

    Raises
    ------
    DatabaseBusyError, DatabaseUnusableError
        As `create` says, for any other file.
    """
    try:
        with path.open("rb") as file:
            is_backup = file.read(_VERSIONS.stop)[_VERSIONS] == _NO_WAL
    except OSError:
        is_backup = False
    if not is_backup or any(Path(f"{path}{ending}").exists() for ending in ("-wal", "-shm", "-journal")):
        create(path)


def _problem(path: Path) -> str | None:
    if path.is_dir():
        return "is a directory; SYNCD_DATABASE_URL must name a file"
    if not path.exists():
        return f"is a link to {os.path.realpath(path)}, which does not exist; is its disk mounted?"
    return file_problem(path) or folder_problem(path)


def require_single_name(path: Path) -> None:
    """Refuse a file that has a second name, by which others would open it without its WAL and its lock.

    SQLite's write-ahead log and syncd's lock lie beside the file, under the file's name. Through a hard link, or where
    the file alone is mounted into a container, another program uses another log and another lock, and commits are lost.

    Raises
    ------
    DatabaseUnusableError
        The file has more than one hard link, or is a mount point.
    """
    try:
        status = path.stat()
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode):  # reported where it is opened
        return
    if status.st_nlink > 1:
        raise DatabaseUnusableError(
            f"the database {path} has {status.st_nlink} hard links, and each name would have its own write-ahead log "
            "and lock; remove the other names (to share it with a container, mount the folder that contains it)"
        )
    if is_mount_point(path):
        raise DatabaseUnusableError(
            f"the database {path} is mounted as a single file, and its write-ahead log and lock lie outside of the "
            "mount; mount the folder that contains it instead"
        )


def is_mount_point(path: Path) -> bool:
    """Return whether a file itself is a mount point, such as one file that is mounted into a container."""
    real = os.path.realpath(path)
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux: a bind mount of a file is on another device than its folder
        return os.stat(real).st_dev != os.stat(os.path.dirname(real)).st_dev  # noqa: PTH116, PTH120 - text
    return any(_unescaped(line.split(" ")[4]) == real for line in lines if line.count(" ") >= 4)  # noqa: PLR2004


def _unescaped(text: str) -> str:
    """Return a path as the kernel means it: mountinfo writes spaces and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def room(path: Path) -> int:
    """Return the free bytes on the file's disk; `LOW_ROOM` if that cannot be determined."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return LOW_ROOM
    return disk.f_bavail * disk.f_frsize
