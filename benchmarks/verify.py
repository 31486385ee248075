"""Verifies that a mirror contains the sessions that were served: by their number and a checksum of all columns."""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Iterable
from typing import Any

from benchmarks.server import Listing, session
from benchmarks.stores import connect, is_postgresql

Content = tuple[int, int]
"""The number of sessions, and the sum of their checksums (CRC-32), which does not depend on the order."""

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
    """Return the content of a complete mirror of a listing."""

    def row(number: int) -> tuple[str, ...]:
        item = session(number, changed=listing.changed(number))
        created, updated = item["Created"], item["Updated"]
        return (
            item["id"], item["name"], item["parentId"], item["sourceSessionId"], item["lastMessageAt"], item["status"],
            item["kind"], *(block[key] for block in (created, updated) for key in ("by", "byName", "at")),
        )  # fmt: skip

    return _sum(map(row, range(listing.sessions)))


def mirrored(where: str, table: str = "sessions", columns: tuple[str, ...] = COLUMNS) -> Content:
    """Return the content of a mirror. Times are compared to the millisecond, in any form."""
    time = (
        """to_char({0}::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
        if is_postgresql(where)
        else "substr(substr({0}, 1, 10) || 'T' || substr(rtrim({0}, 'Z'), 12) || '.000', 1, 23) || 'Z'"
    )
    by = ", ".join(time.format(name) if ours in _TIMES else name for ours, name in zip(COLUMNS, columns, strict=True))
    with contextlib.closing(connect(where)) as db:
        return _sum(db.stream(f"SELECT {by} FROM {table}"))


def queue(where: str, operations: int) -> None:
    """Make sure that each create has succeeded and its session is in the mirror."""
    with contextlib.closing(connect(where)) as db:
        states = dict(db.execute("SELECT state, count(*) FROM operations GROUP BY state"))
        assert states == {"succeeded": operations}, states
        counts = db.execute(
            "SELECT count(*), count(DISTINCT s.id) FROM operations AS o JOIN chat_sessions AS s "
            "ON s.id = o.result_session_id AND s.source_session_id = o.source_session_id AND s.name = o.name"
        )
        assert counts == [(operations, operations)], counts


def blocked_queue(where: str, operations: int, blocked: int) -> None:
    """Make sure that each create on another key has succeeded, and that no other operation was applied."""
    with contextlib.closing(connect(where)) as db:
        states = dict(db.execute("SELECT state, count(*) FROM operations GROUP BY state"))
    assert states == {"succeeded": operations} | ({"dead": 1, "pending": blocked} if blocked else {}), states


class Writes:
    """Counts the rows that are written to the tables of sessions, by triggers in a copy of the mirror."""

    TABLES = ("sessions", "session_versions", "source_sessions")

    def __init__(self, where: str) -> None:
        self._where = where
        with contextlib.closing(connect(where)) as db:
            db.execute("CREATE TABLE bench_writes (of_table TEXT)")
            for statement in self._postgres() if is_postgresql(where) else self._sqlite():
                db.execute(statement)

    def _sqlite(self) -> Iterable[str]:
        for table in self.TABLES:
            for event in ("INSERT", "UPDATE", "DELETE"):
                yield (
                    f"CREATE TRIGGER bench_{table}_{event} AFTER {event} ON {table} "
                    f"BEGIN INSERT INTO bench_writes VALUES ('{table}'); END"
                )

    def _postgres(self) -> Iterable[str]:
        yield (
            "CREATE FUNCTION bench_write() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO bench_writes VALUES (TG_TABLE_NAME); RETURN NULL; END $$"
        )
        for table in self.TABLES:
            yield (
                f"CREATE TRIGGER bench_{table} AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION bench_write()"
            )

    def count(self) -> int:
        """Return the number of rows that were written since the start."""
        with contextlib.closing(connect(self._where)) as db:
            return int(db.execute("SELECT count(*) FROM bench_writes")[0][0])
