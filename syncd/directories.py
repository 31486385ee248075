"""Makes the directories of exports and backups, so that the readers of the files can enter them."""

from __future__ import annotations

import stat
from pathlib import Path


def make_directory(path: Path, *, files: int, mode: int = 0o777) -> None:
    """Make a directory and its missing parents, which the readers of the files may enter, whatever the umask is.

    A directory that exists keeps its mode.

    Parameters
    ----------
    files : int
        The mode of the files that are written into the directory.
    mode : int
        The mode of the directory before the umask is applied and `files` is considered.

    Raises
    ------
    OSError
        The directory cannot be made, or another file has its name.
    """
    new = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    for directory in new:
        _let_readers_enter(directory, files)


def _let_readers_enter(directory: Path, files: int) -> None:
    readable = files & 0o444
    before = stat.S_IMODE(directory.stat().st_mode)
    after = before | 0o700 | readable | readable >> 2
    if after != before:
        directory.chmod(after)
