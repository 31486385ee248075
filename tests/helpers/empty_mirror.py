"""An empty SQLite mirror at head: the migrations run once in each process, and tests get a copy of the file."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from syncd.mirror.db.sqlite import sync_engine
from syncd.mirror.schema import migrate


@cache
def _content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "syncd.db"
        engine = sync_engine(path)
        with engine.begin() as connection:
            migrate.migrate(connection)
        engine.dispose()
        return path.read_bytes()


def create(path: Path) -> None:
    """Create an empty mirror.

    Raises
    ------
    FileExistsError
        The path is taken.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_content())
