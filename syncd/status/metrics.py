"""Prometheus metrics, with labels from fixed sets only: no text of Albert or of a row becomes a label."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector, CollectorRegistry

from syncd.albert import AlbertConnectError, AlbertLostError, AlbertResponseError, AlbertTimeoutError
from syncd.mirror.db.sqlite_module import sqlite3
from syncd.mirror.read.stats import PassTotals, Snapshot
from syncd.mirror.schema.enums import CHANGES, ENDED
from syncd.status.problem_codes import PROBLEMS
from syncd.version import program_version

if TYPE_CHECKING:
    from syncd.status.snapshot import Readings

METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "TOKEN"})
STATUSES = frozenset({401, 403, 404, 409, 429})
"""Statuses with a meaning of their own for an operator; the others are counted by their class."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FAILURES = (
    (AlbertTimeoutError, "timeout"),
    (AlbertConnectError, "connect"),
    (AlbertLostError, "lost"),
    (AlbertResponseError, "unreadable"),
)


class Metrics:
    """The counters of a running daemon; `exposition` adds the values that are read from the mirror."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        for collector in (prometheus_client.ProcessCollector, prometheus_client.PlatformCollector):
            collector(registry=self.registry)
        self._requests = prometheus_client.Counter(
            "syncd_requests_total",
            "Requests to Albert by method (TOKEN: to the token endpoint) and outcome.",
            ["method", "outcome"],
            registry=self.registry,
        )
        self._seconds = prometheus_client.Histogram(
            "syncd_request_seconds",
            "Seconds that requests to Albert took, those that failed included.",
            ["method"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def observe_request(self, method: str, ended: int | BaseException, seconds: float) -> None:
        """Count a request that has ended with a status or an error."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, outcome(ended)).inc()
        self._seconds.labels(method).observe(seconds)


def outcome(ended: int | BaseException) -> str:
    """Return the class of an outcome: one of a fixed set of labels."""
    if isinstance(ended, int):
        return str(ended) if ended in STATUSES else f"{ended // 100}xx"
    return next((name for kind, name in _FAILURES if isinstance(ended, kind)), "cancelled")


async def exposition(metrics: Metrics, readings: Readings) -> bytes:
    """Return all metrics in Prometheus' text format, over one snapshot of the mirror.

    Raises
    ------
    NotReadError
        The database cannot be read: a scrape that fails is better than one that shows no problem.
    """
    snapshot = await readings.snapshot.latest()
    registry = CollectorRegistry()
    registry.register(
        _Collected([*_mirror(snapshot, readings.totals), *_queue(snapshot), *_daemon(readings, snapshot)])
    )
    return prometheus_client.generate_latest(metrics.registry) + prometheus_client.generate_latest(registry)


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _mirror(snapshot: Snapshot, totals: PassTotals) -> Iterator[Metric]:
    fresh = snapshot.overview["freshness"]
    age = fresh["age_seconds"]
    yield _gauge(
        "syncd_mirror_age_seconds",
        "Seconds since the last complete pass ended; +Inf when there was none.",
        float("inf") if age is None else age,
    )
    for name, column, text in (
        ("syncd_last_complete_pass_timestamp_seconds", "last_complete_pass_at", "the last complete pass ended"),
        ("syncd_last_listed_timestamp_seconds", "last_listed_at", "the last pass whose every page was read ended"),
    ):
        at = fresh[column]
        yield _gauge(name, f"When {text}, in Unix time; 0 before it.", 0.0 if at is None else at.timestamp())
    sessions = GaugeMetricFamily("syncd_sessions", "Sessions in the mirror; a missing one is live.", labels=["state"])
    for state in ("live", "missing", "deleted"):
        sessions.add_metric([state], fresh[f"{state}_sessions"])
    yield sessions
    yield _gauge("syncd_quarantined_items", "Items that could not be read and wait.", fresh["quarantined_items"])
    yield _gauge("syncd_pass_held", "1 while a pass holds deletions for a decision.", fresh["held_pass_id"] is not None)
    seconds = SummaryMetricFamily("syncd_pass_seconds", "Passes that have ended and their seconds.", labels=["state"])
    for state in ENDED:
        seconds.add_metric([state], totals.ended[state], totals.seconds[state] / 1000)
    yield seconds
    yield _gauge("syncd_last_pass_seconds", "Seconds of the last pass that has ended.", _last_pass(snapshot))
    yield CounterMetricFamily("syncd_pages", "Pages that passes which have ended had read.", value=totals.pages)
    changes = CounterMetricFamily("syncd_session_changes", "Sessions that passes changed.", labels=["change"])
    for change in CHANGES:
        changes.add_metric([change], totals.changes[change])
    yield changes


def _last_pass(snapshot: Snapshot) -> float:
    for row in snapshot.overview["passes"]:
        if row["finished_at"] is not None:
            return float((row["finished_at"] - row["started_at"]).total_seconds())
    return float("nan")


def _queue(snapshot: Snapshot) -> Iterator[Metric]:
    operations = GaugeMetricFamily("syncd_operations", "Operations by state.", labels=["state"])
    for state, count in snapshot.overview["operations"].items():
        operations.add_metric([state], count)
    yield operations
    waited = 0.0 if snapshot.oldest_due is None else (snapshot.at - snapshot.oldest_due).total_seconds()
    yield _gauge(
        "syncd_oldest_due_operation_seconds",
        "Seconds that the longest waiting operation has been due, those behind a dead one included; 0 when none is.",
        max(waited, 0.0),
    )
    sources = GaugeMetricFamily("syncd_source_sessions", "External ids by state.", labels=["state"])
    for state, count in snapshot.overview["sources"].items():
        sources.add_metric([state], count)
    yield sources


def _daemon(readings: Readings, snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("syncd_credentials_refused", "1 while Albert refuses the credentials.", readings.refused())
    yield _gauge("syncd_database_waiting", "1 while writes wait for a lock or the disk.", readings.database.waiting)
    yield _gauge("syncd_stalled_loops", "Loops that make no progress.", len(readings.watchdog.stalled()))
    yield _gauge("syncd_database_bytes", "Bytes of the database, without its log.", snapshot.database_bytes)
    wal = readings.wal_bytes()
    if wal is not None:
        yield _gauge("syncd_wal_bytes", "Bytes of SQLite's write-ahead log.", wal)
        yield _gauge(
            "syncd_wal_growing_seconds",
            "Seconds that a reader has kept the write-ahead log growing at least; 0 when none does.",
            readings.wal.growing_seconds(),
        )
    yield InfoMetricFamily(
        "syncd_build",
        "What runs.",
        {"version": program_version(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
    )
    identity = readings.identity
    yield InfoMetricFamily(
        "syncd_mirror", "What is mirrored.", {"origin": identity.origin, "tenant": identity.tenant() or ""}
    )
    yield _gauge("syncd_leader", "1 while this daemon takes the passes.", identity.leads())
    yield _gauge("syncd_replicas", "Daemons that run on the database.", max(len(snapshot.replicas), 1))
    problems = GaugeMetricFamily("syncd_problems", "1 for each problem that needs a person.", labels=["code"])
    codes = {problem.code for problem in readings.assess_snapshot(snapshot).problems}
    for code, kind in PROBLEMS.items():
        if kind.urgent:
            problems.add_metric([code.value], code in codes)
    yield problems
