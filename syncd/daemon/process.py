"""Settings of the entry points for the whole process: the garbage collector and SQLite's folder for temporary files."""

from __future__ import annotations

import gc
import os
from pathlib import Path

YOUNG_OBJECTS = 20_000
"""Objects that may be created before the collector looks for cycles among them: those of a few pages of rows.

With Python's 700, and all imported modules to traverse each time, it took 8% of the CPU of a first pass.
"""


def prepare_process(file: Path | None) -> None:
    """Prepare the process of a daemon for its database file; None for a database on a server.

    SQLite sorts an index over a million sessions in temporary files, in the only folder that is certainly writable.
    The library of `pysqlite3` sorts in memory and ignores this.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    if file is not None:
        os.environ.setdefault("SQLITE_TMPDIR", str(file.parent))
