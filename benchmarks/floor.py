"""The plain floor: the program that a good engineer writes in an afternoon with the same libraries.

aiohttp, msgspec structs and one prepared upsert. A transaction has 32 pages or 2 MB. There is no history, checkpoint,
quarantine, guard or retry, and nothing is checked. The difference to this floor is the price of syncd's promises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from benchmarks.machine import TOKEN
from benchmarks.server import COLUMNS, LISTING
from benchmarks.timer import Timer
from syncd.mirror.db.sqlite_module import sqlite3

if TYPE_CHECKING:
    import asyncpg

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
PAGES_AT_ONCE = 32
BYTES_AT_ONCE = 2_000_000


class Audit(msgspec.Struct):
    """The person and the time of a change."""

    by: str | None = None
    byName: str | None = None  # noqa: N815 - the wire's name
    at: str | None = None


class Item(msgspec.Struct):
    """A session of the listing."""

    id: str
    name: str
    sourceSessionId: str  # noqa: N815 - the wire's name
    parentId: str | None = None  # noqa: N815 - the wire's name
    lastMessageAt: str | None = None  # noqa: N815 - the wire's name
    status: str | None = None
    kind: str | None = None
    Created: Audit = msgspec.field(default_factory=Audit)
    Updated: Audit = msgspec.field(default_factory=Audit)


class Page(msgspec.Struct):
    """A page of the listing."""

    Items: list[Item]
    lastKey: str | None = None  # noqa: N815 - the wire's name


TABLE = f"CREATE TABLE IF NOT EXISTS sessions ({', '.join(f'{name} TEXT' for name in COLUMNS)}, PRIMARY KEY (id))"
ON_CONFLICT = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
UPSERT = f"INSERT INTO sessions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) {ON_CONFLICT}"
UNNEST = (
    f"INSERT INTO sessions ({', '.join(COLUMNS)}) "
    f"SELECT * FROM unnest({', '.join(f'${place}::text[]' for place in range(1, len(COLUMNS) + 1))}) {ON_CONFLICT}"
)
Row = tuple[Any, ...]
Fetched = tuple[bytes, Page]


def row(item: Item) -> Row:
    """Return the values of `COLUMNS`, as in the listing."""
    created, updated = item.Created, item.Updated
    return (
        item.id, item.name, item.parentId, item.sourceSessionId, item.lastMessageAt, item.status, item.kind,
        created.by, created.byName, created.at, updated.by, updated.byName, updated.at, "{}",
    )  # fmt: skip


async def listing(url: str, stages: dict[str, float] | None = None) -> AsyncIterator[list[Fetched]]:
    """Fetch and decode the pages one after the other; yield the pages of one transaction."""
    decoder, clock = msgspec.json.Decoder(Page), time.thread_time
    fetched: list[Fetched] = []
    size, key = 0, None
    async with aiohttp.ClientSession(url, headers=HEADERS) as client:
        while True:
            begun = clock()
            async with client.get(LISTING, params={"startKey": key} if key else None) as answer:
                body = await answer.read()
            read = clock()
            page = decoder.decode(body)
            if stages is not None:
                stages["fetch"] += read - begun
                stages["parse"] += clock() - read
            fetched.append((body, page))
            size, key = size + len(body), page.lastKey
            if key is None or len(fetched) == PAGES_AT_ONCE or size >= BYTES_AT_ONCE:
                yield fetched
                fetched, size = [], 0
            if key is None:
                return


@contextmanager
def durable(file: str) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file as syncd does: WAL, `synchronous=FULL`."""
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    yield db
    db.close()


def floor(timer: Timer, url: str, file: str) -> None:
    """Mirror the listing into SQLite."""

    async def work() -> None:
        with durable(file) as db:
            db.execute(TABLE)
            timer.start()
            async for fetched in listing(url):
                _write(db, fetched)
        timer.stop()

    asyncio.run(work())


def _write(db: sqlite3.Connection, fetched: Sequence[Fetched]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany(UPSERT, [row(item) for _, page in fetched for item in page.Items])
    db.execute("COMMIT")


def floor_postgres(timer: Timer, url: str, where: str) -> None:
    """Mirror the listing into PostgreSQL."""

    async def work() -> None:
        db = await connect_postgres(where)
        await db.execute(TABLE)
        upsert = await db.prepare(UNNEST)
        timer.start()
        async for fetched in listing(url):
            await upsert.fetch(*zip(*(row(item) for _, page in fetched for item in page.Items), strict=True))
        await db.close()
        timer.stop()

    asyncio.run(work())


async def connect_postgres(where: str) -> asyncpg.Connection[Any]:
    """Connect to a database of PostgreSQL with the plain driver."""
    import asyncpg

    return await asyncpg.connect(where.replace("+asyncpg", ""))


def floor_stages(timer: Timer, url: str, file: str) -> None:
    """Mirror as `floor` does and measure the CPU of each stage. The measurement itself costs a little CPU."""
    stages, clock = dict.fromkeys(("fetch", "parse", "database"), 0.0), time.thread_time

    async def work() -> None:
        with durable(file) as db:
            db.execute(TABLE)
            timer.start()
            async for fetched in listing(url, stages):
                begun = clock()
                _write(db, fetched)
                stages["database"] += clock() - begun
        timer.stop()

    asyncio.run(work())
    timer.facts["stages"] = stages
