"""One daemon to a SQLite file: a lock beside it that the operating system lets go when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db.file_access import file_error


@contextmanager
def daemon_lock(path: Path, command: str) -> Iterator[None]:
    """Hold the database file for a daemon; the lock file `FILE.lock` says who does, and stays behind empty.

    Raises
    ------
    DatabaseUnusableError
        Another daemon holds it; the message names it.
    """
    lock = Path(f"{os.path.realpath(path)}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise file_error(path, error) from error
    try:
        _hold(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(
            descriptor,
            f"syncd {command}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode(),
            0,
        )
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def require_free(path: Path) -> None:
    """Make sure that no daemon holds the database file; nothing is made or written.

    Raises
    ------
    DatabaseUnusableError
        A daemon holds it; the message names it.
    """
    try:
        descriptor = os.open(f"{os.path.realpath(path)}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _hold(descriptor, path)
    finally:
        os.close(descriptor)


def _hold(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another syncd"
        raise DatabaseUnusableError(f"{path} is held by {holder}; stop it first") from None
