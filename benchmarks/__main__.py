"""Measures all figures and writes them to files: `python -m benchmarks [--full] [--only NAME...] [--on STORE...]`."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import daemon, measures, report
from benchmarks.machine import ROOT, SERVER_CORE, ServerHandle, describe, load_average, pin, serving
from benchmarks.measures import FULL, FULL_POSTGRES, POSTGRES, Bench, Scale
from benchmarks.stores import SqliteStore, Store, postgres

STEPS: dict[str, Callable[[Bench], None]] = {
    "first": measures.first_mirror,
    "unchanged": measures.unchanged_pass,
    "changed": measures.changed_pass,
    "odd": measures.odd_pages,
    "slow": measures.slow_network,
    "ahead": measures.read_ahead,
    "queue": measures.queue,
    "blocked": measures.blocked_queue,
    "daemon": daemon.watched,
    "reconcile": measures.reconciling,
    "status": measures.start_up,
    "stages": measures.stages,
    "growth": measures.growth,
    "queue-growth": measures.queue_growth,
}
NEEDED = {
    "unchanged": {"first"},
    "changed": {"first", "unchanged"},
    "reconcile": {"first"},
    "status": {"first"},
    "growth": {"first", "unchanged"},
    "queue-growth": {"first", "unchanged", "growth"},
}


SQLITE_ONLY = {"stages", "odd"}
"""Steps whose results are the same for PostgreSQL."""


def run(scale: Scale, steps: list[str], server: ServerHandle, store: Store, say: Callable[[str], None]) -> Bench:
    """Measure the figures of some steps on one kind of database."""
    bench, begun = Bench(scale, server, store, say), time.monotonic()
    for number, name in enumerate(steps, 1):
        about = (STEPS[name].__doc__ or name).splitlines()[0]
        say(f"[{store.title} {number}/{len(steps)}, {time.monotonic() - begun:.0f} s] {about}")
        STEPS[name](bench)
    return bench


def results_of(bench: Bench) -> dict[str, Any]:
    """Return all results of a run."""
    return {
        "database": bench.store.version(),
        "scale": asdict(bench.scale),
        "figures": [{**asdict(figure), "met": figure.met} for figure in bench.figures],
        **bench.facts,
    }


def main() -> None:
    """Run the steps of the command line. Only complete runs are written to files; partial ones are printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--full", action="store_true", help="more rounds, longer queues and more sizes; takes hours")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=[], help="these steps and what they need")
    parser.add_argument("--on", nargs="+", choices=report.STORES, default=report.STORES, help="these databases only")
    parser.add_argument("--rounds", type=int, help="rounds to take medians of")
    options = parser.parse_args()
    wanted = set(options.only).union(*(NEEDED.get(name, set()) for name in options.only)) or set(STEPS)
    scales = dict(zip(report.STORES, (FULL, FULL_POSTGRES) if options.full else (Scale(), POSTGRES), strict=True))

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    pin(SERVER_CORE)
    begun, load, results = time.monotonic(), load_average(), {}
    with tempfile.TemporaryDirectory(prefix="syncd-bench-") as folder:
        machine = describe(Path(folder))
        for name in options.on:
            scale = replace(scales[name], **({"rounds": options.rounds} if options.rounds else {}))
            steps = [step for step in STEPS if step in wanted and not (name != "sqlite" and step in SQLITE_ONLY)]
            with ExitStack() as stack:
                server = stack.enter_context(serving())
                store = SqliteStore(Path(folder)) if name == "sqlite" else stack.enter_context(postgres())
                results[name] = results_of(run(scale, steps, server, store, say))
            print(f"{results[name]['database']}\n\n{report.table(results[name]['figures'])}\n")
    if wanted == set(STEPS) and set(options.on) == set(report.STORES):
        about = {
            "taken_at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": round(time.monotonic() - begun),
            "machine": machine,
            "load_average": {"before": load, "after": load_average()},
        }
        report.RESULTS.write_text(json.dumps({**about, **results}, indent=1) + "\n")
        report.write()
        print(f"written: {', '.join(str(path.relative_to(ROOT)) for path in report.WRITTEN)}")


if __name__ == "__main__":
    main()
