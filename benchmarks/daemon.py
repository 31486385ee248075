"""The daemon as a contender: a real `syncd run`, and another program that inserts operations into its database."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bare import operation
from benchmarks.machine import CLIENT_CORE, ROOT, environment
from benchmarks.ours import settings
from benchmarks.results import alone, percentile
from benchmarks.server import Listing
from benchmarks.stores import Connection, connect, is_postgresql

if TYPE_CHECKING:
    from benchmarks.measures import Bench

SESSIONS = 10_000
PATIENCE = 120.0
NEVER = "86400"
WIRE = {"SQLite": {50: 40, 99: 100}, "PostgreSQL": {50: 5, 99: 15}}


def watched(bench: Bench) -> None:
    """Measure CPU and writes of an idle daemon, and the time from an INSERT to its request."""
    sessions = min(SESSIONS, bench.scale.sessions)
    bench.serve(Listing(sessions, 1000))
    where = bench.store.empty("daemon")
    with running(bench.server.url, where) as process, contextlib.closing(first_pass(where, process)) as db:
        time.sleep(bench.store.settle)
        cpu, written = _idle(process.pid, where, db, bench.scale.idle_seconds)
        bench.say(f"  idle: {cpu:.2f}% of a core, {written} writes")
        begun = _insert(db, bench.scale.inserts)
        arrivals = _arrivals(bench, len(begun))
    taken = [(arrivals[source] - at) * 1000 for source, at in begun.items()]
    bench.figures += [
        alone("idle-cpu", "idle daemon, CPU of a core", "%", [cpu], sense="≤", target=0.3),
        alone("idle-writes", "idle daemon, commits and changed files", "writes", [written], sense="=", target=0),
    ]
    for percent, target in WIRE[bench.store.title].items():
        title = f"INSERT by another process to the request on the wire, p{percent} of {len(taken)}"
        bench.figures.append(
            alone(f"wire-p{percent}", title, "ms", [percentile(taken, percent)], sense="≤", target=target)
        )
    bench.facts["wire_ms"] = sorted(taken)


@contextmanager
def running(url: str, where: str, **more: str) -> Iterator[subprocess.Popen[Any]]:
    """Run `syncd run` with the settings of a benchmark until the block ends."""
    command = [sys.executable, "-m", "syncd", "run"]
    if sys.platform == "linux":
        command = ["taskset", "-c", str(CLIENT_CORE), *command]
    given = {**settings(url, where), "SYNCD_PASS_INTERVAL": NEVER, **more}
    with subprocess.Popen(command, cwd=ROOT, env=environment(**given), stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def first_pass(where: str, process: subprocess.Popen[Any]) -> Connection:
    """Wait for the daemon's first pass to end; return a connection to its database."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
        with contextlib.suppress(Exception):  # the database is being created
            db = connect(where)
            try:
                if db.execute("SELECT count(*) FROM passes WHERE state = 'complete'")[0][0]:
                    return db
            except Exception:
                db.close()
                raise
            db.close()
    raise RuntimeError("the daemon did not come up")


def _idle(pid: int, where: str, db: Connection, seconds: float) -> tuple[float, int]:
    """Return the percentage of a core that a process used while idle, and its writes in that time."""
    clock = (~pid << 3) | 2  # clock_getcpuclockid(3): the CPU clock of another process, in nanoseconds
    before, used, begun = written(where, db), time.clock_gettime(clock), time.monotonic()
    time.sleep(seconds)
    used, passed = time.clock_gettime(clock) - used, time.monotonic() - begun
    after = written(where, db)
    return 100 * used / passed, sum(value != other for value, other in zip(before, after, strict=True))


def written(where: str, db: Connection) -> list[Any]:
    """Return values that change with each write: commits, sizes and times of files; on PostgreSQL rows."""
    if is_postgresql(where):
        return db.execute("SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables ORDER BY 1")
    version = db.execute("PRAGMA data_version")  # first, because it creates the file of the log
    files = [Path(f"{where}{suffix}") for suffix in ("", "-wal")]
    return [*version, *((file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists())]


def _insert(db: Connection, count: int) -> dict[str, float]:
    """Queue creates one by one at irregular moments; return when each INSERT began, by its source id."""
    rng = random.Random(1)  # noqa: S311 - moments, not secrets
    begun = {}
    for number in range(count):
        body = operation(number + 1_000_000)
        begun[body["sourceSessionId"]] = time.monotonic()
        db.execute("INSERT INTO operations (kind, source_session_id, name) VALUES ('create', ?, ?)",
                   (body["sourceSessionId"], body["name"]))  # fmt: skip
        time.sleep(rng.uniform(0.02, 0.13))
    return begun


def _arrivals(bench: Bench, count: int) -> dict[str, float]:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        arrivals = bench.server.arrivals()
        if len(arrivals) >= count:
            return arrivals
        time.sleep(0.2)
    raise RuntimeError("the daemon did not send all that was inserted")
