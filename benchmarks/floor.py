"""The floors: the least code that does the same work, as plain as it can be, on httpx and sqlite3 or asyncpg.

No validation, no history, no checkpoint, no quarantine, no guard, no retries: what syncd does beyond them is what its
ratio pays for. `sniffio` is installed, without which httpcore is a quarter slower.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.machine import TOKEN
from benchmarks.server import LISTING, source_id
from benchmarks.timer import Timer
from syncd.mirror.db.dialects import translate
from syncd.mirror.db.sqlite_module import sqlite3

COLUMNS = (
    "id, name, parent_id, source_session_id, last_message_at, status, kind, created_by, created_by_name, created_at, "
    "updated_by, updated_by_name, updated_at, extra"
)
NAMES = COLUMNS.split(", ")
TABLE = f"CREATE TABLE IF NOT EXISTS sessions ({', '.join(f'{name} TEXT' for name in NAMES)}, PRIMARY KEY (id))"
UPSERT = (
    f"INSERT INTO sessions ({COLUMNS}) VALUES ({', '.join('?' * len(NAMES))}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])
)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def floor(timer: Timer, url: str, file: str) -> None:
    """Mirror the listing: httpx, orjson, `executemany` of one upsert, a transaction a page, `synchronous=FULL`."""
    import httpx
    import orjson

    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(TABLE)
    with httpx.Client(base_url=url, headers=HEADERS, trust_env=False) as client:
        timer.start()
        key: str | None = None
        while True:
            page = orjson.loads(client.get(LISTING, params={"startKey": key} if key else None).content)
            rows = _rows(page)
            db.execute("BEGIN IMMEDIATE")
            db.executemany(UPSERT, rows)
            db.execute("COMMIT")
            if not (key := page.get("lastKey")):
                break
        db.close()
        timer.stop()


def _rows(page: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    rows = []
    for item in page["Items"]:
        created, updated = item.get("Created") or {}, item.get("Updated") or {}
        rows.append((
            item["id"], item["name"], item.get("parentId"), item["sourceSessionId"], item.get("lastMessageAt"),
            item.get("status"), item.get("kind"), created.get("by"), created.get("byName"), created.get("at"),
            updated.get("by"), updated.get("byName"), updated.get("at"), "{}",
        ))  # fmt: skip
    return rows


def floor_postgres(timer: Timer, url: str, where: str) -> None:
    """Mirror the listing into PostgreSQL: httpx, orjson, `executemany` of one upsert, a transaction a page."""
    asyncio.run(_floor_postgres(timer, url, where))


async def _floor_postgres(timer: Timer, url: str, where: str) -> None:
    import asyncpg
    import httpx
    import orjson

    db = await asyncpg.connect(where.replace("+asyncpg", ""))
    await db.execute(TABLE)
    upsert = translate(UPSERT)
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, trust_env=False) as client:
        timer.start()
        key: str | None = None
        while True:
            page = orjson.loads((await client.get(LISTING, params={"startKey": key} if key else None)).content)
            await db.executemany(upsert, _rows(page))  # one transaction
            if not (key := page.get("lastKey")):
                break
        await db.close()
        timer.stop()


def floor_stages(timer: Timer, url: str, file: str) -> None:
    """Mirror as `floor` does, with the CPU of each of its stages taken; the clocks cost it a little."""
    import httpx
    import orjson

    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(TABLE)
    stages = dict.fromkeys(("fetch", "parse", "database"), 0.0)
    clock = time.thread_time
    with httpx.Client(base_url=url, headers=HEADERS, trust_env=False) as client:
        timer.start()
        key: str | None = None
        while True:
            begun = clock()
            body = client.get(LISTING, params={"startKey": key} if key else None).content
            fetched = clock()
            page = orjson.loads(body)
            rows = _rows(page)
            parsed = clock()
            db.execute("BEGIN IMMEDIATE")
            db.executemany(UPSERT, rows)
            db.execute("COMMIT")
            for stage, seconds in zip(stages, (fetched - begun, parsed - fetched, clock() - parsed), strict=True):
                stages[stage] += seconds
            if not (key := page.get("lastKey")):
                break
        db.close()
        timer.stop()
    timer.facts["stages"] = stages


def fetch(timer: Timer, url: str, _file: str) -> None:
    """Fetch the same pages one after the other; nothing is parsed, only the key is looked for."""
    import httpx

    with httpx.Client(base_url=url, headers=HEADERS, trust_env=False) as client:
        timer.start()
        key = ""
        while key != "null":
            body = client.get(LISTING, params={"startKey": key} if key else None).content
            key = body[body.rindex(b'"lastKey":') + 10 : -1].strip(b'"').decode()
        timer.stop()


def operation(number: int) -> dict[str, str]:
    """Make the create of a number."""
    return {"name": f"Migrated session {number}", "sourceSessionId": source_id(number)}


def raw_queue(timer: Timer, url: str, _file: str, *, operations: int, concurrency: int) -> None:
    """Send what the queue sends, look-up and POST for each create: bare httpx, a client a worker, no database."""
    asyncio.run(_raw_queue(timer, url, iter(range(operations)), concurrency))


async def _raw_queue(timer: Timer, url: str, numbers: Iterator[int], concurrency: int) -> None:
    import httpx

    clients = [
        httpx.AsyncClient(base_url=url, headers=HEADERS, trust_env=False, verify=False)  # noqa: S501 - no TLS here
        for _ in range(concurrency)
    ]

    async def worker(client: httpx.AsyncClient) -> None:
        for number in numbers:
            body = operation(number)
            answer = await client.get(f"{LISTING}/source/{body['sourceSessionId']}")
            assert answer.status_code == 404, answer
            answer = await client.post(LISTING, json=body)
            assert answer.status_code == 201, answer

    timer.start()
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(worker(client))
    timer.stop()
    for client in clients:
        await client.aclose()
