"""A real command against a real sandbox, killed at a place of its code, run again, and checked from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from syncd.sandbox import Habits, Sandbox, serve
from tests.kills.case import BEGINNING, SOURCES, Case, syncd
from tests.kills.mirrors import Mirrors
from tests.kills.stages import STAGES

KILLED = -9
OPERATIONS = (
    *(("create", source, None, f"from the queue {source}") for source in SOURCES),
    ("create", "kill-1", None, "once more"),
    ("delete", None, f"SES{BEGINNING}", None),
    ("delete", "kill-3", None, None),
)
PAGE_SIZE = 3


async def enqueue(mirrors: Mirrors, folder: Path) -> None:
    """Queue the operations as another program does."""
    for row in OPERATIONS:
        values = ", ".join("NULL" if value is None else f"'{value}'" for value in row)
        insert = f"INSERT INTO operations (kind, source_session_id, session_id, name) VALUES ({values})"
        await mirrors.sql(folder, insert)


def _fixed_time() -> float:
    """Return 0: page keys contain it, and an unchanged page must have the same bytes."""
    return 0.0


@asynccontextmanager
async def case(folder: Path, templates: Path, mirrors: Mirrors, stage: str, seed: int) -> AsyncIterator[Case]:
    """Make the case of a stage from its template; the changes by others depend on the seed."""
    template = STAGES[stage].template
    await mirrors.copy(templates / template, folder)
    rng = Random(seed)  # noqa: S311 - not for secrets
    habits = Habits(page_size=rng.choice((PAGE_SIZE, PAGE_SIZE, 5)), duplicate_create="duplicate", order="created")
    async with serve(Sandbox(BEGINNING, seed=1, habits=habits, now=_fixed_time)) as sandbox:
        for number in rng.sample(range(BEGINNING // 2 + 1, BEGINNING), 2):  # the first page stays as it is
            sandbox.store.delete(f"SES{number}")
            sandbox.effects.pop()
        sandbox.update(f"SES{BEGINNING // 2}", name=f"changed {seed}")
        if template != "no file":
            habits.unlisted = [f"SES{BEGINNING // 2}"]
        stage_case = Case(folder, mirrors, sandbox, queued=template != "no file", more=dict(STAGES[stage].more))
        await STAGES[stage].prepare(stage_case)
        yield stage_case


async def make_templates(folder: Path, mirrors: Mirrors) -> None:
    """Make the templates of stages: nothing, a mirror with work in its queue, and the same after the work."""
    nothing, middle, end = (folder / template for template in ("no file", "work queued", "work done"))
    nothing.mkdir(parents=True)
    await mirrors.make_empty(middle)
    async with serve(Sandbox(BEGINNING, seed=1, habits=Habits(page_size=PAGE_SIZE), now=_fixed_time)) as sandbox:
        done = await syncd(["once"], middle, mirrors.url(middle), sandbox.url)
        assert done.returncode == 0, done.stderr.decode()
        await enqueue(mirrors, middle)
        await mirrors.copy(middle, end)
        done = await syncd(["once"], end, mirrors.url(end), sandbox.url)
        assert done.returncode == 0, done.stderr.decode()
    # as after source ids that moved between sessions
    await mirrors.sql(middle, "UPDATE operations SET blocked_by = 3 - id WHERE id IN (1, 2)")
    for template in (middle, end):  # the sandbox of each case has another port, and so another origin
        await mirrors.sql(template, "DELETE FROM mirror_identity")


async def places(folder: Path, templates: Path, mirrors: Mirrors, stage: str, seed: int) -> list[str]:
    """Record every place that a run passes, in order."""
    async with case(folder, templates, mirrors, stage, seed) as stage_case:
        record = folder / "places"
        done = await stage_case.syncd(STAGES[stage].words(stage_case), PLACE=f"record={record}")
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert await STAGES[stage].wrong(stage_case) == []
        return record.read_text().splitlines()


async def kill_at(
    number: int, folder: Path, templates: Path, mirrors: Mirrors, name: str, seed: int
) -> list[str] | None:
    """Kill a run at a place, run it again, and return what is wrong then; None when it did not reach the place."""
    stage = STAGES[name]
    async with case(folder, templates, mirrors, name, seed) as stage_case:
        killed = await stage_case.syncd(stage.words(stage_case), PLACE=f"kill={number}")
        if killed.returncode == 0:
            return await stage.wrong(stage_case) or None  # this run took another way and passed fewer places
        if killed.returncode != KILLED:
            return [f"exit {killed.returncode}: {killed.stderr.decode()[-500:]}"]
        if wrong := [*await mirrors.wrong(folder), *await stage.torn(stage_case)]:
            return [f"after the kill: {wrong}"]
        await mirrors.settle(folder, claims=stage.claims)
        again = await stage_case.syncd(stage.words(stage_case))
        output = [f"exit {again.returncode}", again.stdout.decode()[-3000:], again.stderr.decode()[-500:]]
        wrong = [] if again.returncode == 0 else ["it failed when it ran again"]
        wrong += await stage.wrong(stage_case)
        return [*wrong, *output] if wrong else []
