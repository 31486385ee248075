"""A real `syncd once` against a real sandbox, killed at a place of its code, restarted, and judged from outside."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import anyio

from syncd.sandbox import Habits, Sandbox, serve

ROOT = Path(__file__).resolve().parents[2]
BEGINNING = 12
KILLED = -9
SOURCES = ("kill-1", "kill-2", "kill-3")
OPERATIONS = (
    *(("create", source, None, f"from the queue {source}") for source in SOURCES),
    ("create", "kill-1", None, "once more"),
    ("delete", None, f"SES{BEGINNING}", None),
    ("delete", "kill-3", None, None),
)
STAGES = ("no file", "middle of a life")
"""What a run finds: nothing at all, or a mirror of the beginning with work in its queue."""
PAGE_SIZE = 3


def environment(folder: Path, url: str, **more: str) -> dict[str, str]:
    """Return the environment of a syncd that knows no patience: nothing in it waits."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(ROOT),
        "ALBERT_BASE_URL": url,
        "ALBERT_TOKEN": "sandbox-token",
        "SYNCD_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'syncd.db'}",
        "SYNCD_DELETE_GRACE": "0",
        "SYNCD_DELETE_CONFIRMATIONS": "1",
        "SYNCD_UNKNOWN_SETTLE": "0",
        "SYNCD_RETRY_BASE": "0",
        "SYNCD_STATUS_PORT": "0",
        "SYNCD_LOG_FORMAT": "json",
        **more,
    }


async def syncd(command: str, folder: Path, url: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with places in it where `PLACE` asks for them."""
    module = "tests.kills.victim" if "PLACE" in more else "syncd"
    return await anyio.run_process(
        [sys.executable, "-m", module, *command.split()], env=environment(folder, url, **more), check=False, cwd=folder
    )


def sql(folder: Path, statement: str, *parameters: object) -> list[Any]:
    """Ask the database as an analyst does."""
    with closing(sqlite3.connect(folder / "syncd.db", isolation_level=None)) as connection:
        return connection.execute(statement, parameters).fetchall()


def enqueue(folder: Path) -> None:
    """Queue the operations as another program does."""
    for row in OPERATIONS:
        sql(folder, "INSERT INTO operations (kind, source_session_id, session_id, name) VALUES (?, ?, ?, ?)", *row)


def _never() -> float:
    """Be the sandbox's clock, which stands in its page keys: a page that has not changed is the same bytes."""
    return 0.0


@dataclass
class Case:
    """A mirror with work before it, and the Albert that it is of."""

    folder: Path
    sandbox: Sandbox
    queued: bool

    def check(self) -> list[str]:
        """Look at everything from outside; return what is wrong."""
        wrong = []
        if (verdict := sql(self.folder, "PRAGMA integrity_check")) != [("ok",)]:
            wrong.append(f"integrity: {verdict}")
        created = [effect.source_session_id for effect in self.sandbox.effects if effect.kind == "created"]
        if sorted(created) != sorted(SOURCES if self.queued else ()):
            wrong.append(f"created {created}")
        deleted = [effect.session_id for effect in self.sandbox.effects if effect.kind == "deleted"]
        if len(deleted) != len(set(deleted)):
            wrong.append(f"deleted {deleted}")
        states = sql(self.folder, "SELECT id, state, last_error FROM operations WHERE state <> 'succeeded'")
        if states:
            wrong.append(f"operations {states}")
        mirror = dict(sql(self.folder, "SELECT id, name FROM chat_sessions"))
        live = self.sandbox.live()
        there = {one: wire["name"] for one, wire in live.items()}
        if mirror != there:
            wrong.append(f"mirror {mirror.items() ^ there.items()}")
        linked = dict(
            sql(self.folder, "SELECT source_session_id, session_id FROM source_sessions WHERE state='linked'")
        )
        if linked != {wire["sourceSessionId"]: one for one, wire in live.items()}:
            wrong.append(f"source ids {linked}")
        return wrong


@asynccontextmanager
async def case(folder: Path, templates: Path, stage: str, seed: int) -> AsyncIterator[Case]:
    """Make a case out of a template folder; what others have done meanwhile depends on the seed."""
    shutil.copytree(templates / stage, folder)
    chance = Random(seed)  # noqa: S311 - not for secrets
    habits = Habits(page_size=chance.choice((PAGE_SIZE, PAGE_SIZE, 5)), duplicate_create="duplicate", order="created")
    async with serve(Sandbox(BEGINNING, seed=1, habits=habits, now=_never)) as sandbox:
        for number in chance.sample(range(BEGINNING // 2 + 1, BEGINNING), 2):  # the first page stays as it is
            sandbox.store.delete(f"SES{number}")
            sandbox.effects.pop()
        sandbox.update(f"SES{BEGINNING // 2}", name=f"changed {seed}")
        yield Case(folder, sandbox, queued=stage != "no file")


async def make_templates(folder: Path) -> None:
    """Make what each stage begins with."""
    nothing, middle = (folder / stage for stage in STAGES)
    nothing.mkdir(parents=True)
    middle.mkdir()
    async with serve(Sandbox(BEGINNING, seed=1, habits=Habits(page_size=PAGE_SIZE), now=_never)) as sandbox:
        done = await syncd("once", middle, sandbox.url)
        assert done.returncode == 0, done.stderr.decode()
    enqueue(middle)


async def places(folder: Path, templates: Path, stage: str, seed: int) -> list[str]:
    """Record every place that a run passes, in their order."""
    async with case(folder, templates, stage, seed) as one:
        record = folder / "places"
        done = await syncd("once", folder, one.sandbox.url, PLACE=f"record={record}")
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert one.check() == []
        return record.read_text().splitlines()


async def kill_at(number: int, folder: Path, templates: Path, stage: str, seed: int) -> list[str] | None:
    """Kill a run at a place, run it again, and return what is wrong then; None when it did not come to the place."""
    async with case(folder, templates, stage, seed) as one:
        killed = await syncd("once", folder, one.sandbox.url, PLACE=f"kill={number}")
        if killed.returncode == 0:
            return one.check() or None  # this run took another way and passed fewer places
        if killed.returncode != KILLED:
            return [f"exit {killed.returncode}: {killed.stderr.decode()[-500:]}"]
        if (folder / "syncd.db").exists() and (verdict := sql(folder, "PRAGMA integrity_check")) != [("ok",)]:
            return [f"integrity after the kill: {verdict}"]
        again = await syncd("once", folder, one.sandbox.url)
        wrong = one.check()
        return [*wrong, f"exit {again.returncode}", again.stdout.decode()[-3000:]] if wrong else []
