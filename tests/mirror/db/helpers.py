"""Helpers of the tests of a SQLite database: open one in a folder, and run a statement."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from syncd.mirror.db import sqlite
from syncd.mirror.db.database import Database


def url_of(folder: Path) -> sa.URL:
    return sa.make_url(f"sqlite+aiosqlite:///{folder / 'syncd.db'}")


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Database]:
    async with Database.create(url_of(folder), **options) as database:
        yield database


def run(statement: str) -> Callable[[sa.Connection], Any]:
    def work(connection: sa.Connection) -> Any:
        result = connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None

    return work


def writer_of(database: Database) -> sa.Engine:
    assert isinstance(database.store, sqlite.Store)
    return database.store.writer
