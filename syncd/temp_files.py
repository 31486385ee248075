"""Names for unfinished files: unique to one process, and recognized as left behind once that process was killed.

`backup`, `restore` and `export` write to such a name and rename the file when it is complete.

::

    .syncd-backup.5f0c9a1e3b7d2468.lock              locked while its process lives
    .syncd-backup.5f0c9a1e3b7d2468.copy.tmp          the unfinished file

The next process that makes files of the same kind in the same directory removes files whose lock is free. The lock is
a file of its own: on a network file system flock would interfere with SQLite's locks. Nothing is removed on a file
system without locks.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = re.compile(r"\.(?P<kind>[a-z-]+)\.(?P<mark>[0-9a-f]{16})\.lock")


@contextmanager
def temp_names(directory: Path, kind: str) -> Iterator[Callable[[str], Path]]:
    """Yield a function that returns temporary names in a directory; files that still have one are removed at the end.

    Parameters
    ----------
    kind : str
        The command that makes them, such as `syncd-export`. Files of other kinds are not touched.

    Raises
    ------
    OSError
        No file can be made in the directory.
    """
    _remove_abandoned(directory, kind)
    mark = secrets.token_hex(8)  # the process id is the same in each run of a container
    held = _hold(_lock(directory, kind, mark))
    try:
        yield lambda name: directory / f".{kind}.{mark}.{name}.tmp"
    finally:
        _remove(directory, kind, mark)
        os.close(held)


def _lock(directory: Path, kind: str, mark: str) -> Path:
    return directory / f".{kind}.{mark}.lock"


def _hold(lock: Path) -> int:
    """Make a lock file and lock it; repeat if another process removed it as abandoned in between."""
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _remove_abandoned(directory: Path, kind: str) -> None:
    """Remove the files of processes that are dead."""
    for path in directory.iterdir():
        found = _LOCK.fullmatch(path.name)
        if found is None or found["kind"] != kind:
            continue
        with suppress(OSError):  # it is locked, belongs to another user, or is gone
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(directory, kind, found["mark"])
            finally:
                os.close(descriptor)


def _remove(directory: Path, kind: str, mark: str) -> None:
    """Remove all files with a mark, the lock last: files that a kill leaves here are found again by their lock."""
    start = f".{kind}.{mark}."
    with suppress(OSError):
        for path in directory.iterdir():
            if path.name.startswith(start) and path.name != f"{start}lock":
                path.unlink()
        _lock(directory, kind, mark).unlink()
