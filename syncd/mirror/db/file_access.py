"""Why the file of a SQLite database cannot be created or opened, with the setting that names it and what to do.

`sqlite_file` and `daemon_lock` raise these errors before anything is contacted; `syncd doctor` reports them.
"""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

from syncd.errors import DatabaseAwayError, DatabaseUnusableError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk, or the user's share of it, is full: this is waited for."""
ROOM_TO_OPEN = 1 << 16
"""Free bytes below which SQLite may be unable to create its files beside the database: one of them has 32 KB."""
FILES_TO_OPEN = 2
"""Free inodes that SQLite needs for them."""
_ELSEWHERE = "or set SYNCD_DATABASE_URL to a file in another folder"
_REMOUNT = f"mount it writable (findmnt shows the mount, mount -o remount,rw changes it), {_ELSEWHERE}"


def file_error(path: str | Path, error: OSError) -> DatabaseUnusableError:
    """Return the error for a database file, or a file beside it, that the operating system refuses to open.

    It is a `DatabaseAwayError` if only room is missing.
    """
    kind = DatabaseAwayError if error.errno in NO_ROOM else DatabaseUnusableError
    return kind(f"cannot open the database {path}: {_text(Path(path), error)}")


def folder_problem(path: str | Path) -> str | None:
    """Return why SQLite cannot create the files that it needs beside a database; None if it can.

    The files exist while another process has the database open, and need no write access to the folder then.
    """
    folder = _folder(Path(path))
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    if all(os.access(f"{path}{suffix}", os.R_OK | os.W_OK) for suffix in ("-wal", "-shm")):
        return None
    return f"cannot be used: {'; '.join(folder_refusal(folder))}"


def file_problem(path: Path) -> str | None:
    """Return why this user cannot read and write a database file, and what to do; None if the user can."""
    if os.access(path, os.R_OK | os.W_OK):
        return None
    if _is_read_only(_folder(path)):
        return f"is on a read-only file system; {_REMOUNT}"
    return "may not be read and written by this user; change its owner or mode, or set SYNCD_DATABASE_URL"


def missing_room(path: str | Path) -> str | None:
    """Return why the disk has no room for the files that SQLite creates beside a database; None if it has room.

    SQLite reports a full disk as an I/O error, or as a file that it cannot open, while it creates these files.
    """
    folder = _folder(Path(path))
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    if disk.f_bavail * disk.f_frsize < ROOM_TO_OPEN:
        return f"no space is left in {folder}; make room, see: df -h"
    if disk.f_files and disk.f_favail < FILES_TO_OPEN:  # some file systems have no limit, and report 0
        return f"no inodes are left in {folder}; remove files that are not needed, see: df -i"
    return None


def _text(path: Path, error: OSError) -> str:
    folder = _folder(path)
    if error.errno in NO_ROOM and (room := missing_room(path)) is not None:
        return f"{error.strerror}: {room}"
    if error.errno in {errno.ENOENT, errno.ENOTDIR} and not folder.is_dir():
        return f"there is no folder {folder}; make it, {_ELSEWHERE}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "; ".join(folder_refusal(folder))
    return f"{error.strerror}; SYNCD_DATABASE_URL names the file"


def _folder(path: Path) -> Path:
    """Return the folder of a database; that of the target if the path is a link."""
    return Path(os.path.realpath(path)).parent


def folder_refusal(folder: Path) -> tuple[str, str]:
    """Return why a user cannot create files in a folder, and what to do."""
    if _is_read_only(folder):
        return f"{folder} is on a read-only file system", _REMOUNT
    try:
        status = folder.stat()
        access = f" (owner {_name(status.st_uid)}, mode {status.st_mode & 0o7777:04o})"
    except OSError:  # a folder further up is closed to this user
        access = ""
    reason = f"{_name(os.geteuid())} may not create files in the folder {folder}{access}"
    return reason, f"change its owner or mode, {_ELSEWHERE}"


def access_refusal(path: Path) -> str | None:
    """Return that this user may not write an existing file, with its owner and mode; None if it cannot be found."""
    try:
        status = path.stat()
    except OSError:
        return None
    access = f"owner {_name(status.st_uid)}, mode {status.st_mode & 0o7777:04o}"
    return f"{_name(os.geteuid())} may not write {path} ({access})"


def _is_read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _name(number: int) -> str:
    """Return the name of a user, with the number. A container has users without a name."""
    try:
        return f"{pwd.getpwuid(number).pw_name} (uid {number})"
    except KeyError:
        return f"uid {number}"
