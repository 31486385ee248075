"""The floor of the same rows: plain code that writes the rows of syncd into its tables and indexes.

Sessions with their times in syncd's form, one row for each source id, one row for each page with its digest and the
bitmap of its sessions. As in `floor`, nothing is checked. The difference to this floor is overhead that syncd could
remove.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from pyroaring import BitMap64

from benchmarks.floor import Fetched, Item, connect_postgres, durable, listing
from benchmarks.ours import empty_mirror
from benchmarks.server import COLUMNS
from benchmarks.timer import Timer

NOW = "2026-01-01T00:00:00.000000Z"
DATES = {"created_date": "created_at", "last_message_date": "last_message_at"}
SESSION = ("key", *COLUMNS, *DATES, "seq", "version", "change", "valid_from", "pass_id", "first_seen_at")
CONSTANTS = f"1, 'created', '{NOW}', 1, '{NOW}'"
CONFLICT = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
INSERT = f"INSERT INTO sessions ({', '.join(SESSION)})"
BOUND = len(COLUMNS) + len(DATES) + 2
SESSIONS = f"{INSERT} VALUES ({', '.join('?' * BOUND)}, {CONSTANTS}) {CONFLICT}"
LINKED = "ON CONFLICT (source_session_id) DO UPDATE SET session_id = excluded.session_id"
SOURCES = (
    "INSERT INTO source_sessions (source_session_id, state, session_id, checked_at) "
    f"VALUES (?, 'linked', ?, '{NOW}') {LINKED}"
)
PAGES = """
INSERT INTO pages (pass_id, number, next_key, sessions, unreadable, repeated, digest, versions)
VALUES (1, ?, ?, ?, ?, ?, ?, ?)
"""
PASS = f"INSERT INTO passes (state, started_at) VALUES ('running', '{NOW}')"
END = f"UPDATE passes SET state = 'complete', finished_at = '{NOW}', seen = {{seen}} WHERE id = 1"
EMPTY = BitMap64().serialize()


def stored(text: str | None) -> str | None:
    """Return a time of the listing (milliseconds, UTC) as syncd stores it."""
    return None if text is None else f"{text[:-1]}000Z"


def row(item: Item, key: int) -> tuple[Any, ...]:
    """Return the bound values of one session."""
    created, updated = item.Created, item.Updated
    created_at, said_at = stored(created.at), stored(item.lastMessageAt)
    return (
        key, item.id, item.name, item.parentId, item.sourceSessionId, said_at, item.status, item.kind,
        created.by, created.byName, created_at, updated.by, updated.byName, stored(updated.at), "{}",
        created_at and created_at[:10], said_at and said_at[:10], key,
    )  # fmt: skip


class Rows:
    """The rows of successive pages."""

    def __init__(self) -> None:
        self.seen = self.pages = 0

    def of(self, fetched: Sequence[Fetched]) -> tuple[list[Any], list[Any], list[Any]]:
        """Return the rows of sessions, source ids and pages."""
        sessions: list[Any] = []
        sources: list[Any] = []
        pages: list[Any] = []
        for body, page in fetched:
            keys = range(self.seen + 1, self.seen + 1 + len(page.Items))
            sessions += map(row, page.Items, keys)
            sources += [(item.sourceSessionId, item.id) for item in page.Items]
            self.seen, self.pages = self.seen + len(keys), self.pages + 1
            bitmap, digest = BitMap64(keys).serialize(), hashlib.sha256(body).digest()[:16]
            pages.append((self.pages, page.lastKey, bitmap, EMPTY, EMPTY, digest, len(keys)))
        return sessions, sources, pages


def sqlite(timer: Timer, url: str, file: str) -> None:
    """Mirror the listing into an empty SQLite file."""
    empty_mirror(url, file)

    async def work() -> None:
        rows = Rows()
        with durable(file) as db:
            timer.start()
            db.execute(PASS)
            async for fetched in listing(url):
                sessions, sources, pages = rows.of(fetched)
                db.execute("BEGIN IMMEDIATE")
                db.executemany(SESSIONS, sessions)
                db.executemany(SOURCES, sources)
                db.executemany(PAGES, pages)
                db.execute("COMMIT")
            db.execute(END.format(seen=rows.seen))
        timer.stop()

    asyncio.run(work())


def postgres(timer: Timer, url: str, where: str) -> None:
    """Mirror the listing into an empty database of PostgreSQL."""
    types = ["bigint", *["text"] * 4, "timestamptz", *["text"] * 4, "timestamptz", *["text"] * 2, "timestamptz",
             "jsonb", "text", "text", "bigint"]  # fmt: skip
    array_types = ["bigint" if sql_type == "bigint" else "text" for sql_type in types]
    arrays = ", ".join(f"${place}::{sql_type}[]" for place, sql_type in enumerate(array_types, 1))
    values = ", ".join(f"c{place}::{sql_type}" for place, sql_type in enumerate(types))
    names = ", ".join(f"c{place}" for place in range(len(types)))
    insert_sessions = (
        f"{INSERT} OVERRIDING SYSTEM VALUE SELECT {values}, {CONSTANTS} FROM unnest({arrays}) AS r({names}) {CONFLICT}"
    )
    insert_sources = (
        "INSERT INTO source_sessions (source_session_id, state, session_id, checked_at) "
        f"SELECT s, 'linked', i, '{NOW}' FROM unnest($1::text[], $2::text[]) AS r(s, i) {LINKED}"
    )
    insert_pages = (
        "INSERT INTO pages (pass_id, number, next_key, sessions, unreadable, repeated, digest, versions) "
        "SELECT 1, * FROM unnest($1::int[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::int[])"
    )

    empty_mirror(url, where)

    async def work() -> None:
        db, rows = await connect_postgres(where), Rows()
        statements = [await db.prepare(insert) for insert in (insert_sessions, insert_sources, insert_pages)]
        timer.start()
        await db.execute(PASS)
        async for fetched in listing(url):
            async with db.transaction():
                for statement, some in zip(statements, rows.of(fetched), strict=True):
                    await statement.fetch(*zip(*some, strict=True))
        await db.execute(END.format(seen=rows.seen))
        await db.close()
        timer.stop()

    asyncio.run(work())
