"""`python -m benchmarks [--full] [--only NAME...]`: take all figures, print the table, write results and docs."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import daemon, measures, report
from benchmarks.machine import ROOT, SERVER_CORE, describe, load_average, pin, serving
from benchmarks.measures import FULL, Bench, Scale

STEPS: dict[str, Callable[[Bench], None]] = {
    "first": measures.first_mirror,
    "unchanged": measures.unchanged_pass,
    "changed": measures.changed_pass,
    "slow": measures.slow_network,
    "queue": measures.queue,
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


def run(scale: Scale, steps: list[str], folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Take the figures of some steps; return all that came out."""
    begun, load = time.monotonic(), load_average()
    with serving() as server:
        bench = Bench(scale, server, folder, say)
        for number, name in enumerate(steps, 1):
            about = (STEPS[name].__doc__ or name).splitlines()[0]
            say(f"[{number}/{len(steps)}, {time.monotonic() - begun:.0f} s] {about}")
            STEPS[name](bench)
    return {
        "taken_at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(time.monotonic() - begun),
        "machine": describe(folder),
        "load_average": {"before": load, "after": load_average()},
        "scale": asdict(scale),
        "figures": [{**asdict(figure), "met": figure.met} for figure in bench.figures],
        **bench.facts,
    }


def main() -> None:
    """Run what the command line asks for; whole runs are written down, partial ones are only printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--full", action="store_true", help="more rounds, longer queues and more sizes; takes hours")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=[], help="these steps and what they need")
    parser.add_argument("--rounds", type=int, help="rounds to take medians of")
    options = parser.parse_args()
    wanted = set(options.only).union(*(NEEDED.get(name, set()) for name in options.only)) or set(STEPS)
    scale = FULL if options.full else Scale()
    if options.rounds:
        scale = Scale(**{**asdict(scale), "rounds": options.rounds})

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    pin(SERVER_CORE)
    with tempfile.TemporaryDirectory(prefix="syncd-bench-") as folder:
        results = run(scale, [name for name in STEPS if name in wanted], Path(folder), say)
    print(report.table(results["figures"]))
    if wanted == set(STEPS):
        report.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        report.write()
        print(f"written: {', '.join(str(one.relative_to(ROOT)) for one in report.WRITTEN)}")


if __name__ == "__main__":
    main()
