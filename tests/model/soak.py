"""As many schedules as there is time for: `python -m tests.model.soak --seconds 600 --first 1 --jobs 2`.

Prints what ran so far, each seed that failed with what it broke, and at the end how many ran and how fast; exits 1 when
one failed.
"""

from __future__ import annotations

import argparse
import collections
import gc
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.pool import AsyncResult

from tests.helpers.postgres_server import FAST, PostgresServer
from tests.model.actions import FIRST_READ_AHEAD, reads_ahead
from tests.model.postgres_store import PostgresStore
from tests.model.simulation import simulate
from tests.model.store import SqliteStore, Store

BATCH = 50


@dataclass
class Total:
    """The results of some schedules; `failures` are seeds with the invariants that they broke."""

    ran: int = 0
    commits: int = 0
    requests: int = 0
    cpu: float = 0.0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Total) -> None:
        """Add the counts of another one."""
        self.ran, self.commits = self.ran + other.ran, self.commits + other.commits
        self.requests, self.cpu = self.requests + other.requests, self.cpu + other.cpu
        self.failures += other.failures

    def __str__(self) -> str:
        """Return the results in one line."""
        return (
            f"{self.ran} schedules, {len(self.failures)} failed, {self.commits} commits looked at, {self.requests} "
            f"requests, {self.cpu:.0f} s of CPU"
        )


def run_batch(first: int, count: int = BATCH, url: str | None = None, *, only_ahead: bool = False) -> Total:
    """Run some seeds that follow each other, or only those that read ahead, over SQLite or the PostgreSQL of a URL."""
    store: Store = SqliteStore() if url is None else PostgresStore(url)
    total, began = Total(), time.process_time()
    gc.disable()  # a schedule leaves little garbage, and collecting it all the time costs a tenth
    try:
        for seed in range(first, first + count):
            if only_ahead and not reads_ahead(seed):
                continue
            total.ran += 1
            try:
                report = simulate(seed, store)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                total.failures.append((seed, _words(error)))
            else:
                total.commits, total.requests = total.commits + report.commits, total.requests + report.requests
    finally:
        gc.enable()
        gc.collect()
        store.remove()
    total.cpu = time.process_time() - began
    return total


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _batches(first: int, until: float, count: int) -> Iterator[tuple[int, int]]:
    """Yield the first seed of each batch and the number of its seeds."""
    end = first + count
    while time.monotonic() < until and first < end:
        yield first, min(BATCH, end - first)
        first += BATCH


def main() -> int:
    """Run until the time is over, or as many as were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=sys.maxsize)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--read-ahead", action="store_true", help="only schedules whose passes read ahead")
    parser.add_argument("--postgres", action="store_true", help="over a PostgreSQL of its own")
    options = parser.parse_args()
    if options.read_ahead and options.first < FIRST_READ_AHEAD:
        parser.error(f"schedules read ahead from seed {FIRST_READ_AHEAD} on: use --first")
    server = PostgresServer(*FAST) if options.postgres else None
    try:
        if server is not None:
            server.start()
        return _soak(options, server)
    finally:
        if server is not None:
            server.remove()


def _soak(options: argparse.Namespace, server: PostgresServer | None) -> int:
    def url() -> str | None:
        return None if server is None else server.url(server.fresh())

    began, total, reported_at, last = time.monotonic(), Total(), time.monotonic(), options.first
    batches = _batches(options.first, began + options.seconds, options.count)
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:

        def start(batch: tuple[int, int]) -> AsyncResult[Total]:
            nonlocal last
            last = sum(batch) - 1
            return pool.apply_async(run_batch, (*batch, url()), {"only_ahead": options.read_ahead})

        running = collections.deque(map(start, itertools.islice(batches, options.jobs)))
        while running:
            done: Total = running.popleft().get()
            total.add(done)
            for seed, message in done.failures:
                sys.stdout.write(f"seed {seed}: {message[:600]}\n")
            if time.monotonic() - reported_at > 60:
                reported_at = time.monotonic()
                sys.stdout.write(f"so far, from seed {options.first} on: {total}\n")
            sys.stdout.flush()
            following = next(batches, None)
            if following is not None:
                running.append(start(following))
    seconds_spent = time.monotonic() - began
    sys.stdout.write(f"seeds {options.first} to {last}: {total}, {seconds_spent:.0f} s\n")
    return 1 if total.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
