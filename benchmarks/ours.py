"""syncd as a contender: the flows of the composition root, with logs that are discarded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bare import operation
from benchmarks.machine import ROOT, TOKEN, environment
from benchmarks.server import session
from benchmarks.stores import connect, is_postgresql
from benchmarks.timer import Timer, thread_seconds

if TYPE_CHECKING:
    from syncd.app import Flows
    from syncd.records.fields import FieldList

READ_AHEAD = 8
Work = Callable[["Flows"], Awaitable[None]]


def settings(url: str, where: str) -> dict[str, str]:
    """Return the settings of a benchmark: the defaults, except for addresses and paths."""
    return {
        "ALBERT_BASE_URL": url,
        "ALBERT_TOKEN": TOKEN,
        "SYNCD_DATABASE_URL": where if is_postgresql(where) else f"sqlite+aiosqlite:///{where}",
        "SYNCD_STATUS_PORT": "0",
    }


async def _with_flows(timer: Timer, given: dict[str, str], work: Work) -> None:
    """Run work between the timer's start and stop; this includes closing the database with its last checkpoint."""
    from syncd.app import logged_retries, open_flows
    from syncd.logs import configure
    from syncd.settings import load

    with Path(os.devnull).open("w") as nowhere:  # noqa: ASYNC230 - it does not block
        log = configure(level="info", style="json", stream=nowhere)
        async with open_flows(load(given).settings, command="bench", log=log, retries=logged_retries(30, log)) as flows:
            timer.start()
            await work(flows)
        timer.stop()


async def _one_pass(flows: Flows) -> None:
    outcome = await flows.pull.run()
    assert outcome.state == "complete", outcome


def mirror(timer: Timer, url: str, where: str) -> None:
    """Make one pass, first or later."""
    asyncio.run(_with_flows(timer, settings(url, where), _one_pass))


def mirror_ahead(timer: Timer, url: str, where: str) -> None:
    """Make one pass that reads ahead."""
    asyncio.run(_with_flows(timer, {**settings(url, where), "SYNCD_READ_AHEAD": str(READ_AHEAD)}, _one_pass))


def mirror_stages(timer: Timer, url: str, where: str) -> None:
    """Make one pass and measure the CPU of each thread, and of parsing pages separately."""
    read = _watched_reading()

    async def work(flows: Flows) -> None:
        before = thread_seconds()
        await _one_pass(flows)
        seconds_spent = {name: total - before.get(name, 0.0) for name, total in thread_seconds().items()}
        loop = seconds_spent.pop(threading.main_thread().name)
        timer.facts["threads"] = {"event loop": loop, **seconds_spent}
        timer.facts["stages"] = {"fetch": loop - read[0], "parse": read[0], "database": sum(seconds_spent.values())}

    asyncio.run(_with_flows(timer, settings(url, where), work))


def _watched_reading() -> list[float]:
    """Measure the CPU of all calls of `read_page`, which runs on the event loop."""
    import syncd.app  # noqa: F401 - loads what the measurement calls
    from syncd.records.parse import read_page

    seconds_spent = [0.0]

    def watched(body: bytes, *fields: FieldList[Any]) -> object:
        begun = time.thread_time()
        try:
            return read_page(body, *fields)
        finally:
            seconds_spent[0] += time.thread_time() - begun

    for name, module in list(sys.modules.items()):
        if name.startswith("syncd") and getattr(module, "read_page", None) is read_page:
            module.read_page = watched  # type: ignore[attr-defined]
    return seconds_spent


def queue(timer: Timer, url: str, where: str, *, operations: int, concurrency: int) -> None:
    """Apply a queue of creates to its end."""

    async def work(flows: Flows) -> None:
        await asyncio.to_thread(enqueue, where, range(operations))
        timer.start()
        await flows.push.drain()

    given = {**settings(url, where), "SYNCD_OPERATIONS_CONCURRENCY": str(concurrency)}
    asyncio.run(_with_flows(timer, given, work))


def enqueue(where: str, numbers: range) -> None:
    """Queue creates like another program."""
    with contextlib.closing(connect(where)) as db:
        rows = [(body["sourceSessionId"], body["name"]) for body in map(operation, numbers)]
        db.executemany("INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, ?)", rows)


def empty_mirror(url: str, where: str) -> None:
    """Make the schema in an empty place."""
    command = [sys.executable, "-m", "syncd", "migrate"]
    subprocess.run(command, cwd=ROOT, env=environment(**settings(url, where)), check=True, capture_output=True)


def block(url: str, where: str, count: int) -> None:
    """Make a mirror with operations on one key, the first of them dead, so that it blocks all others."""
    empty_mirror(url, where)
    dead = "VALUES ('create', 'blocked', 'dead', 'dead', '2026-01-01T00:00:00.000000Z')"
    waits = "INSERT INTO operations (kind, source_session_id, name) VALUES ('create', 'blocked', ?)"
    with contextlib.closing(connect(where)) as db:
        if count:
            db.execute(f"INSERT INTO operations (kind, source_session_id, name, state, finished_at) {dead}")
            db.executemany(waits, [("waits",)] * count)


def reconcile(timer: Timer, url: str, where: str) -> None:
    """Make one round over all source ids."""

    async def work(flows: Flows) -> None:
        timer.facts["unanswered"] = await flows.reconcile.run()

    asyncio.run(_with_flows(timer, settings(url, where), work))


def parse(timer: Timer, _url: str, _where: str, *, times: int = 100) -> None:
    """Parse pages of 1,000 in turns: a plain one, and pages with odd items. The facts are ms of CPU for a page."""
    from syncd.records.fields import SESSIONS
    from syncd.records.parse import read_page

    items = [session(number) for number in range(1000)]
    pages = {
        "plain": items,
        "one unknown field in each item": [{**item, "model": "gpt-5"} for item in items],
        "one unreadable item": [*items[:500], {**items[500], "name": 5}, *items[501:]],
    }
    bodies = {name: json.dumps({"Items": page, "lastKey": None}).encode() for name, page in pages.items()}
    seconds = dict.fromkeys(bodies, 0.0)
    for body in bodies.values():
        read_page(body, SESSIONS)
    timer.start()
    for _ in range(times):
        for name, body in bodies.items():
            begun = time.thread_time()
            read_page(body, SESSIONS)
            seconds[name] += time.thread_time() - begun
    timer.stop()
    timer.facts |= {name: spent / times * 1000 for name, spent in seconds.items()}
