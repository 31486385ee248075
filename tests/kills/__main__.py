"""Every place, each seed: `python -m tests.kills [--seeds 3] [--seconds N] [--jobs 2]`; exits 1 when one went wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import anyio

from tests.kills.rig import kill_at, make_template, places


async def main(seeds: int, seconds: float, jobs: int) -> int:
    """Kill at each place and print what went wrong."""
    until, wrong, done = time.monotonic() + seconds, 0, 0
    names: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await make_template(folder / "template")
        work: list[tuple[int, int, str]] = []
        for seed in range(1, seeds + 1):
            found = await places(folder / f"record-{seed}", folder / "template", seed)
            work += [(seed, number, place) for number, place in enumerate(found, 1)]
            names |= set(found)
        sys.stdout.write(f"{len(work)} places passed in {seeds} seeds, {len(names)} different ones\n")
        limiter = anyio.CapacityLimiter(jobs)

        async def one(seed: int, number: int, place: str) -> None:
            nonlocal wrong, done
            async with limiter:
                if time.monotonic() > until:
                    return
                problems = await kill_at(number, folder / f"kill-{seed}-{number}", folder / "template", seed)
                done += 1
                if problems:
                    wrong += 1
                    sys.stdout.write(f"seed {seed}, place {number} ({place}): {problems}\n")
                    sys.stdout.flush()

        async with anyio.create_task_group() as group:
            for each in work:
                group.start_soon(one, *each)
    sys.stdout.write(f"{done} of {len(work)} kills, {wrong} went wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    raise SystemExit(anyio.run(main, options.seeds, options.seconds, options.jobs))
