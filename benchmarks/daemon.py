"""The daemon as a contender: a real `syncd run`, and another program that inserts operations into its database."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.floor import operation
from benchmarks.machine import CLIENT_CORE, ROOT, environment, remove
from benchmarks.ours import settings
from benchmarks.results import alone, percentile
from benchmarks.server import Listing

if TYPE_CHECKING:
    from benchmarks.measures import Bench

SESSIONS = 10_000
PATIENCE = 120.0
SETTLE = 2.0
NEVER = "86400"


def watched(bench: Bench) -> None:
    """Watch idle CPU and writes of a running daemon, and how soon it sends what another program inserts."""
    sessions = min(SESSIONS, bench.scale.sessions)
    bench.serve(Listing(sessions, 1000))
    file = remove(bench.file("daemon"))
    with _running(bench.server.url, file) as process, contextlib.closing(_first_pass(file, process)) as db:
        time.sleep(SETTLE)
        cpu, written = _idle(process.pid, file, db, bench.scale.idle_seconds)
        bench.say(f"  idle: {cpu:.2f}% of a core, {written} writes")
        begun = _insert(db, bench.scale.inserts)
        arrivals = _arrivals(bench, len(begun))
    taken = [(arrivals[source] - at) * 1000 for source, at in begun.items()]
    bench.figures += [
        alone("idle-cpu", "idle daemon, CPU of a core", "%", [cpu], sense="≤", target=0.5),
        alone("idle-writes", "idle daemon, commits and changed files", "writes", [written], sense="=", target=0),
    ]
    for percent, target in ((50, 100), (99, 250)):
        title = f"INSERT by another process to the request on the wire, p{percent} of {len(taken)}"
        bench.figures.append(
            alone(f"wire-p{percent}", title, "ms", [percentile(taken, percent)], sense="≤", target=target)
        )
    bench.facts["wire_ms"] = sorted(taken)


@contextmanager
def _running(url: str, file: Path) -> Iterator[subprocess.Popen[Any]]:
    command = [sys.executable, "-m", "syncd", "run"]
    if sys.platform == "linux":
        command = ["taskset", "-c", str(CLIENT_CORE), *command]
    given = {**settings(url, file), "SYNCD_PASS_INTERVAL": NEVER}
    with subprocess.Popen(command, cwd=ROOT, env=environment(**given), stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def _first_pass(file: Path, process: subprocess.Popen[Any]) -> sqlite3.Connection:
    """Wait for the daemon's first pass to end; return a connection to its database."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
        with contextlib.suppress(sqlite3.OperationalError):
            db = sqlite3.connect(f"file:{file}?mode=rw", uri=True, isolation_level=None, timeout=30)
            if db.execute("SELECT count(*) FROM passes WHERE state = 'complete'").fetchone()[0]:
                return db
            db.close()
    raise RuntimeError("the daemon did not come up")


def _idle(pid: int, file: Path, db: sqlite3.Connection, seconds: float) -> tuple[float, int]:
    """Return the percentage of a core that a process used while idle, and the commits and changed files meanwhile."""

    def files() -> list[tuple[int, int]]:
        found = [Path(f"{file}{suffix}") for suffix in ("", "-wal")]
        return [(one.stat().st_mtime_ns, one.stat().st_size) for one in found if one.exists()]

    def version() -> int:
        return int(db.execute("PRAGMA data_version").fetchone()[0])

    clock = (~pid << 3) | 2  # clock_getcpuclockid(3): the CPU clock of another process, in nanoseconds
    before, used, begun = (version(), files()), time.clock_gettime(clock), time.monotonic()
    time.sleep(seconds)
    used, passed = time.clock_gettime(clock) - used, time.monotonic() - begun
    after = (version(), files())
    changed = sum(one != other for one, other in zip(before[1], after[1], strict=True))
    return 100 * used / passed, after[0] - before[0] + changed


def _insert(db: sqlite3.Connection, count: int) -> dict[str, float]:
    """Queue creates one by one at odd moments; return when each INSERT began, by its source id."""
    chance = random.Random(1)  # noqa: S311 - moments, not secrets
    begun = {}
    for number in range(count):
        body = operation(number + 1_000_000)
        begun[body["sourceSessionId"]] = time.monotonic()
        db.execute("INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, ?)",
                   (body["sourceSessionId"], body["name"]))  # fmt: skip
        time.sleep(chance.uniform(0.02, 0.13))
    return begun


def _arrivals(bench: Bench, count: int) -> dict[str, float]:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        arrivals = bench.server.arrivals()
        if len(arrivals) >= count:
            return arrivals
        time.sleep(0.2)
    raise RuntimeError("the daemon did not send all that was inserted")
