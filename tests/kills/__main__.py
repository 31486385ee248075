"""Every place, each seed: `python -m tests.kills [--seeds 3] [--seconds N] [--jobs 2] [--postgres]`.

Exits 1 when one went wrong.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.helpers.postgres_server import PostgresServer
from tests.kills.harness import kill_at, make_templates, places
from tests.kills.mirrors import Mirrors, PostgresMirrors, SqliteMirrors
from tests.kills.stages import STAGES


@dataclass
class Total:
    """The results of the kills; `names` are the different places."""

    work: list[tuple[str, int, int, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    done: collections.Counter[str] = field(default_factory=collections.Counter)

    def __str__(self) -> str:
        """Return the results in one line."""
        killed = self.done["killed"] + self.done["wrong"]
        return (
            f"{killed} kills of {len(self.work)} places passed ({len(self.names)} different ones), "
            f"{self.done['not reached']} runs took another way, {self.done['wrong']} went wrong"
        )


async def main(seeds: int, seconds: float, jobs: int, mirrors: Mirrors) -> int:
    """Kill at each place and print what went wrong."""
    until, total = time.monotonic() + seconds, Total()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await make_templates(folder / "templates", mirrors)
        for stage in STAGES:
            for seed in range(1, seeds + 1):
                passed = await places(folder / f"record {stage} {seed}", folder / "templates", mirrors, stage, seed)
                total.work += [(stage, seed, number, place) for number, place in enumerate(passed, 1)]
                total.names |= set(passed)
        limiter = anyio.CapacityLimiter(jobs)

        async def one(stage: str, seed: int, number: int, place: str) -> None:
            async with limiter:
                if time.monotonic() > until:
                    return
                mine = folder / f"kill {stage} {seed} {number}"
                problems = await kill_at(number, mine, folder / "templates", mirrors, stage, seed)
                shutil.rmtree(mine)
                total.done["not reached" if problems is None else "wrong" if problems else "killed"] += 1
                if problems:
                    sys.stdout.write(f"{stage}, seed {seed}, place {number} ({place}): {problems}\n")
                if total.done.total() % 50 == 0:
                    sys.stdout.write(f"so far {total}\n")
                sys.stdout.flush()

        async with anyio.create_task_group() as group:
            for each in total.work:
                group.start_soon(one, *each)
    sys.stdout.write(f"{total}\n" + "".join(f"  {place}\n" for place in sorted(total.names)))
    return 1 if total.done["wrong"] else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--postgres", action="store_true", help="over a PostgreSQL of its own")
    options = parser.parse_args()
    server = PostgresServer() if options.postgres else None
    try:
        if server is not None:
            server.start()
        mirrors = SqliteMirrors() if server is None else PostgresMirrors(server)
        raise SystemExit(anyio.run(main, options.seeds, options.seconds, options.jobs, mirrors))
    finally:
        if server is not None:
            server.remove()
