"""One daemon per SQLite file: a lock beside it that the operating system releases when its holder dies.

The lock is that of the operating system (`flock`) on `FILE.lock`. The text in the file names the holder for messages
only: failing to write it is not an error. The file stays behind, empty.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.file_access import file_error


@contextmanager
def daemon_lock(path: Path, command: str) -> Iterator[None]:
    """Hold the database file for a daemon.

    Raises
    ------
    DatabaseBusyError
        The disk has no room for the lock file.
    DatabaseUnusableError
        Another daemon holds the file (the message names it), the lock file cannot be created, or the database file has
        a second name, whose lock would be another one.
    """
    sqlite_file.require_single_name(path)
    lock = Path(f"{os.path.realpath(path)}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise file_error(path, error) from error
    try:
        _lock(descriptor, path)
        _write_text(
            descriptor, f"syncd {command}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
        )
        try:
            yield
        finally:
            _write_text(descriptor, "")
    finally:
        os.close(descriptor)


def require_free(path: Path) -> None:
    """Check that no daemon holds the database file; nothing is created or written.

    Raises
    ------
    DatabaseUnusableError
        A daemon holds it; the message names the daemon.
    """
    try:
        descriptor = os.open(f"{os.path.realpath(path)}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _lock(descriptor, path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
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
