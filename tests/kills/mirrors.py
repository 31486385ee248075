"""The mirrors that are killed: copies of templates, as files of SQLite or as databases of a PostgreSQL."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import sqlalchemy as sa

from syncd.mirror.db.sqlite_module import sqlite3
from tests.helpers.postgres_server import PostgresServer, in_thread

SETTLES = 1.5
"""Seconds, longer than the lease, after which the claims of a replica that was killed are anybody's."""


class Mirrors(Protocol):
    """Where mirrors are, each in the name of a folder."""

    settle_seconds: float
    """Seconds between a kill and the next start."""

    def url(self, folder: Path) -> str:
        """Return the mirror's URL."""

    async def copy(self, template: Path, folder: Path) -> None:
        """Make a mirror of the folder that holds what the template's does."""

    async def sql(self, folder: Path, statement: str) -> list[Any]:
        """Ask the database as an analyst does."""

    async def wrong(self, folder: Path, /) -> list[str]:
        """Say what is broken in the database itself."""


class SqliteMirrors:
    """Files."""

    settle_seconds = 0.0

    def url(self, folder: Path) -> str:
        return f"sqlite+aiosqlite:///{folder / 'syncd.db'}"

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


class PostgresMirrors:
    """Databases of a server, one in the name of each folder."""

    settle_seconds = SETTLES

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._names: dict[Path, str] = {}

    def url(self, folder: Path) -> str:
        return self._server.url(self._names[folder])

    async def copy(self, template: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
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
