"""A mirror in SQLite on the bare driver, for commands that would spend most of their time on importing SQLAlchemy.

`operation_views`, `quick_enqueue` and `read/views` call it. It serves only a mirror that needs nothing before its
use. For every other one it returns None: the caller then takes the general way, which prepares the mirror, waits for
it, or says what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.sqlite_module import decode, sqlite3
from syncd.mirror.schema.revisions import HEAD, SELECT_REVISION

T = TypeVar("T")
LOCK_SECONDS = 1.0
"""Seconds that a transaction waits for another program, without a message; the general way says that it waits."""


class _UnsuitableError(Exception):
    """The mirror is not one that needs nothing before its use."""


def read(url: str, work: Callable[[sqlite3.Connection], T]) -> T | None:
    """Run a function of a connection in a transaction that sees one snapshot and writes nothing.

    Returns
    -------
    T | None
        None if the URL names no SQLite file, or the file cannot be read now, or its schema is not at head.
    """
    try:
        with _transaction(_file(url), "PRAGMA query_only=ON", "BEGIN") as connection:
            return work(connection)
    except (sqlite3.Error, DatabaseUnusableError, _UnsuitableError):
        return None


def write(url: str, work: Callable[[sqlite3.Connection], T | None]) -> T | None:
    """Run a function of a connection in a transaction, and commit it if the function returns a result.

    Returns
    -------
    T | None
        None if nothing was written: `read` would return None, the function did, a statement failed, the file has no
        write-ahead log yet, or it was replaced meanwhile. A commit that fails has written nothing.

    Raises
    ------
    DatabaseReplacedError
        The file was replaced by another one during the commit.
    """
    try:
        path = _file(url)
        before = sqlite_file.identity(path)
        with _transaction(path, "PRAGMA foreign_keys=ON", "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE") as connection:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                return None
            result = work(connection)
            if result is None or sqlite_file.identity(path) != before:
                return None
            connection.execute("COMMIT")
    except (sqlite3.Error, DatabaseUnusableError, _UnsuitableError):
        return None
    sqlite_file.require_identity(path, before)
    return result


def _file(url: str) -> Path:
    scheme, _, name = url.partition(":///")
    if not (scheme.startswith("sqlite") and os.path.isfile(name)):  # noqa: PTH113 - False also for an impossible name
        raise _UnsuitableError
    return Path(name)


@contextmanager
def _transaction(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """Open a mirror at head; the end of the connection undoes what was not committed."""
    sqlite_file.require_single_name(path)
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.text_factory = decode
        for statement in statements:
            connection.execute(statement)
        if [row[0] for row in connection.execute(SELECT_REVISION)] != [HEAD]:
            raise _UnsuitableError
        yield connection
