"""As many schedules as there is time for: `python -m tests.model.soak --seconds 600 --first 1 --jobs 2`.

Prints how many ran, how fast, and each seed that failed with what it broke; exits 1 when one did.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import sys
import time
from collections.abc import Iterator

from tests.model.simulation import Files, simulate

BATCH = 50


def _batch(first: int) -> tuple[int, int, int, list[tuple[int, str]]]:
    """Run a batch of seeds; return how many, their commits and requests, and what failed."""
    files, failures, commits, requests = Files(), [], 0, 0
    try:
        for seed in range(first, first + BATCH):
            try:
                report = simulate(seed, files)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                failures.append((seed, _words(error)))
            else:
                commits, requests = commits + report.commits, requests + report.requests
    finally:
        files.remove()
    return BATCH, commits, requests, failures


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _firsts(first: int, until: float) -> Iterator[int]:
    while time.monotonic() < until:
        yield first
        first += BATCH


def main() -> int:
    """Run until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    ran = commits = requests = 0
    failures: list[tuple[int, str]] = []
    firsts = _firsts(options.first, began + options.seconds)
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        running = collections.deque(
            pool.apply_async(_batch, (first,)) for _, first in zip(range(options.jobs), firsts, strict=False)
        )
        while running:
            done = running.popleft().get()
            ran, commits, requests = ran + done[0], commits + done[1], requests + done[2]
            failures += done[3]
            for seed, words in done[3]:
                sys.stdout.write(f"seed {seed}: {words[:600]}\n")
            sys.stdout.flush()
            following = next(firsts, None)
            if following is not None:
                running.append(pool.apply_async(_batch, (following,)))
    spent = time.monotonic() - began
    sys.stdout.write(
        f"{ran} schedules, seeds {options.first} to {options.first + ran - 1}, {len(failures)} failed, {commits} "
        f"commits looked at, {requests} requests, {spent:.0f} s, {ran / spent:.1f} a second\n"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
