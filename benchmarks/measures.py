"""The measurements: each function measures some figures of the table, in interleaved rounds."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from benchmarks import ours, verify
from benchmarks.machine import CLIENT_CORE, ROOT, ServerHandle, contend, environment
from benchmarks.ours import settings
from benchmarks.results import Figure, against, alone, exponent
from benchmarks.server import Listing
from benchmarks.stores import Store

PAGES = (100, 1000)
FIRST = 1.5
SAME_ROWS = {"SQLite": 1.15, "PostgreSQL": 1.2}
UNCHANGED = {"SQLite": {100: 0.55, 1000: 0.35}, "PostgreSQL": {100: 0.5, 1000: 0.25}}
SLOW = 1.02
AHEAD = 0.25
CHANGED = {"spread": 1.6, "together": 1.1}
ODD = 1.3
PEAK_MB = {10_000: 90.0, 1_000_000: 100.0}
LATENCY = 0.02
MB_MORE = 20.0
TAKEN = ("cpu", "server", "wall", "rss")
"""The measurements of a run that are stored."""
LINEAR = 1.05
"""The exponent up to which growth counts as linear. A fit over a few sizes cannot distinguish it from 1."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes and rounds of a run."""

    sessions: int = 100_000
    many: int = 1_000_000
    sizes: Sequence[int] = (10_000, 30_000)
    slow_sessions: int = 20_000
    operations: int = 2_000
    blocked: int = 20_000
    queue_sizes: Sequence[int] = (1_000, 4_000, 16_000)
    concurrency: int = 32
    rounds: int = 5
    inserts: int = 200
    idle_seconds: float = 30.0
    starts: int = 10


FULL = Scale(
    sizes=(10_000, 30_000, 300_000), slow_sessions=100_000, queue_sizes=(10_000, 100_000, 1_000_000), rounds=7,
    blocked=100_000, inserts=1_000, idle_seconds=60.0,
)  # fmt: skip

POSTGRES = Scale(
    sessions=30_000, many=100_000, sizes=(10_000,), slow_sessions=10_000, queue_sizes=(1_000, 4_000), rounds=3,
    inserts=100, idle_seconds=15.0, starts=5,
)  # fmt: skip
FULL_POSTGRES = Scale(
    sizes=(10_000, 30_000, 300_000),
    slow_sessions=100_000,
    queue_sizes=(1_000, 10_000, 100_000),
    inserts=1_000,
    idle_seconds=60.0,
)


