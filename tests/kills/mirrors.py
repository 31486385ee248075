"""The mirrors of the killed commands: copies of templates, as files of SQLite or as databases of a PostgreSQL."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import anyio
import asyncpg
import sqlalchemy as sa

from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers.postgres_server import PostgresServer, in_thread

LOOK_SECONDS = 0.01
SETTLES = 1.5
"""Seconds, longer than the lease, after which any replica can take the claims of one that was killed."""


class Mirrors(Protocol):
    """Where mirrors are, each in the name of a folder."""

    def url(self, folder: Path) -> str:
        """Return the mirror's URL."""

    async def make_empty(self, folder: Path) -> None:
        """Make the folder, and an empty database of it where the database is not a file."""

    async def copy(self, template: Path, folder: Path) -> None:
        """Make the mirror of a folder as a copy of a template."""

    async def sql(self, folder: Path, statement: str) -> list[Any]:
        """Query the database as an analyst does."""

    async def wrong(self, folder: Path, /) -> list[str]:
        """Return the defects of the database itself."""

    async def settle(self, folder: Path, *, claims: bool) -> None:
        """Wait after a kill until a command can start, and until the claims of the killed process are void."""


class SqliteMirrors:
    """Files."""

    def url(self, folder: Path) -> str:
        return f"sqlite+aiosqlite:///{folder / 'syncd.db'}"

    async def make_empty(self, folder: Path) -> None:
        folder.mkdir()

    async def copy(self, template: Path, folder: Path) -> None:
        shutil.copytree(template, folder, dirs_exist_ok=True)

    async def sql(self, folder: Path, statement: str) -> list[Any]:
        with closing(sqlite3.connect(folder / "syncd.db", isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    async def wrong(self, folder: Path) -> list[str]:
        if not (folder / "syncd.db").exists():
            return []
        verdict = await self.sql(folder, "PRAGMA integrity_check")
        return [] if verdict == [("ok",)] else [f"integrity: {verdict}"]

    async def settle(self, folder: Path, *, claims: bool) -> None:
        """Return: the operating system has released the locks, and the next daemon knows that it is the only one."""


class PostgresMirrors:
    """Databases of a server, one in the name of each folder."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._names: dict[Path, str] = {}
        self._copying = anyio.Lock()

    def url(self, folder: Path) -> str:
        return self._server.url(self._names[folder])

    async def make_empty(self, folder: Path) -> None:
        await self.copy(folder / "nothing", folder)

    async def copy(self, template: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        async with self._copying:  # a template that is copied must not be in use
            name = f"kill_{len(self._names)}"
            made = f"CREATE DATABASE {name}"
            if template in self._names:
                made += f" TEMPLATE {self._names[template]} STRATEGY wal_log"
            await in_thread(lambda: self._server.sql(made))
            self._names[folder] = name

    async def sql(self, folder: Path, statement: str) -> list[Any]:
        url = sa.make_url(self.url(folder))
        connection = await asyncpg.connect(host=url.host, port=url.port, user=url.username, database=url.database)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    async def wrong(self, _folder: Path) -> list[str]:
        return []  # a killed client breaks no server; `tests/mirror/db` kills the server

    async def settle(self, folder: Path, *, claims: bool) -> None:
        names = ", ".join(f"'{self._names[path]}'" for path in (folder, folder / "target") if path in self._names)
        clients = f"FROM pg_stat_activity WHERE datname IN ({names}) AND backend_type = 'client backend'"
        while await self.sql(folder, f"SELECT 1 {clients} AND pid <> pg_backend_pid()"):  # noqa: ASYNC110 - a server
            await anyio.sleep(LOOK_SECONDS)
        if claims:
            await anyio.sleep(SETTLES)
