"""Names for files in the making: nobody else's, and known as left behind once their maker was killed.

::

    .syncd-backup.5f0c9a1e3b7d2468.lock              locked for as long as its maker lives
    .syncd-backup.5f0c9a1e3b7d2468.copy.tmp          what it makes

The next one who makes something of the same kind in the same directory removes what nobody holds the lock of any more.
The lock is a file of its own: on a network file system flock would be in the way of SQLite's own locks. Where there are
no locks nothing is removed.
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
    """Give a function that makes temporary names in a directory; what still has one at the end is removed.

    Parameters
    ----------
    kind : str
        Who makes it, such as `syncd-export`: what other kinds have left is let alone.

    Raises
    ------
    OSError
        Nothing can be made in the directory.
    """
    _clear(directory, kind)
    mark = secrets.token_hex(8)  # and not the process id, which is the same in each run of a container
    held = _hold(_lock(directory, kind, mark))
    try:
        yield lambda name: directory / f".{kind}.{mark}.{name}.tmp"
    finally:
        _remove(directory, kind, mark)
        os.close(held)


def _lock(directory: Path, kind: str, mark: str) -> Path:
    return directory / f".{kind}.{mark}.lock"


def _hold(lock: Path) -> int:
    """Make a lock and take it; again, when another took it for a dead one's in between and removed it."""
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _clear(directory: Path, kind: str) -> None:
    """Remove what makers that are dead have left."""
    for path in directory.iterdir():
        found = _LOCK.fullmatch(path.name)
        if found is None or found["kind"] != kind:
            continue
        with suppress(OSError):  # it is held, or it is another user's, or it is gone
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(directory, kind, found["mark"])
            finally:
                os.close(descriptor)


def _remove(directory: Path, kind: str, mark: str) -> None:
    """Remove all that has a mark, the lock last: what a kill leaves here is found again."""
    start = f".{kind}.{mark}."
    with suppress(OSError):
        for path in directory.iterdir():
            if path.name.startswith(start) and path.name != f"{start}lock":
                path.unlink()
        _lock(directory, kind, mark).unlink()
