"""Peers as contenders: the same first mirror by other tools. They run in an environment of their own.

Each is set up as its documentation says for a table with a primary key that is merged into SQLite.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.machine import TOKEN
from benchmarks.server import COLUMNS, LISTING
from benchmarks.timer import Timer

CHUNK = 1000
"""Sessions that are collected from the SDK's iterator before they are written. The iterator hides the pages."""


def sdk_core(timer: Timer, url: str, file: str) -> None:
    """Mirror by the official SDK's iterator and SQLAlchemy Core's upsert, a transaction for each 1,000 sessions."""
    asyncio.run(_sdk_core(timer, url, file))


async def _sdk_core(timer: Timer, url: str, file: str) -> None:
    import sqlalchemy as sa
    from albert import AsyncAlbert
    from sqlalchemy.dialects.sqlite import insert
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    sa.event.listen(engine.sync_engine, "connect", _pragmas)
    columns = [sa.Column(name, sa.Text, primary_key=name == "id") for name in COLUMNS]
    table = sa.Table("sessions", sa.MetaData(), *columns)
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
    new = insert(table)
    upsert = new.on_conflict_do_update(index_elements=["id"], set_={name: new.excluded[name] for name in COLUMNS[1:]})
    async with AsyncAlbert(base_url=url, token=TOKEN) as client:
        timer.start()
        rows: list[dict[str, Any]] = []
        async for session in client.chat_sessions.get_all():
            rows.append(row(session.model_dump(mode="json", by_alias=True)))
            if len(rows) == CHUNK:
                async with engine.begin() as connection:
                    await connection.execute(upsert, rows)
                rows = []
        if rows:
            async with engine.begin() as connection:
                await connection.execute(upsert, rows)
        await engine.dispose()
        timer.stop()


def _pragmas(connection: Any, _record: object) -> None:  # noqa: ANN401 - whatever the driver gives
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def row(item: dict[str, Any]) -> dict[str, Any]:
    """Make an item of the listing flat."""
    created, updated = item.get("Created") or {}, item.get("Updated") or {}
    return {
        "id": item["id"], "name": item["name"], "parent_id": item.get("parentId"),
        "source_session_id": item["sourceSessionId"], "last_message_at": item.get("lastMessageAt"),
        "status": item.get("status"), "kind": item.get("kind"), "created_by": created.get("by"),
        "created_by_name": created.get("byName"), "created_at": created.get("at"), "updated_by": updated.get("by"),
        "updated_by_name": updated.get("byName"), "updated_at": updated.get("at"), "extra": "{}",
    }  # fmt: skip


def dlt_merge(timer: Timer, url: str, file: str) -> None:
    """Mirror by dlt: its REST source, its sqlalchemy destination, write disposition `merge`."""
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
    import dlt
    from dlt.sources.rest_api import rest_api_source

    source = rest_api_source({
        "client": {
            "base_url": url,
            "auth": {"type": "bearer", "token": TOKEN},
            "paginator": {"type": "cursor", "cursor_path": "lastKey", "cursor_param": "startKey"},
        },
        "resources": [{
            "name": "sessions",
            "primary_key": "id",
            "write_disposition": "merge",
            "endpoint": {"path": LISTING, "data_selector": "Items"},
        }],
    })  # fmt: skip
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=f"{file}.dlt",
        destination=dlt.destinations.sqlalchemy(f"sqlite:///{file}"),
        dataset_name="main",
    )
    timer.start()
    pipeline.run(source)
    timer.stop()


def singer(timer: Timer, url: str, file: str) -> None:
    """Mirror by the Singer SDK: a tap's REST stream, piped into an SQL target; the CPU of both without their start."""
    command = [sys.executable, "-m", "benchmarks.singer"]
    timer.start()
    with (
        subprocess.Popen([*command, "tap", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tap,
        subprocess.Popen([*command, "target", file], stdin=tap.stdout, stderr=subprocess.PIPE) as target,
    ):
        assert tap.stdout is not None
        assert tap.stderr is not None
        tap.stdout.close()  # the target's alone
        usages = [json.loads(pipe.splitlines()[-1]) for pipe in (target.communicate()[1], tap.stderr.read())]
    timer.stop()
    timer.facts |= {"cpu": sum(usage["cpu"] for usage in usages), "rss": sum(usage["rss"] for usage in usages)}
