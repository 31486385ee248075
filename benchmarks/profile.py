"""Profiles the CPU of a contender: `python -m benchmarks.profile {first,unchanged,queue,...,docs}`.

The contender runs once under `cProfile`, each thread with its own CPU clock, so that waiting and other programs do not
count. The profiler adds a cost to each call, so the shares show where to look but are not
measurements.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.machine import CLIENT_CORE, SERVER_CORE, contend, load_average, pin, serving
from benchmarks.measures import Scale
from benchmarks.server import Listing
from benchmarks.stores import SqliteStore, postgres
from benchmarks.timer import Timer

SHOWN = 12
CASES = {
    "first": "syncd",
    "unchanged": "syncd",
    "spread": "syncd",
    "queue": "syncd-queue",
    "floor": "floor",
    "same-rows": "same-rows",
    "bare-queue": "bare-queue",
}


DOCUMENTED = (
    ("First mirror, pages of 100", "first", 100, "sqlite"),
    ("First mirror, pages of 1,000", "first", 1000, "sqlite"),
    ("Unchanged pass, pages of 100", "unchanged", 100, "sqlite"),
    ("Unchanged pass, pages of 1,000", "unchanged", 1000, "sqlite"),
    ("1% changed, one on each page of 100", "spread", 100, "sqlite"),
    ("The queue, 32 at once", "queue", 100, "sqlite"),
    ("First mirror into PostgreSQL, pages of 1,000", "first", 1000, "postgresql"),
    ("The queue on PostgreSQL, 32 at once", "queue", 100, "postgresql"),
)


class Profiler(Timer):
    """A timer that profiles each thread between `start` and `stop`."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: dict[str, cProfile.Profile] = {"event loop": cProfile.Profile(time.thread_time)}
        threading.setprofile(self._join)

    def _join(self, *_: object) -> None:
        name = threading.current_thread().name
        profile = self.threads[f"{name} {len(self.threads)}"] = cProfile.Profile(time.thread_time)
        profile.enable()

    def start(self) -> None:
        """Discard earlier samples, and begin."""
        for profile in self.threads.values():
            profile.clear()
        self.threads["event loop"].enable()
        super().start()

    def stop(self) -> None:
        """End."""
        super().stop()
        self.threads["event loop"].disable()

    def result(self) -> dict[str, Any]:
        """Return the functions that took most CPU, by thread: seconds of their own, seconds with callees, calls."""
        functions = {}
        for name, profile in self.threads.items():
            profile.create_stats()
            stats: Any = profile.stats
            rows = [
                (own, total, calls, _library(file, function), f"{_short(file)}:{line} {function}")
                for (file, line, function), (_, calls, own, total, _) in stats.items()
            ]
            functions[name] = sorted(rows, reverse=True)
        return {**super().result(), "profile": functions}


def _library(file: str, function: str) -> str:
    """Return the owner of a function: a library, a file of syncd, or Python itself."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if file == "~":
        return next((name for name in ("sqlite3", "msgspec", "select", "_socket") if name in function), "built-in")
    if "syncd" in parts[:-1]:
        return "/".join(parts[len(parts) - 1 - parts[::-1].index("syncd") :])
    return parts[-2] if parts[-2:-1] == ("asyncio",) else "standard library"


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-2:])


def _child(name: str, url: str, where: str, options: dict[str, int]) -> None:
    from benchmarks.contenders import load

    pin(CLIENT_CORE)
    timer = Profiler()
    load(name)(timer, url, where, **options)
    print(json.dumps(timer.result()))


def show(profile: dict[str, list[tuple[float, float, int, str, str]]]) -> str:
    """Write the top of each thread's profile."""
    lines = []
    whole = sum(row[0] for rows in profile.values() for row in rows)
    for thread, rows in profile.items():
        seconds_spent = sum(row[0] for row in rows)
        if seconds_spent < whole / 100:
            continue
        lines.append(f"{thread}: {100 * seconds_spent / whole:.0f}% of the CPU")
        lines.append("   self   total    calls  function")
        lines += [
            f"{100 * own / whole:6.1f}% {100 * total / whole:6.1f}% {calls:8d}  {function}"
            for own, total, calls, _, function in rows[:SHOWN]
        ]
        by: Counter[str] = Counter()
        for own, _, _, library, _ in rows:
            by[library] += own  # type: ignore[assignment]
        shares = (f"{library} {100 * own / whole:.1f}%" for library, own in by.most_common(SHOWN))
        lines += ["   by library: " + ", ".join(shares), ""]
    return "\n".join(lines)


def profile(case: str, page: int, scale: Scale, on: str) -> str:
    """Run one contender under the profiler and write its profile."""
    queued = case.endswith("queue")
    with ExitStack() as stack:
        server = stack.enter_context(serving())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="syncd-profile-"))
        store = SqliteStore(Path(folder)) if on == "sqlite" else stack.enter_context(postgres())
        where = store.empty("profile")
        server.set(**(Listing() if queued else Listing(scale.sessions, page)).__dict__)
        if case in {"unchanged", "spread"}:
            for _ in range(2):
                contend("syncd", server.url, where)
        if case == "spread":
            server.set(**Listing(scale.sessions, page, every=100).__dict__)
        more: dict[str, Any] = {"operations": scale.operations, "concurrency": scale.concurrency} if queued else {}
        took = contend(CASES[case], server.url, where, module="benchmarks.profile", **more)
    return show(took["profile"])


def documented(scale: Scale) -> str:
    """Write the profiles of docs/performance.md."""
    parts = []
    for title, case, page, on in DOCUMENTED:
        print(f"{title} ...", file=sys.stderr, flush=True)
        parts.append(f"### {title}\n\n```text\n{profile(case, page, scale, on).strip()}\n```")
    about = f"{scale.sessions:,} sessions, {scale.operations:,} creates; load average before {load_average()[0]}."
    return "\n\n".join([about, *parts])


def main() -> None:
    """Profile one contender, or those of docs/performance.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile")
    parser.add_argument("case", choices=[*CASES, "docs"], help="docs: the profiles of docs/performance.md")
    parser.add_argument("--on", choices=report.STORES, default="sqlite")
    parser.add_argument("--page", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--operations", type=int, default=2_000)
    options = parser.parse_args()
    pin(SERVER_CORE)
    scale = Scale(sessions=options.sessions, operations=options.operations)
    if options.case == "docs":
        text = report.replace(report.DOCS.read_text(), "profiles", documented(scale))
        report.DOCS.write_text(text)
    else:
        print(profile(options.case, options.page, scale, options.on))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in CASES.values() and len(sys.argv) > 3:
        pairs = (pair.partition("=") for pair in sys.argv[4:])
        _child(sys.argv[1], sys.argv[2], sys.argv[3], {key: int(value) for key, _, value in pairs})
    else:
        main()
