"""Is what a contender left behind what was served? Counted, and summed over all columns."""

from __future__ import annotations

import functools
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.server import Listing, session

Content = tuple[int, int]
"""How many sessions, and the sum of their checksums (CRC-32), which no order changes."""

_TIMES = ("last_message_at", "created_at", "updated_at")
COLUMNS = (
    "id", "name", "parent_id", "source_session_id", "last_message_at", "status", "kind",
    "created_by", "created_by_name", "created_at", "updated_by", "updated_by_name", "updated_at",
)  # fmt: skip


def _sum(rows: Iterable[tuple[Any, ...]]) -> Content:
    count = total = 0
    for row in rows:
        count += 1
        total += zlib.crc32("\x1f".join(row).encode())
    return count, total


@functools.lru_cache(maxsize=32)
def served(listing: Listing) -> Content:
    """Return what a whole mirror of a listing holds."""

    def row(number: int) -> tuple[str, ...]:
        one = session(number, changed=listing.changed(number))
        created, updated = one["Created"], one["Updated"]
        return (
            one["id"], one["name"], one["parentId"], one["sourceSessionId"], one["lastMessageAt"], one["status"],
            one["kind"], *(block[key] for block in (created, updated) for key in ("by", "byName", "at")),
        )  # fmt: skip

    return _sum(map(row, range(listing.sessions)))


def mirrored(file: Path, table: str = "sessions", columns: tuple[str, ...] = COLUMNS) -> Content:
    """Return what a mirror holds; times are compared to the millisecond, as they are served, in whatever form."""
    by = ", ".join(
        f"substr(substr({name}, 1, 10) || 'T' || substr(rtrim({name}, 'Z'), 12) || '.000', 1, 23) || 'Z'"
        if ours in _TIMES
        else name
        for ours, name in zip(COLUMNS, columns, strict=True)
    )
    db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return _sum(db.execute(f"SELECT {by} FROM {table}"))
    finally:
        db.close()


def queue(file: Path, operations: int) -> None:
    """Make sure that each create has succeeded and its session is in the mirror."""
    db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    states = dict(db.execute("SELECT state, count(*) FROM operations GROUP BY state"))
    assert states == {"succeeded": operations}, states
    found = db.execute(
        "SELECT count(*), count(DISTINCT s.id) FROM operations AS o JOIN chat_sessions AS s "
        "ON s.id = o.result_session_id AND s.source_session_id = o.source_session_id AND s.name = o.name"
    ).fetchone()
    assert found == (operations, operations), found
    db.close()


class Writes:
    """Counts the rows that are written to the tables of sessions, by triggers in a copy of the mirror."""

    TABLES = ("sessions", "session_versions", "source_sessions")

    def __init__(self, file: Path) -> None:
        self.file = file
        db = sqlite3.connect(file, isolation_level=None)
        db.execute("CREATE TABLE bench_writes (of TEXT)")
        for table in self.TABLES:
            for event in ("INSERT", "UPDATE", "DELETE"):
                db.execute(
                    f"CREATE TRIGGER bench_{table}_{event} AFTER {event} ON {table} "
                    f"BEGIN INSERT INTO bench_writes VALUES ('{table}'); END"
                )
        db.close()

    def count(self) -> int:
        """Return the number of rows that were written since."""
        db = sqlite3.connect(self.file)
        try:
            return int(db.execute("SELECT count(*) FROM bench_writes").fetchone()[0])
        finally:
            db.close()
