"""`python -m benchmarks.long_queue [--operations N] [--on STORE] [--write]`: many creates at once, during passes.

A real `syncd run` makes a pass every 30 seconds over a listing to which its own creates are added. Another program
queues a few operations, and then all others in one transaction. While they are worked, `syncd status` runs now and
then. Writes `long_queue.json` and the part `long-queue` of `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.daemon import first_pass, running
from benchmarks.machine import ROOT, SERVER_CORE, ServerHandle, environment, load_average, pin, serving
from benchmarks.ours import enqueue, settings
from benchmarks.results import Figure, alone
from benchmarks.server import Listing
from benchmarks.stores import Connection, SqliteStore, Store, postgres

SESSIONS = 100_000
PASS_INTERVAL = "30"
SHORT = 2_000
OPERATIONS = 200_000
CONCURRENCY = "32"
POLL_SECONDS = 0.5
STATUS_EVERY = 20.0
LONGEST = 1800.0
"""Seconds after which the measurement gives up."""
FIRST_NUMBER = 2_000_000
"""The creates have other source ids than the sessions of the listing."""


def memory_mb(pid: int, field: str) -> float:
    """Return `VmRSS` or `VmHWM` (the peak) of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1000


def succeeded(db: Connection) -> int:
    """Return the number of operations that have succeeded."""
    return int(db.execute("SELECT count(*) FROM operations WHERE state = 'succeeded'")[0][0])


def passes(db: Connection) -> int:
    """Return the number of complete passes."""
    return int(db.execute("SELECT count(*) FROM passes WHERE state = 'complete'")[0][0])


def worked(db: Connection, where: str, numbers: range, look: Callable[[], None]) -> list[tuple[float, int]]:
    """Queue creates and wait until all have succeeded; return how many had, after how many seconds.

    `look` is called again and again meanwhile; it raises an error if it is of no use to wait.
    """
    before = succeeded(db)
    enqueue(where, numbers)
    began = time.monotonic()
    points = [(0.0, 0)]
    while points[-1][1] < len(numbers):
        if points[-1][0] > LONGEST:
            raise RuntimeError(f"{points[-1]} of {len(numbers)} after {LONGEST:.0f} s")
        time.sleep(POLL_SECONDS)
        points.append((time.monotonic() - began, succeeded(db) - before))
        look()
    return points


def rate(points: list[tuple[float, int]]) -> float:
    """Return the operations a second between the first and the last point."""
    (began, before), (ended, after) = points[0], points[-1]
    return (after - before) / (ended - began)


class Status:
    """Runs `syncd status` now and then, and keeps how long it took; fails if the daemon has ended."""

    def __init__(self, process: subprocess.Popen[Any], url: str, where: str) -> None:
        self._process = process
        self._environment = environment(**settings(url, where))
        self._next = time.monotonic()
        self.seconds: list[float] = []

    def look(self) -> None:
        """Run it if it is time."""
        assert self._process.poll() is None, "the daemon has ended"
        if time.monotonic() >= self._next:
            began = time.perf_counter()
            command = [sys.executable, "-m", "syncd", "status"]
            done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, check=False)
            self.seconds.append(time.perf_counter() - began)
            assert done.returncode in {0, 1}, done.stderr.decode()
            self._next = time.monotonic() + STATUS_EVERY


def measure(
    server: ServerHandle,
    store: Store,
    operations: int,
    *,
    short: int = SHORT,
    sessions: int = SESSIONS,
    least_passes: int = 1,
) -> list[Figure]:
    """Measure the queue on one kind of database, beside a mirror of some sessions."""
    server.set(**Listing(sessions, 1000, lists_created=1).__dict__)
    where = store.empty("long")
    given = {"SYNCD_PASS_INTERVAL": PASS_INTERVAL, "SYNCD_OPERATIONS_CONCURRENCY": CONCURRENCY}
    with running(server.url, where, **given) as process, contextlib.closing(first_pass(where, process)) as db:
        short_rate = rate(worked(db, where, range(FIRST_NUMBER, FIRST_NUMBER + short), lambda: None))
        peak, passes_before = memory_mb(process.pid, "VmHWM"), passes(db)
        status, first = Status(process, server.url, where), FIRST_NUMBER + short
        points = worked(db, where, range(first, first + operations), status.look)
        more = memory_mb(process.pid, "VmHWM") - peak
        made = passes(db) - passes_before
    last = points[sum(done < operations * 0.75 for _, done in points) - 1 :]
    what = f"{operations:,} creates during passes"
    shares = [rate(some) / short_rate for some in (points, last)]
    return [
        ratio("long-rate", f"{what}, creates/s against a queue of {short:,}", rate(points), short_rate, shares[0], 0.8),
        ratio("long-last", f"{what}, the last quarter of them", rate(last), short_rate, shares[1], 0.8),
        alone("long-memory", f"{what}, peak RSS, more than with {short:,}", "MB", [more], sense="≤", target=20),
        alone("long-status", f"{what}, slowest `syncd status`", "s", [max(status.seconds)], sense="≤", target=0.5),
        alone("long-passes", f"{what}, complete passes meanwhile", "passes", [made], sense="≥", target=least_passes),
    ]


def ratio(key: str, title: str, value: float, floor: float, share: float, target: float) -> Figure:
    """Make a figure of one round with its floor."""
    return Figure(
        key=key, title=title, unit="creates/s", value=value, floor=floor, ratio=share, low=share, high=share,
        sense="≥", target=target,
    )  # fmt: skip


def section(results: Mapping[str, Any]) -> str:
    """Write the tables for `docs/performance.md`."""
    about = f"Taken {results['taken_at']}, load average before {results['load_average']}."
    return "\n\n".join([about, *(f"{title}:\n\n{report.table(on)}" for title, on in results["figures"].items())])


def main() -> None:
    """Measure, and print the results or write them to files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_queue")
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--on", nargs="+", choices=report.STORES, default=report.STORES, help="these databases only")
    parser.add_argument("--write", action="store_true", help="write long_queue.json and docs/performance.md")
    options = parser.parse_args()
    pin(SERVER_CORE)
    load, figures = load_average(), {}
    with tempfile.TemporaryDirectory(prefix="syncd-long-") as folder, ExitStack() as stack:
        server = stack.enter_context(serving())
        for name in options.on:
            store: Store = SqliteStore(Path(folder)) if name == "sqlite" else stack.enter_context(postgres())
            measured = measure(server, store, options.operations)
            figures[store.title] = [{**asdict(figure), "met": figure.met} for figure in measured]
    taken_at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    results = {"taken_at": taken_at, "load_average": load, "figures": figures}
    print(section(results))
    if options.write:
        report.LONG_QUEUE.write_text(json.dumps(results, indent=1) + "\n")
        report.write()


if __name__ == "__main__":
    main()
