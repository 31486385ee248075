"""`python -m benchmarks.compare PYTHON [--sessions N] [--rounds N]`: syncd and its peers on the same first mirror.

PYTHON is the interpreter of the peers' environment (`make bench-peers` makes it). Writes `peers.json` and the docs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report, verify
from benchmarks.machine import SERVER_CORE, ServerHandle, contend, describe, load_average, pin, serving
from benchmarks.results import Figure, against
from benchmarks.server import Listing

PAGES = (100, 1000)
OURS, PEERS = ("floor", "syncd"), ("sdk-core", "dlt", "singer")
TARGETS = {"dlt": 6.0, "sdk-core": 2.0}
SHOWN = ("albert", "dlt", "singer-sdk", "SQLAlchemy")
DLT_COLUMNS = (
    "id", "name", "parent_id", "source_session_id", "last_message_at", "status", "kind",
    "created__by", "created__by_name", "created__at", "updated__by", "updated__by_name", "updated__at",
)  # fmt: skip


def one(name: str, server: ServerHandle, listing: Listing, python: str) -> dict[str, Any]:
    """Run one contender on a new file and verify its mirror."""
    interpreter = python if name in PEERS else sys.executable
    with tempfile.TemporaryDirectory(prefix="syncd-peers-") as folder:
        file = str(Path(folder) / "mirror.db")
        took = contend(name, server.url, file, python=interpreter)
        held = verify.mirrored(file, columns=DLT_COLUMNS) if name == "dlt" else verify.mirrored(file)
        assert held == verify.served(listing), f"{name} holds {held}"
    return took


def compare(server: ServerHandle, listing: Listing, rounds: int, python: str) -> dict[str, list[dict[str, Any]]]:
    """Run all contenders once a round."""
    server.set(**listing.__dict__)
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in (*OURS, *PEERS)}
    for number in range(rounds):
        for name, took in taken.items():
            took.append(one(name, server, listing, python))
            line = f"page {listing.page}, round {number + 1} of {rounds}, {name}: {took[-1]['cpu']:.2f} s CPU"
            print(line, file=sys.stderr, flush=True)
    return taken


def figures(pages: Mapping[int, Mapping[str, list[dict[str, Any]]]]) -> list[Figure]:
    """Compare the peers' CPU with syncd's."""
    return [
        against(
            f"{name}-{page}", f"{name}, first mirror, pages of {page}, CPU against syncd's", "s",
            [o["cpu"] for o in taken[name]], [o["cpu"] for o in taken["syncd"]], sense="≥", target=target,
        )
        for page, taken in pages.items()
        for name, target in TARGETS.items()
    ]  # fmt: skip


def versions(python: str) -> dict[str, str]:
    """Return the peers' versions."""
    program = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", program, *SHOWN], capture_output=True, text=True, check=True)
    return dict(zip(SHOWN, done.stdout.split(), strict=True))


def main() -> None:
    """Compare, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("python")
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pin(SERVER_CORE)
    load = load_average()
    with serving() as server:
        pages = {page: compare(server, Listing(options.sessions, page), options.rounds, options.python)
                 for page in PAGES}  # fmt: skip
    rejected = figures(pages)
    results = {
        "taken_at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sessions": options.sessions,
        "rounds": options.rounds,
        "machine": describe(Path(tempfile.gettempdir())),
        "load_average": {"before": load, "after": load_average()},
        "versions": versions(options.python),
        "figures": [{**asdict(figure), "met": figure.met} for figure in rejected],
        "pages": pages,
    }
    report.PEERS.write_text(json.dumps(results, indent=1) + "\n")
    report.write()
    print(report.peers(json.loads(report.PEERS.read_text())))


if __name__ == "__main__":
    main()
