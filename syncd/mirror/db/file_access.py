"""Why the file of a SQLite database cannot be created or opened, with the setting that names it and what to do.

`sqlite_file` and `daemon_lock` raise these errors before anything is contacted.
"""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

from syncd.errors import DatabaseBusyError, DatabaseUnusableError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk, or the user's share of it, is full: this is waited for."""
_ELSEWHERE = "or set SYNCD_DATABASE_URL to a file in another folder"


def file_error(path: str | Path, error: OSError) -> DatabaseUnusableError:
    """Return the error for a database file, or a file beside it, that the operating system refuses to open.

    It is a `DatabaseBusyError` if only room is missing.
    """
    kind = DatabaseBusyError if error.errno in NO_ROOM else DatabaseUnusableError
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
    return f"cannot be used: {_refused(folder)}"


def _text(path: Path, error: OSError) -> str:
    folder = _folder(path)
    if error.errno in {errno.ENOENT, errno.ENOTDIR} and not folder.is_dir():
        return f"there is no folder {folder}; make it, {_ELSEWHERE}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return _refused(folder)
    return f"{error.strerror}; SYNCD_DATABASE_URL names the file"


def _folder(path: Path) -> Path:
    """Return the folder of a database; that of the target if the path is a link."""
    return Path(os.path.realpath(path)).parent


def _refused(folder: Path) -> str:
    """Return why a user cannot create files in a folder."""
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"{folder} is on a read-only file system; mount it writable, {_ELSEWHERE}"
        status = folder.stat()
        access = f" (owner {_name(status.st_uid)}, mode {status.st_mode & 0o7777:04o})"
    except OSError:  # a folder further up is closed to this user
        access = ""
    return (
        f"{_name(os.geteuid())} may not create files in the folder {folder}{access}; "
        f"change its owner or mode, {_ELSEWHERE}"
    )


def _name(number: int) -> str:
    """Return the name of a user, with the number. A container has users without a name."""
    try:
        return f"{pwd.getpwuid(number).pw_name} (uid {number})"
    except KeyError:
        return f"uid {number}"
