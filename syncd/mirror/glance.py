"""A glance at a SQLite mirror with nothing but the driver, for a command that people and probes call all the time.

`syncd status` would spend most of its time on importing SQLAlchemy. What it shows is the same as `views.overview`
(a test holds the two together); whatever is out of the ordinary is left to the long way, which has the words for it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from syncd.mirror.versions import HEAD

PASS_COLUMNS = (
    "id", "state", "started_at", "finished_at", "pages", "seen", "inserted", "updated", "unchanged", "restored",
    "missing", "deleted", "quarantined", "error",
)  # fmt: skip
OPERATION_STATES = ("pending", "running", "unknown", "succeeded", "dead", "cancelled")
SOURCE_STATES = ("unresolved", "linked", "missing", "conflict")
_TIMES = ("last_complete_pass_at", "started_at", "finished_at")


def overview(path: Path, *, passes_shown: int = 5) -> dict[str, Any] | None:
    """Return what `views.overview` returns; None when the file is not a mirror with its schema at head."""
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            if [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")] != [HEAD]:
                return None
            freshness = connection.execute("SELECT * FROM mirror_freshness").fetchone()
            columns = ", ".join(PASS_COLUMNS)
            last = connection.execute(
                f"SELECT {columns} FROM passes ORDER BY id DESC LIMIT ?",  # noqa: S608 - constants
                (passes_shown,),
            )
            return {
                "freshness": _plain(freshness),
                "operations": _counts(connection, "operations", OPERATION_STATES),
                "sources": _counts(connection, "source_sessions", SOURCE_STATES),
                "passes": [_plain(row) for row in last],
            }
    except sqlite3.Error:
        return None


def _counts(connection: sqlite3.Connection, table: str, states: tuple[str, ...]) -> dict[str, int]:
    found = dict(connection.execute(f"SELECT state, count(*) FROM {table} GROUP BY state").fetchall())  # noqa: S608
    return {state: found.get(state, 0) for state in states}


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 - iterating a Row gives its values
    for name in _TIMES:
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name])
    return values
