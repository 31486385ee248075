"""The contenders, each run in a process of its own: `python -m benchmarks.clients NAME URL FILE`; prints one JSON line."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

TOKEN = "bench"
LISTING = "/api/v3/chats/sessions"
FLOOR_COLUMNS = 14


def floor(url: str, file: str) -> None:
    """The floor: httpx, orjson, and one hand-written upsert a page in one transaction; nothing else."""
    import httpx
    import orjson

    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    columns = (
        "id, name, parent_id, source_session_id, last_message_at, status, kind, created_by, created_by_name, created_at, "
        "updated_by, updated_by_name, updated_at, extra"
    )
    db.execute(f"CREATE TABLE IF NOT EXISTS s ({columns.replace('id,', 'id TEXT PRIMARY KEY,', 1)})")
    names = columns.split(", ")
    upsert = (
        f"INSERT INTO s ({columns}) VALUES ({', '.join('?' * FLOOR_COLUMNS)}) ON CONFLICT (id) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    )
    key: str | None = None
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as client:
        while True:
            answer = client.get(LISTING, params={"startKey": key} if key else None)
            page = orjson.loads(answer.content)
            rows = []
            for item in page["Items"]:
                created, updated = item.get("Created") or {}, item.get("Updated") or {}
                rows.append((
                    item["id"], item["name"], item.get("parentId"), item["sourceSessionId"], item.get("lastMessageAt"),
                    item.get("status"), item.get("kind"), created.get("by"), created.get("byName"), created.get("at"),
                    updated.get("by"), updated.get("byName"), updated.get("at"), "{}",
                ))  # fmt: skip
            db.execute("BEGIN IMMEDIATE")
            db.executemany(upsert, rows)
            db.execute("COMMIT")
            key = page.get("lastKey")
            if not key:
                break
    db.close()


def fetch(url: str, _file: str) -> None:
    """The bare sequential fetch of the same pages: httpx, only the key is looked for."""
    import httpx

    key: str | None = None
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as client:
        while True:
            body = client.get(LISTING, params={"startKey": key} if key else None).content
            tail = body[body.rindex(b'"lastKey":') + 10 : -1]
            if tail == b"null":
                return
            key = tail.strip(b'"').decode()


def syncd(url: str, file: str) -> None:
    """One pass of syncd, as `syncd once` makes it, without its start."""
    asyncio.run(_syncd(url, file, _one_pass))


async def _one_pass(flows: Any) -> None:
    outcome = await flows.pull.run()
    assert outcome.state == "complete", outcome


async def _syncd(url: str, file: str, work: Callable[[Any], Any], **settings: str) -> None:
    from syncd.app import open_flows
    from syncd.logs import configure
    from syncd.settings import load

    loaded = load({
        "ALBERT_BASE_URL": url, "ALBERT_TOKEN": TOKEN, "SYNCD_DATABASE_URL": f"sqlite+aiosqlite:///{file}", **settings,
    })  # fmt: skip
    with open(os.devnull, "w") as null:
        log = configure(level="info", style="json", stream=null)
        async with open_flows(loaded.settings, command="bench", log=log, patience=30) as flows:
            START.append((time.process_time(), time.perf_counter()))
            await work(flows)
            END.append((time.process_time(), time.perf_counter()))


START: list[tuple[float, float]] = []
END: list[tuple[float, float]] = []
CONTENDERS = {"floor": floor, "fetch": fetch, "syncd": syncd}


def main() -> None:
    """Run one contender and print what it took."""
    name, url, file = sys.argv[1:4]
    import aiohttp  # noqa: F401 - imports are not what is measured
    import httpx  # noqa: F401

    import syncd.app  # noqa: F401

    START.append((time.process_time(), time.perf_counter()))
    CONTENDERS[name](url, file)
    END.append((time.process_time(), time.perf_counter()))
    (cpu, wall), (cpu_end, wall_end) = START[-1], END[0]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": cpu_end - cpu, "wall": wall_end - wall, "rss": rss}))


if __name__ == "__main__":
    main()
