"""A real `syncd once` against a real sandbox, killed at a place of its code, restarted, and judged from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import anyio

from syncd.sandbox import Habits, Sandbox, serve
from tests.kills.mirrors import Mirrors

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


def environment(mirror: str, url: str, **more: str) -> dict[str, str]:
    """Return the environment of a syncd that knows no patience: nothing in it waits."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(ROOT),
        "ALBERT_BASE_URL": url,
        "ALBERT_TOKEN": "sandbox-token",
        "SYNCD_DATABASE_URL": mirror,
        "SYNCD_DELETE_GRACE": "0",
        "SYNCD_DELETE_CONFIRMATIONS": "1",
        "SYNCD_UNKNOWN_SETTLE": "0",
        "SYNCD_RETRY_BASE": "0",
        "SYNCD_LEASE": "1",
        "SYNCD_STATUS_PORT": "0",
        "SYNCD_LOG_FORMAT": "json",
        **more,
    }


async def syncd(command: str, folder: Path, mirror: str, url: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with places in it where `PLACE` asks for them."""
    module = "tests.kills.instrumented_syncd" if "PLACE" in more else "syncd"
    return await anyio.run_process(
        [sys.executable, "-m", module, *command.split()], env=environment(mirror, url, **more), check=False, cwd=folder
    )


async def enqueue(mirrors: Mirrors, folder: Path) -> None:
    """Queue the operations as another program does."""
    for row in OPERATIONS:
        values = ", ".join("NULL" if value is None else f"'{value}'" for value in row)
        insert = f"INSERT INTO operations (kind, source_session_id, session_id, name) VALUES ({values})"
        await mirrors.sql(folder, insert)


def _never() -> float:
    """Be the sandbox's clock, which stands in its page keys: a page that has not changed is the same bytes."""
    return 0.0


@dataclass
class Case:
    """A mirror with work before it, and the Albert that it is of."""

    folder: Path
    mirrors: Mirrors
    sandbox: Sandbox
    queued: bool

    async def sql(self, statement: str) -> list[Any]:
        """Ask the database as an analyst does."""
        return await self.mirrors.sql(self.folder, statement)

    async def syncd(self, **more: str) -> subprocess.CompletedProcess[bytes]:
        """Run a cycle."""
        return await syncd("once", self.folder, self.mirrors.url(self.folder), self.sandbox.url, **more)

    async def check(self) -> list[str]:
        """Look at everything from outside; return what is wrong."""
        wrong = await self.mirrors.wrong(self.folder)
        created = [effect.source_session_id for effect in self.sandbox.effects if effect.kind == "created"]
        if sorted(created) != sorted(SOURCES if self.queued else ()):
            wrong.append(f"created {created}")
        deleted = [effect.session_id for effect in self.sandbox.effects if effect.kind == "deleted"]
        if len(deleted) != len(set(deleted)):
            wrong.append(f"deleted {deleted}")
        states = await self.sql("SELECT id, state, last_error FROM operations WHERE state <> 'succeeded'")
        if states:
            wrong.append(f"operations {states}")
        mirror = dict(await self.sql("SELECT id, name FROM chat_sessions"))
        live = self.sandbox.live()
        there = {one: wire["name"] for one, wire in live.items()}
        if mirror != there:
            wrong.append(f"mirror {mirror.items() ^ there.items()}")
        linked = dict(await self.sql("SELECT source_session_id, session_id FROM source_sessions WHERE state='linked'"))
        if linked != {wire["sourceSessionId"]: one for one, wire in live.items()}:
            wrong.append(f"source ids {linked}")
        return wrong


@asynccontextmanager
async def case(folder: Path, templates: Path, mirrors: Mirrors, stage: str, seed: int) -> AsyncIterator[Case]:
    """Make a case out of a template folder; what others have done meanwhile depends on the seed."""
    await mirrors.copy(templates / stage, folder)
    jitter = Random(seed)  # noqa: S311 - not for secrets
    habits = Habits(page_size=jitter.choice((PAGE_SIZE, PAGE_SIZE, 5)), duplicate_create="duplicate", order="created")
    async with serve(Sandbox(BEGINNING, seed=1, habits=habits, now=_never)) as sandbox:
        for number in jitter.sample(range(BEGINNING // 2 + 1, BEGINNING), 2):  # the first page stays as it is
            sandbox.store.delete(f"SES{number}")
            sandbox.effects.pop()
        sandbox.update(f"SES{BEGINNING // 2}", name=f"changed {seed}")
        if stage != STAGES[0]:
            habits.unlisted = [f"SES{BEGINNING // 2}"]
        yield Case(folder, mirrors, sandbox, queued=stage != "no file")


async def make_templates(folder: Path, mirrors: Mirrors) -> None:
    """Make what each stage begins with."""
    nothing, middle = (folder / stage for stage in STAGES)
    nothing.mkdir(parents=True)
    (folder / "none").mkdir()
    await mirrors.copy(folder / "none", middle)
    async with serve(Sandbox(BEGINNING, seed=1, habits=Habits(page_size=PAGE_SIZE), now=_never)) as sandbox:
        done = await syncd("once", middle, mirrors.url(middle), sandbox.url)
        assert done.returncode == 0, done.stderr.decode()
    # the sandbox of each case has another port, and so another origin
    await mirrors.sql(middle, "DELETE FROM mirror_identity")
    await enqueue(mirrors, middle)


async def places(folder: Path, templates: Path, mirrors: Mirrors, stage: str, seed: int) -> list[str]:
    """Record every place that a run passes, in their order."""
    async with case(folder, templates, mirrors, stage, seed) as one:
        record = folder / "places"
        done = await one.syncd(PLACE=f"record={record}")
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert await one.check() == []
        return record.read_text().splitlines()


async def kill_at(
    number: int, folder: Path, templates: Path, mirrors: Mirrors, stage: str, seed: int
) -> list[str] | None:
    """Kill a run at a place, run it again, and return what is wrong then; None when it did not come to the place."""
    async with case(folder, templates, mirrors, stage, seed) as one:
        killed = await one.syncd(PLACE=f"kill={number}")
        if killed.returncode == 0:
            return await one.check() or None  # this run took another way and passed fewer places
        if killed.returncode != KILLED:
            return [f"exit {killed.returncode}: {killed.stderr.decode()[-500:]}"]
        if wrong := await mirrors.wrong(folder):
            return [f"after the kill: {wrong}"]
        await anyio.sleep(mirrors.settle_seconds)
        again = await one.syncd()
        wrong = await one.check()
        return [*wrong, f"exit {again.returncode}", again.stdout.decode()[-3000:]] if wrong else []
