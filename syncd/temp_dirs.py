"""Directories for files that are not finished: private to their maker, and removed by the next maker after a kill.

`files/exports` and `mirror/copy/backup` write here and then rename the result, in the same folder, to its final name. A
directory such as `.syncd-backup.k3x9_w1p.tmp` is locked while its maker runs. The next maker of the same kind in the
same folder removes directories that are not locked. On a file system without locks nothing is removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def temp_dir(folder: Path, kind: str) -> Iterator[Path]:
    """Give a new directory with mode 0700 in a folder; it is removed at the end, with all that is left in it.

    Parameters
    ----------
    kind : str
        The program's part, such as `syncd-export`: directories of other kinds are not removed.

    Raises
    ------
    OSError
        Nothing can be created in the folder.
    """
    _remove_abandoned(folder, kind)
    path, descriptor = _create(folder, kind)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _create(folder: Path, kind: str) -> tuple[Path, int]:
    """Create and lock a directory; again if another maker took it for an abandoned one before it was locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f".{kind}.", suffix=".tmp", dir=folder))
        try:
            descriptor = _open(path)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is(path, descriptor):
            return path, descriptor
        os.close(descriptor)


def _remove_abandoned(folder: Path, kind: str) -> None:
    for path in folder.glob(f".{kind}.*.tmp"):
        with suppress(OSError):  # its maker runs, or it is another user's, or it is gone
            descriptor = _open(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