@dataclass
class Bench:
    """A run: its store of mirrors, its server, and its results so far."""

    scale: Scale
    server: ServerHandle
    store: Store
    say: Callable[[str], None]
    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def mirror(self, name: str, listing: Listing, where: str) -> dict[str, Any]:
        """Run a contender over the listing that is served, and verify its mirror."""
        took = contend(name, self.server.url, where)
        held, wanted = verify.mirrored(where), verify.served(listing)
        assert held == wanted, f"{name} holds {held}, served was {wanted}"
        return took

    def serve(self, listing: Listing) -> Listing:
        """Serve a listing."""
        self.server.set(**listing.__dict__)
        return listing

    def rounds(self, count: int, runs: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        """Run each contender once in each round; reverse the order from round to round."""
        taken: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
        for number in range(count):
            for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
                taken[name].append(runs[name]())
            last = ", ".join(
                f"{name} {took[-1]['cpu']:.2f}/{took[-1]['server']:.2f}/{took[-1]['wall']:.2f}"
                for name, took in taken.items()
            )
            self.say(f"  round {number + 1} of {count}: {last} s CPU/CPU of the database's server/wall")
        return taken


def _each(taken: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [run[key] for run in taken]


def _cpu(taken: Sequence[dict[str, Any]]) -> list[float]:
    """Return the CPU seconds of each run, including those of a database server."""
    return [run["cpu"] + run["server"] for run in taken]


def first_mirror(bench: Bench) -> None:
    """Measure a first mirror into an empty database, against the plain floor and the floor of the same rows."""
    store = bench.store
    for page in PAGES:
        listing = bench.serve(Listing(bench.scale.sessions, page))
        contenders = {"floor": store.floor, "same rows": store.same_rows, "syncd": "syncd"}
        taken = bench.rounds(
            bench.scale.rounds,
            {
                title: partial(_first, bench, name, listing, f"{title.partition(' ')[0]}-{page}")
                for title, name in contenders.items()
            },
        )
        title, cpu = f"first mirror, pages of {page}, CPU", {name: _cpu(took) for name, took in taken.items()}
        bench.figures += [
            against(f"first-{page}", title, "s", cpu["syncd"], cpu["floor"], sense="≤", target=FIRST),
            against(
                f"first-{page}-rows", f"{title}, floor of the same rows", "s", cpu["syncd"], cpu["same rows"],
                sense="≤", target=SAME_ROWS[store.title],
            ),
        ]  # fmt: skip
        bench.facts[f"first-{page}"] = taken


def _first(bench: Bench, contender: str, listing: Listing, place: str) -> dict[str, Any]:
    return bench.mirror(contender, listing, bench.store.empty(place))


def unchanged_pass(bench: Bench) -> None:
    """Measure a pass in which nothing changed, against the floor's second pass, which writes each row again."""
    store = bench.store
    for page in PAGES:
        listing = bench.serve(Listing(bench.scale.sessions, page))
        floor, ours = store.at(f"floor-{page}"), store.at(f"syncd-{page}")
        bench.mirror("syncd", listing, ours)
        taken = bench.rounds(
            bench.scale.rounds,
            {
                "floor": lambda f=floor, w=listing: bench.mirror(store.floor, w, f),  # type: ignore[misc]
                "syncd": lambda f=ours, w=listing: bench.mirror("syncd", w, f),  # type: ignore[misc]
            },
        )
        bench.figures.append(
            against(
                f"unchanged-{page}", f"unchanged pass, pages of {page}, CPU", "s",
                _cpu(taken["syncd"]), _cpu(taken["floor"]), sense="≤", target=UNCHANGED[store.title][page],
            )
        )  # fmt: skip
        bench.facts[f"unchanged-{page}"] = taken
        watched = store.copy(f"syncd-{page}", "watched")
        writes = verify.Writes(watched)
        bench.mirror("syncd", listing, watched)
        title = f"unchanged pass, pages of {page}: rows of sessions, versions and sources written"
        bench.figures.append(alone(f"unchanged-rows-{page}", title, "rows", [writes.count()], sense="=", target=0))


def slow_network(bench: Bench) -> None:
    """Measure a first mirror with 20 ms a request, against the bare sequential fetch of the same pages."""
    listing = bench.serve(Listing(bench.scale.slow_sessions, 100, latency=LATENCY))
    where = bench.store.empty("slow")
    taken = bench.rounds(
        max(bench.scale.rounds - 2, 1),
        {
            "fetch": lambda: contend("fetch", bench.server.url, where),
            "syncd": lambda: bench.mirror("syncd", listing, bench.store.empty("slow")),
        },
    )
    title = f"first mirror, 20 ms a request, wall ({listing.sessions:,} sessions)"
    bench.figures.append(
        against(
            "slow", title, "s", _each(taken["syncd"], "wall"), _each(taken["fetch"], "wall"), sense="≤", target=SLOW
        )
    )


def read_ahead(bench: Bench) -> None:
    """Measure an unchanged pass that reads ahead, with 20 and 100 ms a request, against one that does not."""
    for latency, sessions in ((LATENCY, bench.scale.slow_sessions), (5 * LATENCY, bench.scale.slow_sessions // 2)):
        listing, where = bench.serve(Listing(sessions, 100)), bench.store.empty("ahead")
        bench.mirror("syncd", listing, where)
        bench.serve(replace(listing, latency=latency))
        taken = bench.rounds(
            max(bench.scale.rounds - 2, 1),
            {name: partial(bench.mirror, name, listing, where) for name in ("syncd", "syncd-ahead")},
        )
        pages, title = sessions // 100, f"{latency * 1000:.0f} ms a request, {ours.READ_AHEAD} pages ahead, wall"
        bench.figures.append(
            against(
                f"ahead-{latency * 1000:.0f}", f"unchanged pass of {pages:,} pages, {title}", "s",
                _each(taken["syncd-ahead"], "wall"), _each(taken["syncd"], "wall"), sense="≤", target=AHEAD,
            )
        )  # fmt: skip
        assert bench.server.counts()["pages"] == pages * len(taken) * len(taken["syncd"])  # none was in vain


def changed_pass(bench: Bench) -> None:
    """Measure a pass in which 1% changed: spread over all pages (the worst case), and together (the newest)."""
    sessions = bench.scale.sessions
    cases = {
        "unchanged": Listing(sessions, 100),
        "spread": Listing(sessions, 100, every=100),
        "together": Listing(sessions, 100, changed_from=sessions - sessions // 100),
    }

    def case(listing: Listing) -> Callable[[], dict[str, Any]]:
        return lambda: bench.mirror("syncd", bench.serve(listing), bench.store.copy("syncd-100", "changed"))

    taken = bench.rounds(max(bench.scale.rounds - 2, 1), {name: case(given) for name, given in cases.items()})
    cpu = {name: _cpu(took) for name, took in taken.items()}
    for name, target in CHANGED.items():
        title = f"1% changed, {name}, pages of 100, CPU, against an unchanged pass"
        bench.figures.append(
            against(f"changed-{name}", title, "s", cpu[name], cpu["unchanged"], sense="≤", target=target)
        )
    bench.facts["changed"] = taken


def odd_pages(bench: Bench) -> None:
    """Measure the parsing of pages of 1,000 with odd items against a plain page, in one process for each round."""
    taken = [contend("parse", "", "") for _ in range(bench.scale.rounds)]
    for name in ("one unknown field in each item", "one unreadable item"):
        title = f"parse of a page of 1,000, {name}, CPU"
        plain, odd = _each(taken, "plain"), _each(taken, name)
        bench.figures.append(against(f"parse, {name}", title, "ms", odd, plain, sense="≤", target=ODD))


def growth(bench: Bench) -> None:
    """Measure passes by size at pages of 1,000: memory, and the exponent of their CPU."""
    points: dict[str, list[tuple[int, dict[str, Any]]]] = {"first": [], "unchanged": []}
    for kind, key in (("first", "first-1000"), ("unchanged", "unchanged-1000")):
        taken = bench.facts[key]["syncd"]
        median = {name: statistics.median(_each(taken, name)) for name in TAKEN}
        points[kind].append((bench.scale.sessions, median))
    for size in (*bench.scale.sizes, bench.scale.many):
        listing, where = bench.serve(Listing(size, 1000)), bench.store.empty("grown")
        for kind, line in points.items():
            took = bench.mirror("syncd", listing, where)
            line.append((size, {name: took[name] for name in TAKEN}))
            bench.say(f"  {kind} pass, {size:,} sessions: {took['cpu']:.2f} s CPU, {took['rss']:.0f} MB")
        bench.store.empty("grown")
    for kind, taken in points.items():
        taken.sort(key=lambda point: point[0])
        peaks = {size: took["rss"] for size, took in taken}
        more = peaks[bench.scale.many] - peaks[bench.scale.sessions]
        title = f"{kind} pass, peak RSS over {bench.scale.many:,} sessions, more than over {bench.scale.sessions:,}"
        bench.figures.append(alone(f"memory-{kind}", title, "MB", [more], sense="≤", target=MB_MORE))
        slope = exponent([(size, took["cpu"] + took["server"]) for size, took in taken])
        title = f"{kind} pass, growth of CPU from {taken[0][0]:,} to {bench.scale.many:,} sessions"
        bench.figures.append(alone(f"growth-{kind}", title, "exponent", [slope], sense="≤", target=LINEAR))
        for size, target in PEAK_MB.items():
            if kind == "first" and size in peaks:
                title = f"first pass, peak RSS over {size:,} sessions"
                bench.figures.append(alone(f"peak-{size}", title, "MB", [peaks[size]], sense="≤", target=target))
    bench.facts["growth"] = points


def queue(bench: Bench) -> None:
    """Measure a queue of creates, look-up and POST each, against bare aiohttp that sends the same requests."""
    operations, at_once = bench.scale.operations, bench.scale.concurrency

    def run(contender: str, latency: float) -> dict[str, Any]:
        bench.serve(Listing(latency=latency))
        where = bench.store.empty("queue") if contender == "syncd-queue" else ""
        took = contend(contender, bench.server.url, where, operations=operations, concurrency=at_once)
        sent = bench.server.counts()
        assert sent["lookups"] == sent["posts"] == operations, sent
        assert sent["connections"] <= at_once, sent  # both keep their connections
        if where:
            verify.queue(where, operations)
        return took

    for latency, target in ((0.0, 0.9), (LATENCY, 0.97)):
        taken = bench.rounds(
            bench.scale.rounds,
            {name: partial(run, name, latency) for name in ("bare-queue", "syncd-queue")},
        )
        rates = {name: [operations / seconds for seconds in _each(took, "wall")] for name, took in taken.items()}
        title = f"queue of {operations:,} creates, {at_once} at once, {latency * 1000:.0f} ms a request, throughput"
        key, bare = f"queue-{latency * 1000:.0f}", rates["bare-queue"]
        bench.figures.append(against(key, title, "creates/s", rates["syncd-queue"], bare, sense="≥", target=target))
        bench.facts[key] = taken


def blocked_queue(bench: Bench) -> None:
    """Measure a queue of creates behind operations that one dead operation blocks, against the same queue alone."""
    operations, blocked, at_once = bench.scale.operations, bench.scale.blocked, bench.scale.concurrency

    def case(crowd: int) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            bench.serve(Listing())  # without the sessions that earlier runs created
            where = bench.store.empty("blocked")
            ours.block(bench.server.url, where, crowd)
            took = contend("syncd-queue", bench.server.url, where, operations=operations, concurrency=at_once)
            verify.blocked_queue(where, operations, crowd)
            return took

        return run

    taken = bench.rounds(max(bench.scale.rounds - 2, 1), {"alone": case(0), "behind": case(blocked)})
    for key, unit in (("wall", "s"), ("cpu", "s")):
        title = f"queue of {operations:,} creates behind {blocked:,} blocked operations, {key}"
        behind, alone_ = _each(taken["behind"], key), _each(taken["alone"], key)
        bench.figures.append(against(f"blocked-{key}", title, unit, behind, alone_, sense="≤", target=1.3))
    bench.facts["blocked"] = taken


def queue_growth(bench: Bench) -> None:
    """Measure the queue by its length, at no latency: the exponent of its CPU."""
    points = []
    for size in bench.scale.queue_sizes:
        bench.serve(Listing())  # without the sessions that earlier runs created
        where, at_once = bench.store.empty("queue"), bench.scale.concurrency
        took = contend("syncd-queue", bench.server.url, where, operations=size, concurrency=at_once)
        verify.queue(where, size)
        points.append((size, {name: took[name] for name in TAKEN}))
        bench.say(f"  {size:,} creates: {took['cpu']:.2f} s CPU, {size / took['wall']:.0f} creates/s")
    slope = exponent([(size, took["cpu"] + took["server"]) for size, took in points])
    title = f"queue, growth of CPU from {points[0][0]:,} to {points[-1][0]:,} creates"
    bench.figures.append(alone("growth-queue", title, "exponent", [slope], sense="≤", target=LINEAR))
    bench.facts["growth"]["queue"] = points


def reconciling(bench: Bench) -> None:
    """Measure a round over source ids that are all linked."""
    bench.serve(Listing())
    where = bench.store.at("syncd-100")
    taken = [contend("syncd-reconcile", bench.server.url, where) for _ in range(bench.scale.rounds)]
    asked = sum(bench.server.counts().values())
    what = f"reconciling {bench.scale.sessions:,} linked sources"
    bench.figures.append(alone("reconcile-requests", f"{what}, requests", "requests", [asked], sense="=", target=0))
    bench.figures.append(alone("reconcile", f"{what}, wall", "s", _each(taken, "wall"), sense="≤", target=1.0))


def start_up(bench: Bench) -> None:
    """Measure the time of `syncd status` from a shell."""
    where, taken = bench.store.at("syncd-100"), []
    command = [sys.executable, "-m", "syncd", "status"]
    if sys.platform == "linux":
        command = ["taskset", "-c", str(CLIENT_CORE), *command]
    for _ in range(bench.scale.starts):
        begun = time.perf_counter()
        done = subprocess.run(
            command, cwd=ROOT, env=environment(**settings(bench.server.url, where)), capture_output=True, check=False
        )
        taken.append(time.perf_counter() - begun)
        assert done.returncode == 0, done.stderr.decode()
    bench.figures.append(alone("status", "start-up of syncd status, wall", "s", taken, sense="≤", target=0.35))


def stages(bench: Bench) -> None:
    """Measure the CPU of passes by stage, in separate runs, because the measurement itself costs CPU."""
    split = {}
    for page in PAGES:
        listing = bench.serve(Listing(bench.scale.sessions, page))
        floor, ours = bench.store.empty("floor-stages"), bench.store.empty("stages")
        for name, contender, where in (
            ("floor", "floor-stages", floor),
            ("first pass", "syncd-stages", ours),
            ("unchanged pass", "syncd-stages", ours),
        ):
            split[f"{name}, pages of {page}"] = bench.mirror(contender, listing, where)["stages"]
    bench.facts["stages"] = split
