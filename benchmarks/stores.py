"""Where a contender stores its mirror: a SQLite file, or a database of a PostgreSQL server of the benchmark.

Both are durable. The name of a place is the file's path or the database's URL, which contenders receive.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.timer import WATCHED
from syncd.mirror.db.dialects import translate
from syncd.mirror.db.sqlite_module import sqlite3

if TYPE_CHECKING:
    from tests.helpers.postgres_server import PostgresServer

POSTGRES = ("shared_buffers=256MB", "max_wal_size=2GB")
"""Settings that differ from PostgreSQL's defaults, as on a production server. `fsync` stays on."""


def is_postgresql(where: str) -> bool:
    """Whether a place is a database of PostgreSQL."""
    return where.startswith("postgresql")


class Connection(Protocol):
    """A connection of another program to a mirror; each statement is a transaction."""

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, with `?` for its parameters, and return its rows."""

    def stream(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Run a statement and yield its rows, because a million rows do not fit in memory."""

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row, all in one transaction."""

    def close(self) -> None:
        """Close the connection."""


class _Sqlite:
    def __init__(self, where: str) -> None:
        self._db = sqlite3.connect(f"file:{where}?mode=rw", uri=True, isolation_level=None, timeout=30)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._db.execute(statement, parameters).fetchall()

    def stream(self, statement: str) -> Iterator[tuple[Any, ...]]:
        return iter(self._db.execute(statement))

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(statement, rows)
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


class _Postgres:
    def __init__(self, where: str) -> None:
        import asyncpg

        self._runner = asyncio.Runner()
        self._db = self._runner.run(asyncpg.connect(where.replace("+asyncpg", "")))

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._runner.run(self._db.fetch(translate(statement), *parameters))]

    def stream(self, statement: str) -> Iterator[tuple[Any, ...]]:
        self._runner.run(self._db.execute("BEGIN"))
        self._runner.run(self._db.execute(f"DECLARE streamed NO SCROLL CURSOR FOR {statement}"))
        while rows := self._runner.run(self._db.fetch("FETCH 5000 FROM streamed")):
            yield from map(tuple, rows)
        self._runner.run(self._db.execute("COMMIT"))

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._runner.run(self._db.executemany(translate(statement), rows))

    def close(self) -> None:
        self._runner.run(self._db.close())
        self._runner.close()


def connect(where: str) -> Connection:
    """Open an existing place."""
    return _Postgres(where) if is_postgresql(where) else _Sqlite(where)


class Store(Protocol):
    """Places by their names."""

    title: str
    floor: str
    same_rows: str
    """The names of the floors."""
    settle: float
    """Seconds until statistics of earlier work no longer appear in later readings."""

    def at(self, name: str) -> str:
        """Return a place."""

    def empty(self, name: str) -> str:
        """Return an empty place."""

    def copy(self, name: str, to: str) -> str:
        """Return a copy of another place, which no program has open."""

    def version(self) -> str:
        """Return the name and version of the database."""


class SqliteStore:
    """Files in a folder."""

    title, floor, same_rows, settle = "SQLite", "floor", "same-rows", 2.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def at(self, name: str) -> str:
        """Return a place."""
        return str(self._folder / f"{name}.db")

    def empty(self, name: str) -> str:
        """Return an empty place."""
        where = self.at(name)
        for suffix in ("", "-wal", "-shm", ".lock"):
            Path(f"{where}{suffix}").unlink(missing_ok=True)
        return where

    def copy(self, name: str, to: str) -> str:
        """Return a copy of another place."""
        shutil.copyfile(self.at(name), self.empty(to))
        return self.at(to)

    def version(self) -> str:
        """Return the name and version of the database."""
        return f"SQLite {sqlite3.sqlite_version}"


class PostgresStore:
    """Databases of a server; statistics of writes are late by up to ten seconds."""

    title, floor, same_rows, settle = "PostgreSQL", "floor-pg", "same-rows-pg", 12.0

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @staticmethod
    def _name(name: str) -> str:
        return f"bench_{name.replace('-', '_')}"

    def at(self, name: str) -> str:
        """Return a place."""
        return self._server.url(self._name(name))

    def empty(self, name: str) -> str:
        """Return an empty place."""
        self._server.drop(self._name(name))
        self._server.sql(f"CREATE DATABASE {self._name(name)}")
        return self.at(name)

    def copy(self, name: str, to: str) -> str:
        """Return a copy of another place."""
        self._server.drop(self._name(to))
        self._server.sql(f"CREATE DATABASE {self._name(to)} TEMPLATE {self._name(name)}")
        return self.at(to)

    def version(self) -> str:
        """Return the name and version of the database."""
        return f"PostgreSQL {self._server.sql('SHOW server_version')}"


@contextmanager
def postgres() -> Iterator[PostgresStore]:
    """Run a PostgreSQL until the block ends; contenders also measure its CPU."""
    from tests.helpers.postgres_server import PostgresServer  # contenders do not need it

    server = PostgresServer(*POSTGRES)
    try:
        server.start()
        assert server.process is not None
        os.environ[WATCHED] = str(server.process.pid)
        yield PostgresStore(server)
    finally:
        os.environ.pop(WATCHED, None)
        server.remove()
