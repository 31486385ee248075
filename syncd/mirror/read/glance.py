"""A glance at a mirror with nothing but the driver, for a command that people and probes call all the time.

`syncd status` would spend most of its time on importing SQLAlchemy. What it shows is the same as `views.overview`
(a test holds the two together); whatever is out of the ordinary is left to the long way, which has the words for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from syncd.errors import DatabaseUnusableError
from syncd.mirror.db import sqlite_file
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.schema import enums
from syncd.mirror.schema.revisions import HEAD

PASSES_SHOWN = 5
CONNECT_SECONDS, COMMAND_SECONDS = 5.0, 30.0
Rows = Sequence[Any]
_TIMES = ("last_complete_pass_at", "started_at", "finished_at")


_VERSION = "SELECT version_num FROM alembic_version"
_FRESHNESS = "SELECT * FROM mirror_freshness"
_COUNTS = "SELECT state, count(*) FROM {} GROUP BY state"
_PASSES = f"SELECT {', '.join(enums.PASS_COLUMNS)} FROM passes ORDER BY id DESC LIMIT {PASSES_SHOWN}"  # noqa: S608 - constants


def overview(url: str) -> dict[str, Any] | None:
    """Return what `views.overview` returns; None when the database is not a mirror with its schema at head."""
    scheme, _, path = url.partition(":///")
    if scheme.startswith("sqlite"):
        return of_sqlite(Path(path))
    # what may stand behind the ? is SQLAlchemy's to understand
    return None if "?" in url else of_postgresql(url.replace("+asyncpg", "", 1))


def of_sqlite(path: Path) -> dict[str, Any] | None:
    """Glance at a file."""
    if not os.path.isfile(path):  # noqa: PTH113 - which also holds for a name that no file can have
        return None
    try:
        sqlite_file.require_single_name(path)
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            asked = (_VERSION, _FRESHNESS, *map(_COUNTS.format, ("operations", "source_sessions")), _PASSES)
            return _told(*(connection.execute(statement).fetchall() for statement in asked))
    except (sqlite3.Error, DatabaseUnusableError):
        return None


def of_postgresql(dsn: str) -> dict[str, Any] | None:
    """Glance at a database of PostgreSQL."""
    import asyncio  # noqa: PLC0415 - who has a SQLite file needs none of it

    import asyncpg  # noqa: PLC0415

    try:
        return asyncio.run(_ask(dsn))
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None


async def _ask(dsn: str) -> dict[str, Any] | None:
    import asyncpg  # noqa: PLC0415

    connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            asked = (_VERSION, _FRESHNESS, *map(_COUNTS.format, ("operations", "source_sessions")), _PASSES)
            return _told(*[await connection.fetch(statement) for statement in asked])
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


def _told(version: Rows, freshness: Rows, operations: Rows, sources: Rows, passes: Rows) -> dict[str, Any] | None:
    if [row[0] for row in version] != [HEAD]:
        return None
    return {
        "freshness": _plain(freshness[0]),
        "operations": dict.fromkeys(enums.OPERATIONS, 0) | dict(map(tuple, operations)),
        "sources": dict.fromkeys(enums.SOURCES, 0) | dict(map(tuple, sources)),
        "passes": [_plain(row) for row in passes],
    }


def _plain(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of either driver
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 - iterating a row gives its values
    for name in _TIMES:
        if isinstance(values.get(name), str):
            values[name] = datetime.fromisoformat(values[name])
    return values
