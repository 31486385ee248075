"""The database under the model: real, without threads, and emptied for every schedule.

`Store` has all functions of a database that the model uses, so that the same schedules can run over another one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from syncd.mirror.db import sqlite
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import migrate

Values = tuple[Any, ...]
PRAGMAS = (
    "locking_mode=EXCLUSIVE",
    *("synchronous=OFF" if p.startswith("synchronous") else p for p in sqlite.WRITER_PRAGMAS),
)


class Store(Protocol):
    """A database that schedules run over."""

    url: sa.URL
    alone: bool
    """Whether a daemon that begins knows that no other is there."""

    def begin(self) -> None:
        """Put an empty mirror in place."""

    def transact(self, work: Callable[[sa.Connection], None]) -> bool:
        """Work in one write transaction; return whether that changed anything."""

    def write(self, work: Any) -> Any:
        """Write as another program does."""

    def read(self, work: Any) -> Any:
        """Run a function of a connection in a read transaction."""

    def read_inline(self, statement: str, parameters: Sequence[Any]) -> list[Values] | None:
        """Answer `Database.read_inline`."""

    def save(self) -> Any:
        """Copy the database, as a backup does; None where the model copies none."""

    def restore(self, saved: Any) -> None:
        """Put a copy in the place of the database."""

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the names of a table's columns."""

    def rows(self, statement: str) -> list[Values]:
        """Return what is committed, when no transaction is open; times as text, as in SQLite."""

    def remove(self) -> None:
        """Remove all files and connections."""


class SqliteStore:
    """One file that every schedule of this process empties first, and one connection that stays open.

    A transaction is one step of the model, so that a reader between two steps sees what is committed, through the
    same connection too: more of them would only cost time. The file is in memory where the machine has such a place;
    another test is about power loss.
    """

    alone = True

    def __init__(self) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a temporary directory in it
        self.folder = Path(tempfile.mkdtemp(prefix="syncd-model-", dir=base))
        self.url = sa.make_url(f"sqlite+aiosqlite:///{self.folder / 'model.db'}")
        self._engine = sqlite.sync_engine(self.folder / "model.db", poolclass=sa.pool.StaticPool)
        sqlite.prepare(self._engine, PRAGMAS, begin="BEGIN")  # no other process is there
        self._connection = self._engine.connect()
        with self._connection.begin():
            migrate.migrate(self._connection)
        raw: Any = self._connection.connection.driver_connection
        self._raw: sqlite3.Connection = raw
        self._template = sqlite3.connect(":memory:")
        self._raw.backup(self._template)

    def begin(self) -> None:
        self._template.backup(self._raw)
        self._changes = self._raw.total_changes

    def transact(self, work: Callable[[sa.Connection], None]) -> bool:
        before = self._raw.total_changes
        with self._connection.begin():
            work(self._connection)
        return self._raw.total_changes != before

    def write(self, work: Any) -> Any:
        with self._connection.begin():
            return work(self._connection)

    def read(self, work: Any) -> Any:
        self._raw.execute("PRAGMA query_only=ON")
        try:
            with self._connection.begin():
                return work(self._connection)
        finally:
            self._raw.execute("PRAGMA query_only=OFF")

    def read_inline(self, statement: str, parameters: Sequence[Any]) -> list[Values] | None:
        try:
            return self._raw.execute(statement, parameters).fetchall()
        except sqlite3.OperationalError:
            return None

    def save(self) -> Any:
        copy = sqlite3.connect(":memory:")
        self._raw.backup(copy)
        return copy

    def restore(self, saved: Any) -> None:
        saved.backup(self._raw)
        saved.close()

    def columns(self, table: str) -> tuple[str, ...]:
        return tuple(row[1] for row in self._raw.execute(f"PRAGMA table_info({table})"))

    def rows(self, statement: str) -> list[Values]:
        assert not self._raw.in_transaction
        return self._raw.execute(statement).fetchall()

    def remove(self) -> None:
        self._template.close()
        self._connection.close()
        self._engine.dispose()
        shutil.rmtree(self.folder)
