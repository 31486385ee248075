"""One daemon per SQLite file: a lock beside it that the operating system releases when its holder ends.

The lock is that of the operating system (`flock`) on `FILE.lock`. The text in the file names the holder for messages
only: failing to write it is not an error. An empty file remains. If someone removes it, its holder makes and
locks another one, or stops if another daemon was faster.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.file_access import access_refusal, file_error


class DaemonLock:
    """The lock of a database file, from its creation to `release`.

    Raises
    ------
    DatabaseUnusableError
        Another daemon holds the file; the message names it.
    OSError
        The lock file cannot be opened.
    """

    def __init__(self, path: Path, command: str) -> None:
        self._path = path
        self._lock = _lock_file(path)
        self._text = f"syncd {command}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
        self._descriptor = self._take()

    def keep(self) -> None:
        """Take the lock again if its file was removed. If no file can be made now, the next call tries it.

        Raises
        ------
        DatabaseUnusableError
            Another daemon has taken the lock since then.
        """
        with suppress(OSError):
            held = os.fstat(self._descriptor)
            if sqlite_file.identity(self._lock) != (held.st_dev, held.st_ino):
                taken = self._take()
                os.close(self._descriptor)
                self._descriptor = taken

    def give_to(self, owner: int, group: int) -> None:
        """Let another user use the lock file.

        Raises
        ------
        OSError
            This process may not give files to other users.
        """
        os.fchown(self._descriptor, owner, group)

    def release(self) -> None:
        """Release the lock and leave an empty file."""
        _write_text(self._descriptor, "")
        os.close(self._descriptor)

    def _take(self) -> int:
        # A link could lead to any file of another user, which would be emptied and, by `restore`, given away.
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _flock(descriptor, self._path)
        except BaseException:
            os.close(descriptor)
            raise
        _write_text(descriptor, self._text)
        return descriptor


@contextmanager
def daemon_lock(path: Path, command: str) -> Iterator[DaemonLock]:
    """Hold the database file for a daemon.

    Raises
    ------
    DatabaseBusyError
        The disk has no room for the lock file.
    DatabaseUnusableError
        Another daemon holds the file (the message names it), the lock file cannot be created or opened or is a link,
        or the database file has a second name, whose lock would be another one.
    """
    sqlite_file.require_single_name(path)
    try:
        lock = DaemonLock(path, command)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DatabaseUnusableError(f"{_lock_file(path)} is a symbolic link; remove it") from error
        if error.errno in {errno.EACCES, errno.EPERM} and (refused := access_refusal(_lock_file(path))) is not None:
            raise DatabaseUnusableError(f"{refused}; change its owner, or remove it while no daemon runs") from error
        raise file_error(path, error) from error
    try:
        yield lock
    finally:
        lock.release()


def require_free(path: Path) -> None:
    """Check that no daemon holds the database file; nothing is created or written.

    Raises
    ------
    DatabaseUnusableError
        A daemon holds it; the message names the daemon.
    """
    try:
        descriptor = os.open(_lock_file(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        _flock(descriptor, path)
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> Path:
    return Path(f"{os.path.realpath(path)}.lock")


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another syncd"
        raise DatabaseUnusableError(f"{path} is held by {holder}; stop it first") from None


def _write_text(descriptor: int, text: str) -> None:
    """Replace the text of the lock file, unless the disk is full, read-only or broken."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
