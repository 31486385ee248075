"""The parameters that a seed determines: habits of the server, the guard, intervals, the number of daemon runs."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from syncd.pull.flow import PullSettings
from syncd.push.flow import PushSettings
from syncd.push.record import RetryPolicy
from syncd.rules.deletion import Guard
from syncd.rules.retry import Backoff
from syncd.sandbox.habits import Habits

SKEWS = (0.0, 0.0, 0.1, -0.1, 1.0, -1.0, 60.0, -60.0)
STEPS = (1.0, -1.0, 20.0, -20.0, 60.0, -60.0, 3600.0, -3600.0)
"""Seconds. Clocks of replicas differ by up to a minute; a clock that was wrong is set by any number."""


@dataclass
class Plan:
    """The parameters of a seed; times in seconds.

    `skews` are the seconds by which the clock of each replica's host is ahead of the server's. `steps` are the seconds
    by which clocks are set.
    """

    habits: Habits
    guard: Guard
    pull: PullSettings
    push: PushSettings
    timeout: float
    begin_with: int
    runs: int
    owners: int
    skews: tuple[float, ...]
    steps: list[float]
    late: float
    renames: bool
    finds_both: bool

    @property
    def lag(self) -> float:
        """The longest that a look-up may lag behind a POST that was sent."""
        return self.habits.lookup_lag + self.late


def _steps(rng: Random) -> list[float]:
    """Draw by what the clocks are set: never in most schedules, at most three times in the others."""
    if rng.random() >= 0.25:
        return []
    return [rng.choice(STEPS) for _ in range(rng.choice((1, 1, 2, 3)))]


def plan(rng: Random) -> Plan:
    """Draw a plan."""
    settle = rng.choice((12.0, 30.0))
    backoff = Backoff(0.5, 8.0)
    grace = rng.choice((0.0, 6.0, 25.0))
    steps = _steps(rng)
    late = rng.choice((0.0, 1.0, 3.0))
    room = (settle - late) * 0.95
    habits = Habits(
        page_size=rng.choice((1, 2, 3, 7)),
        duplicate_create=rng.choice(("duplicate", "duplicate", "conflict", "bad_request", "first")),
        listing_lag=rng.choice((0.0, 0.0, min(2.0, grace / 2), grace * 0.9)),
        lookup_lag=min(rng.choice((0.0, 0.0, 0.5, room)), room),
        order=rng.choice(("created", "updated", "id", "newest")),
        gone_status=rng.choice((404, 410)),
        cursor_ttl=rng.choice((None, None, 3.0)),
        final_key=rng.choice(("absent", "null", "empty", "repeat", "empty_page")),
        hollow_pages=rng.random() < 0.15,
        extra_fields=rng.random() < 0.3,
    )
    guard = Guard(grace=grace, confirmations=rng.choice((1, 2, 2)), max_count=rng.choice((0, 1, 25)), max_fraction=0.2)
    return Plan(
        habits=habits,
        guard=guard,
        pull=PullSettings(
            max_pages=500, max_seconds=rng.choice((20.0, 600.0)), backoff=backoff, guard=guard, settle=settle
        ),
        push=PushSettings(
            concurrency=rng.choice((1, 3, 8)), lease=10.0,
            retry_policy=RetryPolicy(max_attempts=rng.choice((2, 4, 8)), backoff=backoff, settle=settle),
        ),
        timeout=4.0,
        begin_with=rng.choice((0, 1, 3, 6)),
        runs=rng.choice((1, 1, 2, 3)),
        owners=rng.choice((1, 1, 1, 2)),
        skews=tuple(rng.choice(SKEWS) for _ in range(2)),
        steps=steps,
        late=late,
        renames=rng.random() < 0.05,
        finds_both=rng.random() < 0.5,
    )  # fmt: skip
